"""What the commands for a bundle that is there share: arguments, keys, a progress bar."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundlefs.base.errors import BundleError, SignatureError, UsageError
from bundlefs.base.workers import default_jobs
from bundlefs.cli.common import positive
from bundlefs.cli.kinds import no_manifest
from bundlefs.cli.opening import print_warning
from bundlefs.cli.passphrase import add_passphrase_options, passphrase, warn_of_access
from bundlefs.keys.rsa import Secret
from bundlefs.manifest.read import BundleManifest, find_manifest, read_manifest
from bundlefs.unbundling.parts import MissingPartError, PartFiles
from bundlefs.unbundling.unlock import KeyMissingError, Keys, Signature, check_signature, unlock

PIPE = Path("-")
"""As an output: standard output."""

_KEY_OPTIONS = {"user": "--user-key", "ec2": "--ec2-key"}


def add_bundle_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the manifest, its parts and the keys."""
    add_manifest(parser)
    add = parser.add_argument
    add("--parts", type=Path, metavar="DIR", help="folder of the parts (default: the manifest's)")
    add_key_arguments(parser)


def add_manifest(parser: argparse.ArgumentParser) -> None:
    """Declare the manifest."""
    parser.add_argument(
        "manifest", type=_manifest, metavar="MANIFEST", help="or a folder with one in it"
    )


def _manifest(text: str) -> Path:
    """Return the manifest that is meant; what is wrong with it is said on reading it."""
    try:
        return find_manifest(text)
    except (BundleError, UsageError):
        return Path(text)


def add_ignore_signature(parser: argparse.ArgumentParser) -> None:
    """Declare the option to trust what the user's key did not sign."""
    parser.add_argument(
        "--ignore-signature",
        action="store_true",
        help="go on with a manifest that your key did not sign; it may be anybody's",
    )


def add_key_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the keys."""
    add = parser.add_argument
    add("--user-key", type=Path, metavar="PEM", help="your private key: decrypts")
    add("--user-cert", type=Path, metavar="PEM", help="your certificate: checks the signature")
    add("--ec2-key", type=Path, metavar="PEM", help="EC2's private key, of a cloud of your own")
    add_passphrase_options(parser)


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """Declare the number of threads."""
    parser.add_argument(
        "--jobs", type=positive, default=default_jobs(), help="threads (default: %(default)s)"
    )


def load_keys(arguments: argparse.Namespace) -> Keys:
    """Read the keys that are given."""
    keys = Keys.load(
        arguments.user_key,
        arguments.user_cert,
        arguments.ec2_key,
        passphrase(arguments, arguments.user_key or arguments.ec2_key),
    )
    warn_of_access(arguments.user_key, arguments.ec2_key, arguments.passphrase_file)
    return keys


def read_given(arguments: argparse.Namespace) -> BundleManifest:
    """Read the manifest that is given.

    Raises:
        BundleError: it is none; the text says what it is instead, where that can be seen.
        UsageError: it is a folder with several.
    """
    path = find_manifest(arguments.manifest)
    try:
        return read_manifest(path)
    except BundleError as error:
        if text := no_manifest(path):
            raise BundleError(text) from error
        raise


def unlock_given(manifest: BundleManifest, keys: Keys, arguments: argparse.Namespace) -> Secret:
    """Return the secret of a bundle whose signature is not bad, or is to be ignored.

    Raises:
        BundleError: the keys do not open it.
        SignatureError: the signature is bad.
    """
    ignore = arguments.ignore_signature
    try:
        with naming_key_options():
            secret = unlock(manifest, keys, ignore_signature=ignore)
    except SignatureError as error:
        raise SignatureError(
            f"{arguments.manifest}: {error}. --ignore-signature goes on all the same, as with a"
            " bundle that was made with a certificate alone"
        ) from error
    if check_signature(manifest, keys) is Signature.BAD:
        print_warning(f"{arguments.manifest}: signature: {Signature.BAD.value}; it is ignored")
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
    """Say what was found of a manifest's signature."""
    found = check_signature(manifest, keys)
    hint = " (--user-cert)" if found is Signature.UNCHECKED else ""
    return f"{found.value}{hint}"


def warn_unless_signed(manifest: BundleManifest, keys: Keys, path: Path) -> None:
    """Say so where no signature shows whose bundle it is; a bad one was spoken of before."""
    if check_signature(manifest, keys) in (Signature.MISSING, Signature.UNCHECKED):
        print_warning(f"{path}: signature: {signature_in_words(manifest, keys)}")


def part_files(
    manifest: BundleManifest, arguments: argparse.Namespace, *, check: bool = True
) -> PartFiles:
    """Return the parts of a bundle, in the folder that is given or in that of the manifest.

    Raises:
        BundleError: as `PartFiles`.
    """
    folder: Path = arguments.parts or arguments.manifest.parent
    try:
        # Absolute, since a mount leaves the folder that it began in.
        return PartFiles(manifest, folder.absolute(), check=check)
    except MissingPartError as error:
        raise BundleError(f"{error}; --parts names the folder of the parts") from error
