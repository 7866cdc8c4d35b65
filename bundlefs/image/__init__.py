"""An image, in whatever form it is kept, as something to read at an offset."""
