"""What keeps the house readable: sizes that a newcomer can take in, asserted and not hoped for."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bundlefs

PACKAGE = Path(bundlefs.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

MOST_NAMES = 12
LONGEST_MODULE = 350
LONGEST_FUNCTION = 40
MOST_METHODS = 15


def label(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text()))


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function behind its signature and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_the_top_level_has_few_names() -> None:
    names = {path.name for path in PACKAGE.iterdir() if not path.name.startswith(("_", "."))}
    assert len(names - {"py.typed"}) <= MOST_NAMES, sorted(names)


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_a_module_is_read_in_a_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_a_module_says_what_lives_in_it(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_functions_are_short(path: Path) -> None:
    functions = [
        node for node in nodes(path) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    long = {each.name: code_lines(each) for each in functions}
    assert {name for name, lines in long.items() if lines > LONGEST_FUNCTION} == set()


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_classes_have_few_public_methods(path: Path) -> None:
    for node in nodes(path):
        if isinstance(node, ast.ClassDef):
            methods = [
                each.name
                for each in node.body
                if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))
                and not each.name.startswith("_")
            ]
            assert len(methods) <= MOST_METHODS, (node.name, methods)
