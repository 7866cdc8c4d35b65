"""State files on a real disk: whether they go on, begin anew or are refused; locks; saves."""

import logging
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bundlefs.base.errors import StateError
from bundlefs.base.spans import Span
from bundlefs.bundling.recipe import wanted
from bundlefs.cli import parser
from bundlefs.cli.commands.mount import read_recipe
from bundlefs.image.raw import Image
from bundlefs.state import file as statefile
from bundlefs.state.choice import Wanted
from bundlefs.state.lock import LockedError
from bundlefs.state.saved import StateFile
from tests.stream.states import WANTED, grow, open_file, opened
from tests.support import images
from tests.support.keys import KeyPair
from tests.support.tools import ACCOUNT

HOUR = 3600 * 10**9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "deeper" / "disk.state"


def test_it_goes_on(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(path) as first:
        grow(first)
        first.manifests["image.manifest.xml"] = "<manifest/>"
    with caplog.at_level(logging.INFO), opened(path) as second:
        assert second.secret == first.secret
        assert second.created_ns == first.created_ns
        assert second.index.dump() == first.index.dump()
        assert second.index.blocks == 1
        assert second.manifests == first.manifests
    [record] = caplog.records
    assert record.getMessage().startswith("/data/disk: going on with the bundle of ")


def test_each_new_one_has_a_secret_of_its_own(path: Path) -> None:
    with opened(path) as first, opened(path.with_name("b.state")) as second:
        assert first.secret.key != second.secret.key
        assert first.secret.iv != second.secret.iv


def test_it_is_private(path: Path) -> None:
    previous = os.umask(0)
    try:
        with opened(path) as state:
            state.sign("me")
            modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(previous)
    assert modes == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_extents_are_those_of_the_first_time(path: Path) -> None:
    """Unwritten extents turn from holes into data when they are read; no byte changes."""
    with opened(path):
        pass
    with opened(path, replace(WANTED, extents=(Span(0, 8192), Span(9000, 9001)))) as state:
        assert state.extents == WANTED.extents


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("level", "9", "level was 6, is 9"),
        ("image's size", "4097", "image's size was 4096, is 4097"),
        ("kernel", "aki-1", "kernel was not known, is aki-1"),
    ],
)
def test_other_terms(
    path: Path, name: str, value: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(path) as first:
        grow(first)
    caplog.clear()
    asked = replace(WANTED, terms={**WANTED.terms, name: value}, extents=())
    with opened(path, asked) as second:
        assert_begun_anew(first, second)
        assert second.extents == ()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert reason in record.getMessage()
    assert "upload everything anew" in record.getMessage()
    with opened(path, asked) as third:
        assert third.secret == second.secret


def assert_begun_anew(old: StateFile, new: StateFile) -> None:
    assert new.secret.key != old.secret.key
    assert new.secret.iv != old.secret.iv
    assert new.created_ns > old.created_ns
    assert new.index.blocks == 0
    assert new.manifests == {}


def test_a_region_is_added_and_later_its_key_is_another(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(path) as first:
        pass
    both = {"image.manifest.xml": "aa", "image.eu.manifest.xml": "bb"}
    with opened(path, replace(WANTED, recipients=both)) as second:
        assert second.secret == first.secret
    with opened(path) as third:
        assert third.secret == first.secret
    assert caplog.records == []
    with opened(path, replace(WANTED, recipients={"image.eu.manifest.xml": "cc"})) as fourth:
        assert_begun_anew(first, fourth)
    assert "the EC2 key of image.eu.manifest.xml is another" in caplog.text


@pytest.mark.parametrize("fresh", [True, False])
def test_a_new_one_is_newer_though_the_clock_went_back(path: Path, *, fresh: bool) -> None:
    """A sink skips a part of the same size that is not newer: it would mix two bundles."""
    with opened(path) as first:
        contents = statefile.read(path)
    assert contents
    ahead = first.created_ns + HOUR
    statefile.replace(path, replace(contents, created_ns=ahead).encode())
    other = replace(WANTED, terms={**WANTED.terms, "level": "9"})
    with opened(path, other, fresh=fresh) as second:
        assert ahead + 10**9 <= second.created_ns <= ahead + 2 * 10**9


def test_fresh(path: Path) -> None:
    with opened(path) as first:
        grow(first)
    with opened(path, fresh=True) as second:
        assert_begun_anew(first, second)


# What each option of a mount depends on

PLAIN = ("mount", "--account", ACCOUNT, "--arch", "x86_64")
MOUNTS: list[tuple[tuple[str, ...], str]] = [
    (("--level", "9"), "codec was libdeflate-6, "),
    (("--level", "1"), "is isal-"),
    (("--account", "210987654321"), f"account was {ACCOUNT}, is 210987654321"),
    (("--arch", "i386"), "arch was x86_64, is i386"),
    (("--type", "ramdisk"), "image_type was machine, is ramdisk"),
    (("--kernel", "aki-00000001"), "kernel was None, is aki-00000001"),
    (("--ramdisk", "ari-00000001"), "ramdisk was None, is ari-00000001"),
    (("-B", "ami=sda"), "mappings was (), is (('ami', 'sda'),)"),
    (("--product-code", "CODE"), "product_codes was (), is ('CODE',)"),
    (("--ancestor-ami", "ami-00000001"), "ancestors was (), is ('ami-00000001',)"),
    (("--prefix", "other"), "prefix was image, is other"),
    (("--no-sparse",), "holes was left out, is stored"),
]


def asked_by(image: Path, *options: str | Path) -> Wanted:
    words = [*PLAIN, *options, image, image.parent]
    recipe = read_recipe(parser().parse_args([str(word) for word in words]))
    with Image.open(image) as source:
        return wanted(source, recipe)


@pytest.mark.parametrize(("options", "reason"), MOUNTS, ids=lambda value: " ".join(value)[:20])
def test_every_option_that_changes_a_byte(
    tmp_path: Path,
    path: Path,
    options: tuple[str, ...],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = images.text_image(tmp_path / "disk", 5000)
    with opened(path, asked_by(image)) as first:
        pass
    with opened(path, asked_by(image)) as same:
        assert same.secret == first.secret
    with opened(path, asked_by(image, *options)) as other:
        assert_begun_anew(first, other)
    assert reason in caplog.text


def test_a_user_key_of_another(
    tmp_path: Path,
    path: Path,
    user_keys: KeyPair,
    region_keys: KeyPair,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = images.text_image(tmp_path / "disk", 5000)
    with opened(path, asked_by(image)) as none:
        pass
    with opened(path, asked_by(image, "--user-key", user_keys.private)) as first:
        assert_begun_anew(none, first)
    with opened(path, asked_by(image, "--user-key", user_keys.private)) as same:
        assert same.secret == first.secret
    with opened(path, asked_by(image, "--user-key", region_keys.private)) as other:
        assert_begun_anew(first, other)
    assert caplog.text.count("user's key was ") == 2


@pytest.mark.parametrize("options", [("--jobs", "1"), ("--cache-size", "0"), ("--eager",)])
def test_options_that_change_no_byte(tmp_path: Path, path: Path, options: tuple[str, ...]) -> None:
    image = images.text_image(tmp_path / "disk", 5000)
    with opened(path, asked_by(image)) as first, pytest.raises(LockedError):
        open_file(path, asked_by(image))
    with opened(path, asked_by(image, *options)) as second:
        assert second.secret == first.secret


# Files that cannot be trusted


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 7)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def garbled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def garbled_first(path: Path) -> None:
    path.write_bytes(b"B" + path.read_bytes()[1:])


def of_the_future(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"bundlefs-state 1", b"bundlefs-state 2"))


def others(path: Path) -> None:
    os.chown(path, 12345, -1)


def opened_up(path: Path) -> None:
    path.chmod(0o640)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


Spoiler = Callable[[Path], None]
SPOILT: list[tuple[Spoiler, str, bool]] = [
    (cut, "damaged or cut short .* may be under way: --fresh starts a new bundle", True),
    (emptied, "not a state file of bundlefs, or is damaged.* --fresh starts", True),
    (garbled, "damaged or cut short .* --fresh starts", True),
    (garbled_first, "is not a bundlefs state file, or its beginning is damaged.* remove it", False),
    (of_the_future, "of version 2; this bundlefs knows version 1.* --fresh starts", True),
    (others, r"belongs to user 12345, not to you \(0\); chown it if you trust it", True),
    (opened_up, r"others may open it \(mode 0640\).* chmod 600 it. Else --fresh starts", True),
    (a_folder, "not a regular file; name another with --state", False),
    (a_link, "it is a symbolic link; name another with --state", True),
    (a_fifo, "not a regular file; name another with --state", True),
]


@pytest.mark.parametrize(
    ("spoil", "text", "fresh_helps"), SPOILT, ids=[spoil.__name__ for spoil, *_ in SPOILT]
)
def test_a_file_that_cannot_be_trusted(
    path: Path, spoil: Spoiler, text: str, *, fresh_helps: bool
) -> None:
    with opened(path) as first:
        grow(first)
    spoil(path)
    before = snapshot(path)
    for _ in range(2):
        with pytest.raises(StateError, match=text) as caught:
            open_file(path)
        assert str(path) in str(caught.value)
        assert_one_line_without_secrets(str(caught.value), first)
    assert snapshot(path) == before, "a refusal changes nothing"
    if not fresh_helps:
        with pytest.raises(StateError, match=r"name another (place )?with --state"):
            open_file(path, fresh=True)
        assert snapshot(path) == before
        return
    with opened(path, fresh=True) as second:
        assert second.secret.key != first.secret.key
        assert second.index.blocks == 0
    with opened(path) as third:
        assert third.secret == second.secret


def snapshot(path: Path) -> tuple[int, bytes | list[str]]:
    mode = path.lstat().st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISDIR(mode):
        return mode, b""
    return mode, path.read_bytes()


def assert_one_line_without_secrets(text: str, state: StateFile) -> None:
    assert "\n" not in text
    assert state.secret.key.hex() not in text
    assert state.secret.iv.hex() not in text


@pytest.mark.parametrize("fresh", [True, False])
def test_the_image_named_as_state_file(tmp_path: Path, *, fresh: bool) -> None:
    image = images.text_image(tmp_path / "disk", 5000)
    image.chmod(0o600)
    before = image.read_bytes()
    with pytest.raises(StateError, match="is not a bundlefs state file"):
        open_file(image, fresh=fresh)
    assert image.read_bytes() == before


def test_to_look_for_a_state_file_leaves_nothing_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    opened = {each.name for each in Path("/proc/self/fd").iterdir()}
    for what in (tmp_path, tmp_path / "fifo", tmp_path / "no"):
        assert not statefile.is_state_file(what)
    assert {each.name for each in Path("/proc/self/fd").iterdir()} <= opened
