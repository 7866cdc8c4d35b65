"""`bundlefs inspect` of disks: what real tools made is told as they tell it, whatever the form."""

import os
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.stream.disks import CODE, ESP, KINDS, MIB, ROOT, UUID, fat, made, root, with_code
from tests.stream.inspecting import codes, few_samples, inspected, output, remark
from tests.support import images, sources
from tests.support.systems import X64, disk, system
from tests.support.tools import run

BIOS = "21686148-6449-6E6F-744E-656564454649"
SWAP = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    few_samples(monkeypatch)


def by_blkid(path: Path) -> dict[str, str]:
    lines = run(["blkid", "-p", "-o", "udev", path]).decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("installed", [True, False])
def test_a_disk_without_a_table(
    kind: str, kinds: dict[str, Path], monkeypatch: pytest.MonkeyPatch, *, installed: bool
) -> None:
    path, told = kinds[kind], by_blkid(kinds[kind])
    if not installed:
        monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    document = inspected(path)
    found = document["disk"]
    assert (document["schema"], document["what"]) == ("bundlefs-inspect-1", "disk")
    assert (found["form"], found["size"], found["table"]) == ("raw", path.stat().st_size, None)
    assert found["data"] + found["holes"] == found["size"]
    content = found["content"]
    assert content["kind"] == told["ID_FS_TYPE"] == kind
    if installed or kind != "iso9660":  # whose UUID is a date
        assert content["uuid"] == told["ID_FS_UUID"]
    assert (content["label"] or "") == told.get("ID_FS_LABEL_ENC", "").replace("\\x20", " ")
    whole = kind != "crypto_LUKS"
    assert (content["size"] is not None) == whole
    if whole:
        assert 0 < content["size"] <= found["size"]
    assert any("blkid is not installed" in one for one in document["unknown"]) == (not installed)
    held = kind in ("crypto_LUKS", "LVM2_member", "swap")
    assert found["virtualization"] == (None if held else "paravirtual")
    assert codes(document) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk as distributions make them: it starts by both, and its fstab is right."""
    folder = tmp_path_factory.mktemp("whole")
    root, swap, efi = folder / "root", folder / "swap", folder / "efi"
    tree = folder / "etc-tree"
    (tree / "etc").mkdir(parents=True)
    system(root, X64)
    made("mkswap", "-q", "-U", UUID, size=8 * MIB)(swap)
    fat(16)(efi)
    serial = by_blkid(efi)["ID_FS_UUID"]
    run(["tune2fs", "-L", "cloud", root])
    (tree / "etc/fstab").write_text(
        f"# of a good image\nLABEL=cloud / ext4 defaults 0 1\nUUID={UUID} none swap sw 0 0\n"
        f"UUID={serial} /boot/efi vfat umask=0077 0 1\nproc /proc proc defaults 0 0\n"
        "nfs.example.com:/x /srv nfs _netdev 0 0\n/dev/sr0 /media udf,iso9660 noauto 0 0\n"
        "UUID=gone /data ext4 nofail 0 0\n/dev/xvda3 /again ext4 defaults 0 0\n"
    )
    commands = f"mkdir etc\nwrite {tree}/etc/fstab etc/fstab\n"
    run(["debugfs", "-w", "-f", "-", root], data=commands.encode())
    path = disk(folder / "disk", [(BIOS, None), (ESP, efi), (ROOT, root), (SWAP, swap)])
    with path.open("r+b") as file:
        file.write(CODE)
    return path


def test_a_good_disk(whole: Path) -> None:
    document = inspected(whole)
    found = document["disk"]
    assert codes(document) == []
    assert document["unknown"] == []
    assert found["virtualization"] == "hvm"
    assert found["boot"] == {"code": True, "efi": True, "marked": True}
    # The loader is another machine's, so that nothing is claimed.
    seen = [one["architecture"] for one in found["architecture_by"]]
    assert (found["architecture"], seen) == (None, ["x86_64", "arm64", "x86_64"])
    assert found["content"] is None
    assert found["table"]["kind"] == "GPT"
    kinds = [(one["number"], one["content"]) for one in found["table"]["partitions"]]
    assert [(number, content and content["kind"]) for number, content in kinds] == [
        (1, None),
        (2, "vfat"),
        (3, "ext4"),
        (4, "swap"),
    ]
    assert kinds[2][1]["label"] == "cloud"
    assert kinds[3][1]["uuid"] == UUID
    assert [one["partition"] for one in found["free_space"]] == [3]
    assert [one["level"] for one in found["estimates"]] == [1, 6, 9]


@pytest.mark.parametrize("form", ["gzip", "xz", "qcow2", "vhd-fixed", "ova"])
def test_in_another_form_it_is_the_same_disk(form: str, whole: Path, tmp_path: Path) -> None:
    path, wanted = tmp_path / "image", inspected(whole)
    sources.ALL[form](whole, path)
    os.utime(path, (1, 1))
    document = inspected(path)
    found = document["disk"]
    assert found["form"] == form.partition("-")[0]
    assert found["file_size"] == path.stat().st_size
    for field in ("content", "boot", "virtualization"):
        assert found[field] == wanted["disk"][field]
    assert codes(document) == []
    if form in ("xz", "zstd"):  # of which the first 64 MiB are looked at
        parts, others = (one["table"]["partitions"] for one in (found, wanted["disk"]))
        assert parts[:2] == others[:2]
        assert parts[2] == others[2] | {"content": None}
        assert any("what is in partition 3" in one for one in document["unknown"])
        assert found["size"] is None
        assert not found["complete"]
        assert found["estimates"] == []
        assert any(f"{form} -dc <{path} >disk.raw" in one for one in document["unknown"])
        return
    for field in ("size", "table", "architecture", "architecture_by"):
        assert found[field] == wanted["disk"][field]
    if form != "gzip":
        assert found["data"] + found["holes"] == found["size"]


def test_a_small_image_that_is_read_from_its_start_is_known_whole(tmp_path: Path) -> None:
    raw, path = system(tmp_path / "raw", X64), tmp_path / "image"
    path.write_bytes(run(["xz", "-0", "-c", raw]))
    found = inspected(path)["disk"]
    assert (found["size"], found["complete"]) == (24 * MIB, True)
    assert found["content"]["kind"] == "ext4"
    assert len(found["estimates"]) == 3


def test_what_an_earlier_use_has_left_behind_is_not_what_is_there(
    kinds: dict[str, Path], tmp_path: Path
) -> None:
    path = disk(tmp_path / "image", [("83", root(tmp_path))], "dos")
    with kinds["btrfs"].open("rb") as old, path.open("r+b") as file:
        old.seek(64 << 10)
        file.seek(64 << 10)
        file.write(old.read(4096))
    found = inspected(with_code(path))["disk"]
    assert found["content"] is None
    assert found["virtualization"] == "hvm"
    # And a file system whose boot sector has code where a table would be.
    (tmp_path / "other").mkdir()
    path = root(tmp_path / "other")
    with path.open("r+b") as file:
        file.seek(446)
        file.write(
            struct.pack("<B3xB3xIIB3xB3xII", 0, 1, 9, 99, 0, 2, 50, 99) + bytes(32) + b"\x55\xaa"
        )
    found = inspected(path)["disk"]
    assert found["table"] is None
    assert found["content"]["kind"] == "ext4"


def test_an_iso_that_is_a_disk_too(kinds: dict[str, Path], tmp_path: Path) -> None:
    """As isohybrid makes them: a partition from the first sector on, another one in it."""
    path = tmp_path / "image"
    data = bytearray(kinds["iso9660"].read_bytes())
    sectors = len(data) // 512
    data[446:510] = (
        struct.pack("<B3xB3xII", 0x80, 0x17, 0, sectors)
        + struct.pack("<B3xB3xII", 0, 0xEF, 64, 32)
        + bytes(32)
    )
    data[510:512] = b"\x55\xaa"
    data[: len(CODE)] = CODE
    path.write_bytes(data)
    document = inspected(path)
    found = document["disk"]
    assert found["content"]["kind"] == "iso9660"
    assert found["content"]["label"] == "MEDIUM"
    assert [one["start"] for one in found["table"]["partitions"]] == [0, 64 * 512]
    assert "overlap" in remark(document, "partition-table")


def test_a_table_of_another_kind(tmp_path: Path) -> None:
    path = images.sparse_image(tmp_path / "image", 64 * MIB, {})
    run(["sfdisk", "-q", path], data=b"label: sgi\n,20480\n")
    document = inspected(path)
    table = document["disk"]["table"]
    assert table["kind"] == "sgi"
    assert len(table["partitions"]) >= 1
    assert codes(document)[-1:] != ["boot-loader"]


# --- what it is not, and what it does not do ---


def snapshot(folder: Path) -> dict[str, Any]:
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_ctime_ns, path.lstat().st_size)
        for path in sorted(folder.rglob("*"))
    }


def test_nothing_is_written(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, path = tmp_path / "state", tmp_path / "disk.gz"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BUNDLEFS_ACCOUNT", raising=False)
    path.write_bytes(run(["gzip", "-1", "-c", whole]))
    before, of_whole = snapshot(tmp_path), snapshot(whole.parent)
    inspected(path)
    inspected(whole)
    assert snapshot(tmp_path) == before
    assert snapshot(whole.parent) == of_whole


def test_for_people_it_is_one_fact_a_line(whole: Path) -> None:
    lines = output(whole).splitlines()
    assert lines[:3] == [f"disk: {whole}", "form: raw", f"size: 138.0 MiB ({138 * MIB} bytes)"]
    [third] = [line for line in lines if line.startswith("partition 3: ")]
    assert ", ext4, label 'cloud', UUID " in third
    assert f"start {69 * MIB}, size {33 * MIB}, type {ROOT} (Linux root (x86-64))" in third
