"""Opens an image in whatever form it is: raw, compressed, or in a virtual machine's format.

`open_source` looks at the first and last bytes of the file, never at its name, and returns what
reads as the raw image does:

- raw: the file itself (`raw`).
- gzip: random access by `indexed_gzip`'s access points, without a copy (`gzipped`). One pass
  finds the size and proves the file whole; size and points are kept for the next mount.
- bzip2, xz, zstd: unpacked once into a file without a name (`spool`). Libraries have random
  access to their blocks and frames, but the usual file, made by `xz` or `zstd` without options,
  has one block, and could only be read from its start again and again. So all three are read in
  one way, by decoders of the standard library.
- qcow2, vmdk, vdi, VHD, VHDX, OVA: `qemu-nbd` serves the disk inside at a socket, without a copy
  (`qemu`).

What is known not to be a disk (`foreign`) is refused by its name, in a file, on a device, or
inside one of the above: a bundle of it could not be launched.

What reads a form is loaded for an image in that form, since most are raw and a mount is to be
ready soon, or by `load_readers` where images come later.

The file that was opened must not change: each read compares it, as it does with a raw image. A
write to a block device leaves no trace, so a device is taken as raw unless another form is asked
for.
"""

import os
import shlex
from contextlib import ExitStack, suppress
from pathlib import Path

from bundlefs.base.errors import FormError, ImageError
from bundlefs.base.storage import Storage
from bundlefs.image import foreign, forms
from bundlefs.image.forms import Form
from bundlefs.image.inside import Content, InsideImage
from bundlefs.image.raw import Image
from bundlefs.image.source import Source

__all__ = ["load_readers", "open_source", "require_raw", "tail_of"]


def open_source(  # noqa: PLR0913  # all but one have defaults, and are named
    path: Path | str,
    *,
    raw: bool = False,
    form: Form | None = None,
    spool_dir: Path | None = None,
    kept: Path | None = None,
    descriptor: int | None = None,
) -> Source:
    """Open an image in whatever form it is.

    Args:
        path: the file, or a block device.
        raw: take it as it is, whatever its first bytes look like.
        form: the form that it must have; only so is a block device taken as anything but raw.
        spool_dir: where to unpack what has to be unpacked; by default $TMPDIR, or /var/tmp.
        kept: a private file that keeps what the next mount of a gzip file needs to know.
        descriptor: the file, opened by the caller, who may close it; then `path` only names it.

    Raises:
        FormError: it is in a form that is not read, or damaged.
        ImageError: it cannot be read, or is of no use as an image.
        ImageChangedError: somebody wrote to it meanwhile.
    """
    with ExitStack() as stack:
        opened = Image.open(path) if descriptor is None else Image.adopt(Path(path), descriptor)
        file = stack.enter_context(opened)
        found = Form.RAW if raw else _form(file, form)
        source = file if found is Form.RAW else _inside(file, found, spool_dir, kept)
        stack.pop_all()
    return source


def load_readers() -> None:
    """Load what reads each form, for a program that opens images later on.

    Raises:
        ImportError: a library is missing, which is better told now.
    """
    from bundlefs.image import gzipped, qemu, spool  # noqa: F401, PLC0415  # to have them loaded


def require_raw(head: bytes, where: str = "standard input") -> None:
    """Refuse what comes through a pipe and begins with `head`, unless it may be a raw disk.

    Raises:
        FormError: it is not raw, and a pipe can be read in no other form.
    """
    head, path = head[: forms.HEAD_SIZE], Path("IMAGE")
    if found := foreign.find(head, b""):
        raise FormError(f"{where} is {found.refusal(path)}")
    if (form := forms.of(head)) is not Form.RAW:
        raise FormError(_not_raw(where, form, str(path)))


def _form(file: Image, wanted: Form | None) -> Form:
    if manifest := foreign.bundle_of(file.path):
        raise FormError(
            f"image {file.path} is a part of a bundle, not a raw image: bundlefs open"
            f" {shlex.quote(str(manifest))} MOUNTPOINT shows the image that is in it"
        )
    try:
        # Not by `read`, which counts what is bundled.
        with Storage.of(file.path).asked():
            head = os.pread(file.fileno(), forms.HEAD_SIZE, 0)
            tail = tail_of(file)
    except OSError as error:
        raise ImageError(f"cannot read image {file.path}: {error.strerror}") from error
    if found := foreign.find(head, tail):
        raise FormError(f"image {file.path} is {found.refusal(file.path)}")
    form = forms.of(head, tail)
    if wanted not in (None, form):
        raise FormError(f"image {file.path} is {form.value}, not {wanted.value}")
    if form is not Form.RAW and file.identity.is_block_device and wanted is None:
        text = _not_raw(f"on device {file.path}", form, shlex.quote(str(file.path)))
        raise FormError(text, form.value)
    return form


def tail_of(file: Image) -> bytes:
    """Return the end of a file, or nothing where the disk has a fault: its reader hears of that."""
    with suppress(OSError):
        return os.pread(file.fileno(), foreign.TAIL_SIZE, max(file.size - foreign.TAIL_SIZE, 0))
    return b""


def _not_raw(where: str, form: Form, path: str) -> str:
    return (
        f"{where} is {form.value}, not a raw image, and that can be read from a file alone:"
        f" make a raw image of it: {forms.command(form, path)}"
    )


def _inside(file: Image, form: Form, spool_dir: Path | None, kept: Path | None) -> InsideImage:
    content, near = _content(file, form, spool_dir, kept)
    try:
        _require_disk(file, form, content)
        return InsideImage(file, content, near)
    except BaseException:
        content.close()
        raise


def _content(
    file: Image, form: Form, folder: Path | None, kept: Path | None
) -> tuple[Content, int | None]:
    """Return the content, and how many bytes at its start are near if not all are."""
    if form is Form.GZIP:
        from bundlefs.image import gzipped  # noqa: PLC0415  # for this form alone

        # With access points that were kept all would be near, and without them it would not.
        return gzipped.GzippedImage(file, kept), gzipped.NEAR
    if form in forms.UNPACKED:
        from bundlefs.image import spool  # noqa: PLC0415  # same

        return spool.unpack_file(file, form, folder or spool.spool_folder()), None
    from bundlefs.image import qemu  # noqa: PLC0415  # same

    return qemu.serve(file, form), None


def _require_disk(file: Image, form: Form, content: Content) -> None:
    """Refuse a file inside which there is no disk."""
    length = min(content.size, forms.HEAD_SIZE)
    try:
        head = content.read(0, length)
        # The end of a gzip file takes long to reach, and `GzippedImage` has looked at it.
        tail = b"" if form is Form.GZIP else content.read(content.size - length, length)
    except OSError as error:
        raise ImageError(f"cannot read image {file.path}: {error.strerror}") from error
    found, inner = foreign.find(head, tail), forms.of(head, tail)
    if found or inner is not Form.RAW:
        raise foreign.inside(file.path, form.value, found.name if found else inner.value)
