"""From a bundle to its image: parts, decryption, one pass over all, or any bytes at random."""
