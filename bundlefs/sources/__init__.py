"""Images that are not raw: compressed, or in a virtual machine's format.

`open_source` looks at the first bytes of the file, never at its name, and gives
something that reads as the raw image does. How:

- gzip: random access by `indexed_gzip`'s access points, without a copy. The size
  takes one pass, which also proves the file whole; size and points are kept for
  the next mount.
- bzip2, xz, zstd: unpacked once into a file without a name. Libraries have random
  access to their blocks and frames, but the common file, from `xz` or `zstd`
  without options, is of one block, and could only be read from its start again
  and again. So there is one way for all, by decoders of the standard library.
- qcow2, vmdk, vdi: `qemu-nbd` serves the disk inside at a socket, without a copy.

What must not change is the file that was opened: each read compares, as with a
raw image. A block device is always taken as raw: nothing tells of a write to it.
"""

import os
from contextlib import ExitStack
from pathlib import Path

from bundlefs.errors import ImageError
from bundlefs.image import Image, Source
from bundlefs.sources import forms, gzipped, qemu, spool, unpack
from bundlefs.sources.forms import Form
from bundlefs.sources.inside import Content, InsideImage

__all__ = ["open_source"]


def open_source(
    path: Path | str, *, raw: bool = False, spool_dir: Path | None = None, kept: Path | None = None
) -> Source:
    """Open an image in whatever form it is.

    Args:
        path: the file, or a block device.
        raw: take it as it is, whatever its first bytes look like.
        spool_dir: where to unpack what has to be unpacked; by default $TMPDIR, else /var/tmp.
        kept: a private file for what a compressed file's next mount is to know.

    Raises:
        ImageError: it cannot be read, is damaged, or is of no use as an image.
        ImageChangedError: somebody wrote to it meanwhile.
    """
    with ExitStack() as stack:
        file = stack.enter_context(Image.open(path))
        form = Form.RAW if raw or file.identity.is_block_device else _form(file)
        source = file if form is Form.RAW else _inside(file, form, spool_dir, kept)
        stack.pop_all()
    return source


def _form(file: Image) -> Form:
    try:
        # Not by `read`: the image's counter is of what is bundled.
        return forms.of(os.pread(file.fileno(), forms.HEAD_SIZE, 0))
    except OSError as error:
        raise ImageError(f"cannot read image {file.path}: {error.strerror}") from error


def _inside(file: Image, form: Form, spool_dir: Path | None, kept: Path | None) -> InsideImage:
    content = _content(file, form, spool_dir or spool.default_folder(), kept)
    try:
        if form in unpack.CODECS:
            _require_image(file, form, content)
        return InsideImage(file, content)
    except BaseException:
        content.close()
        raise


def _content(file: Image, form: Form, folder: Path, kept: Path | None) -> Content:
    if form is Form.GZIP:
        return gzipped.GzippedImage(file, kept)
    if form in unpack.CODECS:
        return spool.unpacked(file, form, folder)
    return qemu.serve(file, form)


def _require_image(file: Image, form: Form, content: Content) -> None:
    """Refuse what would come out as a bundle of a file that is no disk."""
    head = content.read(0, min(content.size, forms.HEAD_SIZE))
    found = forms.of(head)
    if found is not Form.RAW or forms.is_tar(head):
        what = found.value if found is not Form.RAW else "a tar archive"
        raise ImageError(
            f"image {file.path}: inside the {form.value} file is {what}, not a raw image: unpack"
            " it first, and give the image that is in it"
        )
