"""Images of which a bundle can be made, and may be of no use: a warning, and the mount goes on."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bundlefs.image.look.doubts import doubts
from bundlefs.image.look.launch import launch_doubts
from bundlefs.image.look.writers import writer
from bundlefs.image.open import open_source
from tests.support import images, sources
from tests.support.systems import ARM64, disk, system
from tests.support.tools import run

MIB = images.MIB
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"


def found(path: Path) -> list[str]:
    with closing(open_source(path)) as source:
        told = doubts(source)
        assert source.bytes_read == 0
    return told


DISKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "gpt": (lambda path: disk(path, [(LINUX, None)]), "partition table (GPT)"),
    "mbr": (lambda path: disk(path, [("83", None)], "dos"), "partition table (MBR)"),
    "ext4": (lambda path: system(path, ARM64), "file system (ext)"),
    "ext2": (lambda path: system(path, ARM64, "ext2"), "file system (ext)"),
    "xfs": (
        lambda path: images.sparse_image(
            path, 16 * MIB, {0: b"XFSB" + (4096).to_bytes(4, "big") + (4096).to_bytes(8, "big")}
        ),
        "file system (XFS)",
    ),
    "squashfs": (
        lambda path: images.sparse_image(
            path, 4 * MIB, {0: b"hsqs", 28: b"\4\0\0\0", 40: (4 * MIB).to_bytes(8, "little")}
        ),
        "file system (squashfs)",
    ),
}


@pytest.mark.parametrize("kind", DISKS)
def test_cut_short(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    make, what = DISKS[kind]
    make(path)
    assert found(path) == []
    # An MBR tells no more than where its last partition ends.
    size = (34 if kind == "mbr" else path.stat().st_size // MIB) * MIB
    os.truncate(path, size)
    assert found(path) == []
    os.truncate(path, size - 512)
    [told] = found(path)
    assert told == (
        f"has {size - 512} bytes, and its {what} says {size}: it is cut short; get it anew"
    )


def test_a_disk_of_large_sectors_cut_short(tmp_path: Path) -> None:
    path = images.sparse_image(tmp_path / "image", 64 * MIB, {})
    device = run(["losetup", "--find", "--show", "--sector-size", "4096", path]).decode().strip()
    try:
        run(["sfdisk", "-q", device], data=b"label: gpt\n256,1024\n")
    finally:
        run(["losetup", "--detach", device])
    assert found(path) == []
    os.truncate(path, 60 * MIB)
    [told] = found(path)
    assert f"partition table (GPT) says {64 * MIB}" in told


def test_a_disk_that_was_grown_is_whole(tmp_path: Path) -> None:
    path = disk(tmp_path / "image", [(LINUX, None)])
    os.truncate(path, path.stat().st_size + 8 * MIB)
    assert found(path) == []


@pytest.mark.parametrize("size", [1, 511, 513, MIB + 100])
def test_no_whole_sectors(size: int, tmp_path: Path) -> None:
    [told] = found(images.random_image(tmp_path / "image", size))
    assert told.startswith(f"has {size} bytes, which is no multiple of 512")


@pytest.mark.parametrize("form", ["gzip", "zstd", "qcow2"])
def test_in_another_form(form: str, tmp_path: Path) -> None:
    raw = disk(tmp_path / "raw", [(LINUX, None)])
    os.truncate(raw, 20 * MIB)
    path = tmp_path / "image"
    if form == "qcow2":
        sources.qemu("qcow2")(raw, path)
    else:
        path.write_bytes(run([form, "-1", "-c", raw]))
    [told] = found(path)
    assert f"has {20 * MIB} bytes, and its partition table (GPT) says {36 * MIB}" in told


@pytest.mark.parametrize(
    "head",
    [
        b"\xeb\x3c\x90mkfs.fat".ljust(446, b"\x90") + bytes(range(64)) + b"\x55\xaa",
        bytes(446) + b"\x80" + bytes(15) + b"\xff" * 48 + b"\x55\xaa",
        bytes(510) + b"\x55\xaa",
        bytes(450) + b"\xee" + bytes(59) + b"\x55\xaa" + b"EFI PART" + b"\xff" * 504,
    ],
)
def test_what_is_no_table_tells_nothing(head: bytes, tmp_path: Path) -> None:
    assert found(images.sparse_image(tmp_path / "image", MIB, {0: head})) == []


# --- what an instance will not start from ---


def launched(path: Path, *, paravirtual: bool = False) -> list[str]:
    with closing(open_source(path)) as source:
        told = launch_doubts(source, paravirtual=paravirtual)
        assert source.bytes_read == 0
    return told


def with_fstab(path: Path, *lines: str) -> Path:
    system(path, ARM64)
    run(["tune2fs", "-L", "cloud", path])
    text = path.with_name("fstab")
    text.write_text("".join(f"{line}\n" for line in lines))
    run(["debugfs", "-w", "-f", "-", path], data=f"mkdir etc\nwrite {text} etc/fstab\n".encode())
    return path


GOOD = ("LABEL=cloud / ext4 defaults 0 1", "tmpfs /tmp tmpfs", "/dev/sdb /mnt ext4 nofail 0 2")


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_a_disk_from_which_nothing_starts(label: str, tmp_path: Path) -> None:
    kind = LINUX if label == "gpt" else "83"
    path = disk(tmp_path / "image", [(kind, with_fstab(tmp_path / "root", *GOOD))], label)
    [told] = launched(path)
    assert "and no boot loader: there is no code in its first sector" in told
    with path.open("r+b") as file:
        file.write(b"\xeb\x63\x90")
    assert launched(path) == []
    [told] = launched(path, paravirtual=True)
    assert "the bundle names a kernel: that is for a paravirtual machine" in told


def test_an_fstab_that_names_what_is_not_there(tmp_path: Path) -> None:
    lines = (
        "LABEL=else / ext4",
        "/dev/vda2 none swap sw",
        "/dev/mapper/a /b ext4",
        "/dev/vdb /c x",
    )
    path = with_fstab(tmp_path / "image", *lines)
    told = launched(path)
    assert [one.split(" ")[1] for one in told] == ["LABEL=else", "/dev/vda2", "/dev/mapper/a"]


@pytest.mark.parametrize("form", ["raw", "gzip", "qcow2"])
def test_a_good_image_is_passed_over_in_silence(form: str, tmp_path: Path) -> None:
    root, path = with_fstab(tmp_path / "root", *GOOD), tmp_path / "image"
    if form == "qcow2":
        sources.qemu("qcow2")(root, path)
    else:
        path.write_bytes(run(["gzip", "-1", "-c", root]) if form == "gzip" else root.read_bytes())
    assert launched(path) == []
    assert launched(path, paravirtual=True) == []


def test_what_has_no_file_system_is_nobodys_root(tmp_path: Path) -> None:
    assert launched(disk(tmp_path / "image", [(LINUX, None)])) == []
    assert launched(images.random_image(tmp_path / "other", MIB)) == []


# --- written meanwhile ---


@contextmanager
def appending(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Have another process hold a file open for writing."""
    script = "import sys; file = open(sys.argv[1], 'ab'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.communicate()


def test_a_file_that_is_being_written(tmp_path: Path) -> None:
    path = images.random_image(tmp_path / "image", MIB)
    assert writer(path) is None
    with appending(path) as process:
        told = writer(path)
        assert told is not None
        assert told.startswith(f"process {process.pid} (")
        link = tmp_path / "link"
        link.symlink_to(path)
        assert writer(link) == told
    assert writer(path) is None


def test_readers_are_no_writers(tmp_path: Path) -> None:
    path = images.random_image(tmp_path / "image", MIB)
    with path.open("rb"), path.open("rb"):
        assert writer(path) is None


def test_a_loop_device_that_may_write(tmp_path: Path) -> None:
    path = images.random_image(tmp_path / "image", MIB)
    for options, word in ((["--read-only"], None), ([], "the loop device ")):
        device = run(["losetup", "--find", "--show", *options, path]).decode().strip()
        try:
            told = writer(path)
            assert told == (word and f"{word}{device}")
        finally:
            run(["losetup", "--detach", device])


@pytest.mark.parametrize("options", ["rw", "ro"])
def test_a_device_that_is_mounted(options: str, tmp_path: Path) -> None:
    image, folder = system(tmp_path / "image", ARM64), tmp_path / "mnt"
    folder.mkdir()
    device = Path(run(["losetup", "--find", "--show", image]).decode().strip())
    try:
        assert writer(device) is None
        run(["mount", "-o", options, device, folder])
        try:
            told = f"the file system that is mounted on {folder}"
            assert writer(device) == (told if options == "rw" else None)
        finally:
            run(["umount", folder])
    finally:
        run(["losetup", "--detach", device])


def test_what_is_no_file_has_no_writer(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", Path("/dev/null")):
        assert writer(path) is None


def test_to_ask_disturbs_no_writer(tmp_path: Path) -> None:
    """Somebody who begins to write in the very moment is neither refused nor are we ended."""
    path = images.random_image(tmp_path / "image", MIB)
    script = (
        "import sys\nwhile True:\n    with open(sys.argv[1], 'r+b') as file: file.write(b'x')\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)]) as process:
        for _ in range(3000):
            writer(path)
        assert process.poll() is None
        process.kill()
