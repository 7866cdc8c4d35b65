"""The import contracts bite: what must not be imported is planted, and each plant is caught.

The plants are new modules that no contract names, one in each package, so that this shows as
well that a module is covered by being there.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bundlefs
from bundlefs import base

ROOT = Path(__file__).parents[2]
PACKAGE = Path(bundlefs.__file__).parent
PACKAGES = tuple(sorted(folder.parent.name for folder in PACKAGE.glob("*/__init__.py")))

HOMES = {
    "trio": {"fuse"},
    "pyfuse3": {"fuse"},
    "cryptography": {"keys"},
    "argparse": {"cli"},
    "tqdm": {"cli"},
}
"""Where each library may be imported; `codec.cbc` alone in its package may have cryptography."""

# From the top down; those of one rung do not know each other.
RUNGS = (
    ("cli",),
    ("upload",),
    ("fuse", "bundling", "unbundling"),
    ("image",),
    ("state",),
    ("manifest",),
    ("keys",),
    ("codec",),
    ("base",),
)


def rung(package: str) -> int:
    return next(number for number, names in enumerate(RUNGS) if package in names)


def may_import(package: str, other: str) -> bool:
    return package == other or rung(package) < rung(other)


def complaints(folder: Path) -> str:
    """Run the linter on a copy of the package; gives what it printed, nothing if all is kept."""
    words = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    settings = ["--config", str(folder / "pyproject.toml")]
    done = subprocess.run(
        [*words, *settings],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "500"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout if done.returncode else ""


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its settings."""
    folder = tmp_path_factory.mktemp("contracts")
    shutil.copytree(PACKAGE, folder / "bundlefs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture(scope="module")
def found(copied: Path) -> str:
    """What is said of a package with a new module in each of its packages that imports it all."""
    assert complaints(copied) == "", "the package itself breaks a contract"
    for package in PACKAGES:
        lines = [f"import {library}" for library in HOMES]
        lines += [f"import bundlefs.{other}.target" for other in PACKAGES if other != package]
        lines.append("import bundlefs.api")
        (copied / "bundlefs" / package / "planted.py").write_text("\n".join(lines))
        (copied / "bundlefs" / package / "target.py").write_text("")
    return complaints(copied)


def test_the_rungs_are_the_packages() -> None:
    assert sorted(sum(RUNGS, ())) == list(PACKAGES)


@pytest.mark.parametrize("library", HOMES)
@pytest.mark.parametrize("package", PACKAGES)
def test_a_library_is_caught_outside_its_home(package: str, library: str, found: str) -> None:
    caught = f"bundlefs.{package}.planted -> {library} " in found
    assert caught == (package not in HOMES[library])


@pytest.mark.parametrize("other", PACKAGES)
@pytest.mark.parametrize("package", PACKAGES)
def test_an_import_is_caught_that_points_up(package: str, other: str, found: str) -> None:
    caught = f"bundlefs.{package}.planted -> bundlefs.{other}.target " in found
    assert caught != may_import(package, other)


@pytest.mark.parametrize("package", PACKAGES)
def test_what_programs_begin_with_is_for_the_command_line_alone(package: str, found: str) -> None:
    caught = f"bundlefs.{package}.planted -> bundlefs.api " in found
    assert caught == (package != "cli")


def test_a_new_package_must_be_given_a_rung(copied: Path) -> None:
    (copied / "bundlefs" / "novel").mkdir()
    (copied / "bundlefs" / "novel" / "__init__.py").write_text("import trio\n")
    told = complaints(copied)
    assert "novel" in told


def test_base_has_layers_of_its_own(copied: Path) -> None:
    lowest, highest = (copied / "bundlefs" / "base" / f"{name}.py" for name in ("escapes", "novel"))
    before = lowest.read_text()
    lowest.write_text(f"{before}\nimport bundlefs.base.workers\n")
    highest.write_text("")
    told = complaints(copied)
    lowest.write_text(before)
    highest.unlink()
    assert "bundlefs.base.escapes -> bundlefs.base.workers" in told
    assert "bundlefs.base.novel" in told, "a new module must be given a layer"


def test_the_head_of_base_names_its_modules() -> None:
    modules = {path.stem for path in (PACKAGE / "base").glob("*.py")} - {"__init__"}
    assert set(re.findall(r"`(\w+)`", base.__doc__ or "")) == modules
