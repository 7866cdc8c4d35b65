"""`bundlefs status` without a mountpoint: all mounts, whatever has become of them."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.mount.commands import AS_USER, ROOT, attempt, in_namespace, users_folder
from tests.support import images
from tests.support.mounts import BUNDLEFS, Mount, detach, mounted
from tests.support.processes import ended
from tests.support.tools import run

ODD = os.fsdecode(b"a b\t\xe9\x1b[31m\n\\040")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with users_folder() as made:
        yield made


@pytest.fixture(scope="module")
def mount(folder: Path) -> Iterator[Mount]:
    image = images.random_image(folder / ODD, 2 * images.MIB)
    with mounted(image, folder / f"mnt {ODD}", "--state", "none") as made:
        yield made


@contextmanager
def stopped(mount: Mount) -> Iterator[None]:
    """Have the daemon stand still for the length of a `with`."""
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(mount.pid, signal.SIGCONT)


def listed(folder: Path, program: Sequence[str] = BUNDLEFS) -> dict[str, Any]:
    """List all mounts; return those in the folder by name. Others may have mounts as well."""
    ending = attempt("status", "--json", program=program)
    assert ending.err == ""
    found = json.loads(ending.out)
    failed = [one for one in found if one["status"] and one["status"]["phase"] == "failed"]
    wrong = [one for one in found if one["answer"] in ("dead", "silent", "strange")]
    assert ending.code == (1 if failed or wrong else 0)
    ours = [one for one in found if one["mountpoint"].startswith(f"{folder}/")]
    return {Path(one["mountpoint"]).name: one for one in ours}


def test_one_that_answers(mount: Mount, folder: Path) -> None:
    [(name, one)] = listed(folder).items()
    assert (name, one["source"]) == (mount.path.name, str(mount.image))
    assert (one["answer"], one["error"]) == ("status", None)
    assert one["status"]["pid"] == mount.pid
    [line] = [line for line in attempt("status").out.splitlines() if str(folder) in line]
    written = r"a b\t\udce9\x1b[31m\n\040"
    assert line.startswith(f"{folder}/mnt {written}  idle, 2.0 MiB")
    assert line.endswith(f"{folder}/{written}")


def test_those_that_do_not(mount: Mount, folder: Path) -> None:
    image = images.random_image(folder / "image", images.MIB)
    with mounted(image, folder / "dead", "--state", "none") as dead:
        with mounted(image, folder / "silent", "--state", "none") as silent, stopped(silent):
            os.kill(dead.pid, signal.SIGKILL)
            assert ended(dead.pid, 20)
            found = listed(folder)
            answers = {name: one["answer"] for name, one in found.items()}
            expected = {"dead": "dead", "silent": "silent", mount.path.name: "status"}
            assert answers == expected
            assert found["dead"]["error"].endswith(f"run: bundlefs umount {dead.path}")
            assert "5 s" in found["silent"]["error"]
        detach(dead.path)


def test_those_of_others_and_those_below_and_those_inside(mount: Mount, folder: Path) -> None:
    image = images.random_image(folder / "image", images.MIB)
    with mounted(image, folder / "below", "--state", "none") as below:
        if ROOT:
            (folder / "part").touch()
            run(["mount", "--bind", below.path / "image.part.00", folder / "part"])
            run(["mount", "-t", "tmpfs", "none", below.path])
        try:
            found = listed(folder)
            whose = listed(folder, AS_USER)[mount.path.name]
        finally:
            if ROOT:
                run(["umount", below.path])
                run(["umount", folder / "part"])
    if ROOT:
        assert {name: one["answer"] for name, one in found.items()} == {
            mount.path.name: "status",
            "below": "hidden",
            "part": "inside",
        }
        assert whose["error"] == "only user 0 may look into it"
        assert whose["answer"] == "forbidden"


def test_none() -> None:
    done = attempt("status", program=in_namespace('exec "$@"', *BUNDLEFS))
    assert (done.code, done.out) == (0, "nothing is mounted\n")
