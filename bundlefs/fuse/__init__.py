"""The file system: handlers, what a mount shows, its session. Home of trio and pyfuse3."""
