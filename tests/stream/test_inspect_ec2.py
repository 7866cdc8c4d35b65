"""`bundlefs inspect` of what EC2 would not start or take, and of what is fine: its remarks."""

import os
from pathlib import Path

import pytest

from tests.stream.disks import ESP, MIB, ROOT, UUID, fat, root, with_code
from tests.stream.inspecting import codes, few_samples, inspected, remark
from tests.support import images
from tests.support.systems import ARM64, disk
from tests.support.tools import run


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    few_samples(monkeypatch)


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
