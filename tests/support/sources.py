"""One raw image in every form that it may come in, made by the tools that people use."""

import io
import os
import shutil
import struct
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.support import images
from tests.support.tools import pipeline, run

MIB = images.MIB
SIZE = 9 * MIB + 512
"""A whole number of sectors, as virtual disks are, and no whole number of anything larger."""


def raw_image(path: Path) -> Path:
    """Write data that deflates, data that does not, and holes between them and at the end."""
    head, tail = images.text(2 * MIB + 100), b"".join(images.noise(3 * MIB, "tail"))
    return images.sparse_image(path, SIZE, {0: head, 4 * MIB + 4096: tail})


Maker = Callable[[Path, Path], object]


def by(*words: str) -> Maker:
    """Return a function that runs a filter: image in, file out."""

    def make(raw: Path, file: Path) -> None:
        with raw.open("rb") as image:
            file.write_bytes(run(list(words), data=image.read()))

    return make


def halves(command: str, between: bytes = b"", after: bytes = b"") -> Maker:
    """Return a function that compresses the two halves of an image apart, one behind the other."""

    def make(raw: Path, file: Path) -> None:
        half = str(SIZE // 2)
        first, _ = pipeline(f'head -c {half} "$1" | {command}', raw)
        second, _ = pipeline(f'tail -c +{int(half) + 1} "$1" | {command}', raw)
        file.write_bytes(first + between + second + after)

    return make


def qemu(form: str, *options: str) -> Maker:
    """Return a function that converts an image with `qemu-img`."""

    def make(raw: Path, file: Path) -> None:
        run(["qemu-img", "convert", "-q", "-f", "raw", "-O", form, *options, raw, file])

    return make


def vmdk_stream(raw: Path) -> bytes:
    """Return an image as OVAs have it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "disk"
        qemu("vmdk", "-o", "subformat=streamOptimized")(raw, file)
        return file.read_bytes()


def ova(file: Path, files: dict[str, bytes], kind: int = tarfile.USTAR_FORMAT) -> None:
    """Write an OVA with these files behind its description."""
    with tarfile.open(file, "w", format=kind) as archive:
        for name, content in {"box.ovf": b"<Envelope/>", **files, "box.mf": b"SHA1"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


SKIPPED = struct.pack("<II", 0x184D2A50, 4) + b"note"
"""A zstd frame to be skipped [RFC 8878 3.1.2]."""

PACKED: dict[str, Maker] = {
    "gzip": by("gzip", "-c"),
    "gzip-named": lambda raw, file: file.write_bytes(run(["gzip", "-Nc", raw])),
    "pigz": by("pigz", "-p2", "-c"),
    "pigz-independent": by("pigz", "-ip2", "-c"),
    "gzip-members": halves("gzip"),
    "gzip-empty-member": halves("gzip", run(["gzip", "-c"], data=b"")),
    "gzip-padded": halves("gzip", after=bytes(10_000)),
    "bzip2": by("bzip2", "-c"),
    "bzip2-members": halves("bzip2"),
    "xz": by("xz", "-0", "-T1", "-c"),
    "xz-blocks": by("xz", "-0", "-T2", "--block-size=1MiB", "-c"),
    "xz-streams": halves("xz -0", bytes(8), bytes(4)),
    "xz-crc32": by("xz", "-0", "-Ccrc32", "-c"),
    "zstd": by("zstd", "-q", "-c"),
    "zstd-threads": by("zstd", "-q", "-T2", "-c"),
    "zstd-frames": halves("zstd -q", SKIPPED),
    "zstd-skipped-first": lambda raw, file: file.write_bytes(SKIPPED + run(["zstd", "-qc", raw])),
}
DISKS: dict[str, Maker] = {
    "qcow2": qemu("qcow2"),
    "qcow2-compressed": qemu("qcow2", "-c"),
    "qcow2-old": qemu("qcow2", "-o", "compat=0.10"),
    "vmdk": qemu("vmdk"),
    "vmdk-stream": qemu("vmdk", "-o", "subformat=streamOptimized"),
    "vdi": qemu("vdi"),
    "vhd": qemu("vpc", "-o", "force_size=on"),
    "vhd-fixed": qemu("vpc", "-o", "subformat=fixed,force_size=on"),
    "vhdx": qemu("vhdx"),
    "vhdx-fixed": qemu("vhdx", "-o", "subformat=fixed"),
    "ova": lambda raw, file: ova(file, {"box-disk1.vmdk": vmdk_stream(raw)}),
}
ALL = PACKED | DISKS


class Originals:
    """The image in each form, made once in `folder`; tests spoil copies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.raw = raw_image(folder / "disk")

    def copy(self, form: str, path: Path) -> Path:
        """Copy the image in a form to `path`, a name that tells nothing of it."""
        kept = self._folder / form
        if not kept.exists():
            ALL[form](self.raw, kept)
        return Path(shutil.copyfile(kept, path))


def flip(path: Path, offset: int) -> None:
    """Change one bit; a negative offset counts from the end."""
    with path.open("r+b") as stream:
        stream.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
        [old] = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([old ^ 4]))
