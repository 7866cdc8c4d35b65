"""`bundlefs inspect` of what wants to do harm: bounded, nothing run, no control character shown."""

import struct
import time
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundlefs.base.spans import Span
from bundlefs.cli import main
from bundlefs.image.inspection import tools
from bundlefs.image.look import superblocks
from bundlefs.image.look.free import old_data
from bundlefs.image.look.fstab import Known, missing
from bundlefs.image.look.partitions import partition_table
from bundlefs.image.look.window import Budget, UnreadableError, Window
from tests.stream.inspecting import codes, few_samples, inspected, output, remark
from tests.support import images
from tests.support.systems import X64, disk, system
from tests.support.tools import run

MIB = images.MIB
ESCAPE = "\x1b[2J\x07\u202e"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    few_samples(monkeypatch)


def gpt(path: Path, count: int, entry: bytes = b"", width: int = 128) -> Path:
    data = entry * count if entry else bytes(128 * 128)
    first, last = 2, (64 * MIB // 512) - 1

    def header(crc: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, crc, 0, 1, last, 34, last - 34,
            bytes(16), first, count, width, zlib.crc32(data),
        )  # fmt: skip

    mbr = struct.pack("<446xB3xB3xII48x2s", 0, 0xEE, 1, last, b"\x55\xaa")
    return images.sparse_image(
        path, 64 * MIB, {0: mbr, 512: header(zlib.crc32(header(0))), 1024: data[: 2 * MIB]}
    )


def named(name: str, first: int, last: int) -> bytes:
    kind = bytes.fromhex("af3dc60f838472478e793d69d8477de4")
    raw = name.encode("utf-16-le")
    return struct.pack("<16s16sQQQ72s", kind, b"\1" * 16, first, last, 0, raw)


def test_a_gpt_of_a_million_entries(tmp_path: Path) -> None:
    path = gpt(tmp_path / "image", 1_000_000)
    start = time.process_time()
    document = inspected(path)
    assert time.process_time() - start < 10
    assert document["disk"]["table"]["partitions"] == []
    assert "1000000 entries" in remark(document, "partition-table")


def test_a_gpt_of_thousands_that_overlap_and_have_odd_names(tmp_path: Path) -> None:
    path = gpt(tmp_path / "image", 8000, named(ESCAPE, 2048, 4095))
    document = inspected(path)
    partitions = document["disk"]["table"]["partitions"]
    assert len(partitions) == 255
    assert {one["name"] for one in partitions} == {ESCAPE}
    assert any("behind the first 64" in one for one in document["unknown"])
    assert "more" in remark(document, "partition-table")
    text = output(path)
    assert r"\x1b[2J\x07\u202e" in text
    assert len(text.splitlines()) < 70
    assert all(line.isprintable() for line in text.splitlines())


def test_labels_that_are_escape_codes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    images.sparse_image(root, 16 * MIB, {})
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", ESCAPE, root])
    (tmp_path / "fstab").write_text(f"/dev/{ESCAPE} / ext4 defaults 0 0\nLABEL={ESCAPE} /x ext4\n")
    run(["debugfs", "-w", "-f", "-", root],
        data=f"mkdir etc\nwrite {tmp_path}/fstab etc/fstab\n".encode())  # fmt: skip
    document = inspected(root)
    assert document["disk"]["content"]["label"] == ESCAPE
    assert codes(document) == ["fstab"]
    text = output(root)
    assert "\x1b" not in text
    assert r"label '\x1b[2J\x07\u202e'" in text
    assert r"names /dev/\x1b[2J\x07\u202e, which" in text


def test_an_fstab_without_an_end(tmp_path: Path) -> None:
    root = system(tmp_path / "root", X64)
    (tmp_path / "fstab").write_text("/dev/vda1 / ext4 defaults 0 1\n" * 100_000)
    run(["debugfs", "-w", "-f", "-", root],
        data=f"mkdir etc\nwrite {tmp_path}/fstab etc/fstab\n".encode())  # fmt: skip
    assert codes(inspected(root)) == ["fstab"] * 5


def test_a_chain_in_a_circle(tmp_path: Path) -> None:
    def sector(*entries: tuple[int, int, int]) -> bytes:
        packed = (struct.pack("<B3xB3xII", 0, *entry) for entry in entries)
        return bytes(446) + b"".join(packed).ljust(64, b"\0") + b"\x55\xaa"

    path = images.sparse_image(
        tmp_path / "image",
        8 * MIB,
        {
            0: sector((5, 100, 9000)),
            100 * 512: sector((0x83, 10, 50), (5, 200, 100)),
            300 * 512: sector((0x83, 10, 50), (5, 0, 100)),
        },
    )
    document = inspected(path)
    assert [one["number"] for one in document["disk"]["table"]["partitions"]] == [1, 5, 6]
    assert "circle" in remark(document, "partition-table")


@pytest.mark.parametrize("behaviour", ["sleep 60", "exit 1", "yes", "echo ID_FS_TYPE=$'\\e[2J'"])
def test_tools_that_do_not_behave(
    behaviour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("blkid", "sfdisk"):
        (folder / name).write_text(f"#!/bin/bash\nexec 2>/dev/null\n{behaviour}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin:/usr/sbin")
    monkeypatch.setattr(tools, "_SECONDS", 0.5)
    path = images.sparse_image(tmp_path / "image", 16 * MIB, {})
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "found", path])
    document = inspected(path)
    if behaviour.startswith("echo"):
        assert document["disk"]["content"]["kind"] == "\x1b[2J"
    else:
        assert document["disk"]["content"]["label"] == "found"
        assert any("only blkid knows" in one for one in document["unknown"])


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("samples")
    found = {"gpt": disk(folder / "gpt", [(LINUX, None)]).read_bytes()[:MIB]}
    for kind, command in {
        "ext4": ["mke2fs", "-q", "-F", "-t", "ext4"],
        "ext2": ["mke2fs", "-q", "-F", "-t", "ext2", "-b", "1024"],
        "swap": ["mkswap", "-q"],
    }.items():
        path = images.sparse_image(folder / kind, 8 * MIB, {})
        path.chmod(0o600)
        run([*command, path])
        found[kind] = path.read_bytes()
    return found


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_is_never_more_than_not_seen(samples: dict[str, bytes], data: st.DataObject) -> None:
    content = bytearray(samples[data.draw(st.sampled_from(sorted(samples)))])
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.one_of(st.integers(440, 2048), st.integers(0, 64 << 10)))
        junk = data.draw(st.binary(min_size=1, max_size=8))
        content[place : place + len(junk)] = junk
    spent: list[int] = []

    def peek(offset: int, length: int) -> bytes:
        spent.append(length)
        return bytes(content[offset : offset + length])

    window = Window(peek, len(content), 0, Budget(20_000, 64 * MIB))
    partition_table(window)
    superblocks.system(window)
    with suppress(UnreadableError):
        old_data(window, 0, (Span(0, len(content)),))
    assert sum(spent) <= 64 * MIB


@given(st.binary(max_size=2000))
def test_any_bytes_may_be_an_fstab(text: bytes) -> None:
    known = Known({("UUID", "x")}, {1}, whole=True, volumes=False)
    assert all(why for _, why in missing(text, known))


# --- what cannot be read ---


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("nothing", "no image"),
        ("folder", "has no manifest"),
        ("empty", "is empty"),
        ("zip", "zip archive"),
        ("key", "is a key or certificate, no disk, bundle or mount"),
        ("state", "is a state file of bundlefs, no disk"),
        ("fifo", "is a FIFO"),
        ("xml", "cannot be used"),
        ("gzip", "gzip"),
        ("a\0b", "zero byte"),
    ],
)
def test_what_cannot_be_read(
    what: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "key").write_text("-----BEGIN PRIVATE KEY-----\n")
    (tmp_path / "state").write_text("bundlefs-state 5\n")
    (tmp_path / "zip").write_bytes(b"PK\x05\x06" + bytes(18))
    (tmp_path / "xml").write_text("<manifest><version>1</version></manifest>")
    (tmp_path / "gzip").write_bytes(b"\x1f\x8b\x08" + bytes(20))
    run(["mkfifo", tmp_path / "fifo"])
    assert main(["inspect", str(tmp_path / what)]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("bundlefs: ")
    assert text in error.splitlines()[-1]


def test_misuse_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):
        assert main(["inspect"]) == 2
    assert "PATH" in capsys.readouterr().err
    assert main(["inspect", "x", "--user-key", "/nowhere/key.pem"]) == 2
