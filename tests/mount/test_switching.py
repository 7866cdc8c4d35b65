"""One option mistyped in the middle of an upload, and put right: the first bundle goes on.

All full parts have one size, so time alone tells a copy tool what is to be sent again. What
is in the bucket in the end is undone by stock tools.
"""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.commands import eventually
from tests.support import images, oracles, servers
from tests.support.keys import KeyPair
from tests.support.mounts import Mount, bundlefs, mounted

MIB = images.MIB
SECOND = 10**9
BUCKET = "bundles"
Upload = Callable[..., set[str]]
"""Takes a folder and names, copies these or all, and gives those that were sent."""


@contextmanager
def rclone(scratch: Path) -> Iterator[tuple[Upload, Path]]:
    store = scratch / "store"
    (store / BUCKET).mkdir(parents=True)
    with servers.rclone_s3(store, scratch) as server:

        def upload(folder: Path, *names: str) -> set[str]:
            log = scratch / "rclone.log"
            log.unlink(missing_ok=True)
            chosen: list[str] = [word for name in names for word in ("--include", name)]
            words: list[str | Path] = ["copy", *chosen, folder, f"sink:{BUCKET}"]
            servers.rclone(server, scratch, "--log-file", log, "-v", *words)
            return set(re.findall(r"INFO  : (\S+): Copied \(", log.read_text()))

        yield upload, store / BUCKET


@contextmanager
def aws(scratch: Path) -> Iterator[tuple[Upload, Path]]:
    with servers.moto(scratch) as server:
        servers.aws(server, scratch, "s3", "mb", f"s3://{BUCKET}")
        fetched = scratch / "fetched"

        def upload(folder: Path, *names: str) -> set[str]:
            chosen: list[str] = [word for name in names for word in ("--include", name)]
            only = ["--exclude", "*", *chosen] if names else []
            words: list[str | Path] = ["s3", "sync", "--no-progress", *only]
            words += [folder, f"s3://{BUCKET}"]
            said = servers.aws(server, scratch, *words).decode()
            servers.aws(server, scratch, "s3", "cp", "--recursive", f"s3://{BUCKET}", fetched)
            return set(re.findall(rf"^upload: \S+ to s3://{BUCKET}/(\S+)$", said, re.MULTILINE))

        yield upload, fetched


@pytest.fixture(params=[rclone, aws], ids=["rclone copy", "aws s3 sync"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Upload, Path]]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with request.param(scratch) as made:
        yield made


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.random_image(tmp_path / "disk", 42 * MIB)


FIRST = ("image.part.00", "image.part.01", "image.part.02")
OTHERS = ("image.part.01", "image.part.02", "image.part.03")
ALL = {"image.manifest.xml", *(f"image.part.{number:02}" for number in range(5))}


def times(mount: Mount) -> set[int]:
    return {path.stat().st_mtime_ns for path in mount.path.iterdir()}


def bytes_of(mount: Mount) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in mount.path.iterdir()}


def assert_stored(folder: Path, bundle: dict[str, bytes], image: Path, keys: KeyPair) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == bundle
    manifest = folder / "image.manifest.xml"
    secrets = oracles.secrets(manifest, keys.private)
    oracles.compare_streaming(sorted(folder.glob("image.part.*")), secrets, image)


@pytest.mark.parametrize("how", ["default", "explicit"])
def test_half_of_each_and_back(
    sink: tuple[Upload, Path], image: Path, tmp_path: Path, user_keys: KeyPair, how: str
) -> None:
    upload, stored = sink
    state = ("--state", tmp_path / "a.state") if how == "explicit" else ()
    right = ("--level", "1", "--user-key", user_keys.private, *state)
    with mounted(image, tmp_path / "mnt", *right) as mount:
        [first] = times(mount)
        assert upload(mount.path, *FIRST) == set(FIRST)
        before = bytes_of(mount)
    with mounted(image, tmp_path / "mnt", *right, "--arch", "i386") as mount:
        [second] = times(mount)
        assert second > first
        assert upload(mount.path, *OTHERS) == set(OTHERS)
    log = tmp_path / "back.log"
    with mounted(image, tmp_path / "mnt", *right, "--log-file", log) as mount:
        [back] = times(mount)
        assert back > second
        assert mount.status()["blocks_compressed"] == 0, "nothing of it was lost"
        assert bytes_of(mount) == before
        # S3 keeps whole seconds: what arrives in the second of the mount is taken for older.
        assert eventually(lambda: time.time_ns() // SECOND > back // SECOND)
        assert upload(mount.path) >= ALL - set(FIRST) | set(OTHERS)
    assert_stored(stored, before, image, user_keys)
    assert "Another one was read since (arch was i386, is " in log.read_text()
    with mounted(image, tmp_path / "mnt", *right) as mount:
        assert times(mount) == {back}
        assert upload(mount.path) == set()
    # And to the other once more, as if that had been the right one.
    with mounted(image, tmp_path / "mnt", *right, "--arch", "i386") as mount:
        other = bytes_of(mount)
        assert upload(mount.path) == ALL
    assert_stored(stored, other, image, user_keys)


def test_a_mistake_that_was_noticed_at_once(
    sink: tuple[Upload, Path], image: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    """Nobody has read the other bundle: what is there stays, and is not sent again."""
    upload, stored = sink
    right = ("--level", "1", "--user-key", user_keys.private)
    with mounted(image, tmp_path / "mnt", *right) as mount:
        # S3 keeps whole seconds: what arrives in the second of the mount is taken for older.
        begun = mount.path.joinpath("image.part.00").stat().st_mtime
        assert eventually(lambda: seconds_later(begun, tmp_path))
        assert upload(mount.path, *FIRST) == set(FIRST)
        shown = times(mount)
    with mounted(image, tmp_path / "mnt", "--level", "1"):  # --user-key is forgotten
        pass
    with mounted(image, tmp_path / "mnt", *right) as mount:
        assert times(mount) == shown
        assert upload(mount.path) == ALL - set(FIRST)
        whole = bytes_of(mount)
    assert_stored(stored, whole, image, user_keys)


def seconds_later(then: float, scratch: Path) -> bool:
    """Tell by the file system's clock whether a second has passed."""
    (scratch / "clock").write_bytes(b"")
    return (scratch / "clock").stat().st_mtime >= then + 1.1


def test_the_other_was_killed_when_a_byte_was_read(image: Path, tmp_path: Path) -> None:
    with mounted(image, tmp_path / "mnt", "--level", "1") as mount:
        [first] = times(mount)
    with mounted(image, tmp_path / "mnt", "--level", "2") as mount:
        with mount.path.joinpath("image.part.00").open("rb", buffering=0) as part:
            assert part.read(1)
        mount.kill()
    with mounted(image, tmp_path / "mnt", "--level", "1") as mount:
        [back] = times(mount)
        assert back > first
        assert mount.status()["blocks_compressed"] == 0


def test_every_image_of_a_folder(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "ab":
        shutil.copy(image, folder / name)
    read = []
    for options in (("--level", "1"), ("--level", "2"), ("--level", "1")):
        with mounted(folder, tmp_path / "mnt", *options) as mount:
            parts = [mount.path / name / "image.part.00" for name in "ab"]
            read.append([part.read_bytes() for part in parts])
    assert read[0] == read[2] != read[1]


def test_bundled_to_a_folder(image: Path, tmp_path: Path, user_keys: KeyPair) -> None:
    dest = tmp_path / "dest"
    right = ("--level", "1", "--user-key", user_keys.private)
    bundlefs("bundle", *right, image, dest)
    before = {path.name: path.read_bytes() for path in dest.iterdir()}
    bundlefs("bundle", *right, "--arch", "i386", image, dest)
    (dest / "image.part.03").unlink()
    bundlefs("bundle", *right, image, dest)
    assert_stored(dest, before, image, user_keys)
