"""mount(8), fstab and systemd's reading of it: the real `mount`, through both of its helpers."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.commands import eventually
from tests.mount.commands import names as listed
from tests.mount.private_host import Done, Host, free_again, private_host
from tests.support import images, oracles
from tests.support.keys import KeyPair
from tests.support.mounts import bundlefs
from tests.support.processes import ended
from tests.support.tools import ACCOUNT, run

OPTIONS = f"account={ACCOUNT},region=us-east-1,region=cn-north-1,level=1"
IN_FSTAB = f"nofail,_netdev,x-systemd.automount,X-mine,user,noauto,{OPTIONS}"
FINE = Done(0, "", "")
TYPES = ("fuse.bundlefs", "bundlefs")
"""By mount.fuse3(8), and by mount.bundlefs."""
GENERATOR = "/usr/lib/systemd/system-generators/systemd-fstab-generator"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with private_host(tmp_path_factory.mktemp("host")) as made:
        yield made


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.text_image(tmp_path_factory.mktemp("image") / "my disk", 3 * images.MIB)


@pytest.fixture
def mountpoint(tmp_path: Path, host: Host) -> Iterator[Path]:
    folder = tmp_path / "mnt"
    folder.mkdir()
    with free_again(host, folder):
        yield folder


@dataclass(frozen=True, slots=True)
class Made:
    """A bundle of the image, and the key that opens it."""

    manifest: Path
    key: Path


@pytest.fixture(scope="module")
def made(image: Path, tmp_path_factory: pytest.TempPathFactory, user_keys: KeyPair) -> Made:
    folder = tmp_path_factory.mktemp("bundle")
    bundlefs("bundle", "--user-key", user_keys.private, image, folder)
    return Made(folder / "image.manifest.xml", user_keys.private)


def fstab(folder: Path, source: Path, mountpoint: Path, options: str) -> Path:
    """Write a table of one line."""
    path = folder / "fstab"
    words = [re.sub(r"[\s\\]", octal, str(word)) for word in (source, mountpoint)]
    line = f"{' '.join(words)} fuse.bundlefs {options} 0 0\n"
    path.write_bytes(os.fsencode(line))
    return path


def octal(character: re.Match[str]) -> str:
    """Write a character as fstab(5) has it."""
    return f"\\{ord(character[0]):03o}"


# mount


@pytest.mark.parametrize("kind", TYPES)
def test_mount(kind: str, host: Host, image: Path, mountpoint: Path) -> None:
    options = rf"{OPTIONS},prefix=my\,ami,product_code=1,fsname=its name"
    assert host.do("mount", "-t", kind, image, mountpoint, "-o", options) == FINE
    shown = host.sees(mountpoint)
    names = ["my,ami.cn-north-1.manifest.xml", "my,ami.manifest.xml", "my,ami.part.00"]
    assert listed(shown) == names
    assert oracles.element(shown / names[0], "user") == ACCOUNT
    assert oracles.element(shown / names[1], "product_code") == "1"
    found = host.do("findmnt", "-nro", "FSTYPE,SOURCE,OPTIONS", mountpoint).out.split()
    assert found[:2] == ["fuse.bundlefs", r"its\x20name"]
    assert {"ro", "nosuid", "nodev"} <= set(found[2].split(","))
    host.umount(mountpoint)


def test_fstab(host: Host, image: Path, mountpoint: Path, tmp_path: Path) -> None:
    table = fstab(tmp_path, image, mountpoint, IN_FSTAB)
    assert host.do("mount", "-T", table, mountpoint) == FINE
    assert host.status(mountpoint)["image"] == str(image)
    first = (host.sees(mountpoint) / "image.cn-north-1.manifest.xml").read_bytes()
    # Not by `host.umount`: who mounts again does not wait for the daemon's end.
    again = ("sh", "-ec", 'umount "$2"; mount -T "$1" "$2"', "sh", table, mountpoint)
    assert host.do(*again) == FINE
    assert (host.sees(mountpoint) / "image.cn-north-1.manifest.xml").read_bytes() == first
    host.umount(mountpoint)


@pytest.mark.parametrize("more", ["", ",auto_unmount"])
def test_mount_all_mounts_once(
    more: str, host: Host, image: Path, mountpoint: Path, tmp_path: Path
) -> None:
    """The image is known by its name in the kernel's table, whatever is in it."""
    odd = tmp_path / "a, d\\303is\tk\r#\N{SNOWMAN}\udcff"
    odd.hardlink_to(image)
    table = fstab(tmp_path, odd, mountpoint, IN_FSTAB.replace("noauto,", "") + more)
    for _ in range(2):
        assert host.do("mount", "-a", "-T", table) == FINE
        assert host.mounts(mountpoint) == ["fuse.bundlefs"]
    assert host.do("bundlefs", "umount", mountpoint) == FINE
    assert host.mounts(mountpoint) == []


@pytest.mark.parametrize("kind", TYPES)
def test_open(kind: str, host: Host, image: Path, made: Made, mountpoint: Path) -> None:
    options = f"rw,open,user-key={made.key},no_verify"
    assert host.do("mount", "-t", kind, made.manifest, mountpoint, "-o", options) == FINE
    oracles.assert_same(host.sees(mountpoint) / "image.img", image)
    host.umount(mountpoint)


# without mount


def test_without_a_command(host: Host, image: Path, mountpoint: Path) -> None:
    assert host.do("bundlefs", image, mountpoint, "--level=0", "-o", OPTIONS) == FINE
    assert host.status(mountpoint)["image"] == str(image)
    host.umount(mountpoint)


def test_open_without_a_command(host: Host, image: Path, made: Made, mountpoint: Path) -> None:
    words = (made.manifest, mountpoint, "--user-key", made.key, "-o", "open")
    assert host.do("bundlefs", *words) == FINE
    oracles.assert_same(host.sees(mountpoint) / "image.img", image)
    host.umount(mountpoint)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("moun", "{image}", "{mountpoint}", "-o", OPTIONS), "did you mean 'mount'?"),
        (("unbundel", "{image}", "-o", "disk"), "did you mean 'unbundle'?"),
        (("umoun", "{mountpoint}"), "did you mean 'umount'?"),
        (("here", "there"), "`bundlefs --help` lists the commands"),
    ],
)
def test_a_command_that_is_none(
    words: tuple[str, ...], hint: str, host: Host, image: Path, mountpoint: Path
) -> None:
    meant = [word.format(image=image, mountpoint=mountpoint) for word in words]
    text = f"bundlefs: {words[0]!r} is neither a command nor an image; {hint}\n"
    assert host.do("bundlefs", *meant) == Done(2, "", text)
    assert host.mounts(mountpoint) == []


# what is refused


@pytest.mark.parametrize(("kind", "code"), [(TYPES[0], 2), (TYPES[1], 1)])
def test_an_unknown_option(kind: str, code: int, host: Host, mountpoint: Path) -> None:
    # The image is not there, and not missed: nothing is opened before.
    words = ("/no/image", mountpoint, "-o", f"acount=1,{OPTIONS}")
    done = host.do("mount", "-t", kind, *words)
    text = "bundlefs: unknown mount option 'acount'; did you mean 'account'?\n"
    assert done == Done(code, "", text)


@pytest.mark.parametrize(("kind", "code"), [(TYPES[0], 1), (TYPES[1], 32)])
def test_a_mount_that_fails(kind: str, code: int, host: Host, mountpoint: Path) -> None:
    done = host.do("mount", "-t", kind, "/no/image", mountpoint, "-o", OPTIONS)
    assert done == Done(code, "", "bundlefs: no image /no/image: check the path\n")
    assert host.mounts(mountpoint) == []


@pytest.mark.parametrize("kind", TYPES)
def test_a_passphrase_is_not_waited_for(
    kind: str, host: Host, image: Path, mountpoint: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    cipher = ("-aes256", "-pass", "pass:word")
    run(["openssl", "genpkey", "-quiet", "-algorithm", "RSA", *cipher, "-out", key])
    done = host.do("mount", "-t", kind, image, mountpoint, "-o", f"{OPTIONS},user_key={key}")
    assert done.code != 0
    assert "there is no terminal to ask for its passphrase: give --passphrase-file" in done.err
    (tmp_path / "word").write_text("word\n")
    (tmp_path / "word").chmod(0o600)
    options = f"{OPTIONS},user_key={key},passphrase_file={tmp_path / 'word'}"
    assert host.do("mount", "-t", kind, image, mountpoint, "-o", options) == FINE
    host.umount(mountpoint)


# mount.bundlefs and its flags


def test_sloppy(host: Host, image: Path, mountpoint: Path) -> None:
    options = f"{OPTIONS},acount=1"
    done = host.do("mount", "-nsv", "-t", "bundlefs", image, mountpoint, "-o", options)
    assert done.code == 0
    warning = "bundlefs: warning: unknown mount option 'acount'; did you mean 'account'?; ignored\n"
    assert warning in done.err
    host.umount(mountpoint)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("", None),
        (",level=10", "--level 10: levels go from 0"),
        (",acount=1", "unknown mount option 'acount'"),
        (",source=zip", "mount option 'source=zip': invalid choice: 'zip'"),
        (",user_key=/no/key", "/no/key"),
    ],
)
def test_fake(change: str, said: str | None, host: Host, image: Path, mountpoint: Path) -> None:
    words = (image, mountpoint, "-f", "-o", OPTIONS + change)
    done = host.do("mount.bundlefs", *words)
    assert (done.code, done.out) == (1 if said else 0, "")
    assert said in done.err if said else not done.err
    assert host.mounts(mountpoint) == []
    assert not Path(os.environ["XDG_STATE_HOME"]).exists()


def test_fake_open(host: Host, made: Made, mountpoint: Path) -> None:
    words = ("mount.bundlefs", made.manifest, mountpoint, "-f", "-o")
    assert host.do(*words, f"open,user_key={made.key}") == FINE
    assert host.do(*words, f"open,user_key={made.key},level=1").code == 1
    done = host.do(*words, "open")
    assert (done.code, "a private key is needed" in done.err) == (32, True)
    assert host.mounts(mountpoint) == []


@pytest.fixture
def link(host: Host) -> Iterator[None]:
    """Have mount(8) start mount.bundlefs for the type fuse.bundlefs too."""
    path = "/sbin/mount.fuse.bundlefs"
    assert host.do("ln", "-s", "mount.bundlefs", path) == FINE
    yield
    assert host.do("rm", path) == FINE


@pytest.mark.usefixtures("link")
@pytest.mark.parametrize("kind", TYPES)
def test_fake_by_mount(kind: str, host: Host, image: Path, mountpoint: Path) -> None:
    words = (image, mountpoint, "-f", "-t", kind, "-o")
    assert host.do("mount", *words, OPTIONS) == FINE
    assert "--level 10" in host.do("mount", *words, f"{OPTIONS},level=10").err
    assert host.mounts(mountpoint) == []


def test_fake_of_an_image_that_is_not_there(host: Host, mountpoint: Path) -> None:
    assert host.do("mount.bundlefs", "/no/image", mountpoint, "-f", "-o", OPTIONS).code == 32


def test_usage_of_the_helper(host: Host) -> None:
    done = host.do("mount.bundlefs", "alone")
    assert done.code == 1
    assert "the following arguments are required: DIR" in done.err
    assert host.do("mount.bundlefs", "--help").code == 0


# systemd


def test_an_automount_unit_comes_of_the_line(
    host: Host, image: Path, mountpoint: Path, tmp_path: Path
) -> None:
    table = fstab(tmp_path, image, mountpoint, IN_FSTAB.replace("noauto,", ""))
    units = [tmp_path / name for name in ("normal", "early", "late")]
    for folder in units:
        folder.mkdir()
    assert host.do("env", f"SYSTEMD_FSTAB={table}", GENERATOR, *units).code == 0
    name = run(["systemd-escape", "--path", mountpoint]).decode().strip()
    mount, automount = (units[0] / f"{name}.{kind}" for kind in ("mount", "automount"))
    assert f"\nWhere={mountpoint}\n" in automount.read_text()
    assert "\nType=fuse.bundlefs\n" in mount.read_text()
    assert (units[0] / f"remote-fs.target.wants/{name}.automount").is_symlink()
    path = f"SYSTEMD_UNIT_PATH={units[0]}:"
    done = host.do("env", path, "systemd-analyze", "verify", mount, automount)
    # It looks at the units of the distribution too.
    of_ours = [line for line in done.err.splitlines() if not line.startswith("/usr/lib/systemd/")]
    assert (done.code, done.out, of_ours) == (0, "", [])


@pytest.mark.parametrize("kind", TYPES)
def test_automount(kind: str, host: Host, image: Path, mountpoint: Path) -> None:
    # What only checks must not look into the folder either: who looks waits for a mount.
    both = 'mount.bundlefs "$@" -f; exec mount -t "$0" "$@"'
    words = ("sh", "-ec", both, kind, image, mountpoint, "-o", OPTIONS)
    script = Path(__file__).with_name("automounter.py")
    done = host.do(sys.executable, script, mountpoint, *words)
    assert done == Done(0, "image.cn-north-1.manifest.xml\nimage.manifest.xml\nimage.part.00\n", "")
    assert host.mounts(mountpoint) == ["autofs", "fuse.bundlefs"]
    pid = host.daemon(mountpoint)
    assert host.do("umount", mountpoint) == FINE
    assert ended(pid, 20)


# a daemon that was killed


def test_auto_unmount_leaves_no_dead_mount(host: Host, image: Path, mountpoint: Path) -> None:
    options = f"{OPTIONS},auto_unmount"
    assert host.do("mount", "-t", "fuse.bundlefs", image, mountpoint, "-o", options) == FINE
    pid = host.daemon(mountpoint)
    os.kill(pid, signal.SIGKILL)
    assert ended(pid, 20)
    assert eventually(lambda: host.mounts(mountpoint) == [])
    assert host.do("mount", "-t", "fuse.bundlefs", image, mountpoint, "-o", OPTIONS) == FINE
    host.umount(mountpoint)


def test_a_killed_daemon_leaves_a_dead_mount_else(
    host: Host, image: Path, mountpoint: Path
) -> None:
    assert host.do("mount", "-t", "fuse.bundlefs", image, mountpoint, "-o", OPTIONS) == FINE
    pid = host.daemon(mountpoint)
    os.kill(pid, signal.SIGKILL)
    assert ended(pid, 20)
    done = host.do("mount", "-t", "fuse.bundlefs", image, mountpoint, "-o", OPTIONS)
    assert f"a dead mount? try: bundlefs umount {mountpoint}" in done.err
    assert host.do("umount", mountpoint) == FINE
    assert host.mounts(mountpoint) == []
