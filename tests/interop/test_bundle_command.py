"""`bundlefs bundle`, run as a user runs it: what it writes, goes on with, and says if it cannot."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from bundlefs.state.sealed_index import index_size
from tests.interop.back import done, leftovers, refused, report, the_line, within
from tests.mount.commands import AS_USER, ROOT, users_folder
from tests.support import images, oracles
from tests.support.keys import KeyPair
from tests.support.mounts import BUNDLEFS, COMMAND_SECONDS, detach, mounted, settings
from tests.support.tools import ACCOUNT, run

MIB = 1 << 20
PART = 10 * MIB
PROMPT = 15
"""Seconds within which a command must have said that it failed; it takes less than one."""
FAST = ("--level", "1")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three parts and a bit, with no holes, in whole sectors."""
    path = tmp_path_factory.mktemp("image") / "disk"
    return images.random_image(path, 3 * PART + 5 * MIB + 512, "bundle")


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file system, most of it holes."""
    folder = tmp_path_factory.mktemp("sparse")
    return images.ext4_image(folder / "disk", images.file_tree(folder / "tree"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def parts_in(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if ".part." in name}


def stamps(folder: Path, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Give what tells whether a file has been written again."""
    found = {name: (folder / name).stat() for name in names}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def undone(folder: Path, keys: KeyPair, image: Path) -> None:
    """Have stock tools undo the bundle and compare it with its image."""
    manifest = folder / "image.manifest.xml"
    listed = [folder / name for name in oracles.part_names(manifest)]
    assert oracles.sha1sum(listed) == oracles.part_digests(manifest)
    assert oracles.verify_signature(manifest, keys.public, folder.parent) == "Verified OK"
    oracles.compare_streaming(listed, oracles.secrets(manifest, keys.private), image)


def piped(
    *words: str | Path, data: bytes | Path, env: dict[str, str] | None = None
) -> tuple[int, str]:
    """Run a command that reads `data` from a pipe; give its exit code and stderr."""
    ended = subprocess.run(
        [*BUNDLEFS, *map(str, words)],
        env=settings(env),
        input=data if isinstance(data, bytes) else data.read_bytes(),
        capture_output=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert ended.stdout == b""
    return ended.returncode, ended.stderr.decode()


# --- what it writes ---


@pytest.mark.parametrize(
    ("which", "options"),
    [
        ("image", ("--level", "0")),
        ("image", FAST),
        ("sparse", FAST),
        ("sparse", ()),
        ("sparse", ("--no-sparse", *FAST)),
    ],
)
def test_it_writes_what_a_mount_shows(
    which: str, options: tuple[str, ...], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path: Path = request.getfixturevalue(which)
    regions = ("--region", "us-east-1", "--region", "cn-north-1", "--prefix", "my disk")
    state = ("--state", tmp_path / "state")
    done("bundle", *options, *regions, *state, path, tmp_path / "dest")
    with mounted(path, tmp_path / "mnt", *map(str, (*options, *regions, *state))) as mount:
        shown = {item.name: item.read_bytes() for item in mount.path.iterdir() if item.is_file()}
    assert contents(tmp_path / "dest") == shown
    assert {"my disk.manifest.xml", "my disk.cn-north-1.manifest.xml"} < set(shown)


def test_a_mount_first_gives_the_same(image: Path, tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "state"))
    with mounted(image, tmp_path / "mnt", *FAST, *state) as mount:
        shown = {item.name: item.read_bytes() for item in mount.path.iterdir() if item.is_file()}
        line = refused("bundle", *FAST, *state, image, tmp_path / "dest")
        assert "in use by" in line
        assert str(mount.path) in line
    done("bundle", *FAST, *state, image, tmp_path / "dest")
    assert contents(tmp_path / "dest") == shown


def test_stock_tools_undo_it(sparse: Path, user_keys: KeyPair, tmp_path: Path) -> None:
    done("bundle", "--user-key", user_keys.private, sparse, tmp_path / "new" / "dest")
    undone(tmp_path / "new" / "dest", user_keys, sparse)


def test_our_own_way_back_takes_it(sparse: Path, user_keys: KeyPair, tmp_path: Path) -> None:
    key = ("--user-key", user_keys.private)
    done("bundle", *key, sparse, tmp_path / "dest")
    manifest = tmp_path / "dest" / "image.manifest.xml"
    done("verify", *key, manifest)
    done("unbundle", *key, manifest, "-o", tmp_path / "back")
    oracles.assert_same(tmp_path / "back", sparse)


def test_the_manifest_is_the_last_of_all(image: Path, tmp_path: Path) -> None:
    done("bundle", *FAST, image, tmp_path / "dest")
    times = {path.name: path.stat().st_ctime_ns for path in (tmp_path / "dest").iterdir()}
    manifest = times.pop("image.manifest.xml")
    assert sorted(times) == [f"image.part.0{number}" for number in range(4)]
    # The clock of a file system ticks in milliseconds: the last part may have the same time.
    assert manifest >= max(times.values())
    assert manifest > times["image.part.00"]


# --- standard input ---


@pytest.mark.parametrize("size", [1, 4096, 3 * PART])
def test_a_pipe_of_a_known_size(size: int, user_keys: KeyPair, tmp_path: Path) -> None:
    path = images.random_image(tmp_path / "disk", size)
    options = ("--user-key", user_keys.private, "--size", str(size))
    code, said = piped("bundle", *options, "-", tmp_path / "dest", data=path)
    assert (code, "warning" in said) == (0, False), said
    undone(tmp_path / "dest", user_keys, path)


def test_a_pipe_of_unknown_size(user_keys: KeyPair, sparse: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    options = ("--user-key", user_keys.private, "-", tmp_path / "dest")
    code, said = piped("bundle", *options, data=sparse, env={"TMPDIR": str(spool)})
    assert code == 0
    [warning] = [line for line in said.splitlines() if "warning" in line]
    assert "--size" in warning
    assert str(spool) in warning
    undone(tmp_path / "dest", user_keys, sparse)
    assert leftovers(spool) == []
    # A state with a key in it, under a name that never comes again, would stay for ever.
    assert not list((tmp_path / "state-home").rglob("*.state"))


@pytest.mark.parametrize(
    ("size", "given"), [("100", 99), ("100", 101), ("100", 0), ("15M", 12 * MIB), ("11M", 12 * MIB)]
)
def test_a_pipe_of_another_size(size: str, given: int, tmp_path: Path) -> None:
    data = b"".join(images.noise(given))
    code, said = piped("bundle", "--size", size, "-", tmp_path / "dest", data=data)
    assert code == 1
    line = the_line(said)
    counts = [int(number) for number in re.findall(r"\d{2,}", line)]
    wanted = int(size.replace("M", "")) * (MIB if size.endswith("M") else 1)
    assert wanted in counts
    assert set(leftovers(tmp_path / "dest")) <= {"image.part.00"}


def test_an_empty_pipe(tmp_path: Path) -> None:
    code, said = piped("bundle", "-", tmp_path / "dest", data=b"")
    assert code == 1
    assert "empty" in said.splitlines()[-1]
    assert leftovers(tmp_path / "dest") == []


@pytest.mark.parametrize("sized", [True, False])
def test_no_input_at_all(*, sized: bool, tmp_path: Path) -> None:
    script = 'exec "$@" <&-'
    size = ("--size", "100") if sized else ()
    command = ["sh", "-c", script, "sh", *BUNDLEFS, "bundle", *size, "-", str(tmp_path / "dest")]
    ended = subprocess.run(
        command, env=settings(), capture_output=True, text=True, timeout=PROMPT, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("bundlefs: ")
    assert "unexpected" not in ended.stderr


def test_no_room_to_keep_a_pipe(tmp_path: Path) -> None:
    with tiny(tmp_path / "spool", MIB) as spool:
        env = {"TMPDIR": str(spool)}
        code, said = piped("bundle", "-", tmp_path / "dest", data=bytes(3 * MIB), env=env)
        assert leftovers(spool) == []
    assert code == 1
    last = said.splitlines()[-1]
    assert str(spool) in last
    assert "No space left" in last
    assert "--size" in last


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_pipe_leaves_no_image_behind(number: int, tmp_path: Path) -> None:
    """It is a plain image, and has no name from its first byte on."""
    spool = tmp_path / "spool"
    spool.mkdir()
    process = subprocess.Popen(
        [*BUNDLEFS, "bundle", "-", str(tmp_path / "dest")],
        env=settings({"TMPDIR": str(spool)}),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdin
        assert process.stderr
        assert str(spool).encode() in process.stderr.readline()
        # More than a pipe holds: some of it has arrived.
        process.stdin.write(bytes(4 * MIB))
        process.stdin.flush()
        during = leftovers(spool)
        process.send_signal(number)
        process.wait(COMMAND_SECONDS)
    assert during == []
    assert leftovers(spool) == []


# --- going on ---


@contextmanager
def running(*words: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in the background; it is killed at the end if it still runs."""
    process = subprocess.Popen(
        [*BUNDLEFS, *map(str, words)],
        env=settings(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[bytes], path: Path) -> None:
    deadline = time.monotonic() + COMMAND_SECONDS
    while not path.exists():
        assert process.poll() is None, "it ended before it was to be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that takes some seconds at level 9 with one thread: five parts and a bit."""
    return images.random_image(tmp_path_factory.mktemp("slow") / "disk", 5 * PART + 3 * MIB, "slow")


SLOW = ("--level", "9", "--jobs", "1")


@pytest.mark.parametrize(
    ("how", "part"),
    [
        (signal.SIGKILL, 0),
        (signal.SIGKILL, 2),
        (signal.SIGKILL, 4),
        (signal.SIGINT, 1),
        (signal.SIGTERM, 3),
    ],
)
def test_a_run_that_ended_goes_on(
    how: signal.Signals, part: int, slow: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    options = (*SLOW, "--user-key", user_keys.private)
    dest = tmp_path / "dest"
    with running("bundle", *options, slow, dest) as process:
        wait_for(process, dest / f"image.part.0{part}")
        process.send_signal(how)
        process.wait(PROMPT)
        before = parts_in(dest)
        assert process.returncode != 0
    assert not (dest / "image.manifest.xml").exists()
    if how == signal.SIGINT:
        assert not [name for name in leftovers(dest) if name.startswith(".")]
    whole = [name for name in before if not name.startswith(".")]
    kept = stamps(dest, whole)
    done("bundle", *options, slow, dest)
    after = contents(dest)
    assert {name: after[name] for name in whole} == {name: before[name] for name in whole}
    assert sorted(after) == ["image.manifest.xml", *(f"image.part.0{n}" for n in range(6))]
    undone(dest, user_keys, slow)
    if how == signal.SIGINT:
        # Else the state was not saved on the way out: the same bytes may be written again.
        assert stamps(dest, whole) == kept


def test_parts_that_the_state_knows_are_kept(
    slow: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    """Killed when the state was saved: no part of before is written again."""
    options = (*SLOW, "--user-key", user_keys.private)
    dest, state = tmp_path / "dest", tmp_path / "state"
    with running("bundle", *options, "--state", state, slow, dest) as process:
        wait_for(process, dest / "image.part.01")
        begun = state.stat().st_mtime_ns
        # Saves are two seconds apart, and that is longer than all of this takes.
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.2)
        whole = [name for name in leftovers(dest) if not name.startswith(".")]
        process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + COMMAND_SECONDS
        while state.stat().st_mtime_ns == begun and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    assert len(whole) >= 2
    kept = stamps(dest, whole)
    done("bundle", *options, "--state", state, slow, dest)
    assert stamps(dest, list(kept)) == kept
    undone(dest, user_keys, slow)


def test_again_is_the_same_and_costs_nothing(image: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    done("bundle", *FAST, image, dest)
    before, kept = contents(dest), stamps(dest, list(parts_in(dest)))
    start = time.monotonic()
    done("bundle", *FAST, image, dest)
    assert time.monotonic() - start < PROMPT
    assert contents(dest) == before
    assert stamps(dest, list(kept)) == kept


def test_another_folder_gets_the_same_bundle(image: Path, tmp_path: Path) -> None:
    for name in ("once", "again"):
        done("bundle", *FAST, image, tmp_path / name)
    assert contents(tmp_path / "once") == contents(tmp_path / "again")


def test_a_region_more_leaves_the_parts_alone(image: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    done("bundle", *FAST, image, dest)
    before, kept = contents(dest), stamps(dest, list(parts_in(dest)))
    done("bundle", *FAST, "--region", "us-east-1", "--region", "cn-north-1", image, dest)
    after = contents(dest)
    assert stamps(dest, list(kept)) == kept
    assert set(after) - set(before) == {"image.cn-north-1.manifest.xml"}
    assert {name: after[name] for name in before} == before


def test_parts_that_are_damaged_missing_or_foreign_are_replaced(
    image: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "dest"
    done("bundle", *FAST, image, dest)
    before, kept = contents(dest), stamps(dest, ["image.part.03"])
    (dest / "image.part.00").write_bytes(bytes(PART))
    (dest / "image.part.01").unlink()
    with (dest / "image.part.02").open("r+b") as part:
        part.seek(77)
        part.write(b"X")
    (dest / "image.manifest.xml").write_text("<manifest/>")
    (dest / "notes.txt").write_text("mine")
    done("bundle", *FAST, image, dest)
    assert contents(dest) == before | {"notes.txt": b"mine"}
    assert stamps(dest, ["image.part.03"]) == kept


def test_a_changed_image_gives_a_new_bundle(
    image: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    disk, dest = tmp_path / "disk", tmp_path / "dest"
    shutil.copy(image, disk)
    options = (*FAST, "--user-key", user_keys.private)
    done("bundle", *options, disk, dest)
    before = contents(dest)
    with disk.open("r+b") as file:
        file.write(b"changed")
    ending = done("bundle", *options, disk, dest)
    assert "a new bundle with a new key" in ending.err
    after = contents(dest)
    assert set(after) == set(before)
    assert all(after[name] != before[name] for name in before)
    undone(dest, user_keys, disk)


@pytest.mark.parametrize("source", ["file", "pipe"])
def test_no_manifest_lies_over_parts_that_are_not_its_own(
    source: str, image: Path, tmp_path: Path
) -> None:
    """An older bundle is there. What breaks off over it must not look like a bundle."""
    disk, dest = tmp_path / "disk", tmp_path / "dest"
    shutil.copy(image, disk)
    done("bundle", *FAST, disk, dest)
    if source == "pipe":
        size = str(image.stat().st_size)
        code, said = piped("bundle", *FAST, "--size", size, "-", dest, data=bytes(12 * MIB))
        assert (code, said.count("\n")) == (1, 1)
    else:
        os.utime(disk)
        with running("bundle", *SLOW, disk, dest):
            old = (dest / "image.part.00").stat().st_ino
            deadline = time.monotonic() + COMMAND_SECONDS
            while (dest / "image.part.00").stat().st_ino == old and time.monotonic() < deadline:
                time.sleep(0.002)
    assert not (dest / "image.manifest.xml").exists()
    assert (dest / "image.part.03").exists()


@pytest.mark.parametrize("source", ["file", "pipe"])
def test_a_manifest_of_a_region_that_is_not_asked_for_again(
    source: str, image: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    """It stays as long as the parts are its own, and goes with them; others' are left alone."""
    dest = tmp_path / "dest"
    done("bundle", *FAST, "--region", "cn-north-1", image, dest)
    china = dest / "image.cn-north-1.manifest.xml"
    known = china.read_bytes()
    done("bundle", *FAST, image, dest)
    assert china.read_bytes() == known, "the same bundle goes on"
    others = (dest / "image.two.manifest.xml", dest / "image.cn-north-2.manifest.xml")
    others[0].write_bytes(known.replace(b">image.part", b">image.two.part"))
    others[1].write_bytes(b"nothing")
    key = ("--user-key", user_keys.private)
    if source == "file":
        said = done("bundle", *FAST, *key, image, dest).err
    else:
        size = ("--size", str(image.stat().st_size))
        code, said = piped("bundle", *FAST, *key, *size, "-", dest, data=image)
        assert code == 0
    assert not china.exists()
    assert f"{china} is removed: its parts are replaced" in said
    assert all(path.exists() for path in others)
    undone(dest, user_keys, image)


def test_a_command_that_is_refused_touches_nothing(image: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    done("bundle", *FAST, image, dest)
    before = contents(dest)
    refused("bundle", *FAST, tmp_path / "no image", dest)
    refused("bundle", "--level", "10", image, dest, code=2)
    refused("bundle", "--size", "0", "-", dest, code=2)
    assert contents(dest) == before


# --- failures ---


@contextmanager
def tiny(folder: Path, size: int) -> Iterator[Path]:
    """Mount a file system of `size` bytes."""
    folder.mkdir()
    run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder])
    try:
        yield folder
    finally:
        detach(folder)


@pytest.mark.parametrize("sized", [True, False])
def test_a_full_disk(*, sized: bool, image: Path, user_keys: KeyPair, tmp_path: Path) -> None:
    options = (*FAST, "--user-key", user_keys.private)
    with tiny(tmp_path / "disk", 2 * PART + 3 * MIB) as disk:
        start = time.monotonic()
        if sized:
            size = ("--size", str(image.stat().st_size))
            code, said = piped("bundle", *options, *size, "-", disk / "dest", data=image)
            assert code == 1
            line = the_line(said)
        else:
            line = refused("bundle", *options, image, disk / "dest")
        assert time.monotonic() - start < PROMPT
        assert "No space left" in line
        assert "image.part.02" in line
        assert leftovers(disk / "dest") == ["image.part.00", "image.part.01"]
        run(["mount", "-o", "remount,size=80m", disk])
        kept = stamps(disk / "dest", leftovers(disk / "dest"))
        done("bundle", *options, image, disk / "dest")
        undone(disk / "dest", user_keys, image)
        if not sized:
            assert stamps(disk / "dest", list(kept)) == kept


@pytest.mark.parametrize("where", ["a file", "below a file", "read-only"])
def test_a_folder_that_cannot_be(where: str, image: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    if where == "read-only":
        with tiny(tmp_path / "disk", 64 * MIB) as disk:
            run(["mount", "-o", "remount,ro", disk])
            line = refused("bundle", *FAST, image, disk)
    else:
        dest = tmp_path / "file" if where == "a file" else tmp_path / "file" / "dest"
        line = refused("bundle", *FAST, image, dest)
    assert str(tmp_path) in line
    wanted = {"a file": "File exists", "below a file": "Not a directory", "read-only": "Read-only"}
    assert wanted[where] in line


def test_a_folder_of_somebody_else(image: Path) -> None:
    with users_folder() as folder:
        shutil.copy(image, folder / "disk")
        (folder / "disk").chmod(0o644)
        dest = folder / "dest"
        dest.mkdir(mode=0o755)
        if not ROOT:
            dest.chmod(0o555)
        env = {"XDG_STATE_HOME": str(folder / "mnt")}
        line = refused("bundle", *FAST, folder / "disk", dest, program=AS_USER, env=env)
        assert "Permission denied" in line
        assert str(dest) in line
        assert leftovers(dest) == []


def test_a_part_that_is_a_folder(image: Path, tmp_path: Path) -> None:
    (tmp_path / "dest" / "image.part.01").mkdir(parents=True)
    line = refused("bundle", *FAST, image, tmp_path / "dest")
    assert "image.part.01" in line
    assert leftovers(tmp_path / "dest") == ["image.part.00", "image.part.01"]


def test_an_image_that_changes_meanwhile(slow: Path, tmp_path: Path) -> None:
    disk, dest = tmp_path / "disk", tmp_path / "dest"
    shutil.copy(slow, disk)
    with running("bundle", *SLOW, disk, dest) as process:
        wait_for(process, dest / "image.part.01")
        os.utime(disk)
        _, err = process.communicate(timeout=PROMPT)
        assert process.returncode == 1
    line = err.decode().splitlines()[-1]
    assert line.startswith("bundlefs: ")
    assert "changed" in line
    assert "mtime" in line
    assert set(leftovers(dest)) <= {f"image.part.0{number}" for number in range(5)}


@pytest.mark.parametrize(
    "words",
    [
        ("--level", "10"),
        ("--level", "six"),
        ("--jobs", "0"),
        ("--size", "many", "-"),
        ("--size", "0", "-"),
        ("--size", "5", "IMAGE"),
        ("--region", "mars-1"),
        ("--account", "123"),
        ("--prefix", "a/b"),
        ("--user-key", "/nowhere.pem"),
        ("--cache-size", "1G"),
        ("--eager",),
        ("--frobnicate",),
    ],
)
def test_bad_options_are_wrong_usage(words: tuple[str, ...], image: Path, tmp_path: Path) -> None:
    named = [str(image) if word == "IMAGE" else word for word in words]
    given = named if words[-1] in ("-", "IMAGE") else [*named, str(image)]
    ended = subprocess.run(
        [*BUNDLEFS, "bundle", *given, str(tmp_path / "dest")],
        env=settings(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PROMPT,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, ""), ended
    assert ended.stderr.splitlines()[-1].startswith("bundlefs")
    assert not (tmp_path / "dest").exists() or leftovers(tmp_path / "dest") == []


def test_no_account(image: Path, tmp_path: Path) -> None:
    env = {"BUNDLEFS_ACCOUNT": ""}
    line = refused("bundle", image, tmp_path / "dest", code=2, env=env)
    assert "--account" in line


def test_the_log_file_has_what_is_said(image: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = tmp_path / "log"
    ending = done("bundle", *FAST, "--log-file", log, image, tmp_path / "dest")
    assert ending.err == ""
    assert f"the bundle of {image} is complete" in log.read_text()


# --- hosts without FUSE ---

WITHOUT_FUSE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pyfuse3", "trio"):
            raise ImportError(name)

sys.meta_path.insert(0, Missing())
from bundlefs.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_it_needs_no_fuse(image: Path, tmp_path: Path) -> None:
    words = ["bundle", "--state", "none", "--level", "1", "--account", ACCOUNT]
    run([sys.executable, "-c", WITHOUT_FUSE, *words, image, tmp_path / "dest"])
    assert (tmp_path / "dest" / "image.manifest.xml").exists()


# The index that travels


def test_the_index_goes_with_its_bundle_and_not_with_another(
    sparse: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    dest, key = tmp_path / "out", ("--user-key", user_keys.private)
    words = ("bundle", "--account", ACCOUNT, *key, *FAST)
    index, verify = dest / "image.index", ("verify", dest, *key)

    def checked() -> tuple[str, str]:
        return report(within(*verify)[1]).get("index", ("", ""))

    assert within(*words, "--with-index", sparse, dest)[0] == 0
    made = index.read_bytes()
    outcome, says = checked()
    assert (outcome, index_size(int(says.removesuffix(" blocks")))) == ("ok", len(made))
    # for another region, say: the bundle is the same, and so is its index
    assert within(*words, sparse, dest)[0] == 0
    assert index.read_bytes() == made
    code, _, err = within(*words, "--fresh", sparse, dest)
    assert (code, index.exists()) == (0, False)
    assert f"{index} is removed: it is the index of another bundle" in err
    assert checked() == ("", "")
    index.write_bytes(made)
    assert checked() == ("FAILED", f"index {index}: it is of another bundle, or is damaged")
    code, err = piped(
        *words, "--with-index", "--size", str(sparse.stat().st_size), "-", dest, data=sparse
    )
    assert code == 0, err
    assert checked()[0] == "ok"
    undone(dest, user_keys, sparse)
    assert report(within("verify", dest)[1])["index"][0] == "skipped"
    mine = b"a file of somebody's own"
    index.write_bytes(mine)
    assert within(*words, "--fresh", sparse, dest)[0] == 0
    assert index.read_bytes() == mine
