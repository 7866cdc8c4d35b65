"""The exception tree. It imports next to nothing, so that every layer may raise.

The text of an error is for a person: it says what was wrong, with which value, and what to do
about it. It never contains a secret, and it is safe to print, whatever characters the names in it
have.
"""

from bundlefs.base.escapes import escaped


class BundlefsError(Exception):
    """Anything that bundlefs refuses or fails to do; a command ends with `exit_code`."""

    exit_code = 1

    def __str__(self) -> str:
        return escaped(super().__str__())


class UsageError(BundlefsError):
    """A value that the user gave cannot be used: change the command."""

    exit_code = 2


class UnknownArchitectureError(UsageError):
    """The architecture is not one of EC2's; it may be one of another cloud."""


class KeyFileError(UsageError):
    """A key or certificate file is unreadable, of the wrong kind, or does not fit another."""


class ImageError(BundlefsError):
    """The image cannot be opened, or cannot be used as an image."""


class FormError(ImageError):
    """The form of the image is not read, or it is not whole; as raw bytes it could be used.

    Attributes:
        form: what it would be read as if that were asked for; None if nothing is.
    """

    def __init__(self, text: str, form: str | None = None) -> None:
        super().__init__(text)
        self.form = form


class ImageChangedError(BundlefsError):
    """The image is no longer what it was when the bundle was made: ESTALE, for good."""


class InconsistentError(BundlefsError):
    """Bytes that must agree do not, so none are handed out: EIO, for good."""


class UnknownNameError(BundlefsError):
    """The bundle has no file of this name: ENOENT."""


class BundleError(BundlefsError):
    """A bundle that is to be read is damaged, or is not what it claims to be."""


class BundleChangedError(BundleError):
    """A part that was whole was changed while the bundle was open: ESTALE, for good."""


class SignatureError(BundleError):
    """A manifest's signature is not that of the user's key. Nothing of the bundle is handed out."""


class StateError(BundlefsError):
    """The state of an earlier mount cannot be used, and going on without it might mix bundles."""


class MountError(BundlefsError):
    """The mount cannot be made, found or ended."""


class ClosedError(BundlefsError):
    """The bundle was closed while somebody waited for it: ENOTCONN."""
