"""An image in whatever form it is, as something to read at an offset."""
