"""Several bundles of one state file: each is there again when it is asked for again."""

import hashlib
import json
import logging
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bundlefs.base.errors import StateError
from bundlefs.cli import main
from bundlefs.state import kept as statekept
from bundlefs.state.lock import lock_holder
from bundlefs.state.open import forget
from bundlefs.state.places import default_path
from tests.stream.states import WANTED, contents, like, open_file, opened, read, secret
from tests.support import images

# Going back


def test_going_back_goes_on(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(path) as first:
        read(first)
        first.manifests["image.manifest.xml"] = "<manifest/>"
    with opened(path, like(arch="arm64")) as second:
        read(second)
        read(second)
    caplog.clear()
    with opened(path) as again:
        assert again.secret == first.secret
        assert again.created_ns == first.created_ns, "it is in the bytes"
        assert again.index.dump() == first.index.dump()
        assert again.manifests == first.manifests
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "going on with the bundle of" in record.getMessage()
    assert "arch was arm64, is not known" in record.getMessage()
    with opened(path, like(arch="arm64")) as other:
        assert other.secret == second.secret
        assert other.index.blocks == 2


def test_what_is_kept_is_said(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret(path, WANTED)
    secret(path, like(level="9"))
    assert "upload everything anew. The one before is kept" in caplog.text
    caplog.clear()
    secret(path, like(**{"image's size": "5000"}))
    assert caplog.text.rstrip().endswith("upload everything anew")


@pytest.mark.parametrize("change", [{"level": "9"}, {"arch": "i386"}, {"user's key": "ff"}])
def test_each_option(path: Path, change: dict[str, str]) -> None:
    first, other = secret(path, WANTED), secret(path, like(**change))
    assert other != first
    assert [secret(path, WANTED), secret(path, like(**change))] == [first, other]


def test_the_key_of_a_region(path: Path) -> None:
    ours, theirs = (replace(WANTED, recipients={"image.eu.manifest.xml": key}) for key in "ab")
    first, second = secret(path, ours), secret(path, theirs)
    assert first != second
    assert [secret(path, ours), secret(path, theirs)] == [first, second]


def test_a_file_of_an_earlier_version(path: Path) -> None:
    with opened(path) as first:
        read(first)
    data = path.read_bytes()
    line = data.split(b"\n")[1]
    header = json.loads(line)
    for name in ("shown_ns", "taken_ns", "untouched", "gone_ns"):
        del header[name]
    body = data[:-32].replace(line, json.dumps(header).encode())
    path.write_bytes(body + hashlib.sha256(body).digest())
    assert secret(path, WANTED) == first.secret
    secret(path, like(level="9"))
    with opened(path) as again:
        assert (again.secret, again.shown_ns) == (first.secret, first.created_ns)


def test_a_file_that_is_none_of_ours_stays(path: Path) -> None:
    secret(path, WANTED)
    others = [path.with_name(f"disk.state.kept-{name}") for name in ("1", "mine", "9" * 19)]
    for other in others:
        other.write_text("mine")
        other.chmod(0o600)
    for fresh in (False, True):
        with pytest.raises(StateError, match=f"{'9' * 19}: it is not a bundlefs state file"):
            open_file(path, like(level="9"), fresh=fresh)
    assert [other.read_text() for other in others] == ["mine"] * 3


# How many


def test_the_last_few(path: Path) -> None:
    levels = [str(level) for level in range(statekept.MOST + 3)]
    secrets = {level: secret(path, like(level=level)) for level in levels}
    assert len(statekept.beside(path)) == statekept.MOST - 1
    kept = levels[3:]
    assert {level: secret(path, like(level=level)) for level in kept} == {
        level: secrets[level] for level in kept
    }
    assert secret(path, like(level="0")) != secrets["0"]


def test_those_of_a_lost_image_go_first(path: Path) -> None:
    secret(path, WANTED)
    size = "image's size"
    lost = [secret(path, like(**{size: str(number)})) for number in range(statekept.MOST - 2)]
    later = {str(level): secret(path, like(level=str(level))) for level in range(3)}
    assert {level: secret(path, like(level=level)) for level in later} == later
    files = [*statekept.beside(path), path]
    assert len(files) == statekept.MOST
    left = {contents(one).secret for one in files}
    assert len(left & set(lost)) == statekept.MOST - 4, "two of them had to go"
    assert lost[0] not in left


def test_fresh_takes_the_place_of_its_like_alone(path: Path) -> None:
    first, other = secret(path, WANTED), secret(path, like(level="9"))
    new = secret(path, WANTED, fresh=True)
    assert new not in (first, other)
    assert secret(path, like(level="9")) == other
    assert secret(path, WANTED) == new
    assert len(statekept.beside(path)) == 1


# Kills and damage


def test_a_kill_between_two_steps(path: Path) -> None:
    first, other = secret(path, WANTED), secret(path, like(level="9"))
    path.rename(statekept.place(path, contents(path)))  # put aside, and killed
    assert secret(path, WANTED) == first
    assert secret(path, like(level="9")) == other
    statekept.place(path, contents(path)).write_bytes(path.read_bytes())  # taken up, and killed
    statekept.place(path, contents(path)).chmod(0o600)
    with opened(path, like(level="9")) as state:
        read(state)
    assert secret(path, WANTED) == first
    with opened(path, like(level="9")) as state:
        assert (state.secret, state.index.blocks) == (other, 1)
    assert len(statekept.beside(path)) == 1


def test_a_damaged_one_may_be_the_one_that_is_wanted(path: Path) -> None:
    secret(path, WANTED)
    other = secret(path, like(level="9"))
    [kept] = statekept.beside(path)
    os.truncate(kept, 100)
    assert secret(path, like(level="9")) == other, "that one is whole"
    with pytest.raises(StateError, match=f"{re.escape(str(kept))}: it is damaged.* --fresh"):
        open_file(path)
    secret(path, WANTED, fresh=True)
    assert secret(path, like(level="9")) == other


# For people


def test_forget_and_lock_are_for_all(path: Path) -> None:
    secret(path, WANTED)
    with opened(path, like(level="9")) as state:
        state.sign("process 1, mounted on /mnt")
        [kept] = statekept.beside(path)
        for one in (path, kept):
            assert lock_holder(one) == "process 1, mounted on /mnt"
            with pytest.raises(StateError, match="in use"):
                forget(one)
    secret(path, like(level="1"))
    forget(statekept.beside(path)[0])
    assert len(statekept.beside(path)) == 1
    forget(path)
    assert list(path.parent.iterdir()) == []


def test_list_and_forget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = images.text_image(tmp_path / "disk", 10)
    path = default_path(image, "image")
    for level in "129":
        secret(path, replace(like(level=level), image=image))
    main(["state", "list", "--json"])
    rows = json.loads(capsys.readouterr().out)
    files = [*statekept.beside(path), path]
    assert len(files) == 3
    assert [row["file"] for row in rows] == [str(file) for file in files]
    assert {row["image"] for row in rows} == {str(image)}
    main(["state", "show", str(image)])
    assert re.findall("level: (.)", capsys.readouterr().out) == ["1", "2", "9"]
    main(["state", "forget", str(image)])
    assert capsys.readouterr().out == "".join(f"forgot {file}\n" for file in files)
    assert list(path.parent.iterdir()) == []


def test_forget_a_file_of_the_users_own(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for level in "12":
        secret(path, like(level=level))
    [kept] = statekept.beside(path)
    other = path.with_name("other.state")
    other.touch()
    main(["state", "forget", str(path)])
    assert capsys.readouterr().out == f"forgot {kept}\nforgot {path}\n"
    assert list(path.parent.iterdir()) == [other]
