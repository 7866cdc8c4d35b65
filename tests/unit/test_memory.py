"""How much memory a process may use, as control groups of both versions say it."""

from pathlib import Path

import pytest

from bundlefs.base.memory import memory_limit

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
