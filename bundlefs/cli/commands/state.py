"""`bundlefs state`: what outlasts the mounts, for people. It never shows a secret."""

import argparse
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundlefs.base.errors import StateError
from bundlefs.base.times import SECOND, local_time
from bundlefs.cli.common import Subparsers, human
from bundlefs.cli.options import typed
from bundlefs.cli.streams import show
from bundlefs.codec.deflate import BLOCK_SIZE
from bundlefs.state import file as statefile
from bundlefs.state.format import StateContents
from bundlefs.state.index import Index
from bundlefs.state.kept import beside, owner
from bundlefs.state.lock import lock_holder
from bundlefs.state.open import forget
from bundlefs.state.places import default_folder, points_path

_POINTS = ".points"


@dataclass(frozen=True, slots=True)
class _ListOptions:
    json: bool


@dataclass(frozen=True, slots=True)
class _OneOptions:
    what: Path


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "state",
        help="list, show or forget what outlasts a mount",
        description="Work with what is kept so that a later mount gives the same bundle.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list all images with a state", allow_abbrev=False)
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=run_list)
    for name, text, run in (
        ("show", "what a bundle depends on and how far it got", run_show),
        ("forget", "remove it: the next mount makes a new bundle with a new key", run_forget),
    ):
        action = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        action.add_argument(
            "what", type=Path, metavar="IMAGE|FILE", help="an image, or a state file"
        )
        action.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A state file with what is in it, or what is wrong with it; or a file of access points."""

    path: Path
    size: int
    contents: StateContents | None
    problem: str

    @classmethod
    def read(cls, path: Path) -> "_Kept":
        size, contents, problem = 0, None, "removed meanwhile"
        try:
            size = path.lstat().st_size
            if path.suffix == _POINTS:
                return cls(path, size, None, "access points of a compressed image or of a bundle")
            contents = statefile.read(path)
        except StateError as error:
            problem = str(error)
        except FileNotFoundError:
            pass
        return cls(path, size, contents, problem)


def _all() -> list[_Kept]:
    folder = default_folder()
    states = [path for path in folder.glob("*.state*") if owner(path).suffix == ".state"]
    paths = sorted(states, key=_after_kept) + sorted(folder.glob(f"*{_POINTS}"))
    return [_Kept.read(path) for path in paths]


def _after_kept(path: Path) -> tuple[Path, bool, Path]:
    """Sort a state file behind those that are kept beside it, as `forget` has to go."""
    return owner(path), owner(path) == path, path


def _find(what: Path) -> list[_Kept]:
    """Return the states of an image, or the one in a file, and the access points beside it.

    Raises:
        StateError: there is none.
    """
    image, kept = os.path.realpath(what), _all()
    found = [one for one in kept if one.contents and os.path.realpath(one.contents.image) == image]
    # Damaged ones as well, but no other file: `forget` would remove it.
    found = found or [one for one in kept if what.absolute() in (one.path, owner(one.path))]
    # Not beside every file: what is beside an image is the user's own.
    own = what.absolute().with_name(f"{what.name}{_POINTS}")
    if not found and statefile.is_state_file(what):
        paths = (*beside(what.absolute()), what.absolute(), own)
        found = [_Kept.read(path) for path in paths if path.exists()]
    found += [one for one in kept if one.path == points_path(what)]
    if not found:
        raise StateError(f"no state of {what} in {default_folder()}; see: bundlefs state list")
    return found


def run_list(arguments: argparse.Namespace) -> int:
    """Print a line for each state."""
    every = _all()
    if typed(_ListOptions, arguments).json:
        print(json.dumps([_as_json(kept) for kept in every], indent=1))
    elif every:
        _print_table(map(_facts, every))
    else:
        show(f"nothing in {default_folder()}")
    return 0


def _facts(kept: _Kept) -> dict[str, str]:
    facts = {"file": str(kept.path), "size": human(kept.size)}
    if kept.contents is None:
        return {"image": "?", "made": kept.problem, **facts}
    return {
        "image": kept.contents.image,
        "prefix": kept.contents.terms.get("prefix", "?"),
        "since": local_time(kept.contents.created_ns),
        "made": _progress(kept.contents),
        "mounted": _holder(kept) or "no",
        **facts,
    }


def _as_json(kept: _Kept) -> dict[str, Any]:
    """Return the same for programs: sizes in bytes, the time in seconds since 1970."""
    facts = {"file": str(kept.path), "size": kept.size}
    if kept.contents is None:
        return {"image": "?", "made": kept.problem, **facts}
    index, holder = Index(kept.contents.secret.iv), _holder(kept)
    index.load(kept.contents.index)
    return {
        "image": kept.contents.image,
        "prefix": kept.contents.terms.get("prefix", "?"),
        "since": kept.contents.created_ns / SECOND,
        "made": index.position,
        "complete": index.totals is not None,
        "parts": len(kept.contents.index.part_digests),
        "mounted": holder is not None,
        "holder": holder,
        **facts,
    }


def _holder(kept: _Kept) -> str | None:
    """Return who uses a state; nobody uses those that are kept beside it."""
    return lock_holder(kept.path) if owner(kept.path) == kept.path else None


def _print_table(rows: Iterable[dict[str, str]]) -> None:
    for row in rows:
        show(row["image"])
        for name, value in row.items():
            if name != "image":
                show(f"    {name:8} {value}")


def _progress(contents: StateContents) -> str:
    totals = contents.index.totals
    if totals:
        return f"complete, {human(totals.sealed_size)} in {len(contents.index.part_digests)} parts"
    done = contents.index.blocks * BLOCK_SIZE
    return f"as far as {human(done)}, {len(contents.index.part_digests)} parts"


def run_show(arguments: argparse.Namespace) -> int:
    """Print what a bundle depends on."""
    for kept in _find(typed(_OneOptions, arguments).what):
        _print_table([_facts(kept)])
        if kept.contents:
            names = ", ".join(kept.contents.recipients)
            rendered = ", ".join(kept.contents.manifests) or "none yet"
            show(f"    manifests: {names} (rendered: {rendered})")
            show("    it depends on")
            for name, value in kept.contents.terms.items():
                show(f"        {name}: {value}")
    return 0


def run_forget(arguments: argparse.Namespace) -> int:
    """Remove the states of an image, or one file."""
    found = [kept.path for kept in _find(typed(_OneOptions, arguments).what)]
    for path in found:
        # A state file takes with it what is kept beside it.
        if owner(path) == path or owner(path) not in found:
            forget(path)
            for gone in (one for one in found if one == path or owner(one) == path):
                show(f"forgot {gone}")
    return 0
