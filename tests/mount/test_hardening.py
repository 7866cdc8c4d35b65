"""What keeps keys and plaintext in the process: no core dump, no variable, no open file or folder.

Whether a process is dumpable shows in who owns its files in /proc [proc(5)].
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.commands import (
    AS_USER,
    NOBODY,
    attempt,
    refusal,
    users_folder,
)
from tests.support import images
from tests.support.keys import KeyPair
from tests.support.mounts import BUNDLEFS, mounted
from tests.support.processes import disk_server, of_family
from tests.support.tools import run

PASSPHRASE = "correct horse 4711"  # noqa: S105  # of keys that are made here
MIB = images.MIB


@pytest.fixture
def locked(user_keys: KeyPair, tmp_path: Path) -> Path:
    path = tmp_path / "locked.pem"
    secret = ["-passout", f"pass:{PASSPHRASE}"]
    run(["openssl", "pkcs8", "-topk8", "-in", user_keys.private, "-out", path, *secret])
    path.chmod(0o600)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.text_image(tmp_path / "disk", 3 * MIB)


@pytest.fixture
def qcow2(image: Path, tmp_path: Path) -> Path:
    run(["qemu-img", "convert", "-O", "qcow2", image, tmp_path / "disk.qcow2"])
    return tmp_path / "disk.qcow2"


@pytest.mark.parametrize("named", [None, "MINE"])
def test_the_passphrase_is_in_no_environment(
    named: str | None, qcow2: Path, locked: Path, tmp_path: Path
) -> None:
    option = ("--passphrase-env", named) if named else ()
    variable = {named or "BUNDLEFS_PASSPHRASE": PASSPHRASE, "HARMLESS": "stays"}
    with mounted(qcow2, tmp_path / "mnt", "--user-key", locked, *option, env=variable) as mount:
        variables = of_family(mount.pid, "environ")
        for pid in (mount.pid, disk_server(mount.pid)):
            assert "HARMLESS=stays" in variables[pid]
        assert PASSPHRASE not in str(variables)


@pytest.mark.parametrize("options", [(), ("KEY",)])
def test_nor_if_it_was_not_needed(
    options: tuple[str, ...], qcow2: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    given = ("--user-key", user_keys.private) if options else ()
    variable = {"BUNDLEFS_PASSPHRASE": PASSPHRASE}
    with mounted(qcow2, tmp_path / "mnt", *given, env=variable) as mount:
        assert PASSPHRASE not in str(of_family(mount.pid, "environ"))


def test_no_core_dumps(qcow2: Path, tmp_path: Path) -> None:
    with mounted(qcow2, tmp_path / "mnt") as mount:
        limits = of_family(mount.pid, "limits")
        for pid in (mount.pid, disk_server(mount.pid)):
            assert limits[pid].split("Max core file size")[1].split()[:2] == ["0", "0"]


LOOK = """
import ctypes, sys
from bundlefs import cli
code = cli.main(sys.argv[1:])
print(code, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


@pytest.mark.parametrize("command", ["mount", "bundle", "verify", "unbundle", "open", "manifest"])
def test_every_command_with_secrets(command: str, tmp_path: Path) -> None:
    """0 is not dumpable [prctl(2), PR_GET_DUMPABLE]; they all fail, for want of their files."""
    operands = [tmp_path / "none", *([tmp_path] if command in ("mount", "bundle", "open") else [])]
    words: list[str | Path] = [sys.executable, "-c", LOOK, command, *operands]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.split()[-1] == "0", done
    assert done.stdout.split()[0] in "12"


def test_users_of_the_library_are_left_alone() -> None:
    script = (
        "import bundlefs, ctypes, resource; bundlefs.Bundle, bundlefs.open_bundle;"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[1])"
    )
    plain = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)[1])"
    limit = run([sys.executable, "-c", plain]).decode().strip()
    assert run([sys.executable, "-c", script]).decode().split() == ["1", limit]


@pytest.fixture
def users_mount() -> Iterator[Path]:
    with users_folder() as folder:
        yield folder


def test_a_plain_user_bundles_and_unbundles(users_mount: Path) -> None:
    """A process that is not dumpable still reaches its own files in /proc."""
    image = images.text_image(users_mount / "disk", 3 * MIB)
    image.chmod(0o644)
    key = users_mount / "key.pem"
    run(["openssl", "genrsa", "-out", key, "2048"])
    os.chown(key, NOBODY, NOBODY)
    home = {"HOME": str(users_mount), "XDG_STATE_HOME": str(users_mount / "states")}
    dest, back = users_mount / "bundle", users_mount / "back"
    ending = attempt("bundle", "--user-key", key, image, dest, program=AS_USER, env=home)
    assert ending.code == 0, ending
    [state] = (users_mount / "states" / "bundlefs").glob("*.state")
    assert state.stat().st_uid == NOBODY
    words = ("unbundle", dest / "image.manifest.xml", "--user-key", key, "-o", back)
    ending = attempt(*words, program=AS_USER, env=home)
    assert ending.code == 0, ending
    assert back.read_bytes() == image.read_bytes()


# What others may open


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_secrets_that_others_may_read(mode: int, image: Path, locked: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(PASSPHRASE)
    for file in (locked, secret):
        file.chmod(mode)
    words = ("--user-key", locked, "--passphrase-file", secret, image, tmp_path / "to")
    said = attempt("bundle", *words).err
    for file in (locked, secret):
        assert f"others may open {file} (mode {mode:04o})" in said
    for file in (locked, secret):
        file.chmod(0o600)
    assert "others may" not in attempt("bundle", *words).err


@pytest.mark.parametrize("mode", [0o622, 0o620, 0o602])
def test_a_passphrase_that_others_may_write(
    mode: int, image: Path, locked: Path, tmp_path: Path, mountpoint: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(PASSPHRASE)
    secret.chmod(mode)
    options = ("--user-key", locked, "--passphrase-file", secret)
    line = refusal("mount", *options, image, mountpoint, code=2)
    assert f"--passphrase-file {secret}: others may write to it (mode {mode:04o})" in line


def test_a_passphrase_from_a_pipe(image: Path, locked: Path, tmp_path: Path) -> None:
    script = 'exec "$@" --passphrase-file <(echo "$WORD")'
    words: list[str | Path] = [*BUNDLEFS, "bundle", "--user-key", locked]
    words += ["--account", "123456789012", image, tmp_path / "to"]
    done = subprocess.run(
        ["bash", "-c", script, "bash", *words],
        env={**os.environ, "WORD": PASSPHRASE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    assert "others may" not in done.stderr


@pytest.mark.parametrize("mode", [0o777, 0o722, 0o720, 0o702])
def test_a_state_folder_that_others_may_write_to(
    mode: int, image: Path, tmp_path: Path, mountpoint: Path
) -> None:
    folder = tmp_path / "state-home" / "bundlefs"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    line = refusal("mount", image, mountpoint, code=1)
    assert f"state folder {folder}: others may write to it (mode {mode:04o})" in line
    assert "chmod go-w" in line
    assert list(folder.iterdir()) == []


def test_a_folder_of_the_users_own(image: Path, tmp_path: Path, mountpoint: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    words = ("mount", "--state", folder / "state", image, mountpoint)
    folder.chmod(0o777)
    assert "others may write to it (mode 0777)" in refusal(*words, code=1)
    for mode in (0o1777, 0o755, 0o775):
        folder.chmod(mode)
        with mounted(image, mountpoint, "--state", folder / "state"):
            pass


def test_a_state_folder_that_others_may_look_into(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "state-home" / "bundlefs"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    said = attempt("bundle", image, tmp_path / "to").err
    assert f"state folder {folder}: others may look into it (mode 0755); chmod 700 it" in said
