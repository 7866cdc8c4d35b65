"""Many images in a folder: files, space, memory and threads that they take, and give back."""

import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mount.commands import eventually, names
from tests.mount.shelves import OPTIONS, phases
from tests.support import images, oracles
from tests.support.mounts import Mount, mounted
from tests.support.processes import open_files, peak_memory

MIB = images.MIB


# What is let go of


def open_images(mount: Mount, folder: Path) -> list[str]:
    """Give the files of a folder that a daemon has open."""
    found = open_files(mount.pid).values()
    return sorted(name for name in found if name.startswith(f"{folder}/"))


def delete(image: Path) -> None:
    image.unlink()


def replace(image: Path) -> None:
    other = image.with_name(".other")
    other.write_bytes(b"another")
    other.rename(image)


def rename(image: Path) -> None:
    image.rename(image.with_name("renamed"))


@pytest.mark.parametrize("change", [delete, replace, rename])
def test_what_is_gone_takes_no_space(
    change: Callable[[Path], None], shelf: Mount, shelf_folder: Path
) -> None:
    one, two = shelf.path / "one.img", shelf.path / "two.xz"
    with (one / "image.part.00").open("rb", buffering=0) as reader:
        start = reader.read(MIB)
        assert names(one)
        assert names(two)
        change(shelf_folder / "one.img")
        # Also for who does not look, and not before the last reader ends.
        assert len(open_images(shelf, shelf_folder)) == 2
        assert len(start) == MIB
    assert eventually(lambda: len(open_images(shelf, shelf_folder)) == 1, 30)
    assert open_images(shelf, shelf_folder) == [str(shelf_folder / "two.xz")]
    assert phases(shelf)["one.img"] == "failed"
    with pytest.raises(OSError, match=r"Stale file handle|No such file"):
        (one / "image.part.00").read_bytes()


FEW_FILES = 90
LOTS = 120


def texts(folder: Path, count: int, size: int) -> Path:
    """Make a folder of so many images, each with a text of its own."""
    folder.mkdir()
    for number in range(count):
        images.text_image(folder / f"{number:03}", size, str(number))
    return folder


def files(image: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Give what a copy tool sees of a folder."""
    found = {}
    for path in sorted(image.iterdir()):
        about = path.stat()
        data = path.read_bytes()
        found[path.name] = (about.st_ino, about.st_mtime_ns, about.st_size, data)
    return found


@pytest.mark.parametrize("options", [(), ("--fresh",), ("--state", "none")], ids=str)
def test_more_images_than_open_files(options: tuple[str, ...], tmp_path: Path) -> None:
    folder = texts(tmp_path / "images", LOTS, 10_000)
    images.random_image(folder / "large", 21 * MIB)
    with mounted(folder, tmp_path / "mnt", *OPTIONS, "--cache-size", "0", *options) as mount:
        resource.prlimit(mount.pid, resource.RLIMIT_NOFILE, (FEW_FILES, FEW_FILES))
        # One is read half, and goes on as the same bundle.
        first = (mount.path / "large/image.part.00").read_bytes()
        with (mount.path / "000/image.part.00").open("rb", buffering=0) as held:
            seen = {image.name: files(image) for image in sorted(mount.path.glob("[0-9]*"))}
            assert len(seen) == LOTS
            assert len(open_images(mount, folder)) < FEW_FILES - FEW_FILES // 4
            assert {image.name: files(image) for image in mount.path.glob("[0-9]*")} == seen
            assert held.read() == seen["000"]["image.part.00"][3]
        assert set(phases(mount).values()) == {"complete", "idle"}
        assert (mount.path / "large/image.part.00").read_bytes() == first
        assert len(names(mount.path / "large")) == 4
        parts = sorted((mount.path / "large").glob("*.part.*"))
        assert oracles.part_digests(mount.path / "large/image.manifest.xml") == oracles.sha1sum(
            parts
        )
        assert mount.status()["image_size"] == LOTS * 10_000 + 21 * MIB
        assert (tmp_path / "mnt.log").read_text().count(" ERROR") == 0


def test_an_image_that_changes_while_it_is_not_open(tmp_path: Path) -> None:
    folder = texts(tmp_path / "images", LOTS, 10_000)
    with mounted(folder, tmp_path / "mnt", *OPTIONS) as mount:
        resource.prlimit(mount.pid, resource.RLIMIT_NOFILE, (FEW_FILES, FEW_FILES))
        for image in sorted(mount.path.iterdir()):
            assert len(names(image)) == 2
        assert str(folder / "000") not in open_images(mount, folder)
        with (folder / "000").open("r+b") as image_file:
            image_file.write(b"changed")
        with pytest.raises(OSError, match="Stale file handle"):
            (mount.path / "000/image.part.00").read_bytes()
        assert phases(mount)["000"] == "failed"


# What all share

MANY = 36
READERS = 6
CACHE = 8 * MIB
GROWTH = 48 * MIB
"""What 24 passes have under way would be 144 MiB; the allocators' noise is 30 MiB."""


def threads(mount: Mount) -> int:
    return len(list(Path(f"/proc/{mount.pid}/task").iterdir()))


def test_memory_and_threads_do_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    first = images.random_image(folder / "00", 19 * MIB)
    for number in range(1, MANY):
        (folder / f"{number:02}").hardlink_to(first)
    with mounted(folder, tmp_path / "mnt", *OPTIONS, "--cache-size", str(CACHE)) as mount:
        folders = sorted(mount.path.iterdir())

        def first_byte(image: Path) -> bytes:
            with (image / "image.part.00").open("rb") as part:
                return part.read(1)

        def read(some: list[Path]) -> int:
            with ThreadPoolExecutor(READERS) as pool:
                # Each pass pauses in the middle, and then all go on to the end.
                assert all(pool.map(first_byte, some))
                assert {len(found) for found in pool.map(names, some)} == {3}
            return peak_memory(mount.pid)

        # Twice, so that what is kept for later is there.
        few, before = read(folders[: 2 * READERS]), threads(mount)
        assert read(folders[2 * READERS :]) - few < GROWTH
        # Some for each reader, and some for all; one for each image would be more.
        assert threads(mount) - before < 2 * READERS
        assert threads(mount) < 5 * READERS < MANY
        assert set(phases(mount).values()) == {"complete"}


def test_one_after_the_other_needs_no_more_threads(tmp_path: Path) -> None:
    folder = texts(tmp_path / "images", MANY, 100_000)
    with mounted(folder, tmp_path / "mnt", *OPTIONS) as mount:
        assert len(names(mount.path / "000")) == 2
        before = threads(mount)
        for image in sorted(mount.path.iterdir()):
            assert len(names(image)) == 2
        assert threads(mount) - before < 8
