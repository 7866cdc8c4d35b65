"""bundlefs: a raw disk image seen as an EC2 instance-store bundle.

Without FUSE:

- `BundleWriter` takes the bytes of an image and writes its bundle to a sink:
  `DirectorySink`, `MemorySink`, `FsspecSink`, or anything that is a `Sink`.
- `view_image` gives the files of a bundle to read, as the mount shows them, and the same ones the
  next time if its state is kept in a file; `Bundle.from_image` is the same with a `State`.
- `open_bundle` gives the image in a bundle that is there.

`Metadata` is what goes into a manifest, `UserKeys` the user's own RSA key, `State`
the secret and creation time. Every error is a `BundlefsError`, and of a kind that is named here.
"""

import importlib
import logging
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bundlefs.api import open_bundle, view_image
    from bundlefs.base.errors import (
        BundleChangedError,
        BundleError,
        BundlefsError,
        ClosedError,
        ImageChangedError,
        ImageError,
        InconsistentError,
        KeyFileError,
        MountError,
        SignatureError,
        StateError,
        UnknownNameError,
        UsageError,
    )
    from bundlefs.bundling.bundle import Bundle
    from bundlefs.bundling.sinks import DirectorySink, FsspecSink, MemorySink, Sink, SinkFile
    from bundlefs.bundling.writer import BundleWriter
    from bundlefs.keys.rsa import UserKeys
    from bundlefs.manifest.write import Metadata
    from bundlefs.state.memory import State
    from bundlefs.unbundling.opened import OpenedBundle

_HOMES = {
    "Bundle": "bundling.bundle",
    "BundleChangedError": "base.errors",
    "BundleError": "base.errors",
    "BundleWriter": "bundling.writer",
    "BundlefsError": "base.errors",
    "ClosedError": "base.errors",
    "DirectorySink": "bundling.sinks",
    "FsspecSink": "bundling.sinks",
    "ImageChangedError": "base.errors",
    "ImageError": "base.errors",
    "InconsistentError": "base.errors",
    "KeyFileError": "base.errors",
    "MemorySink": "bundling.sinks",
    "Metadata": "manifest.write",
    "MountError": "base.errors",
    "OpenedBundle": "unbundling.opened",
    "SignatureError": "base.errors",
    "Sink": "bundling.sinks",
    "SinkFile": "bundling.sinks",
    "State": "state.memory",
    "StateError": "base.errors",
    "UnknownNameError": "base.errors",
    "UsageError": "base.errors",
    "UserKeys": "keys.rsa",
    "open_bundle": "api",
    "view_image": "api",
}

__all__ = [
    "Bundle",
    "BundleChangedError",
    "BundleError",
    "BundleWriter",
    "BundlefsError",
    "ClosedError",
    "DirectorySink",
    "FsspecSink",
    "ImageChangedError",
    "ImageError",
    "InconsistentError",
    "KeyFileError",
    "MemorySink",
    "Metadata",
    "MountError",
    "OpenedBundle",
    "SignatureError",
    "Sink",
    "SinkFile",
    "State",
    "StateError",
    "UnknownNameError",
    "UsageError",
    "UserKeys",
    "__version__",
    "open_bundle",
    "view_image",
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
