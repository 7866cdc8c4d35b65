"""What the commands for a bundle that is there share: its manifest, the keys for it, its secret."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundlefs.base.errors import BundleError, SignatureError
from bundlefs.cli.kinds import no_manifest
from bundlefs.cli.options.given import GivenBundle
from bundlefs.cli.options.keys import OpeningKeyOptions
from bundlefs.cli.passphrase import passphrase, warn_of_access
from bundlefs.cli.streams import print_warning
from bundlefs.keys.rsa import Secret
from bundlefs.manifest.read import BundleManifest, find_manifest, read_manifest
from bundlefs.unbundling.parts import MissingPartError, PartFiles
from bundlefs.unbundling.unlock import KeyMissingError, Keys, Signature, check_signature, unlock

PIPE = Path("-")
"""As an output: standard output."""

_KEY_OPTIONS = {"user": "--user-key", "ec2": "--ec2-key"}


def load_keys(options: OpeningKeyOptions) -> Keys:
    """Read the keys that are given."""
    keys = Keys.load(
        options.user_key,
        options.user_cert,
        options.ec2_key,
        passphrase(options.passphrase, options.user_key or options.ec2_key),
    )
    warn_of_access(options.user_key, options.ec2_key, options.passphrase.passphrase_file)
    return keys


def read_given(given: Path) -> BundleManifest:
    """Read the manifest that is given by its path, or that of its folder.

    Raises:
        BundleError: it is none; the text says what it is instead, where that can be seen.
        UsageError: it is a folder with several.
    """
    path = find_manifest(given)
    try:
        return read_manifest(path)
    except BundleError as error:
        if text := no_manifest(path):
            raise BundleError(text) from error
        raise


def unlock_given(manifest: BundleManifest, keys: Keys, path: Path, *, ignore: bool) -> Secret:
    """Return the secret of a bundle whose signature is not bad, unless that is to be ignored.

    Args:
        manifest: the manifest.
        keys: what may open it.
        path: what people call the manifest.
        ignore: go on with a bad signature, with a warning.

    Raises:
        BundleError: the keys do not open it.
        SignatureError: the signature is bad.
    """
    try:
        with naming_key_options():
            secret = unlock(manifest, keys, ignore_signature=ignore)
    except SignatureError as error:
        raise SignatureError(
            f"{path}: {error}. --ignore-signature goes on all the same, as with a"
            " bundle that was made with a certificate alone"
        ) from error
    if check_signature(manifest, keys) is Signature.BAD:
        print_warning(f"{path}: signature: {Signature.BAD.value}; it is ignored")
    return secret


@contextmanager
def naming_key_options() -> Iterator[None]:
    """Add the option to the error of a key that is missing."""
    try:
        yield
    except KeyMissingError as error:
        options = " or ".join(_KEY_OPTIONS[side] for side in error.sides)
        raise BundleError(f"{error}: give {options}") from error


def signature_in_words(manifest: BundleManifest, keys: Keys) -> str:
    """Return what was found of a manifest's signature."""
    found = check_signature(manifest, keys)
    hint = " (--user-cert)" if found is Signature.UNCHECKED else ""
    return f"{found.value}{hint}"


def warn_unless_signed(manifest: BundleManifest, keys: Keys, path: Path) -> None:
    """Warn where no signature shows whose bundle it is; of a bad one the user knows already."""
    if check_signature(manifest, keys) in (Signature.MISSING, Signature.UNCHECKED):
        print_warning(f"{path}: signature: {signature_in_words(manifest, keys)}")


def part_files(manifest: BundleManifest, given: GivenBundle, *, check: bool = True) -> PartFiles:
    """Return the parts of a bundle, in the folder that is given or in that of the manifest.

    Raises:
        BundleError: as `PartFiles`.
    """
    try:
        return PartFiles(manifest, given.folder, check=check)
    except MissingPartError as error:
        raise BundleError(f"{error}; --parts names the folder of the parts") from error
