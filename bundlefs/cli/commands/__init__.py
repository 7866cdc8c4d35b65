"""The commands: each has a module that declares its arguments, gives them a type, and does it."""
