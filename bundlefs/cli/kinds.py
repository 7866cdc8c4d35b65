"""What was given in place of a manifest, as its first bytes tell; names tell of parts alone."""

import shlex
from pathlib import Path

from bundlefs.image import foreign, forms

_HEAD = 4096
# The offset of a mark, the mark, and what has it. [UEFI 5.2.1 and 5.3.2; ext4's super.h; xfs(5)]
_DISKS = (
    (512, b"EFI PART", "a disk image (with a GPT)"),
    (1080, b"\x53\xef", "a disk image (of an ext file system)"),
    (0, b"XFSB", "a disk image (of an XFS file system)"),
    (510, b"\x55\xaa", "a disk image (with a boot sector)"),
)
_OTHERS = (
    (0, b"-----BEGIN ", "a key or certificate"),
    (0, b"bundlefs-state ", "a state file of bundlefs"),
    (0, b"bundlefs-index ", "the index of a bundle"),
    (0, b"\x7fELF", "a program"),
)
_PART = ".part."
# In UTF-8, and in UTF-16 by its mark; the reader of XML says what is wrong with it.
_XML = (b"<", b"\xef\xbb\xbf<", b"\xff\xfe<", b"\xfe\xff\0<")


def no_manifest(path: Path) -> str | None:
    """Return that a file is no manifest, what it is and what helps; None if nothing tells."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return None
    if head.lstrip().startswith(_XML):
        return None
    if disk := _image(head):
        typed = shlex.quote(str(path))
        return (
            f"{path} is {disk}, no manifest: `bundlefs mount {typed} MOUNTPOINT` shows it as a"
            " bundle; what is wanted here is a bundle's NAME.manifest.xml"
        )
    if other := _other(path, head):
        meant = foreign.bundle_of(path) or "the bundle's NAME.manifest.xml"
        return f"{path} is {other}, no manifest: give {meant}"
    return None


def no_disk(head: bytes) -> str | None:
    """Return what a file with this beginning is, if it is a file of keys or of bundlefs' own."""
    marked = _marked(head, _OTHERS[:2])
    return marked and f"is {marked}, no disk, bundle or mount"


def _marked(head: bytes, marks: tuple[tuple[int, bytes, str], ...]) -> str | None:
    return next((what for at, mark, what in marks if head.startswith(mark, at)), None)


def _image(head: bytes) -> str | None:
    form = forms.of(head[: forms.HEAD_SIZE])
    if form is not forms.Form.RAW:
        return f"{'an' if form is forms.Form.OVA else 'a'} {form.value} file"
    if head and not any(head):
        return "a disk image, or at least begins with zeros"
    return _marked(head, _DISKS)


def _other(path: Path, head: bytes) -> str | None:
    if marked := _marked(head, _OTHERS):
        return marked
    if known := foreign.find(head[: forms.HEAD_SIZE], b""):
        return known.name
    if _PART in path.name:
        return "by its name a part of a bundle"
    return "binary data and no XML" if b"\0" in head else None
