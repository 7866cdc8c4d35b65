"""Images that are not raw under real mounts: stock tools find the raw image in the bundle."""

import errno
import filecmp
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.commands import attempt, eventually, foreground, refusal
from tests.support import images, oracles, sources
from tests.support.keys import KeyPair
from tests.support.mounts import BUNDLEFS, Mount, detach, mounted, settings
from tests.support.processes import children, disk_server, is_alive

OPTIONS = ("--level", "1")
FORMS = [
    "gzip",
    "gzip-members",
    "pigz",
    "bzip2",
    "xz-blocks",
    "zstd",
    "qcow2",
    "vmdk-stream",
    "vdi",
]
CHANGED = ["gzip", "xz-blocks", "qcow2"]


def assert_holds(mount: Mount, raw: Path, keys: KeyPair) -> None:
    secrets = oracles.secrets(mount.manifest(), keys.private)
    oracles.compare_streaming(mount.parts(), secrets, raw)
    assert oracles.element(mount.manifest(), "size") == str(sources.SIZE)


@pytest.mark.parametrize("form", FORMS)
def test_stock_tools_find_the_raw_image(
    form: str, make: Callable[[str], Path], raw: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    """And a remount gives the same bytes again."""
    image = make(form)
    options = (*OPTIONS, "--user-key", user_keys.private)
    first, second = tmp_path / "first", tmp_path / "second"
    with mounted(image, tmp_path / "mnt", *options) as mount:
        assert_holds(mount, raw, user_keys)
        assert mount.status()["image_size"] == sources.SIZE
        shutil.copytree(mount.path, first)
        left = children(mount.pid)
    assert not any(map(is_alive, left))
    with mounted(image, tmp_path / "mnt", *options) as mount:
        shutil.copytree(mount.path, second)
        # All is known by the state, so this is made again, block by block.
        assert_holds(mount, raw, user_keys)
    names = sorted(path.name for path in first.glob("image.*"))
    assert len(names) >= 2
    assert filecmp.cmpfiles(first, second, names, shallow=False)[0] == names


@pytest.mark.parametrize("form", CHANGED)
def test_changed_under_the_mount(form: str, make: Callable[[str], Path], tmp_path: Path) -> None:
    image = make(form)
    with mounted(image, tmp_path / "mnt", *OPTIONS, "--log-file", tmp_path / "log") as mount:
        sources.flip(image, image.stat().st_size // 2)
        with pytest.raises(OSError, match="Stale file handle") as caught:
            (mount.path / "image.part.00").read_bytes()
        assert caught.value.errno == errno.ESTALE
        assert mount.status()["phase"] == "failed"
        assert f"image {image} was changed while in use" in mount.status()["error"]


@pytest.mark.parametrize("form", ["gzip", "bzip2", "xz", "zstd", "qcow2", "vmdk", "vdi"])
def test_a_damaged_file_is_one_line(
    form: str, make: Callable[[str], Path], mountpoint: Path
) -> None:
    image = make(form)
    os.truncate(image, image.stat().st_size * 2 // 3)
    line = refusal("mount", image, mountpoint, code=1)
    assert str(image) in line
    assert "cut short" in line


def test_raw_if_told(make: Callable[[str], Path], user_keys: KeyPair, tmp_path: Path) -> None:
    image = make("xz")
    options = (*OPTIONS, "--user-key", user_keys.private, "--source", "raw")
    with mounted(image, tmp_path / "mnt", *options) as mount:
        secrets = oracles.secrets(mount.manifest(), user_keys.private)
        oracles.compare_streaming(mount.parts(), secrets, image)


def test_without_a_state_nothing_of_the_image_is_kept(
    make: Callable[[str], Path], tmp_path: Path
) -> None:
    image, home = make("gzip"), tmp_path / "state-home"
    for options in (("--state", "none"), ("--state", tmp_path / "kept" / "state"), ()):
        with mounted(image, tmp_path / "mnt", *OPTIONS, *options) as mount:
            assert mount.parts()
        if options and options[1] == "none":
            assert not home.exists()
    beside = sorted(path.name for path in (tmp_path / "kept").glob("state*"))
    assert beside == ["state", "state.lock", "state.points"]
    assert len(list(home.rglob("*.points"))) == 1


@contextmanager
def killed(image: Path, mountpoint: Path) -> Iterator[int]:
    """Mount, kill the mount's process, and give its child's id."""
    with foreground(*OPTIONS, image, mountpoint) as process:
        server = disk_server(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        detach(mountpoint)
        yield server


def test_the_server_ends_with_a_mount_that_is_killed(
    make: Callable[[str], Path], mountpoint: Path
) -> None:
    with killed(make("qcow2"), mountpoint) as server:
        assert eventually(lambda: not is_alive(server))


def test_the_server_dies_under_a_mount(make: Callable[[str], Path], tmp_path: Path) -> None:
    """Its end is the disk's end: an error for good, and the mount ends as any other."""
    image = make("qcow2")
    with mounted(image, tmp_path / "mnt", *OPTIONS, "--log-file", tmp_path / "log") as mount:
        os.kill(disk_server(mount.pid), signal.SIGKILL)
        with pytest.raises(OSError, match=r"Input/output error|Broken pipe"):
            (mount.path / "image.part.00").read_bytes()
        assert mount.status()["phase"] == "failed"


@pytest.mark.parametrize("form", ["qcow2", "vmdk", "vdi"])
def test_an_image_of_a_folder_outlasts_its_opening(
    form: str, make: Callable[[str], Path], raw: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    """A thread opens it and ends then; what it started goes on."""
    folder = tmp_path / "images"
    folder.mkdir()
    make(form).rename(folder / "one")
    options = (*OPTIONS, "--user-key", user_keys.private, "--state", "none")
    with mounted(folder, tmp_path / "mnt", *options) as many:
        shown = Mount(folder / "one", many.path / "one", many.pid)
        assert not (shown.path / "nothing").exists()
        assert shown.status()["phase"] == "idle"
        assert_holds(shown, raw, user_keys)


def test_bundle_takes_them_too(
    make: Callable[[str], Path], raw: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    image, folder = make("zstd"), tmp_path / "bundle"
    done = attempt("bundle", "--user-key", user_keys.private, *OPTIONS, image, folder)
    assert done.code == 0, done
    manifest = folder / "image.manifest.xml"
    secrets = oracles.secrets(manifest, user_keys.private)
    oracles.compare_streaming(sorted(folder.glob("*.part.*")), secrets, raw)


def test_nothing_is_unpacked_for_a_mount_that_cannot_be(
    make: Callable[[str], Path], tmp_path: Path
) -> None:
    image = make("bzip2")
    start = time.monotonic()
    line = refusal("mount", image, tmp_path / "missing", code=1)
    assert "missing" in line
    assert time.monotonic() - start < 60


# What is no raw disk


@pytest.mark.parametrize("kind", ["qed", "qcow"])
def test_another_disk_is_refused_by_name_and_taken_if_told(
    kind: str, raw: Path, user_keys: KeyPair, tmp_path: Path, mountpoint: Path
) -> None:
    image = tmp_path / "image"
    sources.qemu(kind)(raw, image)
    line = refusal("mount", image, mountpoint, code=1)
    assert f"qemu-img convert -f {kind} -O raw {image} disk.raw (--source raw takes" in line
    options = (*OPTIONS, "--user-key", user_keys.private, "--source", "raw")
    with mounted(image, tmp_path / "mnt", *options) as mount:
        secrets = oracles.secrets(mount.manifest(), user_keys.private)
        oracles.compare_streaming(mount.parts(), secrets, image)


def test_the_folder_of_a_bundle_is_no_folder_of_images(raw: Path, tmp_path: Path) -> None:
    folder, mountpoint = tmp_path / "bundle", tmp_path / "mnt"
    mountpoint.mkdir()
    assert attempt("bundle", *OPTIONS, "--state", "none", raw, folder).code == 0
    line = refusal("mount", folder, mountpoint, code=1)
    assert f"bundlefs open {folder}/image.manifest.xml MOUNTPOINT" in line
    line = refusal("mount", folder / "image.part.00", mountpoint, code=1)
    assert "is a part of a bundle" in line
    line = refusal("mount", folder / "image.manifest.xml", mountpoint, code=1)
    assert "is a bundle's manifest" in line
    with mounted(folder, mountpoint, "--source", "raw") as mount:
        assert sorted(os.listdir(mount.path)) == ["image.manifest.xml", "image.part.00"]  # noqa: PTH208  # names


def test_in_a_folder_the_others_go_on(raw: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copyfile(raw, folder / "good")
    sources.qemu("qed")(raw, folder / "bad")
    with mounted(folder, tmp_path / "mnt", *OPTIONS, "--log-file", tmp_path / "log") as mount:
        with pytest.raises(OSError, match="Input/output error"):
            list((mount.path / "bad").iterdir())
        assert len(list((mount.path / "good").glob("image.part.*"))) == 1
        [bad] = [one for one in mount.status()["images"] if one["name"] == "bad"]
        assert "is a QED image, not a raw image" in bad["error"]


@pytest.mark.parametrize("sized", [True, False])
def test_through_a_pipe(*, sized: bool, raw: Path, tmp_path: Path) -> None:
    """Refused before anything in the folder is touched."""
    image, folder = tmp_path / "image", tmp_path / "bundle"
    sources.qemu("qed")(raw, image)
    assert attempt("bundle", *OPTIONS, "--state", "none", raw, folder).code == 0
    before = {path: path.read_bytes() for path in folder.iterdir()}
    size = ["--size", str(image.stat().st_size)] if sized else []
    words = ("bundle", *OPTIONS, *size, "-", folder)
    with image.open("rb") as stream:
        done = subprocess.run(
            [*BUNDLEFS, *map(str, words)],
            stdin=stream,
            env=settings(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "is a QED image, not a raw image" in done.stderr.splitlines()[-1]
    assert "--source raw" in done.stderr
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_what_is_left_out_behind_a_gzip_file_is_told(
    make: Callable[[str], Path], raw: Path, user_keys: KeyPair, tmp_path: Path, mountpoint: Path
) -> None:
    image, folder = make("gzip"), tmp_path / "bundle"
    with image.open("ab") as stream:
        stream.write(b"signed by nobody")
    done = attempt("mount", *OPTIONS, "--user-key", user_keys.private, image, mountpoint)
    try:
        assert done.code == 0, done
        assert "16 bytes behind the gzip data are none of it, and are left out" in done.err
        shutil.copytree(mountpoint, folder, ignore=lambda *_: [".bundlefs"])
    finally:
        detach(mountpoint)
    secrets = oracles.secrets(folder / "image.manifest.xml", user_keys.private)
    oracles.compare_streaming(sorted(folder.glob("*.part.*")), secrets, raw)


@pytest.mark.parametrize("kind", ["ramdisk", "kernel"])
def test_a_kernel_or_ramdisk_is_taken_as_it_is(
    kind: str, make: Callable[[str], Path], user_keys: KeyPair, tmp_path: Path
) -> None:
    """It is no disk: what is compressed is to be loaded so."""
    image = make("gzip")
    options = (*OPTIONS, "--user-key", user_keys.private, "--type", kind)
    with mounted(image, tmp_path / "mnt", *options) as mount:
        secrets = oracles.secrets(mount.manifest(), user_keys.private)
        oracles.compare_streaming(mount.parts(), secrets, image)


# What is doubtful


def test_doubts_are_told_and_the_mount_goes_on(tmp_path: Path, mountpoint: Path) -> None:
    image = images.random_image(tmp_path / "image", 1_000_000)
    with image.open("ab"):
        done = attempt("mount", *OPTIONS, image, mountpoint)
    try:
        assert done.code == 0
        size, written = done.err.splitlines()
        assert f"warning: {image} has 1000000 bytes, which is no multiple of 512" in size
        assert f"warning: {image} is open for writing by process {os.getpid()} (" in written
        assert (mountpoint / "image.part.00").stat().st_size
    finally:
        detach(mountpoint)


def test_doubts_about_the_images_of_a_folder_are_in_the_log(tmp_path: Path) -> None:
    folder, log = tmp_path / "images", tmp_path / "log"
    folder.mkdir()
    image = images.random_image(folder / "odd", 1_000_000)
    with mounted(folder, tmp_path / "mnt", *OPTIONS, "--log-file", log) as mount:
        assert list((mount.path / "odd").glob("image.part.*"))
    assert f"WARNING: {image} has 1000000 bytes, which is no multiple of 512" in log.read_text()


def test_a_kernel_has_any_size(tmp_path: Path, mountpoint: Path) -> None:
    image = images.random_image(tmp_path / "image", 1_000_001)
    done = attempt("mount", *OPTIONS, "--type", "kernel", image, mountpoint)
    detach(mountpoint)
    assert (done.code, done.err) == (0, "")
