"""A folder of images as one mount: a folder for each, and none of them disturbs another."""

import errno
import lzma
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.mount.commands import POWERLESS, attempt, eventually, names, refusal
from tests.support import images, oracles
from tests.support.keys import KeyPair
from tests.support.mounts import BUNDLEFS, Mount, bundlefs, mounted, read_status
from tests.support.processes import ended, open_files, peak_memory
from tests.support.tools import run, tool

MIB = images.MIB
PART = 10 * MIB
OPTIONS = ("--level", "1")
DAMAGED = b"\x1f\x8b\x08" + bytes(100)
BAD = "image {}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good images in two forms, a bad one, and what is none."""
    folder = tmp_path / "images"
    folder.mkdir()
    images.random_image(folder / "one.img", 21 * MIB, "one")
    (folder / "two.xz").write_bytes(lzma.compress(images.text(3 * MIB, "two"), preset=0))
    (folder / "bad").write_bytes(DAMAGED)
    (folder / "empty").touch()
    (folder / ".hidden").write_bytes(b"hidden")
    (folder / "folder").mkdir()
    return folder


@pytest.fixture
def mount(folder: Path, tmp_path: Path, user_keys: KeyPair) -> Iterator[Mount]:
    options = (*OPTIONS, "--user-key", user_keys.private)
    with mounted(folder, tmp_path / "mnt", *options) as made:
        yield made


def phases(mount: Mount) -> dict[str, str]:
    return {image["name"]: image["phase"] for image in mount.status()["images"]}


def refused(path: Path) -> int:
    """List a folder that cannot be; give the errno."""
    with pytest.raises(OSError, match=str(path)) as caught:
        os.listdir(path)  # noqa: PTH208  # the path's own way hides an error
    return int(caught.value.errno or 0)


def assert_undone(parts: Path, image: Path, keys: KeyPair) -> None:
    manifest = parts / "image.manifest.xml"
    found = sorted(parts.glob("image.part.*"))
    assert oracles.part_names(manifest) == [part.name for part in found]
    assert oracles.part_digests(manifest) == oracles.sha1sum(found)
    oracles.compare_streaming(found, oracles.secrets(manifest, keys.private), image)


# What is shown


def test_each_image_has_a_folder_and_none_is_opened_for_that(mount: Mount) -> None:
    assert names(mount.path) == ["bad", "one.img", "two.xz"]
    assert all(path.is_dir() for path in mount.path.iterdir())
    assert phases(mount) == dict.fromkeys(("bad", "one.img", "two.xz"), "unopened")
    assert read_status(mount.path / "one.img")["phase"] == "unopened"
    assert not list(Path(os.environ["XDG_STATE_HOME"]).rglob("*.state"))
    for name in (
        ".hidden",
        "empty",
        "folder",
        "missing",
        "one.img/missing",
        "one.img/image.part.003",
    ):
        assert not (mount.path / name).exists()


def test_a_copy_of_all_is_a_bundle_of_each(
    mount: Mount, folder: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    copied = subprocess.run(
        ["cp", "-r", mount.path, tmp_path / "copy"], capture_output=True, text=True, check=False
    )
    # The bad one is told of, and hinders no other.
    assert copied.returncode == 1
    assert copied.stderr.splitlines() == [
        f"cp: cannot access '{mount.path}/bad': Input/output error"
    ]
    raw = tmp_path / "two.raw"
    raw.write_bytes(images.text(3 * MIB, "two"))
    assert_undone(tmp_path / "copy/one.img", folder / "one.img", user_keys)
    assert_undone(tmp_path / "copy/two.xz", raw, user_keys)
    assert phases(mount) == {"bad": "failed", "one.img": "complete", "two.xz": "complete"}


def test_what_is_found_in_one_is_not_found_in_another(mount: Mount) -> None:
    for path in (mount.path / "one.img", mount.path / "two.xz"):
        parts = sorted(path.glob("*.part.*"))
        sums = [os.getxattr(part, "user.bundlefs.sha1").decode() for part in parts]
        assert sums == oracles.sha1sum(parts)
    inodes = [path.stat().st_ino for path in (*mount.path.iterdir(), *mount.path.glob("[ot]*/*"))]
    assert len(set(inodes)) == len(inodes) == 3 + (1 + 3) + (1 + 1)


def test_the_first_part_by_name_opens_that_image_alone(mount: Mount) -> None:
    assert len((mount.path / "one.img/image.part.00").read_bytes()) == PART
    # Blocks that were under way are sealed before it rests.
    assert eventually(lambda: phases(mount) == {"one.img": "idle"})
    assert read_status(mount.path / "one.img")["parts_made"] == 1


# What is wrong with one


def test_a_bad_image_is_told_of_in_its_own_folder(mount: Mount, folder: Path) -> None:
    bad = mount.path / "bad"
    assert refused(bad) == errno.EIO
    status = read_status(bad)
    assert status["phase"] == "failed"
    assert status["error"].startswith(BAD.format(folder / "bad"))
    assert attempt("status", bad).code == 1
    assert attempt("status", mount.path).code == 0
    assert mount.status()["error"] is None
    assert names(mount.path) == ["bad", "one.img", "two.xz"]
    assert len(names(mount.path / "one.img")) == 4
    assert read_status(mount.path / "one.img")["error"] is None


def test_a_bad_image_that_is_mended_is_there_without_a_new_mount(
    mount: Mount, folder: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    bad = mount.path / "bad"
    assert refused(bad) == refused(bad) == errno.EIO
    images.random_image(folder / "bad", MIB)
    assert eventually(lambda: bad.stat().st_ino != 0 and phases(mount)["bad"] == "unopened")
    shutil.copytree(bad, tmp_path / "copy")
    assert_undone(tmp_path / "copy", folder / "bad", user_keys)


def test_an_image_that_changes_fails_alone_and_stays_failed(
    mount: Mount, folder: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    one, two = mount.path / "one.img", mount.path / "two.xz"
    assert (one / "image.part.00").stat().st_size == PART
    with (folder / "one.img").open("r+b") as image:
        image.write(b"changed")
    for _ in range(2):
        # The kernel looks a stale name up again: what it finds must not be another bundle.
        with pytest.raises(OSError, match="Stale file handle"):
            (one / "image.part.01").read_bytes()
    assert read_status(one)["phase"] == "failed"
    assert len(names(two)) == 2
    # Under another name it is another bundle, which nobody takes for the first one.
    (folder / "one.img").rename(folder / "anew")
    assert names(mount.path) == ["anew", "bad", "two.xz"]
    shutil.copytree(mount.path / "anew", tmp_path / "copy")
    assert_undone(tmp_path / "copy", folder / "anew", user_keys)


def test_a_state_that_another_mount_has(
    mount: Mount, folder: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    options = (*OPTIONS, "--user-key", user_keys.private)
    with mounted(folder / "one.img", tmp_path / "other", *options) as other:
        assert refused(mount.path / "one.img") == errno.EIO
        assert str(other.path) in read_status(mount.path / "one.img")["error"]
        assert len(names(mount.path / "two.xz")) == 2
    assert eventually(lambda: attempt("status", mount.path / "one.img").code == 0)
    assert len(names(mount.path / "one.img")) == 4


def test_what_comes_and_goes(mount: Mount, folder: Path) -> None:
    assert names(mount.path / "two.xz")
    (folder / "two.xz").unlink()
    (folder / "bad").rename(folder / "worse")
    images.random_image(folder / "three", MIB)
    assert names(mount.path) == ["one.img", "three", "worse"]
    assert eventually(lambda: not (mount.path / "two.xz").exists())
    assert names(mount.path / "three") == ["image.manifest.xml", "image.part.00"]


def test_looking_at_what_cannot_be_opened_adds_nothing_up(
    mount: Mount, folder: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    options = (*OPTIONS, "--user-key", user_keys.private)
    with mounted(folder / "one.img", tmp_path / "other", *options):
        one = mount.path / "one.img"
        inode = one.stat().st_ino
        for _ in range(200):
            assert refused(one) == errno.EIO
        # By a look of some time later it is tried again, and says nothing new.
        last = time.monotonic() + 3
        while time.monotonic() < last:
            assert refused(one) == errno.EIO
        assert one.stat().st_ino == inode
        assert names(mount.path / "two.xz")
        log = (tmp_path / "mnt.log").read_text()
        assert len([line for line in log.splitlines() if " ERROR" in line]) == 1
        assert (mount.path / "two.xz").stat().st_ino < inode + (4 << 40)


def test_an_empty_file_is_shown_once_it_has_content(
    mount: Mount, folder: Path, tmp_path: Path
) -> None:
    (folder / "bad").unlink()
    assert names(mount.path) == ["one.img", "two.xz"]
    run([tool("rclone"), "copy", mount.path, tmp_path / "copy"])
    assert names(tmp_path / "copy") == ["one.img", "two.xz"]
    images.random_image(folder / "empty", MIB)
    assert names(mount.path) == ["empty", "one.img", "two.xz"]
    assert len(names(mount.path / "empty")) == 2
    # Emptied, it does not look as if it were gone: who mirrors would delete what was uploaded.
    os.truncate(folder / "empty", 0)
    assert names(mount.path) == ["empty", "one.img", "two.xz"]
    with pytest.raises(OSError, match="Stale file handle"):
        (mount.path / "empty/image.part.00").read_bytes()


def test_what_cannot_be_looked_at_does_not_look_as_if_it_were_gone(
    folder: Path, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    with (
        mounted(folder / "one.img", away, *OPTIONS, "--state", "none") as other,
        mounted(folder, tmp_path / "mnt", *OPTIONS) as mount,
    ):
        assert names(mount.path) == ["bad", "one.img", "two.xz"]
        os.kill(other.pid, signal.SIGKILL)
        assert ended(other.pid, 20)
        # A file of a dead mount: nobody can tell whether it is one.
        (folder / "link").symlink_to(away / "image.part.00")
        assert names(mount.path) == ["bad", "link", "one.img", "two.xz"]
        assert refused(mount.path / "link")
        bundlefs("umount", "--lazy", away)
        # Now it leads nowhere.
        assert eventually(lambda: names(mount.path) == ["bad", "one.img", "two.xz"])


# Links


def test_a_link_and_its_image_are_one_bundle(
    mount: Mount, folder: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    (folder / "bad").unlink()
    (folder / "latest").symlink_to("one.img")
    run([tool("rclone"), "copy", mount.path, tmp_path / "copy"])
    one, latest = tmp_path / "copy/one.img", tmp_path / "copy/latest"
    assert names(one) == names(latest)
    assert all((one / name).read_bytes() == (latest / name).read_bytes() for name in names(one))
    assert_undone(latest, folder / "one.img", user_keys)
    status = mount.status()
    assert status["image_bytes_read"] == 24 * MIB
    assert phases(mount) == dict.fromkeys(("latest", "one.img", "two.xz"), "complete")
    # It leads to another image: no copy tool may mix the two.
    (folder / "latest").unlink()
    (folder / "latest").symlink_to("two.xz")
    assert eventually(lambda: is_stale(mount.path / "latest/image.part.00"))
    assert (mount.path / "one.img/image.part.00").read_bytes() == (
        one / "image.part.00"
    ).read_bytes()
    assert phases(mount) == {"latest": "failed", "one.img": "complete", "two.xz": "complete"}


def is_stale(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError as error:
        return error.errno == errno.ESTALE
    return False


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
    change: Callable[[Path], None], mount: Mount, folder: Path
) -> None:
    one, two = mount.path / "one.img", mount.path / "two.xz"
    with (one / "image.part.00").open("rb", buffering=0) as reader:
        start = reader.read(MIB)
        assert names(one)
        assert names(two)
        change(folder / "one.img")
        # Also for who does not look, and not before the last reader ends.
        assert len(open_images(mount, folder)) == 2
        assert len(start) == MIB
    assert eventually(lambda: len(open_images(mount, folder)) == 1, 30)
    assert open_images(mount, folder) == [str(folder / "two.xz")]
    assert phases(mount)["one.img"] == "failed"
    with pytest.raises(OSError, match=r"Stale file handle|No such file"):
        (one / "image.part.00").read_bytes()


FEW_FILES = 90
LOTS = 120


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
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(LOTS):
        images.text_image(folder / f"{number:03}", 10_000, str(number))
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
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(LOTS):
        images.text_image(folder / f"{number:03}", 10_000, str(number))
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


# What is watched


def test_watch_ends_when_all_that_were_asked_for_are_done(mount: Mount) -> None:
    watch = ("status", "--watch", mount.path)
    with subprocess.Popen([*BUNDLEFS, *watch], stdout=subprocess.PIPE, text=True) as watching:
        assert len(names(mount.path / "two.xz")) == 2
        shown, _ = watching.communicate(timeout=60)
        assert "\n  two.xz: complete" in shown
        assert watching.returncode == 0
    assert refused(mount.path / "bad") == errno.EIO
    ending = attempt(*watch)
    assert ending.code == 1
    assert "\n  bad: failed: " in ending.out


def test_status_and_metrics_of_all(mount: Mount) -> None:
    assert refused(mount.path / "bad") == errno.EIO
    assert len(names(mount.path / "one.img")) == 4
    status = mount.status()
    own = read_status(mount.path / "one.img")
    for name in ("image_size", "sealed_bytes", "parts_made", "tar_bytes_done"):
        assert status[name] == own[name] > 0
    shown = bundlefs("status", mount.path)
    assert "\n  one.img: complete\n" in shown
    assert f"\n  bad: failed: {BAD.format(mount.image / 'bad')}" in shown
    found = {}
    for family in text_string_to_metric_families((mount.path / ".bundlefs/metrics").read_text()):
        for sample in family.samples:
            key = (sample.name, Path(sample.labels.get("image", "")).name)
            if sample.value and key not in found:
                found[key] = sample.labels.get("phase", sample.value)
    assert found["bundlefs_phase", "bad"] == "failed"
    assert found["bundlefs_phase", "one.img"] == "complete"
    assert found["bundlefs_parts_made", "one.img"] == 3
    shown_by_df = os.statvfs(mount.path)
    assert shown_by_df.f_blocks * shown_by_df.f_frsize >= own["sealed_bytes"]


# State


def test_each_image_has_its_own_state(folder: Path, tmp_path: Path) -> None:
    sums, read = [], []
    for _ in range(2):
        with mounted(folder, tmp_path / "mnt", *OPTIONS) as mount:
            copies = sorted((mount.path / "one.img").glob("*.part.*"))
            copies += sorted((mount.path / "two.xz").glob("*.part.*"))
            sums.append([os.getxattr(part, "user.bundlefs.sha1") for part in copies])
            read.append([image["image_bytes_read"] for image in mount.status()["images"]])
    assert sums[0] == sums[1]
    assert read == [[21 * MIB, 3 * MIB], [0, 0]]
    listed = bundlefs("state", "list")
    assert str(folder / "one.img") in listed
    assert str(folder / "two.xz") in listed


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
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(MANY):
        images.text_image(folder / f"{number:02}", 100_000, str(number))
    with mounted(folder, tmp_path / "mnt", *OPTIONS) as mount:
        assert len(names(mount.path / "00")) == 2
        before = threads(mount)
        for image in sorted(mount.path.iterdir()):
            assert len(names(image)) == 2
        assert threads(mount) - before < 8


# While one is opened


def test_an_image_that_takes_long_to_open_holds_up_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    images.random_image(folder / "fast", MIB)
    stream = lzma.compress(bytes(64 * MIB), preset=0)
    with (folder / "slow").open("wb") as file:
        file.writelines([stream] * 1000)
    with (
        mounted(folder, tmp_path / "mnt", *OPTIONS, "--state", "none") as mount,
        subprocess.Popen(["ls", mount.path / "slow"], stderr=subprocess.PIPE, text=True) as listing,
    ):
        assert eventually(lambda: phases(mount).get("slow") == "unpacking")
        assert read_status(mount.path / "slow")["phase"] == "unpacking"
        assert names(mount.path) == ["fast", "slow"]
        assert len(names(mount.path / "fast")) == 2
        os.kill(mount.pid, signal.SIGTERM)
        assert ended(mount.pid, 20)
        assert "Transport endpoint is not connected" in listing.communicate(timeout=20)[1]


# What is refused


def test_options_for_one_image_alone(folder: Path, mountpoint: Path, tmp_path: Path) -> None:
    line = refusal("mount", "--state", tmp_path / "state", folder, mountpoint, code=2)
    assert f"--state {tmp_path / 'state'}: {folder} is a folder of images" in line
    line = refusal("mount", "--eager", folder, mountpoint, code=2)
    assert f"--eager: {folder} is a folder of images" in line


def test_a_folder_that_may_not_be_read(folder: Path, mountpoint: Path) -> None:
    folder.chmod(0)
    line = refusal("mount", folder, mountpoint, code=1, program=(*POWERLESS, *BUNDLEFS))
    assert line == f"bundlefs: cannot read the folder of images {folder}: Permission denied"


def test_an_empty_folder_is_an_empty_mount(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with mounted(tmp_path / "images", tmp_path / "mnt") as mount:
        assert names(mount.path) == []
        images.random_image(tmp_path / "images/late", MIB)
        assert names(mount.path) == ["late"]
        assert len(names(mount.path / "late")) == 2
