"""The commands: a module for each, which declares its arguments and does it."""
