"""What outlasts a mount: the index, the file that holds it, its lock, and access points."""
