"""`bundlefs unbundle` of bundles that other tools made: to files, to pipes, and not at all."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.interop.back import MIB, done, leftovers, refused
from tests.support import images, oracles
from tests.support.bundles import BUNDLERS, Made, Workshop
from tests.support.keys import KeyPair
from tests.support.mounts import BUNDLEFS, settings
from tests.support.tools import run, tool

EC2_TOOLS = BUNDLERS["ec2-ami-tools"]


@pytest.mark.parametrize("name", BUNDLERS)
def test_the_image_of_any_bundler_comes_back(
    name: str, mixed: Path, out: Path, own_workshop: Workshop
) -> None:
    bundler = BUNDLERS[name]
    made, key = own_workshop.make(mixed, bundler), own_workshop.key(bundler)
    ending = done("unbundle", made.manifest, *key, "-o", out / "disk")
    oracles.assert_same(out / "disk", mixed)
    assert leftovers(out) == ["disk"]
    assert (ending.out, ending.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("name", ["ec2-ami-tools", "pax, sparse", "euca2ools"])
def test_to_standard_output(name: str, mixed: Path, own_workshop: Workshop) -> None:
    bundler = BUNDLERS[name]
    made, key = own_workshop.make(mixed, bundler), own_workshop.key(bundler)
    words = ["unbundle", made.manifest, *key, "-o", "-"]
    with (own_workshop.folder / "piped").open("wb") as piped:
        subprocess.run([*BUNDLEFS, *map(str, words)], stdout=piped, env=settings(), check=True)
    oracles.assert_same(own_workshop.folder / "piped", mixed)


def test_an_empty_last_part(mixed: Path, out: Path, own_workshop: Workshop) -> None:
    sealed = own_workshop.make(mixed, EC2_TOOLS, "first").facts
    assert sealed.bundled_size is not None
    # half of the sealed bytes in each part: an exact multiple
    halves = replace(EC2_TOOLS, part_size=sealed.bundled_size // 2, empty_end=True)
    made, key = own_workshop.make(mixed, halves), own_workshop.key(halves)
    assert [part.stat().st_size for part in made.parts] == [halves.part_size] * 2 + [0]
    done("unbundle", made.manifest, *key, "-o", out / "disk")
    oracles.assert_same(out / "disk", mixed)


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_holes_stay_holes(mixed_bundle: Made, out: Path, user_keys: KeyPair) -> None:
    done("unbundle", mixed_bundle.manifest, "--user-key", user_keys.private, "-o", out / "disk")
    data = 900_000 + MIB + 2 * MIB + 70_000
    assert data <= allocated(out / "disk") < data + 64 * 1024


@pytest.mark.parametrize("name", ["ec2-ami-tools", "tarfile, GNU"])
def test_sparse_makes_holes_of_zeros(
    name: str, mixed: Path, out: Path, own_workshop: Workshop
) -> None:
    bundler = BUNDLERS[name]
    made, key = own_workshop.make(mixed, bundler), own_workshop.key(bundler)
    words = ("unbundle", made.manifest, *key)
    done(*words, "-o", out / "plain")
    done(*words, "--sparse", "-o", out / "sparse")
    oracles.assert_same(out / "sparse", mixed)
    # zeros that stand in the stream are one MiB and, without -S, the holes as well
    saved = MIB if name == "ec2-ami-tools" else 3 * MIB
    assert allocated(out / "plain") - allocated(out / "sparse") > saved - 256 * 1024


def test_a_sparse_image_of_several_gib(tmp_path: Path, out: Path, own_workshop: Workshop) -> None:
    data = {0: b"first", 4096 * MIB + 4096: images.text(MIB), 9216 * MIB - 5: b"last."}
    image = images.sparse_image(tmp_path / "disk", 9216 * MIB, data)
    bundler = EC2_TOOLS
    made, key = own_workshop.make(image, bundler), own_workshop.key(bundler)
    done("unbundle", made.manifest, *key, "-o", out / "disk")
    assert (out / "disk").stat().st_size == 9216 * MIB
    assert allocated(out / "disk") < 2 * MIB
    with (out / "disk").open("rb") as disk:
        for offset, piece in data.items():
            disk.seek(offset)
            assert disk.read(len(piece)) == piece


def test_the_mode_is_that_of_any_new_file(
    mixed_bundle: Made, out: Path, user_keys: KeyPair
) -> None:
    words = [*BUNDLEFS, "unbundle", mixed_bundle.manifest, "--user-key", user_keys.private]
    command = [*map(str, words), "-o", str(out / "disk")]
    subprocess.run(command, umask=0o027, env=settings(), capture_output=True, check=True)
    assert (out / "disk").stat().st_mode & 0o7777 == 0o640


def test_a_file_is_overwritten_only_by_force(
    mixed_bundle: Made, out: Path, user_keys: KeyPair
) -> None:
    (out / "disk").write_text("dear")
    words = ("unbundle", mixed_bundle.manifest, "--user-key", user_keys.private, "-o", out / "disk")
    assert "--force" in refused(*words)
    assert ((out / "disk").read_text(), leftovers(out)) == ("dear", ["disk"])
    done(*words, "--force")
    oracles.assert_same(out / "disk", mixed_bundle.image)


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
    mixed_bundle: Made, out: Path, user_keys: KeyPair, output: str, says: str
) -> None:
    (out / "folder").mkdir()
    (out / "taken").touch()
    words = ("unbundle", mixed_bundle.manifest, "--user-key", user_keys.private, "--force")
    line = refused(*words, "-o", out / output)
    assert output in line
    assert says in line
    assert leftovers(out) == ["folder", "taken"]


@pytest.mark.parametrize("name", ["../outside/evil", "/evil", "..", "x" * 300])
def test_a_name_that_is_a_path_leads_nowhere(
    mixed_bundle: Made, tmp_path: Path, user_keys: KeyPair, name: str
) -> None:
    for folder in ("inside", "outside"):
        (tmp_path / folder).mkdir()
    copy = mixed_bundle.copy(tmp_path / "copy")
    copy.rewrite(user_keys, name=name)
    run_in = [*BUNDLEFS, "unbundle", str(copy.manifest), "--user-key", str(user_keys.private)]
    subprocess.run(run_in, cwd=tmp_path / "inside", env=settings(), check=True)
    assert leftovers(tmp_path / "inside") == ["image.img"]
    assert leftovers(tmp_path / "outside") == []


def test_the_default_name_is_the_images(
    mixed_bundle: Made, tmp_path: Path, user_keys: KeyPair
) -> None:
    (tmp_path / "cwd").mkdir()
    copy = mixed_bundle.copy(tmp_path / "copy")
    copy.rewrite(user_keys, name="my image, v2")
    words = [*BUNDLEFS, "unbundle", str(copy.manifest), "--user-key", str(user_keys.private)]
    subprocess.run(words, cwd=tmp_path / "cwd", env=settings(), check=True)
    oracles.assert_same(tmp_path / "cwd/my image, v2.img", mixed_bundle.image)


def test_parts_in_another_folder(
    mixed_bundle: Made, tmp_path: Path, out: Path, user_keys: KeyPair
) -> None:
    copy = mixed_bundle.copy(tmp_path / "copy")
    alone = tmp_path / "alone.xml"
    copy.manifest.rename(alone)
    words = ("unbundle", alone, "--user-key", user_keys.private, "-o", out / "disk")
    assert "--parts" in refused(*words)
    done(*words, "--parts", copy.manifest.parent)
    oracles.assert_same(out / "disk", mixed_bundle.image)


def test_the_bundle_stays_as_it_is(
    mixed_bundle: Made, tmp_path: Path, out: Path, user_keys: KeyPair
) -> None:
    copy = mixed_bundle.copy(tmp_path / "copy")
    for path in copy.manifest.parent.iterdir():
        path.chmod(0o444)
    before = run(["sha1sum", *copy.parts, copy.manifest])
    done("unbundle", copy.manifest, "--user-key", user_keys.private, "-o", out / "disk")
    assert run(["sha1sum", *copy.parts, copy.manifest]) == before
    assert len(os.listdir(copy.manifest.parent)) == len(copy.parts) + 1  # noqa: PTH208  # names


def test_undone_by_stock_tools_it_is_the_same(mixed_bundle: Made, user_keys: KeyPair) -> None:
    """The bundles of these tests are what they claim to be."""
    assert tool("openssl")
    secrets = oracles.secrets(mixed_bundle.manifest, user_keys.private)
    oracles.compare_streaming(mixed_bundle.parts, secrets, mixed_bundle.image)
