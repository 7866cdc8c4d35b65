"""How much memory a process may use, as control groups of both versions say it."""

from pathlib import Path

import pytest

from bundlefs.base.memory import available_memory, memory_limit

MIB = 1 << 20


@pytest.mark.parametrize(
    ("own", "limits"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": str(300 * MIB)}),
        ("0::/a/b\n", {"a/b/memory.max": str(300 * MIB), "a/memory.max": str(400 * MIB)}),
        # In a container: its own group is the root of what it sees.
        ("0::/\n", {"memory.max": str(300 * MIB)}),
        ("0::/machine/far\n", {"memory.max": str(300 * MIB)}),
        ("0::/a\n", {"unified/a/memory.max": str(300 * MIB)}),
        ("4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": str(300 * MIB)}),
        ("4:cpu,memory:/a/b\n", {"memory/a/memory.limit_in_bytes": str(300 * MIB)}),
    ],
)
def test_the_lowest_limit_counts(tmp_path: Path, own: str, limits: dict[str, str]) -> None:
    groups = tmp_path / "groups"
    for name, text in limits.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(f"{text}\n")
    (tmp_path / "cgroup").write_text(own)
    assert memory_limit(groups, tmp_path / "cgroup") == 300 * MIB


@pytest.mark.parametrize("own", ["", "0::/\n", "nonsense\n", "4:memory:/a\n"])
def test_without_a_limit_it_is_the_machines(tmp_path: Path, own: str) -> None:
    (tmp_path / "cgroup").write_text(own)
    machine = memory_limit(tmp_path, tmp_path / "missing")
    assert machine > 64 * MIB
    assert memory_limit(tmp_path, tmp_path / "cgroup") == machine


def groups_of(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


SECOND = "anon 1\ninactive_file {}\nactive_file {}\nshmem 7\n"
FIRST = "inactive_file 1\nactive_file 1\ntotal_inactive_file {}\ntotal_active_file {}\n"


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        ("0::/\n", {}, 900),
        # Its page cache is what a group gives back: 500 - 450 + 100 + 50.
        (
            "0::/a/b\n",
            {
                "a/memory.max": f"{500 * MIB}",
                "a/memory.current": f"{450 * MIB}",
                "a/memory.stat": SECOND.format(100 * MIB, 50 * MIB),
                "a/b/memory.max": "max",
                "a/b/memory.current": "0",
                "a/b/memory.stat": SECOND.format(0, 0),
            },
            200,
        ),
        (
            "0::/a\n",
            {
                "a/memory.max": f"{500 * MIB}",
                "a/memory.high": f"{300 * MIB}",
                "a/memory.current": f"{100 * MIB}",
                "a/memory.stat": SECOND.format(0, 0),
            },
            200,
        ),
        # What is in use and lasts is more than the limit that was set later.
        (
            "0::/a\n",
            {
                "a/memory.max": f"{100 * MIB}",
                "a/memory.current": f"{150 * MIB}",
                "a/memory.stat": SECOND.format(0, 0),
            },
            0,
        ),
        (
            "4:memory:/a\n",
            {
                "memory/a/memory.limit_in_bytes": f"{500 * MIB}",
                "memory/a/memory.usage_in_bytes": f"{450 * MIB}",
                "memory/a/memory.stat": FIRST.format(100 * MIB, 50 * MIB),
            },
            200,
        ),
    ],
)
def test_available_is_what_the_scarcest_group_has(
    tmp_path: Path, own: str, files: dict[str, str], left: int
) -> None:
    machine, mine = tmp_path / "meminfo", tmp_path / "cgroup"
    machine.write_text(f"MemTotal: 9 kB\nMemAvailable:   {900 << 10} kB\n")
    mine.write_text(own)
    assert available_memory(groups_of(tmp_path / "groups", files), mine, machine) == left * MIB


@pytest.mark.parametrize("text", [None, "", "MemAvailable: much kB\n"])
def test_available_is_not_known(tmp_path: Path, text: str | None) -> None:
    machine = tmp_path / "meminfo"
    if text is not None:
        machine.write_text(text)
    assert available_memory(tmp_path, tmp_path / "cgroup", machine) is None
