"""`bundlefs open`: bundles as disks, for tools that want one."""

import os
import stat
from pathlib import Path

import pytest

from tests.interop.back import MIB
from tests.mount.commands import refusal
from tests.mount.opened import BY_POINTS, opened
from tests.support import bundles, images, oracles
from tests.support.bundles import BUNDLERS, Made, Workshop
from tests.support.keys import KeyPair
from tests.support.mounts import bundlefs
from tests.support.tools import run


@pytest.fixture(scope="module")
def made(workshop: Workshop) -> Made:
    image = bundles.mixed_image(workshop.folder / "disk")
    return workshop.make(image, BUNDLERS["ec2-ami-tools"])


@pytest.fixture
def bundle(made: Made, tmp_path: Path) -> Made:
    """A copy of it, to be changed."""
    return made.copy(tmp_path / "bundle")


@pytest.fixture(scope="module")
def key(user_keys: KeyPair) -> tuple[str, Path]:
    return ("--user-key", user_keys.private)


# What is there


@pytest.mark.parametrize("name", BUNDLERS)
def test_the_image_of_any_bundler(name: str, workshop: Workshop, tmp_path: Path) -> None:
    image = bundles.mixed_image(tmp_path / "disk")
    here = Workshop(tmp_path, workshop.user, workshop.ec2)
    made = here.make(image, BUNDLERS[name])
    with opened(made.manifest, tmp_path / "mnt", *here.key(BUNDLERS[name])) as mount:
        oracles.assert_same(mount.disk, image)
        assert mount.status()["access"] == BY_POINTS


def test_one_file_to_be_read(made: Made, key: tuple[str, Path], tmp_path: Path) -> None:
    os.utime(made.manifest, (1_600_000_000, 1_600_000_000))
    with opened(made.manifest, tmp_path / "mnt", *key) as mount:
        assert [path.name for path in mount.path.iterdir()] == ["image.img"]
        status = mount.disk.stat()
        assert stat.filemode(status.st_mode) == "-r--r--r--"
        assert (status.st_size, status.st_mtime) == (made.facts.size, 1_600_000_000)
        for forbidden in (mount.disk.unlink, mount.disk.touch, (mount.path / "new").touch):
            with pytest.raises(OSError, match="Read-only file system"):
                forbidden()
        with pytest.raises(FileNotFoundError):
            (mount.path / "other.img").stat()
        assert mount.read(made.facts.size - 10, 100) == made.image.read_bytes()[-10:]
        assert mount.read(made.facts.size, 100) == b""


def test_its_status_for_a_person(made: Made, key: tuple[str, Path], tmp_path: Path) -> None:
    with opened(made.manifest, tmp_path / "mnt", *key) as mount:
        said = bundlefs("status", mount.path)
        assert "phase     complete: no read has failed" in said
        assert f"opened {mount.status()['access']}" in said
        assert str(mount.pid) in said


@pytest.mark.parametrize("name", ["../../evil", "a/b", ".", "x" * 300])
def test_a_name_that_is_none_for_a_file(
    name: str, bundle: Made, key: tuple[str, Path], tmp_path: Path, user_keys: KeyPair
) -> None:
    bundle.rewrite(user_keys, name=name)
    with opened(bundle.manifest, tmp_path / "mnt", *key) as mount:
        assert mount.disk.name == "image.img"


def test_with_ec2s_key(made: Made, region_keys: KeyPair, tmp_path: Path) -> None:
    with opened(made.manifest, tmp_path / "mnt", "--ec2-key", region_keys.private) as mount:
        assert mount.read(0, 100) == made.image.read_bytes()[:100]


def test_parts_in_a_folder_named_from_here(
    bundle: Made, key: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes to the background leaves the folder it was started in."""
    alone = tmp_path / "alone.xml"
    bundle.manifest.rename(alone)
    monkeypatch.chdir(bundle.manifest.parent)
    with opened(alone, tmp_path / "mnt", *key, "--parts", ".") as mount:
        oracles.assert_same(mount.disk, bundle.image)


def test_what_cannot_be_opened(
    bundle: Made, key: tuple[str, Path], mountpoint: Path, region_keys: KeyPair
) -> None:
    words = ("open", bundle.manifest)
    assert "--user-key" in refusal(*words, mountpoint, code=1)
    wrong = ("--user-key", region_keys.private)
    assert "does not open" in refusal(*words, *wrong, mountpoint, code=1)
    os.truncate(bundle.parts[0], 0)
    assert bundle.parts[0].name in refusal(*words, *key, mountpoint, code=1)
    bundle.parts[-1].unlink()
    assert bundle.parts[-1].name in refusal(*words, *key, mountpoint, code=1)


def test_a_size_that_is_not_the_images(
    bundle: Made, key: tuple[str, Path], mountpoint: Path, user_keys: KeyPair
) -> None:
    bundle.rewrite(user_keys, size=bundle.facts.size + 1)
    line = refusal("open", bundle.manifest, *key, mountpoint, code=1)
    assert str(bundle.facts.size) in line
    assert str(bundle.facts.size + 1) in line


# Tools that want a disk


@pytest.fixture(scope="module")
def file_system(tmp_path_factory: pytest.TempPathFactory, workshop: Workshop) -> tuple[Path, Made]:
    """A tree of files, and the bundle of an ext4 file system with it."""
    folder = tmp_path_factory.mktemp("ext4")
    tree = images.file_tree(folder / "tree")
    image = images.ext4_image(folder / "disk", tree)
    return tree, workshop.make(image, BUNDLERS["ec2-ami-tools"], "ext4")


def test_a_loop_mount(
    file_system: tuple[Path, Made], key: tuple[str, Path], tmp_path: Path
) -> None:
    tree, made = file_system
    files = tmp_path / "files"
    files.mkdir()
    with opened(made.manifest, tmp_path / "mnt", *key) as mount:
        run(["mount", "-o", "ro,loop", mount.disk, files])
        try:
            run(["diff", "-r", "--no-dereference", "--exclude=lost+found", tree, files])
        finally:
            run(["umount", files])


def test_debugfs(file_system: tuple[Path, Made], key: tuple[str, Path], tmp_path: Path) -> None:
    tree, made = file_system
    with opened(made.manifest, tmp_path / "mnt", *key) as mount:
        listed = run(["debugfs", "-R", "ls -p /boot", mount.disk]).decode()
        assert {"vmlinuz", "empty"} <= {line.split("/")[5] for line in listed.split() if line}
        kernel = run(["debugfs", "-R", "cat /boot/vmlinuz", mount.disk])
        assert kernel == (tree / "boot/vmlinuz").read_bytes()
        run(["e2fsck", "-fn", mount.disk])


def test_a_partition_table(workshop: Workshop, key: tuple[str, Path], tmp_path: Path) -> None:
    """One partition of type 83 from sector 2048 on, in a master boot record."""
    entry = bytes(4) + b"\x83" + bytes(3) + (2048).to_bytes(4, "little")
    table = bytes(446) + entry + (4096).to_bytes(4, "little") + bytes(48) + b"\x55\xaa"
    image = images.sparse_image(tmp_path / "disk", 4 * MIB, {0: table})
    made = workshop.make(image, BUNDLERS["pax, sparse"], "partitioned")
    with opened(made.manifest, tmp_path / "mnt", *key) as mount:
        columns = "NR,START,SECTORS,TYPE"
        shown = run(["partx", "--show", "--noheadings", "-o", columns, mount.disk])
        assert shown.split() == [b"1", b"2048", b"4096", b"0x83"]
