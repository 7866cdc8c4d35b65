"""The manifest of a bundle as XML: written, and read from bytes that nobody vouches for."""
