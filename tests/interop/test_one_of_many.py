"""`bundle-one-of`: the image whose number a Job gives, its exit code, and the sum of how all ended.

What it starts is a stand-in here; contrib/release-check has the real one in the container.
"""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.mount.commands import eventually
from tests.support.tools import clean_env, tool

PROGRAM = Path(__file__).parents[2] / "contrib/container/bundle-one-of"
COUNT = 20
FAILING = {3: 1, 11: 2, 19: 32}
"""The numbers of the images that fail, and how."""
STAND_IN = """#!/bin/sh
printf '%s\\n' "$@" >"$HOME/given"
while [ "${1#--}" != "$1" ]; do shift 2; done
exec sh "$1"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A place with images that are scripts, and a bundle-and-upload that runs the one it gets."""
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin/bundle-and-upload"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    (tmp_path / "images").mkdir()
    for number in range(COUNT):
        image = tmp_path / f"images/disk {number:02}.raw"
        image.write_text(f"exit {FAILING.get(number, 0)}\n")
    (tmp_path / "images/.hidden").touch()
    (tmp_path / "images/folder").mkdir()
    lines = [f"{path}\n" for path in sorted((tmp_path / "images").glob("disk*"))]
    (tmp_path / "list").write_text("# all of them\n\n" + "".join(lines))
    return tmp_path


def environment(home: Path, index: object) -> dict[str, str]:
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    names = {"JOB_COMPLETION_INDEX": str(index), "BUNDLEFS_RESULTS": str(home / "results")}
    return clean_env(home, **names) | {"PATH": path}


def one_of(home: Path, *words: str | Path, index: object = "") -> tuple[int, str, str]:
    """Run the program; gives its exit code, its results and what else it said."""
    done = subprocess.run(
        [tool("bash"), PROGRAM, *words],
        env=environment(home, index),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("given", ["list", "images"])
def test_each_index_is_an_image_and_the_sum_names_what_failed(given: str, home: Path) -> None:
    for number in range(COUNT - 1):
        code, _, err = one_of(home, home / given, "s3:bucket/all", "--level=1", index=number)
        assert (code, err) == (FAILING.get(number, 0), "")
        image = home / f"images/disk {number:02}.raw"
        words = [str(image), f"s3:bucket/all/{image.name}", "--level=1"]
        assert (home / "given").read_text().splitlines() == words
    code, out, _ = one_of(home, "--sum", home / given)
    shown = [
        f"failed (1)\t{home}/images/disk 03.raw",
        f"failed (2)\t{home}/images/disk 11.raw",
        f"not tried\t{home}/images/disk 19.raw",
        "17 of 20 done, 2 failed, 1 not tried",
    ]
    assert (code, out.splitlines()) == (1, shown)


def test_what_is_mended_has_not_failed(home: Path) -> None:
    (home / "list").write_text(f"{home}/images/disk 03.raw")
    assert one_of(home, home / "list", "s3:bucket/all", index=0)[0] == 1
    assert one_of(home, "--sum", home / "list")[0] == 1
    (home / "images/disk 03.raw").write_text("exit 0")
    assert one_of(home, home / "list", "s3:bucket/all", index=0)[0] == 0
    assert one_of(home, "--sum", home / "list") == (0, "1 of 1 done, 0 failed, 0 not tried\n", "")


def test_without_fuse_each_has_a_folder(home: Path) -> None:
    assert one_of(home, "--folder", "/scratch/", home / "list", "s3:bucket/all", index=0)[0] == 0
    words = [
        "--folder",
        "/scratch/disk 00.raw",
        f"{home}/images/disk 00.raw",
        "s3:bucket/all/disk 00.raw",
    ]
    assert (home / "given").read_text().splitlines() == words


def test_a_number_behind_the_last_has_nothing_to_do(home: Path) -> None:
    code, out, err = one_of(home, home / "list", "s3:bucket/all", index=COUNT)
    assert (code, out) == (0, "")
    assert "has 20 images, so there is nothing to do for number 20" in err
    assert not (home / "given").exists()


@pytest.mark.parametrize("index", ["", "one", "-1", "1 2"])
def test_what_is_no_number(index: str, home: Path) -> None:
    code, _, err = one_of(home, home / "list", "s3:bucket/all", index=index)
    assert (code, "JOB_COMPLETION_INDEX" in err) == (2, True)


def test_two_of_a_name_would_be_one_bundle(home: Path) -> None:
    (home / "list").write_text("/a/disk\n/b/disk\n")
    code, _, err = one_of(home, home / "list", "s3:bucket/all", index=0)
    assert (code, "/a/disk and /b/disk have the same name" in err) == (2, True)


def test_wrong_usage(home: Path) -> None:
    assert one_of(home)[0] == one_of(home, "--sum")[0] == one_of(home, "list")[0] == 2
    assert one_of(home, home / "none", "s3:bucket/all", index=0)[0] == 2


def test_what_is_told_to_end_has_not_failed(home: Path) -> None:
    """Kubernetes evicts a pod by SIGTERM; the next one goes on."""
    script = f"trap 'exit 143' TERM; touch '{home}/begun'; while :; do sleep 0.1; done"
    (home / "images/disk 00.raw").write_text(script)
    process = subprocess.Popen(
        [tool("bash"), PROGRAM, home / "list", "s3:bucket/all"], env=environment(home, 0)
    )
    try:
        assert eventually((home / "begun").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    finally:
        process.kill()
        process.wait()
    assert not (home / "results").exists()
