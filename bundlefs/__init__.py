"""bundlefs: a raw disk image seen as an EC2 instance-store bundle."""

__version__ = "0.1.0"
