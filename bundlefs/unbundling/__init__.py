"""From a bundle to its image: in one pass over all parts, or any bytes at random."""
