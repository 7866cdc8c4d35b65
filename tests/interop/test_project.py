"""What several files say of the project, they say alike: its version, and the Pythons it is for."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundlefs import __version__
from tests.support.documents import CONTRIB, ROOT
from tests.support.tools import clean_env, tool

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/check.yml").read_text())
JOBS = sorted((CONTRIB / "container").glob("*.yaml"))
SETUP = CONTRIB / "setup"


def pythons() -> list[str]:
    """Return the Pythons that the project says it is for."""
    found = (re.fullmatch(r".* :: Python :: (3\.\d+)", one) for one in classifiers())
    return [match[1] for match in found if match]


def classifiers() -> list[str]:
    named: list[str] = PROJECT["project"]["classifiers"]
    return named


# The version


def test_the_version_is_in_one_place() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "bundlefs/__init__.py"
    tracked = [ROOT / "pyproject.toml", *CONTRIB.rglob("*"), ROOT / "README.md"]
    allowed = {CONTRIB / "changes.md", *JOBS}
    naming = [
        path
        for path in tracked
        if path.is_file() and path.suffix != ".pyc" and __version__.encode() in path.read_bytes()
    ]
    assert set(naming) <= allowed


def test_the_installed_version_is_that_of_the_package() -> None:
    assert metadata.version("bundlefs").partition("+")[0] == __version__


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_a_job_takes_the_container_of_this_version(path: Path) -> None:
    tags = re.findall(r"image: registry\.example/bundlefs:(\S+)", path.read_text())
    assert tags == [__version__]


def test_the_changes_begin_with_what_comes_next_and_name_this_version() -> None:
    text = (CONTRIB / "changes.md").read_text()
    first, *versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert first in {"Next", __version__}
    assert __version__ in {first, *versions}


# The Pythons, and the workflow


def test_the_workflow_runs_on_each_python_that_is_supported() -> None:
    job = WORKFLOW["jobs"]["check"]
    assert job["strategy"]["matrix"]["python"] == pythons()
    [setup] = [step for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert setup["with"]["python-version"] == "${{ matrix.python }}"


def test_the_workflow_does_what_a_developer_does() -> None:
    [line] = [step["run"] for step in WORKFLOW["jobs"]["check"]["steps"] if "run" in step]
    program = line.split()[-1]
    assert program == ".ci/run"
    assert (ROOT / program).stat().st_mode & 0o111 == 0o111
    assert WORKFLOW["permissions"] == {"contents": "read"}
    # YAML 1.1 reads the key `on` as true.
    assert set(WORKFLOW[True]) == {"push", "pull_request"}  # type: ignore[index]  # same


def test_the_oldest_python_is_the_least_that_is_required() -> None:
    assert PROJECT["project"]["requires-python"] == f">={pythons()[0]}"
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{pythons()[0].replace('.', '')}"
    numbers = [int(version.partition(".")[2]) for version in pythons()]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))


def in_setup(script: str, path: str, tmp_path: Path) -> str:
    """Run lines of shell after contrib/setup, whose installations are told and not done."""
    told = 'apt_install() { echo "$*"; }'
    done = subprocess.run(
        [tool("bash"), "-euc", f'source "$1"\n{told}\n{script}', "setup", SETUP],
        env=clean_env(tmp_path) | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_python_that_is_first_on_the_path_is_taken(tmp_path: Path) -> None:
    mine = tmp_path / "bin"
    mine.mkdir()
    (mine / "python3").symlink_to(sys.executable)
    path = f"{mine}:{os.environ['PATH']}"
    assert in_setup('command -v "$(find_python)"', path, tmp_path) == str(mine / "python3")
    (mine / "python3").unlink()
    (mine / "python3").write_text("#!/bin/sh\nexit 1\n")  # as one that is too old does
    (mine / "python3").chmod(0o755)
    (mine / "python3.14").symlink_to(sys.executable)
    assert in_setup('command -v "$(find_python)"', path, tmp_path) == str(mine / "python3.14")


def test_only_the_distributions_python_needs_its_packages(tmp_path: Path) -> None:
    """One of setup-python's or pyenv's has its headers beside it."""
    asked = in_setup(
        f'python="{sys.executable}"; install_python_headers', os.environ["PATH"], tmp_path
    )
    version = "{}.{}".format(*sys.version_info[:2])
    own = f"python{version}-dev python{version}-venv"
    assert asked == (own if sys.base_prefix == "/usr" else "")
