"""How a mount is watched: status --watch, metrics, df."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.mount.commands import terminal
from tests.support import images
from tests.support.mounts import BUNDLEFS, Mount, bundlefs, mounted, settings


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    image = images.random_image(tmp_path / 'di"s\\k', 25 * images.MIB)
    with mounted(image, tmp_path / "mnt") as made:
        yield made


def metrics(mount: Mount) -> dict[tuple[str, str], float]:
    """Read the metrics as Prometheus does: values by name and phase; all are of this image."""
    found = {}
    text = (mount.path / ".bundlefs/metrics").read_text()
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            if "version" not in sample.labels:
                assert sample.labels["image"] == str(mount.image)
            found[sample.name, sample.labels.get("phase", "")] = sample.value
    return found


def test_metrics(mount: Mount) -> None:
    before = metrics(mount)
    assert before["bundlefs_phase", "idle"] == 1
    assert before["bundlefs_sealed_bytes", ""] == 0
    sealed = sum(part.stat().st_size for part in mount.parts())
    after = metrics(mount)
    phases = {phase: value for (name, phase), value in after.items() if name == "bundlefs_phase"}
    assert phases == dict.fromkeys(
        ("unopened", "opening", "unpacking", "idle", "indexing", "failed"), 0
    ) | {"complete": 1}
    assert after["bundlefs_sealed_bytes", ""] == sealed
    assert after["bundlefs_parts_made", ""] == 3
    assert after["bundlefs_image_bytes", ""] == 25 << 20
    assert after["bundlefs_blocks_compressed_total", ""] == 26


def test_df(mount: Mount) -> None:
    # df opens the folder, which is a listing; statvfs(3) alone asks for nothing.
    before = os.statvfs(mount.path)
    assert before.f_frsize * before.f_blocks == before.f_frsize * before.f_bfree == 25 << 20
    words = ("df", "--output=size,used,avail", "-B1", mount.path)
    shown = [int(word) for word in subprocess.check_output(words).split()[3:]]
    sealed = -(-sum(part.stat().st_size for part in mount.parts()) // 512) * 512
    # Random bytes grow a little.
    assert shown == [sealed, sealed, 0]


def test_watch_a_complete_bundle(mount: Mount) -> None:
    assert mount.parts()
    lines = bundlefs("status", "--watch", "--interval", "2", "--json", mount.path).splitlines()
    assert [json.loads(line)["phase"] for line in lines] == ["complete"]


def test_watch_until_the_end(mount: Mount) -> None:
    command = [*BUNDLEFS, "status", "--json", "--watch", str(mount.path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=settings(), stdout=pipe, text=True) as watching:
        assert watching.stdout
        assert json.loads(watching.stdout.readline())["phase"] == "idle"
        assert mount.parts()
        phases = [json.loads(line)["phase"] for line in watching.stdout]
    assert phases[-1] == "complete"
    assert watching.returncode == 0


def test_watch_ends_with_the_mount(mount: Mount) -> None:
    command = [*BUNDLEFS, "status", "--watch", str(mount.path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=settings(), stdout=pipe, stderr=pipe, text=True) as watching:
        assert watching.stdout
        assert watching.stdout.readline().startswith("image ")
        mount.umount()
        _, err = watching.communicate(timeout=20)
    assert (watching.returncode, err) == (0, f"bundlefs: the mount at {mount.path} has ended\n")


def test_watch_on_a_terminal(mount: Mount) -> None:
    with terminal("status", "--watch", mount.path) as shell:
        shell.wait_for("phase     idle")
        assert mount.parts()
        shell.wait_for("phase     complete")
        assert shell.finish() == 0
        assert "\x1b[J" in shell.shown
