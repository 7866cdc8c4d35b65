"""What is parsed has a type from a command on: argparse's Namespace stays at the edge of `cli`."""

import argparse
import ast
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

import bundlefs
from bundlefs.cli import parser
from bundlefs.cli.options import typed
from bundlefs.cli.options.bundling import BundleOptions
from bundlefs.cli.options.mounting import DiskMount, ImageMount

PACKAGE = Path(bundlefs.__file__).parent
EDGE = (
    *("cli/__init__.py", "cli/options/", "cli/commands/", "cli/mountopts.py"),
    *("cli/mount8.py", "cli/uploading.py"),
)
"""Where argparse hands it over; `mountopts` has the action that argparse calls for `-o`."""


def label(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


MODULES = sorted(filter(lambda path: not label(path).startswith(EDGE), PACKAGE.rglob("*.py")))


def leaves(value: Any) -> Iterator[tuple[str, object]]:  # noqa: ANN401  # a dataclass
    """Give the names and the values of all options in a group and the groups in it."""
    for field in fields(value):
        inner = getattr(value, field.name)
        if is_dataclass(inner):
            yield from leaves(inner)
        else:
            yield field.name, inner


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_no_namespace_behind_the_edge(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert "Namespace" not in names


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (ImageMount, ("mount", "--level", "3", "--state", "none", "-o", "fsname=x,ro", "a", "b")),
        (
            BundleOptions,
            ("bundle", "--arch", "arm64", "-B", "ami=sda", "--source", "raw", "a", "b"),
        ),
        (DiskMount, ("open", "--parts", "p", "--passphrase-env", "X", "-f", "m", "b")),
    ],
)
def test_each_option_is_where_its_group_has_it(kind: type[Any], words: tuple[str, ...]) -> None:
    arguments = parser().parse_args(words)
    options = typed(kind, arguments)
    found = dict(leaves(options))
    assert {name: getattr(arguments, name) for name in found} == found
    assert not hasattr(options, "__dict__")


def test_an_option_that_no_parser_declares_is_a_bug() -> None:
    with pytest.raises(AttributeError, match="prefix"):
        typed(ImageMount, argparse.Namespace(image=None))
