"""How names are written for people: on streams, in logs of each form, errors, labels, statuses."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from bundlefs.base.errors import BundlefsError
from bundlefs.base.escapes import STREAM_ERRORS, escaped, quoted
from bundlefs.cli import parser, streams
from bundlefs.cli.commands.status import describe
from bundlefs.fuse import metrics

NAME = "caf\udce9\x1b[31m\r\n\x7f\x9b31m\u202e\u2028\u200b\tá.raw"
WRITTEN = r"caf\udce9\x1b[31m\r\n\x7f\x9b31m\u202e\u2028\u200b\tá.raw"
NAMES = st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (NAME, WRITTEN),
        ("", ""),
        ("a name with blanks, ünïcöde, 日本語 and 🙂", None),
        (r"C:\new\x", None),
        ("\udc80\udcff", r"\udc80\udcff"),
        ("\x00\x1f\x80\x85\x9f", r"\x00\x1f\x80\x85\x9f"),
        ("\u2066a\u2069\ufeff", r"\u2066a\u2069\ufeff"),
        ("\ud800\U000e0001", r"\ud800\U000e0001"),
    ],
)
def test_what_is_written(text: str, written: str | None) -> None:
    assert escaped(text) == (text if written is None else written)
    assert quoted(text) == f"'{escaped(text)}'"
    assert repr(f"a{text}")[2:-1].replace("\\\\", "\\") == escaped(text)


@given(st.text(st.characters(exclude_categories=())) | NAMES)
def test_any_text_is_fit_for_any_terminal(text: str) -> None:
    written = escaped(text)
    assert written.isprintable()
    assert escaped(written) == written
    # The stream's own escapes are for what the encoding lacks.
    assert written.encode("ascii", STREAM_ERRORS).decode("ascii").isprintable()


@given(st.text(), st.sampled_from(["ascii", "latin-1", "utf-8"]))
def test_a_stream_of_any_encoding_takes_any_text(text: str, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=STREAM_ERRORS)
    stream.write(text + "\udce9")
    stream.flush()


def test_bytes_differ_from_characters_on_an_ascii_stream() -> None:
    assert "é\udce9".encode("ascii", STREAM_ERRORS) == rb"\xe9\udce9"


def test_what_an_error_says_can_be_printed() -> None:
    error = BundlefsError(f"no image {NAME}")
    assert str(error) == f"no image {WRITTEN}"
    assert error.args == (f"no image {NAME}",)


STATUS = {"phase": "failed", "image": NAME, "error": f"{NAME} is gone"}


def test_a_status_for_people() -> None:
    image = {"name": NAME, "phase": "failed", "error": f"{NAME}: gone"}
    assert describe(STATUS | {"images": [image]}).split("\n") == [
        f"image     {WRITTEN}",
        "phase     failed: failed, and stays so; nothing more is served",
        f"  {WRITTEN}: failed: {WRITTEN}: gone",
        f"error     {WRITTEN} is gone",
    ]


def test_metrics_have_a_label_for_each_name() -> None:
    both = [STATUS | {"image": name} for name in ("caf\udce9", "caf\udcea", "a\n\x1b")]
    found = text_string_to_metric_families(metrics.text({"images": both}))
    labels = {sample.labels.get("image") for one in found for sample in one.samples}
    assert labels - {None} == {r"caf\udce9", r"caf\udcea", "a\n\\x1b"}


LOGS = """
import logging, sys
from bundlefs.cli import parser, streams
from bundlefs.cli.logs import set_up_logging

streams.prepare()
set_up_logging(parser(["mount"]).parse_args(["mount", *sys.argv[1:], "a", "b"]))
name = {name!r}
logging.info("%s is there", name)
try:
    open(name + "/")
except OSError as error:
    logging.exception("%s failed: %s", name, error)
"""


def logged(tmp_path: Path, *words: str | Path, journal: bool = False) -> list[str]:
    """Return the lines of stderr, after a message and an unexpected error."""
    with (tmp_path / "stderr").open("w+b") as file:
        about = os.fstat(file.fileno())
        stream = {"JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}"} if journal else {}
        subprocess.run(
            [sys.executable, "-c", LOGS.format(name=NAME), *map(str, words)],
            env=os.environ | stream | {"PYTHONIOENCODING": "utf-8:strict", "PYTHONUTF8": "0"},
            stderr=file,
            check=True,
        )
        file.seek(0)
        return file.read().decode().rstrip("\n").split("\n")


THERE = f"INFO: {WRITTEN} is there"
FAILED = f"ERROR: {WRITTEN} failed: [Errno 2] No such file or directory: '{WRITTEN}/'"
# A line break in a name begins no entry of its own: only what is set in goes on with one.
TRACEBACK = "  Traceback (most recent call last):"


def test_a_log_on_stderr(tmp_path: Path) -> None:
    first, second, third, *more = logged(tmp_path, "-f")
    assert (first, second, third) == (f"bundlefs: {THERE}", f"bundlefs: {FAILED}", TRACEBACK)
    assert all(line.startswith("  ") and line.isprintable() for line in more)


def test_a_log_file(tmp_path: Path) -> None:
    log = tmp_path / "log"
    logged(tmp_path, "--log-file", log)
    first, second, third, *more = log.read_text(encoding="utf-8").rstrip("\n").split("\n")
    assert re.sub("^[0-9 :,-]+", "", first) == THERE
    assert re.sub("^[0-9 :,-]+", "", second) == FAILED
    assert third == TRACEBACK
    assert all(line.startswith("  ") and line.isprintable() for line in more)


def test_the_journal(tmp_path: Path) -> None:
    first, second, third, *more = logged(tmp_path, "-f", journal=True)
    assert first == f"<6>{WRITTEN} is there"
    assert second.startswith(f"<3>{WRITTEN} failed: ")
    assert third == f"<3>{TRACEBACK}"
    assert all(line.startswith("<3>  ") and line.isprintable() for line in more)


def test_a_log_of_json(tmp_path: Path) -> None:
    first, second = map(json.loads, logged(tmp_path, "-f", "--log-format", "json"))
    assert first["message"] == f"{WRITTEN} is there"
    assert second["message"].startswith(f"{WRITTEN} failed: ")
    # Readers that are stricter than Python's take no half of a surrogate pair.
    assert second["exception"].replace("\n", "").isprintable()


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    """Told once, without a traceback for each line."""
    assert [line for line in logged(tmp_path, "--log-file", "/dev/full") if "lost" in line] == [
        "bundlefs: warning: log lines are lost, /dev/full: No space left on device"
    ]
    assert not any("Logging error" in line for line in logged(tmp_path, "--log-file", "/dev/full"))


@pytest.mark.parametrize("words", [["mount", "a", "b", NAME], ["mount", "--level", NAME, "a", "b"]])
def test_what_is_wrong_with_a_command_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser(["mount"]).parse_args(words)
    last = capsys.readouterr().err.rstrip("\n").split("\n")[-1]
    assert ": error: " in last
    assert last.isprintable()
    assert WRITTEN in last


def test_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    streams.say(NAME)
    streams.tell(NAME)
    streams.show(NAME)
    out, err = capsys.readouterr()
    assert (out, err) == (f"{WRITTEN}\n", f"bundlefs: {WRITTEN}\n{WRITTEN}\n")


UPLOAD = ("-m", "bundlefs.cli.uploading")


@pytest.mark.parametrize("words", [("{}", "s:b/c"), ("a", "{}"), ("a", "s:b/c", "{}")])
def test_bundlefs_upload(words: tuple[str, ...], tmp_path: Path) -> None:
    for tool in ("rclone", "aws"):
        (tmp_path / tool).symlink_to("/bin/true")
    done = subprocess.run(
        [sys.executable, *UPLOAD, *(word.format(NAME) for word in words)],
        env={"PATH": str(tmp_path), "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        check=False,
    )
    last = done.stderr.decode().rstrip("\n").split("\n")[-1]
    assert done.returncode in (1, 2)
    assert last.isprintable()
    assert WRITTEN in last
