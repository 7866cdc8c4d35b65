"""How the options of mount(8) become words of the command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundlefs.cli.mountopts import as_command, expanded, split
from bundlefs.errors import UsageError

COMMANDS = ("mount", "open", "umount")
KNOWN = ("--account", "--region", "--user-key", "--eager", "--help")


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (["a", "b", "-o", "account=1,eager"], ["a", "b", "--account=1", "--eager"]),
        (["-oregion=x,region=y"], ["--region=x", "--region=y"]),
        (["-o", "user_key=k,user-key=l"], ["--user-key=k", "--user-key=l"]),
        (["-o", "rw,dev,suid,nofail,_netdev,x-systemd.automount,X-mount.mkdir,open"], []),
        (["-o", "max_read=4096,account=1"], ["-o", "max_read=4096", "--account=1"]),
        (["-o", "account=a=b"], ["--account=a=b"]),
        (["--", "-o", "nobody"], ["--", "-o", "nobody"]),
        (["a", "-o"], ["a", "-o"]),
        (["-o", ",,"], []),
    ],
)
def test_expanded(words: list[str], result: list[str]) -> None:
    assert expanded(words, KNOWN) == result


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("acount=1", "unknown mount option 'acount'; did you mean 'account'?"),
        ("qqq", "unknown mount option 'qqq'; `bundlefs mount --help` has all"),
        ("help", "unknown mount option 'help'"),
    ],
)
def test_an_unknown_option_is_named(option: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        expanded(["-o", f"account=1,{option}"], KNOWN)
    assert str(caught.value).startswith(text)


def test_sloppy_warns(capsys: pytest.CaptureFixture[str]) -> None:
    assert expanded(["-o", "acount=1,eager"], KNOWN, sloppy=True) == ["--eager"]
    assert "unknown mount option 'acount'" in capsys.readouterr().err


@given(st.lists(st.text(min_size=1)))
def test_escapes(options: list[str]) -> None:
    escaped = [one.replace("\\", "\\\\").replace(",", "\\,") for one in options]
    # A newline is an option's character as any other.
    assert split(",".join(escaped)) == options


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["i", "d", "-o", "rw"], "mount"),
        (["i", "d", "-o", "rw,open"], "open"),
        (["m", "d", "-oopen"], "open"),
    ],
)
def test_a_line_without_a_command(words: list[str], command: str) -> None:
    assert as_command(words, COMMANDS) == [command, *words]


@pytest.mark.parametrize(
    "words", [[], ["--version"], ["umount", "d"], ["moun", "i", "d"], ["mount", "-o", "open"]]
)
def test_a_line_that_stays(words: list[str]) -> None:
    assert as_command(words, COMMANDS) == words
