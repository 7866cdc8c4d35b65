"""The systemd unit, as systemd itself reads it."""

import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from bundlefs.fuse.mountpoint import FS_TYPE
from tests.support import images
from tests.support.mounts import BUNDLEFS, END_SECONDS, detach, is_mounted, mounted
from tests.support.processes import ended
from tests.support.tools import run

UNIT = Path(__file__).parents[2] / "contrib/systemd/bundlefs@.service"
HIDES_THE_MOUNT = "PrivateTmp|Protect[A-Za-z]+|ReadOnlyPaths|PrivateMounts|InaccessiblePaths"
EXPOSURE = 5.5
"""4.8 with systemd 252; without any hardening it is 9.6."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as an instance, with a bundlefs that is there."""
    text = UNIT.read_text().replace("/usr/local/bin/bundlefs", sys.executable)
    path = tmp_path / "bundlefs@demo.service"
    path.write_text(text)
    return path


def test_systemd_takes_it(unit: Path) -> None:
    run(["systemd-analyze", "verify", "--man=no", unit])


def test_a_mistake_would_be_seen(unit: Path) -> None:
    unit.write_text(unit.read_text().replace(sys.executable, "/nowhere/bundlefs"))
    with pytest.raises(AssertionError, match="/nowhere/bundlefs"):
        run(["systemd-analyze", "verify", "--man=no", unit])


def test_hardening(unit: Path) -> None:
    shown = run(["systemd-analyze", "security", "--offline=true", "--no-pager", unit]).decode()
    level = re.search(r"exposure level for .*: ([0-9.]+)", shown)
    assert level
    assert float(level[1]) < EXPOSURE


def after_the_stop(mountpoint: Path) -> None:
    """Do what the unit does when its process has ended, however it did."""
    [line] = re.findall(r"^ExecStopPost=-(.*)$", UNIT.read_text().replace("\\\n", ""), re.MULTILINE)
    line = line.replace("$$", "$").replace("/usr/local/bin/bundlefs", shlex.join(BUNDLEFS))
    run(["env", f"MOUNTPOINT={mountpoint}", "sh", "-c", f"{line} || true"])


def test_a_dead_mount_is_taken_away_and_a_live_one_is_not(tmp_path: Path) -> None:
    image, mountpoint = images.text_image(tmp_path / "disk", 4096), tmp_path / "mnt"
    mountpoint.mkdir()
    try:
        with mounted(image, mountpoint) as mount:
            after_the_stop(mountpoint)
            assert len(mount.parts()) == 1
            os.kill(mount.pid, signal.SIGKILL)
            assert ended(mount.pid, END_SECONDS)
            assert is_mounted(mountpoint)
            after_the_stop(mountpoint)
            assert not is_mounted(mountpoint)
    finally:
        detach(mountpoint)


def test_the_host_sees_the_mount() -> None:
    settings = [line for line in UNIT.read_text().splitlines() if not line.startswith("#")]
    assert not [line for line in settings if re.match(rf"({HIDES_THE_MOUNT})=", line)]


@pytest.mark.parametrize(
    "document",
    ["systemd/example.conf", "troubleshooting.md", "man/sections.txt"],
)
def test_how_updatedb_is_kept_out_is_told(document: str) -> None:
    """It lists every folder of every mount, and a bundle is made of what is listed."""
    text = (UNIT.parents[1] / document).read_text()
    assert {FS_TYPE, "PRUNEFS", "/etc/updatedb.conf"} <= set(re.findall(r"[\w./]+\w", text))
