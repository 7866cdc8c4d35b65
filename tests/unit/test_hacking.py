"""contrib/hacking.md names what there is: paths, names, the packages in their order, the tiers."""

import re
import tomllib
from pathlib import Path

import pytest

import bundlefs
from tests.support.documents import CONTRIB, ROOT

PACKAGE = Path(bundlefs.__file__).parent
TEXT = (CONTRIB / "hacking.md").read_text()
QUOTED = sorted(set(re.findall(r"`([^`\n]+)`", TEXT)))
PATHS = [one for one in QUOTED if re.fullmatch(r"[\w./-]+", one) and re.search(r"/|\.\w+$", one)]
PATH = re.compile(r"`([\w/]+\.py)`")
MAKES_A_LOCK = re.compile(r"threading\.(?:Lock|RLock|Condition)\(\)")
NAMES = [one for one in QUOTED if re.fullmatch(r"[A-Z][A-Za-z]+|[A-Z]+(_[A-Z]+)*", one)]


def places(path: str) -> list[Path]:
    """Return where a path of the page may be: the package may be installed elsewhere."""
    return [PACKAGE / path, PACKAGE.parent / path, ROOT / path]


def sources() -> str:
    return "\n".join(path.read_text() for path in sorted(PACKAGE.rglob("*.py")))


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("path", PATHS)
def test_each_path_is_there(path: str) -> None:
    assert any(place.exists() for place in places(path))


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_defined(name: str) -> None:
    assert re.search(rf"^(?:class {name}\b|{name}\b.*=)", sources(), re.MULTILINE)


def test_they_are_found() -> None:
    assert {"keys/regions.py", "cli/commands", ".ci/run", "tests/unit"} <= set(PATHS)
    assert {"Frontier", "STANDARD_REGIONS", "VERSION"} <= set(NAMES)
    assert not any(place.exists() for place in places("keys/nothing.py"))
    assert {"a region", "a version", "an option", "an element", "a compression", "a form"} <= {
        " ".join(re.findall(r"\w+", row)[:2]) for row in section("To add X, go to Y").splitlines()
    }


def test_a_name_in_a_row_is_defined_in_the_module_of_the_row() -> None:
    """A row sends the reader to a module: what it names is there."""
    for row in section("To add X, go to Y").splitlines():
        # Each module, and the names behind it up to the next.
        for module, names in re.findall(r"`([a-z_0-9/]+\.py)`: ([^;|]*)", row):
            text = (PACKAGE / module).read_text()
            for name in re.findall(r"`(\w+)`", names):
                assert re.search(
                    rf"^(?:class|def) {name}\b|^{name}\b.*=|import.*\b{name}\b", text, re.MULTILINE
                ), row


def test_the_table_of_locks_has_each_module_with_a_lock() -> None:
    table = section("Threads and locks").split("| lock in |")[1].split("\n\n")[0]
    told = [path for row in table.splitlines() for path in PATH.findall(row.split("|")[1])]
    having = [path for path in PACKAGE.rglob("*.py") if MAKES_A_LOCK.search(path.read_text())]
    assert sorted(told) == sorted(str(path.relative_to(PACKAGE)) for path in having)


def test_the_map_has_all_packages_from_the_top_down() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    named = {one["name"]: one for one in contracts["contracts"]}
    layers = named["imports point down"]["layers"]
    rows = re.findall(r"^\| (`[a-z`, ]+`) \|", section("The map"), re.MULTILINE)
    told = [re.findall(r"`([a-z]+)`", row) for row in rows]
    assert told == [one.split(" | ") for one in layers if one != "__main__"]


def test_the_tiers_are_those_there_are() -> None:
    tiers = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert set(re.findall(r"^\| `tests/([a-z]+)` ", section("Tests"), re.MULTILINE)) == tiers
