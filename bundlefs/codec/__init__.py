"""Pure transformations of bytes: tar, deflate, CBC. None knows another, none does I/O."""
