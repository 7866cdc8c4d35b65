"""Command lines that cannot be meant as they stand: each gets an answer that helps, and code 2."""

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundlefs import __version__
from tests.interop.back import done, refused
from tests.mount.commands import attempt
from tests.support import bundles, images
from tests.support.mounts import Mount, is_mounted, mounted


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.text_image(tmp_path_factory.mktemp("image") / "disk", 100_000)


@pytest.fixture(scope="module")
def mount(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with mounted(image, tmp_path_factory.mktemp("mount") / "mnt") as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    return path


def test_nothing() -> None:
    ending = attempt()
    usage, *listed, error = ending.err.splitlines()
    assert (ending.code, ending.out) == (2, "")
    assert usage == "usage: bundlefs [-h] [-V] COMMAND ..."
    assert {"mount", "unbundle", "status"} <= {line.split()[0] for line in listed if line.strip()}
    assert error == "bundlefs: error: the following arguments are required: COMMAND"


@pytest.mark.parametrize("words", [["help"], ["help", "--help"]])
def test_help(words: list[str]) -> None:
    assert done(*words).out == done("--help").out


@pytest.mark.parametrize("command", ["mount", "status", "verify"])
def test_help_for_a_command(command: str) -> None:
    assert done("help", command).out == done(command, "--help").out


def test_help_for_a_command_of_a_command() -> None:
    assert done("help", "state", "list").out == done("state", "list", "--help").out


def test_help_for_no_command() -> None:
    assert refused("help", "unbundel", code=2).endswith("did you mean 'unbundle'?")
    assert "the commands are mount, umount, " in refused("help", "xyzzy", code=2)


def test_an_image_of_the_name_help(
    image: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    Path("help").symlink_to(image)
    assert "no account" in refused("help", "mnt", code=2, env={"BUNDLEFS_ACCOUNT": ""})


def test_version() -> None:
    assert done("-V").out == done("--version").out == f"bundlefs {__version__}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--levle", "3", "mount", "a", "b"], "unknown option '--levle'; did you mean '--level'?"),
        (["--levle=3", "mount", "a", "b"], "did you mean '--level'?"),
        (["--xyzzy"], "`bundlefs COMMAND --help`"),
        (["--xyzzy", "open", "a", "b"], "`bundlefs open --help`"),
        (["--account", "1", "mount", "a", "b"], "bundlefs mount --account ..."),
        (["--account=1", "bundle", "a", "b"], "bundlefs bundle --account ..."),
        (["--account", "1", "a", "b"], "bundlefs mount --account ..."),
        (["-f", "mount", "a", "b"], "bundlefs mount -f ..."),
        (["-o", "ro", "mount", "a", "b"], "bundlefs mount -o ..."),
        (["--account", "1", "status", "a"], "unknown option '--account'"),
        (["--user-key", "k", "verify", "a"], "bundlefs verify --user-key ..."),
        (["--user-key=a\\nb", "mount"], "bundlefs mount --user-key ..."),
    ],
)
def test_an_option_before_the_command(words: list[str], says: str) -> None:
    assert says in refused(*words, code=2)


def test_status_and_umount_of_nothing(mount: Mount, image: Path) -> None:
    for command, *options in (("status", "--watch"), ("umount",)):
        ending = attempt(command, *options)
        usage, *listed, error = ending.err.splitlines()
        assert (ending.code, ending.out) == (2, "")
        assert usage == f"usage: bundlefs {command} [OPTIONS] MOUNTPOINT"
        assert f"    bundlefs {command} {mount.path}    # {image}" in listed
        assert error.endswith("error: the following arguments are required: MOUNTPOINT")
    assert is_mounted(mount.path)


def test_the_image_in_place_of_its_mountpoint(mount: Mount, image: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(image)
    for command in ("status", "umount"):
        for path in (image, link):
            line = refused(command, path, code=2)
            assert line.endswith(f"what is mounted, not where: bundlefs {command} {mount.path}")
    assert is_mounted(mount.path)


def test_a_folder_of_images_in_place_of_its_mountpoint(image: Path, folder: Path) -> None:
    (folder / "one").symlink_to(image)
    with mounted(folder, folder.with_name("many")) as many:
        line = refused("status", folder, code=2)
        assert line.endswith(f"bundlefs status {many.path}")
        done("status", many.path / "one")


@pytest.mark.parametrize("command", ["status", "umount"])
def test_a_file_that_is_not_mounted(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is a file and no mountpoint" in refused(command, tmp_path / "file", code=2)
    # what leads nowhere, and a folder, are told of as before
    assert "no mountpoint, and" not in refused(command, tmp_path / "missing")
    assert "findmnt" in refused(command, tmp_path)


@pytest.mark.parametrize(
    ("command", "what"), [("mount", "image"), ("bundle", "image"), ("open", "manifest")]
)
def test_swapped(command: str, what: str, image: Path, folder: Path) -> None:
    said = f"the {what} comes first, bundlefs {command} {image} {folder}"
    assert refused(command, folder, image, code=2).endswith(said)
    assert list(folder.iterdir()) == []


def test_swapped_without_a_command(image: Path, folder: Path) -> None:
    assert "the image comes first" in refused(folder, image, code=2)
    assert "the manifest comes first" in refused(folder, image, "-o", "open", code=2)


def test_what_is_to_be_typed_is_quoted_for_the_shell(image: Path, tmp_path: Path) -> None:
    disk, folder = tmp_path / "my disk$(x)", tmp_path / "a folder;"
    disk.write_bytes(image.read_bytes())
    folder.mkdir()
    typed, where = shlex.quote(str(disk)), shlex.quote(str(folder))
    assert refused("mount", folder, disk, code=2).endswith(f"bundlefs mount {typed} {where}")
    with mounted(disk, folder):
        assert refused("status", disk, code=2).endswith(f": bundlefs status {where}")
        assert f"    bundlefs umount {where}    # " in attempt("umount").err
    make = tmp_path / "my ext4"
    ext4(make)
    assert f"`bundlefs mount {shlex.quote(str(make))} MOUNTPOINT`" in refused("verify", make)


# What is given in a manifest's place


def disk(path: Path) -> None:
    images.sparse_image(path, 20 << 20, {510: b"\x55\xaa"})


def zeros(path: Path) -> None:
    images.sparse_image(path, 20 << 20, {})


def ext4(path: Path) -> None:
    images.sparse_image(path, 20 << 20, {1080: b"\x53\xef"})


def qcow2(path: Path) -> None:
    path.write_bytes(b"QFI\xfb\0\0\0\3" + bytes(1000))


def gzip(path: Path) -> None:
    path.write_bytes(b"\x1f\x8b\x08\0" + bytes(1000))


def archive(path: Path) -> None:
    path.write_bytes(bundles.member("name", 0) + bytes(1024))


def pem(path: Path) -> None:
    path.write_text("-----BEGIN CERTIFICATE-----\n")


def noise(path: Path) -> None:
    path.write_bytes(b"\0\1\2\3" * 1000)


BUNDLE_IT = "`bundlefs mount {path} MOUNTPOINT` shows it as a bundle"
GIVE = "give the bundle's NAME.manifest.xml"


@pytest.mark.parametrize(
    ("make", "kind", "remedy"),
    [
        (disk, "a disk image (with a boot sector)", BUNDLE_IT),
        (ext4, "a disk image (of an ext file system)", BUNDLE_IT),
        (zeros, "a disk image, or at least begins with zeros", BUNDLE_IT),
        (qcow2, "a qcow2 file", BUNDLE_IT),
        (gzip, "a gzip file", BUNDLE_IT),
        (archive, "a tar archive", GIVE),
        (pem, "a key or certificate", GIVE),
        (noise, "binary data and no XML", GIVE),
    ],
)
def test_no_manifest(
    make: Callable[[Path], None], kind: str, remedy: str, tmp_path: Path, folder: Path
) -> None:
    path = tmp_path / "given"
    make(path)
    line = refused("verify", path)
    assert f"{path} is {kind}, no manifest: " in line
    assert remedy.format(path=path) in line
    for command, *where in (("unbundle",), ("manifest",), ("open", folder)):
        assert refused(str(command), path, *where) == line


def test_a_part(tmp_path: Path) -> None:
    path = tmp_path / "image.part.07"
    path.write_bytes(b"\1\2\3")
    assert "by its name a part of a bundle, no manifest: give the" in refused("verify", path)
    manifest = tmp_path / "image.manifest.xml"
    manifest.touch()
    assert refused("verify", path).endswith(f"no manifest: give {manifest}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<html/>", "it is no manifest but has the element 'html'"),
        ("<manifest>\0", "it has a zero byte in it"),
        ("", "it is not well-formed XML: no element found"),
        ("hello\n", "it is not well-formed XML"),
    ],
)
def test_of_any_other_text_its_reader_speaks(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "given"
    path.write_text(text)
    assert says in refused("verify", path)


# A folder in a manifest's place


def test_a_folder_with_one_manifest(mount: Mount) -> None:
    assert done("verify", mount.path).out == done("verify", mount.manifest()).out


@pytest.mark.parametrize("command", ["verify", "unbundle", "manifest", "open"])
def test_a_folder_with_none_or_several(command: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    mountpoint = [tmp_path / "mnt"] if command == "open" else []
    line = refused(command, folder, *mountpoint)
    assert f"the folder '{folder}' has no manifest (NAME.manifest.xml) in it" in line
    names = ("image.manifest.xml", "image.cn-north-1.manifest.xml")
    for name in names:
        (folder / name).touch()
    line = refused(command, folder, *mountpoint, code=2)
    assert "has several manifests, so name one of them: " in line
    assert all(f"'{name}'" in line for name in names)
