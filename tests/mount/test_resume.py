"""The same bundle after a remount, however the mount before has ended; or another, if it must."""

import itertools
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bundlefs.state import file as statefile
from tests.support import images, mounts, oracles
from tests.support.keys import KeyPair
from tests.support.mounts import Mount, mounted
from tests.support.tools import run

MIB = images.MIB
REGION = "us-test-1"
REGION_MANIFEST = f"image.{REGION}.manifest.xml"


@dataclass(frozen=True, slots=True)
class Shown:
    """All that a mount shows: bytes, sizes and times by name."""

    files: dict[str, bytes]
    sizes: dict[str, int]
    mtimes: dict[str, int]

    @classmethod
    def of(cls, mount: Mount) -> "Shown":
        """List first, as sinks do, and read then."""
        stats = {path.name: path.stat() for path in mount.path.iterdir()}
        return cls(
            {name: (mount.path / name).read_bytes() for name in stats},
            {name: stat.st_size for name, stat in stats.items()},
            {name: stat.st_mtime_ns for name, stat in stats.items()},
        )

    def parts(self) -> dict[str, bytes]:
        return {name: data for name, data in self.files.items() if ".part." in name}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Two parts and a bit."""
    path = tmp_path / "disk"
    return images.write(path, (p for n in range(22) for p in images.noise(MIB, str(n))))


def state_file(tmp_path: Path) -> Path:
    [path] = (tmp_path / "state-home" / "bundlefs").glob("*.state")
    return path


# Nothing has changed


def test_a_complete_bundle_is_listed_at_once(
    image: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    options = ("--level", "1", "--user-key", user_keys.private)
    with mounted(image, tmp_path / "mnt", *options) as mount:
        before = Shown.of(mount)
    with mounted(image, tmp_path / "mnt", *options) as mount:
        stats = {path.name: path.stat() for path in mount.path.iterdir()}
        assert mount.manifest().read_bytes() == before.files["image.manifest.xml"]
        status = mount.status()
        assert status["phase"] == "complete"
        assert status["image_bytes_read"] == 0
        assert status["blocks_compressed"] == 0
        assert {name: stat.st_size for name, stat in stats.items()} == before.sizes
        assert Shown.of(mount) == before
        assert len(set(before.mtimes.values())) == 1
        secrets = oracles.secrets(mount.manifest(), user_keys.private)
        oracles.compare_streaming(mount.parts(), secrets, image)


def test_a_manifest_that_nobody_has_read_is_as_long_as_was_shown(
    image: Path, tmp_path: Path
) -> None:
    with mounted(image, tmp_path / "mnt", "--level", "1") as mount:
        before = {path.name: path.stat().st_size for path in mount.path.iterdir()}
    with mounted(image, tmp_path / "mnt", "--level", "1") as mount:
        shown = Shown.of(mount)
        assert shown.sizes == before
        assert {name: len(data) for name, data in shown.files.items()} == before


def test_a_pass_that_was_ended_in_the_middle_goes_on(image: Path, tmp_path: Path) -> None:
    with mounted(image, tmp_path / "mnt", "--level", "1") as mount:
        first = (mount.path / "image.part.00").read_bytes()
        made = mount.status()["tar_bytes_done"]
    with mounted(image, tmp_path / "mnt", "--level", "1") as mount:
        status = mount.status()
        assert (status["phase"], status["parts_made"]) == ("idle", 1)
        assert made <= status["tar_bytes_done"] < status["tar_size"]
        assert (mount.path / "image.part.00").stat().st_size == len(first)
        assert mount.status()["image_bytes_read"] == 0
        again = Shown.of(mount)
        assert again.files["image.part.00"] == first
        summed = oracles.sha1sum(mount.parts())
        assert oracles.part_digests(mount.manifest()) == summed


def test_unwritten_extents_that_were_read_meanwhile(tmp_path: Path, user_keys: KeyPair) -> None:
    image = images.unwritten_image(tmp_path / "disk", 24 * MIB)
    options = ("--level", "1", "--user-key", user_keys.private)
    log = tmp_path / "log"
    with mounted(image, tmp_path / "mnt", *options) as mount:
        before = Shown.of(mount)
    run(["cat", image])  # the page cache now holds what SEEK_DATA called holes
    with mounted(image, tmp_path / "mnt", *options, "--log-file", log) as mount:
        assert Shown.of(mount) == before
        secrets = oracles.secrets(mount.manifest(), user_keys.private)
        oracles.compare_streaming(mount.parts(), secrets, image)
    assert "going on with the bundle of" in log.read_text()


KILLS = 20
# The product saves every two seconds at most. This test has no time for twenty kills that
# find something new saved, so its mounts save after every block.
OFTEN = (
    "import sys; from bundlefs.state import saved; saved.SAVE_SECONDS = saved.SAVE_SHARE = 0;"
    "from bundlefs.cli import main; sys.exit(main(sys.argv[1:]))"
)


def killed_after(mount: Mount, blocks: int, seconds: float) -> int:
    """Kill a mount some blocks and seconds further on; gives where it began, in blocks."""
    status = mount.status()
    begun = status["tar_bytes_done"] // MIB
    while status["tar_bytes_done"] // MIB < begun + blocks:
        status = mount.status()
        assert status["phase"] != "complete", "the pass had ended before this kill"
    time.sleep(seconds)
    mount.kill()
    return int(begun)


def test_killed_at_twenty_moments_of_the_pass(
    tmp_path: Path, user_keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine with much else to do lets each mount get further before it is killed.
    image = images.random_image(tmp_path / "disk", 192 * MIB)
    fixed = ("--level", "6", "--user-key", user_keys.private)
    state, copy = tmp_path / "kept" / "state", tmp_path / "kept" / "copy"
    with mounted(image, tmp_path / "mnt", *fixed, "--state", state):
        shutil.copy(state, copy)
    options = (*fixed, "--state", state, "--jobs", "1", "--eager")
    moments = random.Random(4)  # noqa: S311  # the same moments on every run, and no secret
    with monkeypatch.context() as often:
        often.setattr(mounts, "BUNDLEFS", (sys.executable, "-c", OFTEN))
        begun = []
        for _ in range(KILLS):
            with mounted(image, tmp_path / "mnt", *options) as mount:
                when = moments.randrange(6), moments.uniform(0, 0.02)
                begun.append(killed_after(mount, *when))
    assert begun == sorted(begun)
    assert len(set(begun)) > KILLS // 2, f"few kills found anything saved: {begun}"
    with mounted(image, tmp_path / "mnt", *fixed, "--state", state) as mount:
        assert mount.status()["phase"] == "idle", "the pass had ended before the last kill"
        resumed = Shown.of(mount)
        secrets = oracles.secrets(mount.manifest(), user_keys.private)
        oracles.compare_streaming(mount.parts(), secrets, image)
    with mounted(image, tmp_path / "mnt", *fixed, "--state", copy) as mount:
        whole = Shown.of(mount)
        assert oracles.secrets(mount.manifest(), user_keys.private) == secrets
        assert mount.status()["blocks_compressed"] >= 192, "the copy was not empty"
    assert resumed.parts() == whole.parts()
    assert resumed.mtimes == whole.mtimes
    assert digests(resumed, tmp_path) == digests(whole, tmp_path)
    names = sorted(path.name for path in state.parent.iterdir())
    assert names == ["copy", "copy.lock", "state", "state.lock"], "a kill left something"


def digests(shown: Shown, scratch: Path) -> list[str]:
    manifest = scratch / "manifest"
    manifest.write_bytes(shown.files["image.manifest.xml"])
    return [oracles.image_digest(manifest), *oracles.part_digests(manifest)]


# Something has changed


def keep_mtime(change: Callable[[Path], None]) -> Callable[[Path], None]:
    def changed(image: Path) -> None:
        before = image.stat()
        change(image)
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert image.stat().st_mtime_ns == before.st_mtime_ns

    return changed


def edit(image: Path) -> None:
    with image.open("r+b") as stream:
        stream.seek(5 * MIB)
        stream.write(b"edited")


def shorten(image: Path) -> None:
    os.truncate(image, 21 * MIB)


def swap(image: Path) -> None:
    """Put another file in its place, as editors and `cp --reflink` do."""
    other = image.with_name("other")
    shutil.copy2(image, other)
    edit(other)
    shutil.copystat(image, other)
    other.rename(image)


CHANGES = {
    "edited": (edit, "image's mtime was "),
    "edited, mtime set back": (keep_mtime(edit), "image's ctime was "),
    "shortened, mtime set back": (keep_mtime(shorten), f"size was {22 * MIB}, is {21 * MIB}"),
    "replaced": (swap, "image's inode was "),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_image_is_another_bundle(
    image: Path, tmp_path: Path, user_keys: KeyPair, change: str
) -> None:
    options = ("--level", "1", "--user-key", user_keys.private)
    with mounted(image, tmp_path / "mnt", *options) as mount:
        before = Shown.of(mount)
        old = oracles.secrets(mount.manifest(), user_keys.private)
    make, reason = CHANGES[change]
    make(image)
    log = tmp_path / "log"
    with mounted(image, tmp_path / "mnt", *options, "--log-file", log) as mount:
        after = Shown.of(mount)
        new = oracles.secrets(mount.manifest(), user_keys.private)
        oracles.compare_streaming(mount.parts(), new, image)
    assert new.key != old.key
    assert new.iv != old.iv
    assert min(after.mtimes.values()) > max(before.mtimes.values())
    [line] = [line for line in log.read_text().splitlines() if " WARNING: " in line]
    assert f"{image}: a new bundle with a new key, since " in line
    assert reason in line
    for name in before.files.keys() & after.files.keys():
        assert before.files[name] != after.files[name]


def test_fresh_and_another_level(image: Path, tmp_path: Path) -> None:
    shown = []
    log = tmp_path / "log"
    for options in (["--level", "1"], ["--level", "1", "--fresh"], ["--level", "2"]):
        with mounted(image, tmp_path / "mnt", *options, "--log-file", log) as mount:
            shown.append(Shown.of(mount))
    for before, after in itertools.pairwise(shown):
        assert min(after.mtimes.values()) > max(before.mtimes.values())
        assert not set(before.files.values()) & set(after.files.values())
    assert log.read_text().count("since codec was isal-1-8, isal") == 1
    assert log.read_text().count(" WARNING: ") == 1


def test_a_region_is_added(
    image: Path, tmp_path: Path, user_keys: KeyPair, region_keys: KeyPair
) -> None:
    own = ("--level", "1", "--user-key", user_keys.private)
    more = ("--region", REGION, "--ec2-cert", f"{REGION}={region_keys.public}")
    with mounted(image, tmp_path / "mnt", *own) as mount:
        before = Shown.of(mount)
    with mounted(image, tmp_path / "mnt", *own, "--region", "us-east-1", *more) as mount:
        after = Shown.of(mount)
        assert after.files.keys() - before.files.keys() == {REGION_MANIFEST}
        assert before.files.items() <= after.files.items()
        assert before.mtimes.items() <= after.mtimes.items()
        opened = oracles.secrets(mount.manifest(REGION_MANIFEST), region_keys.private, "ec2")
        assert opened == oracles.secrets(mount.manifest(), user_keys.private)
    with mounted(image, tmp_path / "mnt", *own, *more) as mount:
        again = Shown.of(mount)
        assert again.files.keys() == after.files.keys() - {"image.manifest.xml"}
        assert again.files.items() <= after.files.items(), "the added manifest is kept as well"


# Several at a time


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return images.text_image(tmp_path / "disk", 3 * MIB)


def test_two_prefixes_at_a_time(small: Path, tmp_path: Path, user_keys: KeyPair) -> None:
    key = ("--user-key", user_keys.private)
    with (
        mounted(small, tmp_path / "a", "--prefix", "a", *key) as a,
        mounted(small, tmp_path / "b", "--prefix", "b", *key) as b,
    ):
        secrets = []
        for name, mount in (("a", a), ("b", b)):
            manifest = mount.manifest(f"{name}.manifest.xml")
            assert {path.name for path in mount.path.iterdir()} == {
                manifest.name,
                f"{name}.part.00",
            }
            secrets.append(oracles.secrets(manifest, user_keys.private))
            oracles.compare_streaming(mount.parts(), secrets[-1], small)
        assert secrets[0].key != secrets[1].key
    assert len(list((tmp_path / "state-home" / "bundlefs").glob("*.state"))) == 2


def test_after_a_kill_the_lock_is_free(small: Path, tmp_path: Path) -> None:
    with mounted(small, tmp_path / "mnt") as mount:
        before = Shown.of(mount)
        mount.kill()
    with mounted(small, tmp_path / "elsewhere") as mount:
        assert Shown.of(mount) == before
    contents = statefile.read(state_file(tmp_path))
    assert contents
    assert contents.image == str(small)
