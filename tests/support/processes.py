"""What /proc tells of processes and threads, which may end while it is looked at [proc(5)]."""

import contextlib
import time
from pathlib import Path

GONE = (FileNotFoundError, ProcessLookupError)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except GONE:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def ended(pid: int, seconds: float) -> bool:
    """Wait up to `seconds` for a process to end."""
    deadline = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def waiting(pid: int) -> str:
    """Tell in which state and where in the kernel each thread of a process waits."""
    told = ""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            name, _, rest = (task / "stat").read_text().rpartition(")")
            told += f"; {name} {rest.split()[0]} {(task / 'wchan').read_text()}"
    return told


def children(pid: int) -> list[int]:
    """Give the children of a process, whichever of its threads has made them."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(*GONE):
            found += map(int, file.read_text().split())
    return found


def of_family(pid: int, file: str) -> dict[int, str]:
    """Give what a file of /proc says of a process and of its children.

    Of one that is about to end it may say nothing.
    """
    told = {pid: Path(f"/proc/{pid}/{file}").read_text()}
    for child in children(pid):
        with contextlib.suppress(*GONE):
            told[child] = Path(f"/proc/{child}/{file}").read_text()
    return told


def disk_server(pid: int) -> int:
    """Give the one child of a process that serves a disk; others come and go."""
    names = of_family(pid, "comm")
    [found] = [child for child, name in names.items() if name == "qemu-nbd\n"]
    return found


def open_files(pid: int) -> dict[int, str]:
    """Give the files that a process has open, by descriptor."""
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[int(link.name)] = str(link.readlink())
    return found


def peak_memory(pid: int) -> int:
    """Give the most memory that a process has had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10
