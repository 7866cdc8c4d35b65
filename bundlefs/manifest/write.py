"""The manifest that is written: what it says, which is checked at once, and its XML.

Text goes in and bytes come out: no file is read and no cryptography is done here. The wrapped
secrets come as hex, and the signature comes from a function. EC2 minds the order of the elements,
so the XML is written in the order of the format, and not by a library.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import InitVar, dataclass

from bundlefs import __version__
from bundlefs.base.errors import UnknownArchitectureError, UsageError

MANIFEST_VERSION = "2007-10-10"
BUNDLER_NAME = "bundlefs"
BUNDLER_RELEASE = "0"
KNOWN_ARCHITECTURES = ("x86_64", "i386", "arm64")
"""Architectures that EC2 accepts [RegisterImage, ArchitectureValues]."""
OTHER_ARCHITECTURES = ("armhf", "ppc", "ppc64", "ppc64le")
"""Architectures that euca2ools accepts besides, for other clouds."""
KNOWN_VIRTUAL_NAMES = ("ami", "root", "swap", "ephemeralN", "ebsN")
IMAGE_TYPES = ("machine", "kernel", "ramdisk")
LONGEST_TEXT = 255
# It is as long as any digest, so a manifest has the size of one that is rendered with it.
PLACEHOLDER_DIGEST = "0" * 40

_ACCOUNT = re.compile("[0-9]{12}")
# What the systems, compilers and distributions call them.
_USUAL_NAMES = {
    "x86_64": ("x86-64", "amd64", "x64", "em64t", "intel64"),
    "i386": ("i486", "i586", "i686", "x86", "ia32", "ia-32"),
    "arm64": ("aarch64", "armv8", "arm-64"),
}
_ARCHITECTURE = re.compile(f"[a-z0-9_]{{1,{LONGEST_TEXT}}}")
_SHA1 = " algorithm='SHA1'"
_AES = " algorithm='AES-128-CBC'"


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the user says about the image. It is checked at once; what is None or empty is left out.

    Args:
        account: of the user who will register the image: 12 digits; dashes are taken out.
        arch: of the image's code: one of `KNOWN_ARCHITECTURES` by any of its usual names.
        image_type: one of `IMAGE_TYPES`.
        kernel: id of the kernel to boot with.
        ramdisk: id of the ramdisk to boot with.
        mappings: (virtual name, device); each virtual name once.
        product_codes: for paid images.
        ancestors: ids of the images that this one was made from.
        kernel_name: of a kernel image.
        any_arch: take any other architecture as it is written, for another cloud than EC2.

    Raises:
        UsageError: one of them cannot be used.
    """

    account: str
    arch: str = "x86_64"
    image_type: str = "machine"
    kernel: str | None = None
    ramdisk: str | None = None
    mappings: tuple[tuple[str, str], ...] = ()
    product_codes: tuple[str, ...] = ()
    ancestors: tuple[str, ...] = ()
    kernel_name: str | None = None
    any_arch: InitVar[bool] = False

    def __post_init__(self, any_arch: bool) -> None:  # dataclass passes it so
        object.__setattr__(self, "account", _account(self.account))
        _require_type(self.image_type, self.kernel_name)
        object.__setattr__(self, "arch", architecture(self.arch, any_arch=any_arch))
        for what, text in self._texts():
            _require_text(what, text)
        _require_single(virtual for virtual, _ in self.mappings)

    def _texts(self) -> Iterable[tuple[str, str]]:
        """Yield each free text with what it is."""
        single = (
            ("kernel id", self.kernel),
            ("ramdisk id", self.ramdisk),
            ("kernel name", self.kernel_name),
        )
        yield from ((what, text) for what, text in single if text is not None)
        yield from (("product code", code) for code in self.product_codes)
        yield from (("ancestor AMI id", ancestor) for ancestor in self.ancestors)
        for virtual, device in self.mappings:
            yield from (("mapping's virtual name", virtual), ("mapping's device", device))


@dataclass(frozen=True, slots=True)
class Contents:
    """What was bundled.

    Args:
        name: of the image: the prefix of the bundle's files.
        size: of the image, bytes.
        bundled_size: of all parts together, bytes.
        digest: SHA-1 of the tar stream, 40 hex digits.
        parts: (file name, SHA-1 of its bytes in 40 hex digits), in order.
    """

    name: str
    size: int
    bundled_size: int
    digest: str
    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class WrappedSecrets:
    """The bundle's key and IV as EC2's key and the user's key encrypt them; each is hex."""

    ec2_key: str
    ec2_iv: str
    user_key: str
    user_iv: str


def parse_mapping(text: str) -> tuple[str, str]:
    """Read `VIRTUAL=DEVICE`, such as `ami=sda1` or `ephemeral0=sdb`, as a pair.

    Raises:
        UsageError: it is not of this form.
    """
    virtual, _, device = (piece.strip() for piece in text.partition("="))
    if not virtual or not device or "=" in device or "," in device:
        raise UsageError(
            f"the block device mapping {text!r} is not VIRTUAL=DEVICE, such as ami=sda1 or "
            "ephemeral0=sdb: give the option once for each"
        )
    return virtual, device


def architecture(text: str, *, any_arch: bool = False) -> str:
    """Return EC2's own name of an architecture.

    Args:
        text: one of its usual names, in any case.
        any_arch: take any other as it is written.

    Raises:
        UsageError: it is none that EC2 knows, or cannot be one at all.
    """
    if not any_arch:
        folded = text.strip().lower()
        for name, others in _USUAL_NAMES.items():
            if folded == name or folded in others:
                return name
    if not _ARCHITECTURE.fullmatch(text):
        raise UsageError(
            f"the architecture {text[: LONGEST_TEXT + 1]!r} is not one: it is made of a-z, 0-9 and"
            f" '_', such as {', '.join(KNOWN_ARCHITECTURES)}"
        )
    if not any_arch:
        raise UnknownArchitectureError(
            f"the architecture {text!r} is none that EC2 knows: those are"
            f" {', '.join(KNOWN_ARCHITECTURES)}; other clouds have others, such as"
            f" {', '.join(OTHER_ARCHITECTURES)}"
        )
    return text


def render(
    metadata: Metadata,
    contents: Contents,
    wrapped: WrappedSecrets,
    sign: Callable[[bytes], str],
) -> bytes:
    """Write the manifest: UTF-8, a declaration and one line [contrib/format.md, The manifest].

    Its size does not depend on the value of any digest, so it can be known before they are:
    render with `PLACEHOLDER_DIGEST` in their place. Wrapping is random, but is not done here, so
    the same arguments make the same bytes.

    Args:
        metadata: what the user says.
        contents: what was bundled.
        wrapped: the secrets, as `keys.rsa.wrap` returns them.
        sign: is handed the text from `<machine_configuration>` to `</image>`, exactly as it stands
            in the manifest, and returns the signature in hex.
    """
    signed = _machine_configuration(metadata) + _image(metadata, contents, wrapped)
    body = (
        _text("version", MANIFEST_VERSION)
        + _bundler()
        + signed
        + _text("signature", sign(signed.encode()))
    )
    return f"<?xml version='1.0'?>\n{_element('manifest', body)}".encode()


def _bundler() -> str:
    return _element(
        "bundler",
        _text("name", BUNDLER_NAME)
        + _text("version", __version__)
        + _text("release", BUNDLER_RELEASE),
    )


def _machine_configuration(metadata: Metadata) -> str:
    mappings = (
        _element("mapping", _text("virtual", virtual) + _text("device", device))
        for virtual, device in sorted(metadata.mappings)
    )
    return _element(
        "machine_configuration",
        _text("architecture", metadata.arch)
        + _group("block_device_mapping", mappings)
        + _optional("kernel_id", metadata.kernel)
        + _optional("ramdisk_id", metadata.ramdisk)
        + _group("product_codes", (_text("product_code", code) for code in metadata.product_codes)),
    )


def _image(metadata: Metadata, contents: Contents, wrapped: WrappedSecrets) -> str:
    return _element(
        "image",
        _text("name", contents.name)
        + _text("user", metadata.account)
        + _text("type", metadata.image_type)
        + _optional("kernel_name", metadata.kernel_name)
        + _group("ancestry", (_text("ancestor_ami_id", each) for each in metadata.ancestors))
        + _text("digest", contents.digest, _SHA1)
        + _text("size", str(contents.size))
        + _text("bundled_size", str(contents.bundled_size))
        + _text("ec2_encrypted_key", wrapped.ec2_key, _AES)
        + _text("user_encrypted_key", wrapped.user_key, _AES)
        + _text("ec2_encrypted_iv", wrapped.ec2_iv)
        + _text("user_encrypted_iv", wrapped.user_iv)
        + _parts(contents.parts),
    )


def _parts(parts: tuple[tuple[str, str], ...]) -> str:
    entries = (
        _element(
            "part",
            _text("filename", filename) + _text("digest", digest, _SHA1),
            f" index='{index}'",
        )
        for index, (filename, digest) in enumerate(parts)
    )
    return _element("parts", "".join(entries), f" count='{len(parts)}'")


def _element(tag: str, body: str, attribute: str = "") -> str:
    return f"<{tag}{attribute}>{body}</{tag}>"


def _text(tag: str, text: str, attribute: str = "") -> str:
    # In this order: what is put in for the others has an ampersand.
    for special, reference in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(special, reference)
    return _element(tag, text, attribute)


def _optional(tag: str, text: str | None) -> str:
    return "" if text is None else _text(tag, text)


def _group(tag: str, entries: Iterable[str]) -> str:
    """Wrap `entries`; return nothing if there are none, so that the group is left out."""
    body = "".join(entries)
    return _element(tag, body) if body else ""


def _account(text: str) -> str:
    digits = text.strip().replace("-", "")
    if not _ACCOUNT.fullmatch(digits):
        raise UsageError(
            f"the account {text!r} is not an AWS account number of 12 digits: find yours with "
            "`aws sts get-caller-identity --query Account --output text`"
        )
    return digits


def _require_type(image_type: str, kernel_name: str | None) -> None:
    if image_type not in IMAGE_TYPES:
        raise UsageError(f"the image type {image_type!r} is not one of {', '.join(IMAGE_TYPES)}")
    if kernel_name is not None and image_type != "kernel":
        raise UsageError(
            f"the kernel name {kernel_name!r} is for images of type kernel, and this one is of "
            f"type {image_type}: leave the name out or change the type"
        )


def _require_text(what: str, text: str) -> None:
    if not text or len(text) > LONGEST_TEXT or text != text.strip() or not text.isprintable():
        raise UsageError(
            f"the {what} {text[: LONGEST_TEXT + 1]!r} cannot be used: it needs 1 to {LONGEST_TEXT} "
            "characters, none of them a control character, and no space at either end"
        )


def _require_single(virtual_names: Iterable[str]) -> None:
    double = [name for name, count in Counter(virtual_names).items() if count > 1]
    if double:
        raise UsageError(f"the virtual name {double[0]!r} is mapped twice: keep one device for it")
