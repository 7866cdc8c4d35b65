"""`bundlefs unbundle` of bundles that other tools made: to files, to pipes, and not at all."""

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.interop.back import MIB, done, leftovers, refused, the_line
from tests.mount.commands import eventually, in_namespace
from tests.support import bundles, images, oracles
from tests.support.bundles import BUNDLERS, Made, Stages, Workshop
from tests.support.keys import KeyPair
from tests.support.mounts import BUNDLEFS, settings
from tests.support.tools import run, tool

EC2_TOOLS = BUNDLERS["ec2-ami-tools"]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.mixed_image(tmp_path_factory.mktemp("image") / "disk")


@pytest.fixture(scope="module")
def made(
    image: Path,
    tmp_path_factory: pytest.TempPathFactory,
    user_keys: KeyPair,
    region_keys: KeyPair,
) -> Made:
    """A bundle with holes, as ec2-ami-tools makes them."""
    workshop = Workshop(tmp_path_factory.mktemp("made"), user_keys, region_keys)
    return workshop.make(image, EC2_TOOLS)


@pytest.fixture
def workshop(tmp_path: Path, user_keys: KeyPair, region_keys: KeyPair) -> Workshop:
    return Workshop(tmp_path, user_keys, region_keys)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder to write to."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", BUNDLERS)
def test_the_image_of_any_bundler_comes_back(
    name: str, image: Path, out: Path, workshop: Workshop
) -> None:
    bundler = BUNDLERS[name]
    made, key = workshop.make(image, bundler), workshop.key(bundler)
    ending = done("unbundle", made.manifest, *key, "-o", out / "disk")
    oracles.assert_same(out / "disk", image)
    assert leftovers(out) == ["disk"]
    assert (ending.out, ending.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("name", ["ec2-ami-tools", "pax, sparse", "euca2ools"])
def test_to_standard_output(name: str, image: Path, workshop: Workshop) -> None:
    bundler = BUNDLERS[name]
    made, key = workshop.make(image, bundler), workshop.key(bundler)
    words = ["unbundle", made.manifest, *key, "-o", "-"]
    with (workshop.folder / "piped").open("wb") as piped:
        subprocess.run([*BUNDLEFS, *map(str, words)], stdout=piped, env=settings(), check=True)
    oracles.assert_same(workshop.folder / "piped", image)


def test_an_empty_last_part(image: Path, out: Path, workshop: Workshop) -> None:
    sealed = workshop.make(image, EC2_TOOLS, "first").facts
    assert sealed.bundled_size is not None
    # half of the sealed bytes in each part: an exact multiple
    halves = replace(EC2_TOOLS, part_size=sealed.bundled_size // 2, empty_end=True)
    made, key = workshop.make(image, halves), workshop.key(halves)
    assert [part.stat().st_size for part in made.parts] == [halves.part_size] * 2 + [0]
    done("unbundle", made.manifest, *key, "-o", out / "disk")
    oracles.assert_same(out / "disk", image)


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_holes_stay_holes(made: Made, out: Path, user_keys: KeyPair) -> None:
    done("unbundle", made.manifest, "--user-key", user_keys.private, "-o", out / "disk")
    data = 900_000 + MIB + 2 * MIB + 70_000
    assert data <= allocated(out / "disk") < data + 64 * 1024


@pytest.mark.parametrize("name", ["ec2-ami-tools", "tarfile, GNU"])
def test_sparse_makes_holes_of_zeros(name: str, image: Path, out: Path, workshop: Workshop) -> None:
    bundler = BUNDLERS[name]
    made, key = workshop.make(image, bundler), workshop.key(bundler)
    words = ("unbundle", made.manifest, *key)
    done(*words, "-o", out / "plain")
    done(*words, "--sparse", "-o", out / "sparse")
    oracles.assert_same(out / "sparse", image)
    # zeros that stand in the stream are one MiB and, without -S, the holes as well
    saved = MIB if name == "ec2-ami-tools" else 3 * MIB
    assert allocated(out / "plain") - allocated(out / "sparse") > saved - 256 * 1024


def test_a_sparse_image_of_several_gib(tmp_path: Path, out: Path, workshop: Workshop) -> None:
    data = {0: b"first", 4096 * MIB + 4096: images.text(MIB), 9216 * MIB - 5: b"last."}
    image = images.sparse_image(tmp_path / "disk", 9216 * MIB, data)
    bundler = EC2_TOOLS
    made, key = workshop.make(image, bundler), workshop.key(bundler)
    done("unbundle", made.manifest, *key, "-o", out / "disk")
    assert (out / "disk").stat().st_size == 9216 * MIB
    assert allocated(out / "disk") < 2 * MIB
    with (out / "disk").open("rb") as disk:
        for offset, piece in data.items():
            disk.seek(offset)
            assert disk.read(len(piece)) == piece


def test_the_mode_is_that_of_any_new_file(made: Made, out: Path, user_keys: KeyPair) -> None:
    words = [*BUNDLEFS, "unbundle", made.manifest, "--user-key", user_keys.private]
    command = [*map(str, words), "-o", str(out / "disk")]
    subprocess.run(command, umask=0o027, env=settings(), capture_output=True, check=True)
    assert (out / "disk").stat().st_mode & 0o7777 == 0o640


def test_a_file_is_overwritten_only_by_force(made: Made, out: Path, user_keys: KeyPair) -> None:
    (out / "disk").write_text("dear")
    words = ("unbundle", made.manifest, "--user-key", user_keys.private, "-o", out / "disk")
    assert "--force" in refused(*words)
    assert ((out / "disk").read_text(), leftovers(out)) == ("dear", ["disk"])
    done(*words, "--force")
    oracles.assert_same(out / "disk", made.image)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("folder", "not a plain file"),
        ("missing/disk", "No such file or directory"),
        ("taken/disk", "Not a directory"),
        ("x" * 256, "File name too long"),
    ],
)
def test_where_no_file_can_be(
    made: Made, out: Path, user_keys: KeyPair, output: str, says: str
) -> None:
    (out / "folder").mkdir()
    (out / "taken").touch()
    words = ("unbundle", made.manifest, "--user-key", user_keys.private, "--force")
    line = refused(*words, "-o", out / output)
    assert output in line
    assert says in line
    assert leftovers(out) == ["folder", "taken"]


@pytest.mark.parametrize("name", ["../outside/evil", "/evil", "..", "x" * 300])
def test_a_name_that_is_a_path_leads_nowhere(
    made: Made, tmp_path: Path, user_keys: KeyPair, name: str
) -> None:
    for folder in ("inside", "outside"):
        (tmp_path / folder).mkdir()
    copy = made.copy(tmp_path / "copy")
    copy.rewrite(user_keys, name=name)
    run_in = [*BUNDLEFS, "unbundle", str(copy.manifest), "--user-key", str(user_keys.private)]
    subprocess.run(run_in, cwd=tmp_path / "inside", env=settings(), check=True)
    assert leftovers(tmp_path / "inside") == ["image.img"]
    assert leftovers(tmp_path / "outside") == []


def test_the_default_name_is_the_images(made: Made, tmp_path: Path, user_keys: KeyPair) -> None:
    (tmp_path / "cwd").mkdir()
    copy = made.copy(tmp_path / "copy")
    copy.rewrite(user_keys, name="my image, v2")
    words = [*BUNDLEFS, "unbundle", str(copy.manifest), "--user-key", str(user_keys.private)]
    subprocess.run(words, cwd=tmp_path / "cwd", env=settings(), check=True)
    oracles.assert_same(tmp_path / "cwd/my image, v2.img", made.image)


@pytest.mark.parametrize("force", [False, True])
def test_a_wrong_tar_digest_leaves_nothing(
    made: Made, tmp_path: Path, out: Path, user_keys: KeyPair, *, force: bool
) -> None:
    copy = made.copy(tmp_path / "copy")
    copy.rewrite(user_keys, digest="0" * 40)
    if force:
        (out / "disk").write_text("dear")
    words = ("unbundle", copy.manifest, "--user-key", user_keys.private, "-o", out / "disk")
    line = refused(*words, *(("--force",) if force else ()))
    assert "0" * 40 in line
    assert oracles.sha1sum([made.tar])[0] in line
    assert {path.name: path.read_text() for path in out.iterdir()} == (
        {"disk": "dear"} if force else {}
    )


@pytest.fixture
def endless(tmp_path: Path, workshop: Workshop) -> Made:
    """A bundle of 16 GiB of zeros, which takes longer than anybody waits."""
    size = 16384
    stream = bundles.zeros_gzip(bundles.member("image", size * MIB), size)
    compressed = tmp_path / "gz"
    compressed.write_bytes(stream)
    tar = images.sparse_image(tmp_path / "tar", 1, {})
    image = images.sparse_image(tmp_path / "zeros", size * MIB, {})
    return workshop.seal(Stages(image, tar, compressed), EC2_TOOLS)


def written_to(pid: int, folder: Path) -> int:
    """Return the bytes of a process' open files in a folder, though they have no name there."""
    found = 0
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            found += file.stat().st_size if folder in file.readlink().parents else 0
    return found


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGKILL, -signal.SIGKILL),
        (signal.SIGTERM, 143),
        (signal.SIGINT, 130),
        (signal.SIGHUP, 129),
    ],
)
def test_ended_in_the_middle(
    endless: Made, out: Path, user_keys: KeyPair, number: int, expected: int
) -> None:
    words = ["unbundle", endless.manifest, "--user-key", user_keys.private]
    command = [*BUNDLEFS, *map(str, words), "-o", str(out / "disk")]
    with subprocess.Popen(command, env=settings(), stderr=subprocess.PIPE) as process:
        assert eventually(lambda: written_to(process.pid, out) > 0)
        during = leftovers(out)
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert b"Traceback" not in said
    assert process.returncode == expected
    assert (during, leftovers(out)) == ([], []), "half an image has no name"


FULL = """
mount -t tmpfs -o size=1m none "$1"
cd "$1"
shift
"$@" -o disk 2>&1 || echo "code $?"
ls -A
"""


def test_a_full_disk(made: Made, out: Path, user_keys: KeyPair) -> None:
    words = ["unbundle", made.manifest, "--user-key", user_keys.private]
    command = [*in_namespace(FULL, out, *BUNDLEFS), *map(str, words)]
    shown = subprocess.run(command, env=settings(), capture_output=True, text=True, check=True)
    *lines, code = shown.stdout.splitlines(keepends=True)
    assert the_line("".join(lines)).endswith("cannot write disk: No space left on device")
    assert code == "code 1\n"  # and `ls` shows nothing behind it


def test_a_full_pipe(made: Made, user_keys: KeyPair) -> None:
    words = ["unbundle", made.manifest, "--user-key", user_keys.private, "-o", "-"]
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*BUNDLEFS, *map(str, words)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=settings(),
            check=False,
        )
    assert ended.returncode == 1
    assert the_line(ended.stderr).endswith("standard output: No space left on device")


def test_a_reader_that_leaves(made: Made, user_keys: KeyPair) -> None:
    words = ["unbundle", made.manifest, "--user-key", user_keys.private, "-o", "-"]
    pipe = subprocess.PIPE
    command = [*BUNDLEFS, *map(str, words)]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=settings()) as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == images.text(4)
        process.stdout.close()
        process.stdout = None
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert the_line(said.decode()).endswith("standard output: Broken pipe")


# Keys


def test_an_iv_of_sixteen_digits_is_filled_up(image: Path, out: Path, workshop: Workshop) -> None:
    bundler = BUNDLERS["scalarizr"]
    made, key = workshop.make(image, bundler), workshop.key(bundler)
    wrapped = oracles.element(made.manifest, "user_encrypted_iv")
    command: list[str | Path] = ["openssl", "pkeyutl", "-decrypt", "-inkey", workshop.user.private]
    assert len(run(command, data=bytes.fromhex(wrapped))) == 16
    done("unbundle", made.manifest, *key, "-o", out / "disk")
    oracles.assert_same(out / "disk", image)


def test_without_a_private_key(made: Made, out: Path, user_keys: KeyPair) -> None:
    assert "--user-key" in refused("unbundle", made.manifest, "-o", out / "disk")
    words = ("unbundle", made.manifest, "--user-cert", user_keys.certificate, "-o", out / "disk")
    assert "--user-key" in refused(*words)
    assert leftovers(out) == []


def test_the_wrong_key(made: Made, out: Path, user_keys: KeyPair, region_keys: KeyPair) -> None:
    for option, key in (("--user-key", region_keys), ("--ec2-key", user_keys)):
        line = refused("unbundle", made.manifest, option, key.private, "-o", out / "disk")
        assert "does not open" in line
    assert leftovers(out) == []


def test_ec2s_key_opens_what_the_users_does(made: Made, out: Path, region_keys: KeyPair) -> None:
    done("unbundle", made.manifest, "--ec2-key", region_keys.private, "-o", out / "disk")
    oracles.assert_same(out / "disk", made.image)


def test_an_unsigned_bundle_is_ec2s_alone(image: Path, out: Path, workshop: Workshop) -> None:
    made = workshop.make(image, BUNDLERS["euca2ools, unsigned"])
    own = ("--user-key", workshop.user.private)
    line = refused("unbundle", made.manifest, *own, "-o", out / "disk")
    assert "--ec2-key" in line


def test_an_encrypted_key(made: Made, tmp_path: Path, out: Path, user_keys: KeyPair) -> None:
    locked = tmp_path / "locked.pem"
    options = ("-aes-256-cbc", "-passout", "pass:open sesame", "-out", locked)
    run(("openssl", "pkey", "-in", user_keys.private, *options))
    words = ("unbundle", made.manifest, "--user-key", locked, "-o", out / "disk")
    assert "BUNDLEFS_PASSPHRASE" in refused(*words, code=2)
    assert "passphrase" in refused(*words, code=2, env={"BUNDLEFS_PASSPHRASE": "wrong"})
    named = (*words, "--passphrase-env", "MINE")
    done(*named, env={"MINE": "open sesame"})
    oracles.assert_same(out / "disk", made.image)


def test_parts_in_another_folder(made: Made, tmp_path: Path, out: Path, user_keys: KeyPair) -> None:
    copy = made.copy(tmp_path / "copy")
    alone = tmp_path / "alone.xml"
    copy.manifest.rename(alone)
    words = ("unbundle", alone, "--user-key", user_keys.private, "-o", out / "disk")
    assert "--parts" in refused(*words)
    done(*words, "--parts", copy.manifest.parent)
    oracles.assert_same(out / "disk", made.image)


def test_the_bundle_stays_as_it_is(
    made: Made, tmp_path: Path, out: Path, user_keys: KeyPair
) -> None:
    copy = made.copy(tmp_path / "copy")
    for path in copy.manifest.parent.iterdir():
        path.chmod(0o444)
    before = run(["sha1sum", *copy.parts, copy.manifest])
    done("unbundle", copy.manifest, "--user-key", user_keys.private, "-o", out / "disk")
    assert run(["sha1sum", *copy.parts, copy.manifest]) == before
    assert len(os.listdir(copy.manifest.parent)) == len(copy.parts) + 1  # noqa: PTH208  # names


def test_undone_by_stock_tools_it_is_the_same(made: Made, user_keys: KeyPair) -> None:
    """The bundles of these tests are what they claim to be."""
    assert tool("openssl")
    secrets = oracles.secrets(made.manifest, user_keys.private)
    oracles.compare_streaming(made.parts, secrets, made.image)
