"""bundlefs: a raw disk image seen as an EC2 instance-store bundle.

Without FUSE:

- `BundleWriter` takes the bytes of an image and writes its bundle to a sink:
  `DirectorySink`, `MemorySink`, `FsspecSink`, or anything that is a `Sink`.
- `Bundle.from_image` gives the files of a bundle to read, as the mount shows them.
- `open_bundle` gives the image in a bundle that is there.

`Metadata` is what goes into a manifest, `UserKeys` the user's own RSA key, `State`
the secret and creation time. Every error is a `BundlefsError`.
"""

import importlib
import logging
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bundlefs.bundle import Bundle
    from bundlefs.errors import BundlefsError
    from bundlefs.keys import UserKeys
    from bundlefs.manifest import Metadata
    from bundlefs.opened import OpenedBundle, open_bundle
    from bundlefs.sinks import DirectorySink, FsspecSink, MemorySink, Sink, SinkFile
    from bundlefs.state import State
    from bundlefs.writer import BundleWriter

_HOMES = {
    "Bundle": "bundle",
    "BundleWriter": "writer",
    "BundlefsError": "errors",
    "DirectorySink": "sinks",
    "FsspecSink": "sinks",
    "MemorySink": "sinks",
    "Metadata": "manifest",
    "OpenedBundle": "opened",
    "Sink": "sinks",
    "SinkFile": "sinks",
    "State": "state",
    "UserKeys": "keys",
    "open_bundle": "opened",
}

__all__ = [
    "Bundle",
    "BundleWriter",
    "BundlefsError",
    "DirectorySink",
    "FsspecSink",
    "MemorySink",
    "Metadata",
    "OpenedBundle",
    "Sink",
    "SinkFile",
    "State",
    "UserKeys",
    "__version__",
    "open_bundle",
]


# What a program does not ask to see, nobody sees: errors reach the caller as exceptions.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __dir__() -> list[str]:
    """Name what can be imported from here, used before or not."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> object:
    """Import an exported name when it is first used: the commands need few of them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bundlefs' has no attribute {name!r}")
    return getattr(importlib.import_module(f"bundlefs.{_HOMES[name]}"), name)
