"""What outlasts a mount: the index, the file it is kept in, locks, access points."""
