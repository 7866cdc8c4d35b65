"""From an image to its bundle: recipe, blocks, the frontier, and the files that a view shows."""
