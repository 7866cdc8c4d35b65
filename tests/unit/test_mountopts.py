"""What `-o` means to the parsers of the commands, and what a line without a command does."""

import argparse
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundlefs.base.errors import UsageError
from bundlefs.cli import COMMANDS, main, parser
from bundlefs.cli.mountopts import as_command, fuse_options, meant_by, split

TOP = parser(("mount", "open"))
LINES = {"mount": ["mount", "image", "dir"], "open": ["open", "manifest", "dir"]}
CACHE = ("--cache-size=1M", "--cache-dir=/d")
OF_MOUNT_8 = (
    "rw,dev,suid,exec,async,defaults,relatime,nodiratime,_netdev,nofail,auto,noauto,user=me,users,"
    "owner,group,x-systemd.automount,x-systemd.idle-timeout=1min,X-mount.mkdir,comment=what,,"
)


def read(*words: str, command: str = "mount") -> argparse.Namespace:
    """Give what the parser makes of the options of a command."""
    return TOP.parse_args([*LINES[command], *words])


def escape(text: str) -> str:
    """Write a value as -o takes it."""
    return text.replace("\\", r"\\").replace(",", r"\,")


# Options of ours


@pytest.mark.parametrize(
    ("words", "like"),
    [
        (["-o", "account=1,eager"], ["--account=1", "--eager"]),
        (["-oregion=a,region=b", "-o", "region=c"], ["--region=a", "--region=b", "--region=c"]),
        (["-o", "no_sparse,cache-size=1M,cache_dir=/d"], ["--no-sparse", *CACHE]),
        (["-o", "prefix=a=b"], ["--prefix=a=b"]),
        (["-o", r"prefix=a\,b\\c"], [r"--prefix=a,b\c"]),
        (["-o", "prefix="], ["--prefix="]),
        (["-o", "prefix=-a"], ["--prefix=-a"]),
        (["-o", "allow_other"], ["--allow-other"]),
        (["-fo", "level=1"], ["--foreground", "--level=1"]),
        (["-o=level=1"], ["--level=1"]),
        (["-o", OF_MOUNT_8], []),
        (["-o", "mount"], []),
        # As argparse has it: the last one counts, and repeatable ones add up.
        (["-o", "level=1", "--level=2"], ["--level=2"]),
        (["--level=2", "-o", "level=1"], ["--level=1"]),
        (["--region=a", "-o", "region=b"], ["--region=a", "--region=b"]),
    ],
)
def test_as_a_long_option(words: list[str], like: list[str]) -> None:
    assert read(*words) == read(*like)


@given(st.text())
def test_every_value_gets_through(value: str) -> None:
    assert read("-o", f"level=1,prefix={escape(value)},eager").prefix == value


@given(st.lists(st.text(min_size=1)))
def test_split(options: list[str]) -> None:
    assert split(",".join(map(escape, options))) == options


@pytest.mark.parametrize(("text", "options"), [("a\\", ["a\\"]), (r"\a\,", ["a,"]), ("", [])])
def test_odd_escapes(text: str, options: list[str]) -> None:
    assert split(text) == options


@pytest.mark.parametrize("command", LINES)
def test_all_that_help_lists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    _, _, text = capsys.readouterr().out.partition("\noptions:\n")
    found = set(re.findall(r"^  (?:-., |-. \w+, )?--([a-z0-9-]+)", text, re.MULTILINE)) - {"help"}
    assert {"user-key", "foreground", "sloppy"} < found
    for name in found:
        # One of the two is right, and what is said of the other knows the option.
        said = [refused(f"{name.replace('-', '_')}{value}", command) for value in ("", "=1")]
        assert None in said or "source" in name or "format" in name
        assert not any(line and line.startswith("unknown") for line in said)


def refused(option: str, command: str = "mount") -> str | None:
    """Give what is said of an option, or None if it is taken."""
    try:
        read("-o", option, command=command)
    except UsageError as error:
        return str(error)
    return None


def test_lists_do_not_leak_into_the_next_parse() -> None:
    assert read("-o", "region=a,ro").o == ["ro"]
    assert (read("-o", "region=b").region, read().o) == (["b"], [])


# FUSE's own


def test_what_is_fuses() -> None:
    options = "auto_unmount,noatime,fsname=a,allow_root,fsname=b=c"
    kept = read("-o", options, "-odirsync").o
    flags = frozenset(("auto_unmount", "noatime", "allow_root", "dirsync"))
    assert fuse_options(kept) == (flags, "b=c")
    assert fuse_options([]) == (frozenset(), None)


# What is refused


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("acount=1", "unknown mount option 'acount'; did you mean 'account'?"),
        ("User_Key=1", "unknown mount option 'User_Key'; did you mean 'user-key'?"),
        ("auto_umount", "unknown mount option 'auto_umount'; did you mean 'auto_unmount'?"),
        ("max_read=4096", "unknown mount option 'max_read'; `bundlefs mount --help` has all"),
        ("--level=1", "unknown mount option '--level'; did you mean 'level'?"),
        ("help", "unknown mount option 'help'; `bundlefs mount --help` has all"),
        ("open", "unknown mount option 'open'; `bundlefs mount --help` has all"),
        ("=1", "unknown mount option ''; `bundlefs mount --help` has all"),
        ("level", "mount option 'level' needs a value: level=..."),
        ("level=x", "mount option 'level=x': invalid int value: 'x'"),
        ("cache_size=x", "mount option 'cache_size=x': 'x' is not a size; write 4096, 64K, "),
        ("source=zip", "mount option 'source=zip': invalid choice: 'zip'"),
        ("eager=1", "mount option 'eager=1': eager takes no value"),
        ("ro=1", "mount option 'ro=1': ro takes no value"),
        ("fsname", "mount option 'fsname' needs a value: fsname=..."),
    ],
)
def test_refused(option: str, text: str) -> None:
    assert str(refused(f"account=1,{option}")).startswith(text)


def test_each_command_has_its_own() -> None:
    assert refused("open,parts=dir,no_verify", "open") is None
    assert (
        refused("level=1", "open") == "unknown mount option 'level'; `bundlefs open --help` has all"
    )


def test_sloppy(capsys: pytest.CaptureFixture[str]) -> None:
    assert read("-o", "sloppy,acount=1,level=1").level == 1
    warning = "unknown mount option 'acount'; did you mean 'account'?; ignored"
    assert capsys.readouterr().err == f"bundlefs: warning: {warning}\n"
    assert "needs a value" in str(refused("sloppy,level"))


# A line without a command


@pytest.mark.parametrize("options", [[], ["-o", "rw"], ["--level", "1"], ["-o", "reopen"]])
def test_an_image_and_a_folder(options: list[str], tmp_path: Path) -> None:
    words = [str(tmp_path), "dir", *options]
    assert as_command(words, COMMANDS) == ["mount", *words]


@pytest.mark.parametrize(
    "options", [["-o", "rw,open"], ["-oopen,ro"], ["-v", "-oro", "-o", "open"]]
)
def test_a_manifest_and_a_folder(options: list[str]) -> None:
    assert meant_by(options) == "open"
    assert as_command(["/no/manifest", "dir", *options], COMMANDS)[0] == "open"


@pytest.mark.parametrize("words", [[], ["--version"], ["-o", "x"], ["umount"], ["mount", "a", "b"]])
def test_a_line_that_stays(words: list[str]) -> None:
    assert as_command(words, COMMANDS) == words


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["moun", "/image", "dir", "-o", "rw"], "did you mean 'mount'?"),
        (["moun", "/image"], "did you mean 'mount'?"),
        (["unbundel", "manifest", "-o", "disk"], "did you mean 'unbundle'?"),
        (["STATUS", "dir"], "did you mean 'status'?"),
        (["/image"], "`bundlefs --help` lists the commands"),
        (["/image", "dir", "more"], "`bundlefs --help` lists the commands"),
    ],
)
def test_no_command(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    line = f"bundlefs: {words[0]!r} is neither a command nor an image; {hint}\n"
    assert capsys.readouterr().err == line
