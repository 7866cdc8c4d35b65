"""Options for keys: those that a bundle is made with, and those that open one."""

import argparse
from dataclasses import dataclass
from pathlib import Path

PASSPHRASE_VARIABLE = "BUNDLEFS_PASSPHRASE"  # noqa: S105  # its name


@dataclass(frozen=True, slots=True)
class PassphraseOptions:
    """Where the passphrase of the private key is, if it has one."""

    passphrase_file: Path | None
    passphrase_env: str | None


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """For whom a bundle is made, and by whom."""

    region: list[str]
    ec2_cert: list[str]
    user_key: Path | None
    user_cert: Path | None
    passphrase: PassphraseOptions


@dataclass(frozen=True, slots=True)
class OpeningKeyOptions:
    """The keys that open a bundle, or check it."""

    user_key: Path | None
    user_cert: Path | None
    ec2_key: Path | None
    passphrase: PassphraseOptions


def add_key_options(parser: argparse.ArgumentParser) -> None:
    """Declare `KeyOptions`."""
    group = parser.add_argument_group("keys")
    add = group.add_argument
    add(
        "--region",
        metavar="REGION",
        action="append",
        default=[],
        help="make a manifest for this region; those with EC2's standard key share"
        " PREFIX.manifest.xml, others get PREFIX.REGION.manifest.xml (repeatable;"
        " default: the standard key alone)",
    )
    add(
        "--ec2-cert",
        metavar="[REGION=]PEM",
        action="append",
        default=[],
        help="EC2's certificate or public key, for a region or cloud that bundlefs does not know"
        " (repeatable)",
    )
    add("--user-key", metavar="PEM", type=Path, help="your private RSA key: signs, and decrypts")
    add(
        "--user-cert",
        metavar="PEM",
        type=Path,
        help="your certificate or public key; alone, it leaves the signature to a key that is not"
        " kept, so that the way back needs --ignore-signature",
    )
    _add_passphrase_options(group)


def add_opening_key_options(parser: argparse.ArgumentParser) -> None:
    """Declare `OpeningKeyOptions`."""
    add = parser.add_argument
    add("--user-key", type=Path, metavar="PEM", help="your private key: decrypts")
    add("--user-cert", type=Path, metavar="PEM", help="your certificate: checks the signature")
    add("--ec2-key", type=Path, metavar="PEM", help="EC2's private key, of a cloud of your own")
    _add_passphrase_options(parser)


def _add_passphrase_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    add = parser.add_argument
    add("--passphrase-file", metavar="FILE", type=Path, help="its first line opens the private key")
    add(
        "--passphrase-env",
        metavar="NAME",
        help=f"environment variable that opens the private key (default: {PASSPHRASE_VARIABLE})",
    )
