"""`bundlefs inspect` of disks: what real tools made is told as they tell it, whatever the form."""

import lzma
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundlefs.image.inspection import estimate
from tests.stream.inspecting import codes, inspected, output, remark
from tests.support import images, sources
from tests.support.systems import ARM64, X64, disk, system
from tests.support.tools import run

MIB = images.MIB
CORPUS = Path(__file__).parents[1] / "corpus/fat"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
BIOS = "21686148-6449-6E6F-744E-656564454649"
ROOT = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
SWAP = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"
UUID = "6b3c5f8e-0f6a-4f3c-9a51-3d1f7f0f6b10"
CODE = b"\xeb\x63\x90" + bytes(range(1, 200))


def made(*command: str, size: int = 20 * MIB) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        images.sparse_image(path, size, {})
        path.chmod(0o600)
        run([*command, path])

    return make


def luks(path: Path) -> None:
    head = b"LUKS\xba\xbe\0\2" + (16384).to_bytes(8, "big") + bytes(8) + b"secrets".ljust(48, b"\0")
    head += b"sha256".ljust(32, b"\0") + bytes(64) + UUID.encode().ljust(40, b"\0")
    images.sparse_image(path, 20 * MIB, {0: head.ljust(4096, b"\0")})


def lvm(path: Path) -> None:
    """Write a physical volume's label [LVM2, lib/format_text/layout.h]."""
    body = struct.pack("<I8s32sQ", 32, b"LVM2 001", b"0123456789abcdefghijklmnopqrstuv", 20 * MIB)
    body = body.ljust(492, b"\0")
    crc = zlib.crc32(body, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    images.sparse_image(path, 20 * MIB, {512: struct.pack("<8sQI", b"LABELONE", 1, crc) + body})


def iso(path: Path) -> None:
    folder = path.with_name("iso-tree")
    folder.mkdir()
    (folder / "readme").write_text("read me")
    run(["genisoimage", "-quiet", "-V", "MEDIUM", "-o", path, folder])


def fat(bits: int) -> Callable[[Path], object]:
    data = lzma.decompress((CORPUS / f"fat{bits}.xz").read_bytes())
    return lambda path: path.write_bytes(data)


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """An estimate is not what this is about."""
    monkeypatch.setattr(estimate, "_OF_THOSE", 3)
    monkeypatch.setattr(estimate, "_PIECES", 1)


KINDS: dict[str, Callable[[Path], object]] = {
    "ext2": made("mke2fs", "-q", "-F", "-t", "ext2", "-L", "two"),
    "ext3": made("mke2fs", "-q", "-F", "-t", "ext3", "-L", "three"),
    "ext4": made("mke2fs", "-q", "-F", "-t", "ext4", "-L", "r\u00f6\u00f6t"),
    "xfs": made("mkfs.xfs", "-q", "-L", "extents", size=320 * MIB),
    "btrfs": made("mkfs.btrfs", "-q", "-L", "b-tree", size=128 * MIB),
    "swap": made("mkswap", "-q", "-L", "swapped"),
    "crypto_LUKS": luks,
    "LVM2_member": lvm,
    "iso9660": iso,
    "vfat": fat(16),
}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    for kind, make in KINDS.items():
        make(folder / kind)
    return {kind: folder / kind for kind in KINDS}


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


# --- what EC2 will make of it ---


def root(folder: Path, fstab: str = "", number: int = X64) -> Path:
    path = system(folder / "root", number)
    (folder / "fstab").write_text(fstab)
    commands = f"mkdir etc\nwrite {folder}/fstab etc/fstab\n"
    run(["debugfs", "-w", "-f", "-", path], data=commands.encode())
    return path


def with_code(path: Path) -> Path:
    with path.open("r+b") as file:
        file.write(CODE)
    return path


def test_larger_than_ec2_takes(tmp_path: Path) -> None:
    path = images.sparse_image(tmp_path / "image", (10 << 30) + 512, {})
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1", path])
    document = inspected(path)
    assert codes(document) == ["size"]
    assert "10 GiB" in remark(document, "size")
    os.truncate(path, 10 << 30)
    assert codes(inspected(path)) in ([], ["cut-short"])


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_nothing_to_start_from(label: str, tmp_path: Path) -> None:
    kinds = ("83", "ef") if label == "dos" else (ROOT, ESP)
    path = disk(tmp_path / "image", [(kinds[0], root(tmp_path))], label)
    assert "no boot loader" in remark(inspected(path), "boot-loader")
    fat(16)(tmp_path / "efi")
    path = disk(
        tmp_path / "image", [(kinds[0], tmp_path / "root"), (kinds[1], tmp_path / "efi")], label
    )
    assert "by UEFI alone" in remark(inspected(path), "boot-loader")
    assert "boot-loader" not in codes(inspected(with_code(path)))


def test_what_no_tool_knows(tmp_path: Path) -> None:
    path = images.random_image(tmp_path / "image", 4 * MIB)
    document = inspected(path)
    assert document["disk"]["content"] is None
    assert remark(document, "unknown-file-system").startswith("the disk has no file system")
    junk = images.random_image(tmp_path / "junk", 4 * MIB)
    path = with_code(disk(tmp_path / "image", [("83", junk), ("83", root(tmp_path))], "dos"))
    document = inspected(path)
    assert codes(document) == ["unknown-file-system"]
    assert remark(document, "unknown-file-system").startswith("partition 1 has no file system")


def test_an_architecture_that_no_instance_has(tmp_path: Path) -> None:
    document = inspected(root(tmp_path, number=ARM64))
    assert document["disk"]["architecture"] == "arm64"
    assert codes(document) == ["architecture"]


MISSING = (
    ("/dev/vda1 / ext4 defaults", "/dev/xvda"),
    ("/dev/nvme0n1p1 / ext4 defaults", "/dev/xvda"),
    ("/dev/sda1 / ext4 defaults", "/dev/xvda"),
    ("/dev/mapper/vg-root / ext4 defaults", "no LVM"),
    ("/dev/vg/root / ext4 defaults", "no LVM"),
    ("/dev/xvda7 / ext4 defaults", "no partition 7"),
    (f"UUID={UUID} / ext4 defaults", "this UUID"),
    ('LABEL="else" / ext4 defaults', "this LABEL"),
    (f"/dev/disk/by-uuid/{UUID} /srv ext4", "this UUID"),
    ("PARTLABEL=else / ext4", "this PARTLABEL"),
)


def test_an_fstab_that_names_what_is_not_there(tmp_path: Path) -> None:
    for number in (0, 5):
        lines = MISSING[number : number + 5]
        folder = tmp_path / str(number)
        folder.mkdir()
        path = root(folder, "".join(f"{line} 0 0\n" for line, _ in lines))
        document = inspected(with_code(disk(folder / "image", [("83", path)], "dos")))
        texts = [one["text"] for one in document["remarks"] if one["code"] == "fstab"]
        assert codes(document) == ["fstab"] * 5
        for text, (line, why) in zip(texts, lines, strict=True):
            assert f"partition 1 names {line.split()[0]}, which will not be there" in text
            assert why in text


def test_where_not_all_is_seen_no_more_is_claimed(kinds: dict[str, Path], tmp_path: Path) -> None:
    path = root(tmp_path, f"/dev/mapper/vg-home /home ext4 defaults 0 0\nUUID={UUID} /srv ext4\n")
    document = inspected(
        with_code(disk(tmp_path / "image", [("83", path), ("8e", kinds["LVM2_member"])], "dos"))
    )
    assert codes(document) == []


def test_a_bare_file_system_may_name_a_paravirtual_disk(tmp_path: Path) -> None:
    document = inspected(root(tmp_path, "/dev/sda1 / ext4 defaults 0 1\n"))
    assert codes(document) == []
    assert "no partition table" in remark(document, "virtualization")


@pytest.mark.parametrize("options", [[], ["-b", "1024"], ["-O", "^flex_bg,^64bit"]])
def test_old_data_in_free_space(options: list[str], tmp_path: Path) -> None:
    path, tree = tmp_path / "image", tmp_path / "tree"
    tree.mkdir()
    images.random_image(tree / "deleted", 5 * MIB)
    images.random_image(tree / "kept", 3 * MIB)
    run(["mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", tree, path, "48M"])
    document = inspected(path)
    [before] = document["disk"]["free_space"]
    assert before["old"] == 0
    assert codes(document) == []
    run(["debugfs", "-w", "-R", "rm deleted", path])
    document = inspected(path)
    [after] = document["disk"]["free_space"]
    assert after["free"] >= before["free"]
    about = abs(after["old"] - 5 * MIB) < (64 << 10 if after["whole"] else 2 * MIB)
    assert about, after
    assert codes(document) == ["old-data"]
    assert "keys included" in remark(document, "old-data")


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
