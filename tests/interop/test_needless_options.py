"""An option that can have no effect is refused by its name, before anything is done."""

from pathlib import Path

import pytest

from tests.interop.back import leftovers, refused
from tests.mount.commands import attempt
from tests.support import images
from tests.support.keys import KeyPair
from tests.support.mounts import bundlefs

LEVEL = ("--level", "0")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.text_image(tmp_path / "disk", 5000)


@pytest.fixture
def manifest(image: Path, tmp_path: Path, user_keys: KeyPair) -> Path:
    bundlefs("bundle", *LEVEL, "--user-key", user_keys.private, image, tmp_path / "bundle")
    return tmp_path / "bundle" / "image.manifest.xml"


SIZED = ("--size", "100")


@pytest.mark.parametrize(
    "words",
    [
        ("--state", "kept"),
        ("--fresh",),
        ("--state", "kept", *SIZED),
        ("--fresh", *SIZED),
        ("--source", "auto", *SIZED),
        ("--no-sparse", *SIZED),
    ],
    ids=" ".join,
)
def test_of_a_pipe(words: tuple[str, ...], tmp_path: Path) -> None:
    line = refused("bundle", *words, "-", tmp_path / "dest", code=2)
    assert words[0] in line
    assert leftovers(tmp_path) in ([], ["state-home"])


@pytest.mark.parametrize("words", [("--state", "none"), ("--source", "raw"), ("--no-size-limit",)])
def test_what_has_an_effect_is_taken(words: tuple[str, ...], tmp_path: Path) -> None:
    ending = attempt("bundle", *words, *SIZED, "-", tmp_path / "dest")
    assert ending.code == 1, "standard input is empty here"
    assert words[0] not in ending.err


def test_a_large_pipe_is_warned_of(tmp_path: Path) -> None:
    words = ("bundle", "--size", "11G", "-", tmp_path / "dest")
    assert "EC2 takes root images of at most 10 GiB" in attempt(*words).err
    assert "10 GiB" not in attempt(*words, "--no-size-limit").err


@pytest.mark.parametrize("command", ["mount", "bundle"])
def test_fresh_without_a_state(command: str, image: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    words = (command, "--fresh", "--state", "none", image, tmp_path / "to")
    assert "--fresh" in refused(*words, code=2)


@pytest.mark.parametrize("command", ["mount", "bundle", "verify", "unbundle", "open", "manifest"])
@pytest.mark.parametrize(
    "option", [("--passphrase-file", "secret"), ("--passphrase-env", "BUNDLEFS_PASSPHRASE")]
)
def test_a_passphrase_without_a_key(
    command: str, option: tuple[str, str], image: Path, manifest: Path, tmp_path: Path
) -> None:
    (tmp_path / "to").mkdir()
    operands: dict[str, tuple[Path, ...]] = {
        "mount": (image, tmp_path / "to"),
        "bundle": (image, tmp_path / "to"),
        "open": (manifest, tmp_path / "to"),
    }
    line = refused(command, *option, *operands.get(command, (manifest,)), code=2)
    assert f"{option[0]} {option[1]}: there is no private key to open" in line


def test_two_passphrases(manifest: Path, user_keys: KeyPair) -> None:
    both = ("--passphrase-file", "a", "--passphrase-env", "B")
    line = refused("verify", "--user-key", user_keys.private, *both, manifest, code=2)
    assert "--passphrase-file a and --passphrase-env B: give one" in line


@pytest.mark.parametrize("option", ["--force", "--sparse"])
def test_of_standard_output(option: str, manifest: Path, user_keys: KeyPair) -> None:
    words = ("unbundle", manifest, "--user-key", user_keys.private, "-o", "-", option)
    assert option in refused(*words, code=2)


@pytest.mark.parametrize("output", [(), ("-o", "-")])
def test_force_without_a_file(output: tuple[str, ...], manifest: Path, user_keys: KeyPair) -> None:
    words = ("manifest", manifest, "--user-key", user_keys.private)
    assert "--force" in refused(*words, *output, "--force", code=2)


def test_an_interval_without_a_watch(tmp_path: Path) -> None:
    assert "--interval" in refused("status", "--interval", "1", tmp_path, code=2)
