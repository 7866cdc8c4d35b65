"""A folder of images as one mount: a folder for each, and what is told of them all."""

import errno
import os
import subprocess
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.mount.commands import POWERLESS, attempt, eventually, names, refusal
from tests.mount.shelves import BAD, OPTIONS, assert_undone, phases, refused
from tests.support import images, oracles
from tests.support.keys import KeyPair
from tests.support.mounts import BUNDLEFS, Mount, bundlefs, mounted, read_status
from tests.support.tools import run, tool

MIB = images.MIB
PART = 10 * MIB


# What is shown


def test_each_image_has_a_folder_and_none_is_opened_for_that(shelf: Mount) -> None:
    assert names(shelf.path) == ["bad", "one.img", "two.xz"]
    assert all(path.is_dir() for path in shelf.path.iterdir())
    assert phases(shelf) == dict.fromkeys(("bad", "one.img", "two.xz"), "unopened")
    assert read_status(shelf.path / "one.img")["phase"] == "unopened"
    assert not list(Path(os.environ["XDG_STATE_HOME"]).rglob("*.state"))
    for name in (
        ".hidden",
        "empty",
        "folder",
        "missing",
        "one.img/missing",
        "one.img/image.part.003",
    ):
        assert not (shelf.path / name).exists()


def test_a_copy_of_all_is_a_bundle_of_each(
    shelf: Mount, shelf_folder: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    copied = subprocess.run(
        ["cp", "-r", shelf.path, tmp_path / "copy"], capture_output=True, text=True, check=False
    )
    # The bad one is told of, and hinders no other.
    assert copied.returncode == 1
    assert copied.stderr.splitlines() == [
        f"cp: cannot access '{shelf.path}/bad': Input/output error"
    ]
    raw = tmp_path / "two.raw"
    raw.write_bytes(images.text(3 * MIB, "two"))
    assert_undone(tmp_path / "copy/one.img", shelf_folder / "one.img", user_keys)
    assert_undone(tmp_path / "copy/two.xz", raw, user_keys)
    assert phases(shelf) == {"bad": "failed", "one.img": "complete", "two.xz": "complete"}


def test_what_is_found_in_one_is_not_found_in_another(shelf: Mount) -> None:
    for path in (shelf.path / "one.img", shelf.path / "two.xz"):
        parts = sorted(path.glob("*.part.*"))
        sums = [os.getxattr(part, "user.bundlefs.sha1").decode() for part in parts]
        assert sums == oracles.sha1sum(parts)
    inodes = [path.stat().st_ino for path in (*shelf.path.iterdir(), *shelf.path.glob("[ot]*/*"))]
    assert len(set(inodes)) == len(inodes) == 3 + (1 + 3) + (1 + 1)


def test_the_first_part_by_name_opens_that_image_alone(shelf: Mount) -> None:
    assert len((shelf.path / "one.img/image.part.00").read_bytes()) == PART
    # Blocks that were under way are sealed before it rests.
    assert eventually(lambda: phases(shelf) == {"one.img": "idle"})
    assert read_status(shelf.path / "one.img")["parts_made"] == 1


# Links


def test_a_link_and_its_image_are_one_bundle(
    shelf: Mount, shelf_folder: Path, tmp_path: Path, user_keys: KeyPair
) -> None:
    (shelf_folder / "bad").unlink()
    (shelf_folder / "latest").symlink_to("one.img")
    run([tool("rclone"), "copy", shelf.path, tmp_path / "copy"])
    one, latest = tmp_path / "copy/one.img", tmp_path / "copy/latest"
    assert names(one) == names(latest)
    assert all((one / name).read_bytes() == (latest / name).read_bytes() for name in names(one))
    assert_undone(latest, shelf_folder / "one.img", user_keys)
    status = shelf.status()
    assert status["image_bytes_read"] == 24 * MIB
    assert phases(shelf) == dict.fromkeys(("latest", "one.img", "two.xz"), "complete")
    # It leads to another image: no copy tool may mix the two.
    (shelf_folder / "latest").unlink()
    (shelf_folder / "latest").symlink_to("two.xz")
    assert eventually(lambda: is_stale(shelf.path / "latest/image.part.00"))
    assert (shelf.path / "one.img/image.part.00").read_bytes() == (
        one / "image.part.00"
    ).read_bytes()
    assert phases(shelf) == {"latest": "failed", "one.img": "complete", "two.xz": "complete"}


def is_stale(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError as error:
        return error.errno == errno.ESTALE
    return False


# What is watched


def test_watch_ends_when_all_that_were_asked_for_are_done(shelf: Mount) -> None:
    watch = ("status", "--watch", shelf.path)
    with subprocess.Popen([*BUNDLEFS, *watch], stdout=subprocess.PIPE, text=True) as watching:
        assert len(names(shelf.path / "two.xz")) == 2
        shown, _ = watching.communicate(timeout=60)
        assert "\n  two.xz: complete" in shown
        assert watching.returncode == 0
    assert refused(shelf.path / "bad") == errno.EIO
    ending = attempt(*watch)
    assert ending.code == 1
    assert "\n  bad: failed: " in ending.out


def test_status_and_metrics_of_all(shelf: Mount) -> None:
    assert refused(shelf.path / "bad") == errno.EIO
    assert len(names(shelf.path / "one.img")) == 4
    status = shelf.status()
    own = read_status(shelf.path / "one.img")
    for name in ("image_size", "sealed_bytes", "parts_made", "tar_bytes_done"):
        assert status[name] == own[name] > 0
    shown = bundlefs("status", shelf.path)
    assert "\n  one.img: complete\n" in shown
    assert f"\n  bad: failed: {BAD.format(shelf.image / 'bad')}" in shown
    found = {}
    for family in text_string_to_metric_families((shelf.path / ".bundlefs/metrics").read_text()):
        for sample in family.samples:
            key = (sample.name, Path(sample.labels.get("image", "")).name)
            if sample.value and key not in found:
                found[key] = sample.labels.get("phase", sample.value)
    assert found["bundlefs_phase", "bad"] == "failed"
    assert found["bundlefs_phase", "one.img"] == "complete"
    assert found["bundlefs_parts_made", "one.img"] == 3
    shown_by_df = os.statvfs(shelf.path)
    assert shown_by_df.f_blocks * shown_by_df.f_frsize >= own["sealed_bytes"]


# State


def test_each_image_has_its_own_state(shelf_folder: Path, tmp_path: Path) -> None:
    sums, read = [], []
    for _ in range(2):
        with mounted(shelf_folder, tmp_path / "mnt", *OPTIONS) as mount:
            copies = sorted((mount.path / "one.img").glob("*.part.*"))
            copies += sorted((mount.path / "two.xz").glob("*.part.*"))
            sums.append([os.getxattr(part, "user.bundlefs.sha1") for part in copies])
            read.append([image["image_bytes_read"] for image in mount.status()["images"]])
    assert sums[0] == sums[1]
    assert read == [[21 * MIB, 3 * MIB], [0, 0]]
    listed = bundlefs("state", "list")
    assert str(shelf_folder / "one.img") in listed
    assert str(shelf_folder / "two.xz") in listed


# What is refused


def test_options_for_one_image_alone(shelf_folder: Path, mountpoint: Path, tmp_path: Path) -> None:
    line = refusal("mount", "--state", tmp_path / "state", shelf_folder, mountpoint, code=2)
    assert f"--state {tmp_path / 'state'}: {shelf_folder} is a folder of images" in line
    line = refusal("mount", "--eager", shelf_folder, mountpoint, code=2)
    assert f"--eager: {shelf_folder} is a folder of images" in line


def test_a_folder_that_may_not_be_read(shelf_folder: Path, mountpoint: Path) -> None:
    shelf_folder.chmod(0)
    line = refusal("mount", shelf_folder, mountpoint, code=1, program=(*POWERLESS, *BUNDLEFS))
    assert line == f"bundlefs: cannot read the folder of images {shelf_folder}: Permission denied"


def test_an_empty_folder_is_an_empty_mount(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with mounted(tmp_path / "images", tmp_path / "mnt") as mount:
        assert names(mount.path) == []
        images.random_image(tmp_path / "images/late", MIB)
        assert names(mount.path) == ["late"]
        assert len(names(mount.path / "late")) == 2
