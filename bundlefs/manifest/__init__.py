"""The manifest of a bundle as XML: how it is written, and read from bytes nobody vouches for."""
