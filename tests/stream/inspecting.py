"""`bundlefs inspect` in this process: what it prints, as programs and as people get it."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from bundlefs.cli import main
from bundlefs.cli.inspected_text import described, width
from bundlefs.image.inspection import estimate


def few_samples(patch: pytest.MonkeyPatch) -> None:
    """Have estimates made of a few samples, where they are not what a test is about."""
    patch.setattr(estimate, "_OF_THOSE", 3)
    patch.setattr(estimate, "_PIECES", 1)


def output(*words: str | Path) -> str:
    """Return what the command prints; it must succeed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["inspect", *map(str, words)]) == 0
    return out.getvalue()


def inspected(path: Path, *words: str | Path) -> dict[str, Any]:
    """Return the document; what people get of it is fit for a terminal."""
    text = output(path, "--json", *words)
    assert text.isascii()
    document: dict[str, Any] = json.loads(text)
    for columns in (None, 80, 40):
        for line in described(document, columns=columns):
            assert line.isprintable()
            assert columns is None or width(line) <= max(columns, 40)
    return document


def codes(document: dict[str, Any]) -> list[str]:
    """Return the codes of its warnings, sorted."""
    return sorted(one["code"] for one in document["remarks"] if one["level"] == "warning")


def remark(document: dict[str, Any], code: str) -> str:
    """Return the one remark of a code."""
    [found] = [one for one in document["remarks"] if one["code"] == code]
    assert found["remedy"]
    return str(found["text"])
