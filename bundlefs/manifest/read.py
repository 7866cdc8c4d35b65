"""A bundle's manifest, read from bytes that nobody vouches for.

What may live here: turning XML into a `BundleManifest`, and the checks that need nothing but the
manifest itself. Whatever the bytes are, the answer is a manifest or a `BundleError`, in bounded
memory and time: there is no DTD and so no entity, and nesting, text, markup and the number of
parts have limits.

The manifests of ec2-ami-tools and of euca2ools are read, versions 2007-10-10, 2007-08-29 and 3
[ec2-ami-tools, manifest_wrapper.rb, manifestv20071010.rb, manifestv3.rb; euca2ools,
bundle/manifest.py]. Elements that are not known are passed over with all that is in them.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from bundlefs.base.errors import BundleError, UsageError
from bundlefs.base.escapes import cite, quoted
from bundlefs.manifest.elements import (
    CONTROL,
    DIGEST,
    IMAGE,
    LONGEST_MANIFEST,
    MACHINE,
    REPEATED_TEXTS,
    Elements,
    PartEntry,
    gather,
    number,
)

__all__ = ["BundleManifest", "PartEntry", "find_manifest", "parse_manifest", "read_manifest"]

VERSIONS = ("2007-10-10", "2007-08-29", "3")
# ec2-ami-tools writes 2007-08-29 as a number, and its wrapper takes all of them for numbers.
_WRITTEN = frozenset((*VERSIONS, *(text.replace("-", "") for text in VERSIONS)))
LARGEST_IMAGE = 16 << 40
# What euca2ools 1.0 writes for every image: it updates the digest behind its loop, not in it.
_DIGEST_OF_NOTHING = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
# Twice as many: what does not compress grows a little, and sparse maps count as well.
LARGEST_BUNDLE = 2 * LARGEST_IMAGE

_MOST_NAMED = 10
_LONGEST_STEM = 200
"""Bytes; a file name has 255 at most, and an ending comes behind this."""

_HEX_DIGITS = re.compile("(?:[0-9a-fA-F]{2})*")


@dataclass(frozen=True, slots=True)
class BundleManifest:
    """What a manifest says. None of it has been compared with the bundle.

    Attributes:
        version: one of `VERSIONS`, as it is written: maybe without the dashes.
        name: of the image. Free text without control characters, and no safe file name.
        user: the account that made the bundle. Free text.
        arch: i386 where it is missing, as in version 3.
        image_type: machine where it is missing, as before 2007-10-10.
        kernel: id of the kernel, if any.
        ramdisk: id of the ramdisk, if any.
        mappings: (virtual name, device).
        product_codes: of a paid image.
        ancestors: ids of the images that it was made from.
        kernel_name: of a kernel image.
        digest: SHA-1 of the tar stream, 40 lowercase hex digits; None where missing, or where it
            is that of nothing at all.
        size: of the image, 1 to `LARGEST_IMAGE` bytes.
        bundled_size: of all parts together, 1 to `LARGEST_BUNDLE` bytes.
        ec2_key: the AES key as EC2's key encrypts it, hex as written.
        ec2_iv: the IV, likewise.
        user_key: the AES key as the user's key encrypts it; None in unsigned bundles.
        user_iv: the IV, likewise.
        parts: in the order of their indexes, at least one.
        signature: hex as written; None where missing, empty or `UNSIGNED`.
        signed_text: what is signed: `<machine_configuration>` and `<image>`, each exactly as it
            stands in the file; in version 3 the latter alone, and nothing else is read there.
            ec2-ami-tools joins the two wherever they stand, so that white space between them does
            not count [manifestv20071010.rb, authenticate].
    """

    version: str
    name: str
    user: str
    arch: str
    image_type: str
    kernel: str | None
    ramdisk: str | None
    mappings: tuple[tuple[str, str], ...]
    product_codes: tuple[str, ...]
    ancestors: tuple[str, ...]
    kernel_name: str | None
    digest: str | None
    size: int
    bundled_size: int | None
    ec2_key: str | None = field(repr=False)
    ec2_iv: str | None = field(repr=False)
    user_key: str | None = field(repr=False)
    user_iv: str | None = field(repr=False)
    parts: tuple[PartEntry, ...] = field(repr=False)
    signature: str | None = field(repr=False)
    signed_text: bytes = field(repr=False)

    @property
    def file_stem(self) -> str:
        """Name of the image for use in file names: its own where it can lead nowhere else."""
        name = self.name
        fit = "/" not in name and not name.startswith(".") and len(name.encode()) <= _LONGEST_STEM
        return name if fit else "image"


def find_manifest(path: str | Path) -> Path:
    """Return the one manifest in the folder `path`, or `path` itself if it is no folder.

    Raises:
        BundleError: the folder cannot be read, or has no manifest.
        UsageError: it has several.
    """
    folder = Path(path)
    if not os.path.isdir(folder):  # noqa: PTH112  # Path's raises at a zero byte
        return folder
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208  # its OSErrors carry the text we show
    except OSError as error:
        raise BundleError(
            f"cannot look for a manifest in {quoted(str(path))}: {error.strerror}"
        ) from error
    endings = (".manifest.xml", ".xml")
    found = next(filter(None, ([x for x in names if x.endswith(end)] for end in endings)), [])
    if not found:
        raise BundleError(
            f"the folder {quoted(str(folder))} has no manifest (NAME.manifest.xml) in it"
        )
    if len(found) > 1:
        raise UsageError(
            f"the folder {quoted(str(folder))} has several manifests, so name one of them: "
            + ", ".join(map(quoted, found[:_MOST_NAMED]))
            + (", ..." if found[_MOST_NAMED:] else "")
        )
    return folder / found[0]


def read_manifest(path: str | Path) -> BundleManifest:
    """Read the manifest in the file `path`.

    Raises:
        BundleError: it cannot be read, or as `parse_manifest`; the text names the file.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(LONGEST_MANIFEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"cannot read the manifest {quoted(str(path))}: {reason}") from error
    try:
        return parse_manifest(data)
    except BundleError as error:
        raise BundleError(f"the manifest {quoted(str(path))} cannot be used: {error}") from error


def parse_manifest(data: bytes) -> BundleManifest:
    """Read the manifest `data`.

    Raises:
        BundleError: it is too large, not XML in UTF-8, has a DTD, is no manifest, or what it
            says cannot be. The text is about "it"; `read_manifest` says which file that is.
    """
    return _manifest(gather(data))


def _manifest(found: Elements) -> BundleManifest:
    version = _version(found)
    if version == "3":
        found.forget_machine()  # it has none that is signed
    elif found.unnamed:
        raise BundleError(f"its {cite(found.unnamed)} does not say its algorithm")
    product_codes, more_codes, ancestors = (_list(found, path) for path in REPEATED_TEXTS)
    for text in (each for mapping in found.mappings for each in mapping):
        _require_text(text, "block device mapping")
    return BundleManifest(
        version=version,
        name=_required(found, f"{IMAGE}/name"),
        user=_required(found, f"{IMAGE}/user"),
        arch=_optional(found, f"{MACHINE}/architecture") or "i386",
        image_type=_optional(found, f"{IMAGE}/type") or "machine",
        kernel=_optional(found, f"{MACHINE}/kernel_id"),
        ramdisk=_optional(found, f"{MACHINE}/ramdisk_id"),
        mappings=tuple(found.mappings),
        product_codes=product_codes + more_codes,
        ancestors=ancestors,
        kernel_name=_optional(found, f"{IMAGE}/kernel_name"),
        digest=_tar_digest(found),
        size=_size(_required(found, f"{IMAGE}/size"), "size", LARGEST_IMAGE),
        bundled_size=_bundled_size(found),
        ec2_key=_hex(found, f"{IMAGE}/ec2_encrypted_key"),
        ec2_iv=_hex(found, f"{IMAGE}/ec2_encrypted_iv"),
        user_key=_hex(found, f"{IMAGE}/user_encrypted_key"),
        user_iv=_hex(found, f"{IMAGE}/user_encrypted_iv"),
        parts=_parts(found),
        signature=_signature(found),
        signed_text=found.spans.get(MACHINE, b"") + found.spans[IMAGE],
    )


def _version(found: Elements) -> str:
    version = _required(found, "manifest/version")
    if version not in _WRITTEN:
        known = ", ".join(VERSIONS)
        raise BundleError(f"its version {cite(version)} is unknown: those known are {known}")
    return version


def _optional(found: Elements, path: str) -> str | None:
    text = found.texts.get(path)
    if not text:
        return None
    _require_text(text, path)
    return text


def _required(found: Elements, path: str) -> str:
    text = _optional(found, path)
    if text is None:
        raise BundleError(f"its {cite(path)} is missing or empty")
    return text


def _list(found: Elements, path: str) -> tuple[str, ...]:
    texts = tuple(filter(None, found.lists[path]))
    for text in texts:
        _require_text(text, path)
    return texts


def _hex(found: Elements, path: str) -> str | None:
    text = _optional(found, path)
    if text is not None and not _HEX_DIGITS.fullmatch(text):
        raise BundleError(f"its {cite(path)} {cite(text)} is not hex: two digits for each byte")
    return text


def _tar_digest(found: Elements) -> str | None:
    text = _optional(found, f"{IMAGE}/digest")
    if text is not None and not DIGEST.fullmatch(text):
        raise BundleError(f"its digest {cite(text)} is no SHA-1: 40 hex digits")
    digest = text and text.lower()
    return None if digest == _DIGEST_OF_NOTHING else digest


def _signature(found: Elements) -> str | None:
    if found.texts.get("manifest/signature") == "UNSIGNED":  # euca2ools, without a key
        return None
    return _hex(found, "manifest/signature")


def _bundled_size(found: Elements) -> int | None:
    text = _optional(found, f"{IMAGE}/bundled_size")
    return None if text is None else _size(text, "bundled size", LARGEST_BUNDLE)


def _size(text: str, what: str, largest: int) -> int:
    size = number(text, f"the {what}", largest)
    if not size:
        raise BundleError(f"the {what} is 0, and a bundle has an image of 1 byte or more")
    return size


def _parts(found: Elements) -> tuple[PartEntry, ...]:
    parts = found.parts
    if found.count is None:
        raise BundleError(f"its {cite(f'{IMAGE}/parts')} is missing, so there is nothing to read")
    if len(parts) != found.count:
        raise BundleError(f"it announces {found.count} parts and lists {len(parts)}")
    if not parts:
        raise BundleError("it lists no part, and a bundle has at least one")
    missing = next((index for index in range(len(parts)) if index not in parts), None)
    if missing is not None:
        raise BundleError(f"it lists {len(parts)} parts, but none of the index {missing}")
    _require_unique(parts)
    return tuple(parts[index] for index in range(len(parts)))


def _require_unique(parts: dict[int, PartEntry]) -> None:
    indexes: dict[str, int] = {}
    for index, part in parts.items():
        other = indexes.setdefault(part.filename, index)
        if other != index:
            raise BundleError(
                f"its parts {other} and {index} have the same file name {cite(part.filename)}"
            )


def _require_text(text: str, what: str) -> None:
    if CONTROL.search(text):
        raise BundleError(f"its {cite(what)} {cite(text)} has a control character in it")
