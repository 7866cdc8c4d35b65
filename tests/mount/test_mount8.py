"""mount(8) and fstab: the real `mount`, through mount.fuse3(8) and through mount.bundlefs."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.commands import eventually, mounts_at
from tests.support import images
from tests.support.mounts import bundlefs, detach, is_alive, is_mounted, read_status
from tests.support.tools import ACCOUNT

COMMAND = Path("/usr/local/bin/bundlefs")
"""mount(8) keeps to the system's own PATH."""
OPTIONS = "account=210987654321,region=cn-north-1,level=1,state=none"


@pytest.fixture(autouse=True, scope="module")
def installed() -> Iterator[None]:
    """Have bundlefs where mount(8) finds it; nothing stays on the machine."""
    if COMMAND.exists():
        yield
        return
    COMMAND.unlink(missing_ok=True)
    COMMAND.symlink_to(Path(sys.executable).with_name("bundlefs"))
    yield
    COMMAND.unlink()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.random_image(tmp_path / "disk", 3 * images.MIB)


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "mnt"
    folder.mkdir()
    yield folder
    detach(folder)


def ask(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command that may fail."""
    return subprocess.run(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def end(mountpoint: Path) -> None:
    """Unmount as mount(8)'s users do; the daemon ends by itself."""
    pid = int(read_status(mountpoint)["pid"])
    done = ask("umount", mountpoint)
    assert done.returncode == 0, done.stderr
    assert eventually(lambda: not is_alive(pid))
    assert not is_mounted(mountpoint)


def test_mount(image: Path, mountpoint: Path) -> None:
    done = ask("mount", "-t", "fuse.bundlefs", image, mountpoint, "-o", OPTIONS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    manifest = (mountpoint / "image.cn-north-1.manifest.xml").read_text()
    assert "<user>210987654321</user>" in manifest
    found = ask("findmnt", "-no", "FSTYPE,SOURCE,OPTIONS", mountpoint).stdout.split()
    assert found[:2] == ["fuse.bundlefs", str(image)]
    assert "ro" in found[2].split(",")
    end(mountpoint)


def test_fstab(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    fstab = tmp_path / "fstab"
    more = "nofail,_netdev,x-systemd.automount"
    fstab.write_text(f"{image} {mountpoint} fuse.bundlefs {more},{OPTIONS} 0 0\n")
    done = ask("mount", "-T", fstab, mountpoint)
    assert (done.returncode, done.stderr) == (0, "")
    assert (mountpoint / "image.part.00").stat().st_size > 0
    ask("mount", "-a", "-T", fstab)
    assert mounts_at(mountpoint) == 1
    end(mountpoint)
    assert ask("mount", "-a", "-T", fstab).returncode == 0
    end(mountpoint)


def test_open(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    assert ask("openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-out", key).returncode == 0
    bundlefs("bundle", "--account", ACCOUNT, "--user-key", key, image, tmp_path / "bundle")
    manifest = tmp_path / "bundle/image.manifest.xml"
    done = ask("mount", "-t", "fuse.bundlefs", manifest, mountpoint, "-o", f"open,user_key={key}")
    assert (done.returncode, done.stderr) == (0, "")
    assert (mountpoint / "image.img").read_bytes() == image.read_bytes()
    end(mountpoint)


@pytest.mark.parametrize("option", ["acount=1", "levle=1"])
def test_an_unknown_option(option: str, image: Path, mountpoint: Path) -> None:
    done = ask("mount", "-t", "fuse.bundlefs", image, mountpoint, "-o", f"{OPTIONS},{option}")
    assert done.returncode != 0
    assert f"bundlefs: unknown mount option '{option[:-2]}'; did you mean " in done.stderr
    assert not is_mounted(mountpoint)


def test_the_helper(image: Path, mountpoint: Path) -> None:
    helper = (sys.executable, "-m", "bundlefs.cli.mount8")
    assert ask(*helper, image, mountpoint, "-f", "-o", OPTIONS).returncode == 0
    assert not is_mounted(mountpoint)
    assert ask(*helper, image, mountpoint, "-o", "acount=1").returncode == 1
    missing = ask(*helper, image.with_name("none"), mountpoint, "-o", OPTIONS)
    assert missing.returncode == 32
    done = ask(*helper, image, mountpoint, "-n", "-s", "-v", "-t", "bundlefs", "-o", f"{OPTIONS},q")
    assert done.returncode == 0, done.stderr
    assert "unknown mount option 'q'" in done.stderr
    assert read_status(mountpoint)["image"] == str(image)
    end(mountpoint)


def test_a_passphrase_is_not_waited_for(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    words = ("-algorithm", "RSA", "-aes256", "-pass", "pass:word", "-out", key)
    assert ask("openssl", "genpkey", "-quiet", *words).returncode == 0
    done = ask("mount", "-t", "fuse.bundlefs", image, mountpoint, "-o", f"{OPTIONS},user_key={key}")
    assert done.returncode != 0
    assert "there is no terminal to ask for its passphrase" in done.stderr
