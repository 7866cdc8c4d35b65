"""Images of systems for an architecture, and disks of partitions, by mke2fs and sfdisk."""

import struct
from pathlib import Path

from tests.support import images
from tests.support.tools import run, tool

MIB = images.MIB
X86, X64, ARM64, RISCV = 3, 62, 183, 243
"""Numbers of machines in ELF headers."""

_PLACES = {
    "merged": "usr/lib/systemd/systemd",
    "plain": "sbin/init",
    "script": "bin/busybox",
}


def program(number: int) -> bytes:
    """Return a real program of this machine with the number of another in its header."""
    data = bytearray(Path(tool("true")).resolve().read_bytes())
    data[18:20] = struct.pack("<H", number)
    return bytes(data)


def tree(folder: Path, number: int, layout: str = "merged") -> Path:
    """Make the files of a system whose first program is for a machine."""
    place = folder / _PLACES[layout]
    place.parent.mkdir(parents=True)
    place.write_bytes(program(number))
    if layout == "merged":  # as Debian, Fedora and Arch have it
        (folder / "usr/sbin").mkdir()
        for name in ("sbin", "lib"):
            (folder / name).symlink_to(f"usr/{name}")
        (folder / "usr/sbin/init").symlink_to("../lib/systemd/systemd")
        for count in range(600):  # several blocks of names
            (folder / f"usr/sbin/{'tool' * 10}{count}").touch()
    if layout == "script":
        (folder / "sbin").mkdir()
        (folder / "sbin/init").write_text("#!/bin/sh\n")
        (folder / "bin/sh").symlink_to("/bin/busybox")
    return folder


def system(
    path: Path, number: int, kind: str = "ext4", layout: str = "merged", size: str = "24M"
) -> Path:
    """Make a file system with a system in it."""
    folder = tree(path.with_name(f".{path.name}-tree"), number, layout)
    run(["mke2fs", "-q", "-F", "-t", kind, "-d", folder, path, size])
    return path


def disk(path: Path, parts: list[tuple[str, Path | None]], label: str = "gpt") -> Path:
    """Make a disk of partitions of 33 MiB, each of a type and with what is in it."""
    images.sparse_image(path, (2 + 34 * len(parts)) * MIB, {})
    starts = [(1 + 34 * number) * MIB for number in range(len(parts))]
    lines = [f"label: {label}"]
    for start, (kind, _) in zip(starts, parts, strict=True):
        lines.append(f"{start // 512},{33 * MIB // 512},{kind}")
    run(["sfdisk", "-q", path], data="\n".join(lines).encode())
    with path.open("r+b") as file:
        for start, (_, content) in zip(starts, parts, strict=True):
            if content:
                file.seek(start)
                file.write(content.read_bytes())
    return path
