"""The files of a mount as a program sees them: attributes, names, and no way to change any."""

import errno
import json
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.commands import attempt, names
from tests.mount.shown import NAMES, fails_with
from tests.support import images, oracles
from tests.support.mounts import Mount, bundlefs, mounted
from tests.support.tools import run

MIB = images.MIB
DIGEST = "user.bundlefs.sha1"
CONTROL = ".bundlefs"


# stat


def test_the_listing(shared_mount: Mount, shared_copy: Path) -> None:
    assert names(shared_mount.path) == NAMES
    assert names(shared_copy) == NAMES


def test_one_time_for_all(shared_image: Path, tmp_path: Path) -> None:
    before = time.time_ns()
    with mounted(shared_image, tmp_path / "mnt", "--state", "none") as mount:
        after = time.time_ns()
        paths = [mount.path, *mount.path.iterdir(), mount.path / CONTROL]
        statuses = [path.stat() for path in paths]
    [made] = {status.st_mtime_ns for status in statuses}
    assert {status.st_ctime_ns for status in statuses} == {made}
    assert before <= made <= after


def test_the_time_stays(shared_mount: Mount) -> None:
    before = {path.stat().st_mtime_ns for path in shared_mount.path.iterdir()}
    time.sleep(0.02)
    assert {path.stat().st_mtime_ns for path in shared_mount.path.iterdir()} == before


@pytest.mark.parametrize(
    ("umask", "file", "folder"),
    [(0o022, 0o444, 0o555), (0o027, 0o440, 0o550), (0o077, 0o400, 0o500), (0, 0o444, 0o555)],
)
def test_modes_less_the_umask(
    umask: int, file: int, folder: int, mountpoint: Path, tmp_path: Path
) -> None:
    image = images.text_image(tmp_path / "disk", 4096)
    assert attempt("mount", image, mountpoint, umask=umask).code == 0
    try:
        names = ["image.part.00", "image.manifest.xml", f"{CONTROL}/status.json"]
        files = {(mountpoint / name).stat().st_mode for name in names}
        folders = {path.stat().st_mode for path in (mountpoint, mountpoint / CONTROL)}
    finally:
        bundlefs("umount", mountpoint)
    assert files == {stat.S_IFREG | file}
    assert folders == {stat.S_IFDIR | folder}


def test_owner_and_links(shared_mount: Mount) -> None:
    for path in (shared_mount.path, *shared_mount.path.iterdir(), shared_mount.path / CONTROL):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
        assert status.st_nlink == (2 if path.is_dir() else 1)


def test_inodes_differ_and_stay(shared_mount: Mount) -> None:
    inodes = {name: (shared_mount.path / name).stat().st_ino for name in NAMES}
    assert len(set(inodes.values())) == len(NAMES)
    assert {entry.name: entry.inode() for entry in os.scandir(shared_mount.path)} == inodes


def test_sizes(shared_mount: Mount, shared_copy: Path) -> None:
    for name in NAMES:
        shown = (shared_mount.path / name).stat()
        assert shown.st_size == (shared_copy / name).stat().st_size
        assert shown.st_blocks == -(-shown.st_size // 512)


# Extended attributes


def test_parts_have_their_digest(shared_mount: Mount, shared_copy: Path) -> None:
    parts = [name for name in NAMES if "part" in name]
    digests = [os.getxattr(shared_mount.path / name, DIGEST).decode() for name in parts]
    assert digests == oracles.sha1sum(shared_copy / name for name in parts)
    assert [os.listxattr(shared_mount.path / name) for name in parts] == [[DIGEST]] * len(parts)


def test_getfattr_dumps_it(shared_mount: Mount, shared_copy: Path) -> None:
    dump = run(["getfattr", "--absolute-names", "-d", shared_mount.path / "image.part.02"]).decode()
    [digest] = oracles.sha1sum([shared_copy / "image.part.02"])
    assert dump == f'# file: {shared_mount.path}/image.part.02\n{DIGEST}="{digest}"\n\n'


def test_manifests_and_folders_have_none(shared_mount: Mount) -> None:
    for path in (shared_mount.manifest(), shared_mount.path, shared_mount.path / CONTROL):
        assert os.listxattr(path) == []
        with fails_with(errno.ENODATA):
            os.getxattr(path, DIGEST)


@pytest.mark.parametrize("kind", ["image", "folder", "image of a folder"])
def test_what_is_made_when_looked_up_has_none(
    kind: str, shared_mount: Mount, tmp_path: Path
) -> None:
    """Who copies attributes asks for them: Python's copy2, `rsync -X`, `getfattr`."""
    if kind == "image":
        assert_made_files_have_none(shared_mount.path, tmp_path)
        return
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "one").symlink_to(shared_mount.image)
    with mounted(folder, tmp_path / "mnt", "--state", "none") as many:
        shown = many.path if kind == "folder" else many.path / "one"
        assert_made_files_have_none(shown, tmp_path)


def assert_made_files_have_none(shown: Path, tmp_path: Path) -> None:
    for name in ("status.json", "metrics"):
        path = shown / CONTROL / name
        assert os.listxattr(path) == []
        with fails_with(errno.ENODATA):
            os.getxattr(path, DIGEST)
        shutil.copy2(path, tmp_path / name)
        assert (tmp_path / name).stat().st_size


def test_no_other_attribute(shared_mount: Mount) -> None:
    with fails_with(errno.ENODATA):
        os.getxattr(shared_mount.path / "image.part.00", "user.other")


def test_a_digest_needs_no_read_before(shared_image: Path, tmp_path: Path) -> None:
    options = ("--level", "1", "--state", "none")
    with mounted(shared_image, tmp_path / "mnt", *options) as mount:
        digest = os.getxattr(mount.path / "image.part.00", DIGEST).decode()
        assert [digest] == oracles.sha1sum([mount.path / "image.part.00"])
        assert mount.status()["parts_made"] == 1


# The control folder


def test_the_control_folder_is_never_listed(shared_mount: Mount) -> None:
    assert CONTROL not in names(shared_mount.path)
    assert CONTROL not in run(["ls", "-A", shared_mount.path]).decode()
    assert CONTROL not in run(["find", shared_mount.path]).decode()
    assert (shared_mount.path / CONTROL).is_dir()


def test_the_status_is_a_readable_file(shared_mount: Mount, tmp_path: Path) -> None:
    path = shared_mount.path / CONTROL / "status.json"
    assert path.is_file()
    by_cat = json.loads(run(["cat", path]))
    run(["cp", path, tmp_path / "status.json"])
    by_cp = json.loads((tmp_path / "status.json").read_text())
    with path.open(encoding="utf-8") as stream:
        by_python = json.load(stream)
    for status in (by_cat, by_cp, by_python):
        assert (status["pid"], status["mountpoint"]) == (shared_mount.pid, str(shared_mount.path))
    assert by_cat["seconds"] < by_python["seconds"]


def test_one_reader_of_the_status_sees_one_state(shared_mount: Mount) -> None:
    """Read byte by byte, it is still one document, though the mount goes on."""
    with (shared_mount.path / CONTROL / "status.json").open("rb", buffering=0) as stream:
        pieces = []
        while piece := stream.read(50):
            pieces.append(piece)
            shared_mount.path.stat()
    assert json.loads(b"".join(pieces))["pid"] == shared_mount.pid


# Names


@pytest.mark.parametrize(
    "name",
    [
        "image.part.0",
        "image.part.000",
        "image.part.03",
        "image.part.99",
        "image.part.-1",
        "image.part.+1",
        "image.part.0a",
        "image.part.\u0660\u0660",  # digits, but not ASCII's
        "image.part.",
        "other.part.00",
        "image.us-east-1.manifest.xml",
        "image.part.00/",
        ".bundlefs/other",
        ".bundlefs/image.part.00",
        "x" * 255,
    ],
)
def test_no_such_file(name: str, shared_mount: Mount) -> None:
    # A slash behind the name of a file is ENOTDIR everywhere.
    with fails_with(errno.ENOTDIR if name.endswith("/") else errno.ENOENT):
        os.stat(f"{shared_mount.path}/{name}")  # noqa: PTH116  # a Path drops the slash


def test_a_part_that_turns_out_not_to_exist(tmp_path: Path) -> None:
    """Compressible data: there is room for three parts, and one comes out."""
    image = images.text_image(tmp_path / "disk", 21 * MIB)
    with mounted(image, tmp_path / "mnt", "--level", "1") as mount:
        with fails_with(errno.ENOENT):
            (mount.path / "image.part.03").stat()
        assert mount.status()["phase"] == "idle", "more than can be: known from the start"
        with fails_with(errno.ENOENT):
            (mount.path / "image.part.02").read_bytes()
        assert mount.status()["phase"] == "complete"
        assert [part.name for part in mount.parts()] == ["image.part.00"]


def test_the_width_of_the_number(tmp_path: Path) -> None:
    """1,000 MiB stored make 101 parts, so all numbers have three digits."""
    image = images.sparse_image(tmp_path / "disk", 1000 * MIB, {})
    with mounted(image, tmp_path / "mnt", "--level", "0", "--no-sparse") as mount:
        assert names(mount.path) == [
            "image.manifest.xml",
            *(f"image.part.{n:03}" for n in range(101)),
        ]
        assert mount.status()["image_bytes_read"] == 0
        with fails_with(errno.ENOENT):
            (mount.path / "image.part.00").stat()
        with fails_with(errno.ENOENT):
            (mount.path / "image.part.101").stat()


# Nothing can be changed

CHANGES: list[Callable[[Path], object]] = [
    lambda path: (path / "new").touch(),
    lambda path: (path / "new").mkdir(),
    lambda path: (path / "image.part.00").unlink(),
    lambda path: (path / "image.part.00").chmod(0o777),
    lambda path: os.utime(path / "image.part.00"),
    lambda path: os.truncate(path / "image.part.00", 0),
    lambda path: (path / "image.part.00").open("wb"),
    lambda path: (path / "image.part.00").open("ab"),
    lambda path: (path / "image.part.00").open("r+b"),
    lambda path: (path / "image.part.00").rename(path / "new"),
    lambda path: (path / "new").hardlink_to(path / "image.part.00"),
    lambda path: (path / "new").symlink_to("image.part.00"),
    lambda path: os.setxattr(path / "image.part.00", DIGEST, b"0"),
    lambda path: os.removexattr(path / "image.part.00", DIGEST),
    lambda path: (path / CONTROL / "status.json").write_text("{}"),
    lambda path: (path / CONTROL).rmdir(),
    lambda path: os.chown(path / "image.part.00", os.getuid(), os.getgid()),
]


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_can_be_changed(change: Callable[[Path], object], shared_mount: Mount) -> None:
    with fails_with(errno.EROFS, errno.EACCES, errno.EPERM):
        change(shared_mount.path)


@pytest.mark.parametrize("command", ["touch", "rm -f", "mkdir", "cp /etc/hostname", "chmod +w"])
def test_nor_by_tools(command: str, shared_mount: Mount) -> None:
    name = "new" if command in ("mkdir", "touch") else "image.part.00"
    with pytest.raises(AssertionError, match="Read-only file system"):
        run([*command.split(), shared_mount.path / name])
