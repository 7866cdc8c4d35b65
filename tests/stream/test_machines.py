"""Disks of virtual machines that have their own ways: VHD, VHDX, and OVA, which is an archive."""

import struct
import tarfile
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest

from bundlefs.base.errors import ImageError
from bundlefs.image.inspection.disk import look
from bundlefs.image.open import open_source
from tests.mount.commands import attempt
from tests.support import images, sources
from tests.support.tools import run

MIB = images.MIB
SIZE = 3 * MIB + 512
GEOMETRY = (90, 4, 17)
BY_GEOMETRY = 90 * 4 * 17 * 512


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.random_image(tmp_path_factory.mktemp("raw") / "disk", SIZE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image"


def content(path: Path) -> bytes:
    with closing(open_source(path)) as source:
        return source.read(0, source.size)


def by_qemu(path: Path) -> bytes:
    """Return what qemu makes of a VHD."""
    out = path.with_name("out")
    run(["qemu-img", "convert", "-f", "vpc", "-O", "raw", path, out])
    return out.read_bytes()


def refused(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        open_source(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- VHD ---


class Vhd:
    """A VHD by qemu, whose footers say what a test wants."""

    def __init__(self, raw: Path, path: Path, kind: str) -> None:
        sources.qemu("vpc", "-o", f"subformat={kind},force_size=on")(raw, path)
        self._path = path
        self._data = bytearray(path.read_bytes())
        self._at = [len(self._data) - 512] if kind == "fixed" else [0, len(self._data) - 512]

    def set(self, offset: int, value: bytes, *, checksum: bool = True) -> None:
        """Put a value into the footers."""
        for at in self._at:
            self._data[at + offset : at + offset + len(value)] = value
            if checksum:
                self._data[at + 64 : at + 68] = bytes(4)
                found = ~sum(self._data[at : at + 512]) & 0xFFFFFFFF
                self._data[at + 64 : at + 68] = struct.pack(">I", found)
        self._path.write_bytes(self._data)

    def header(self, offset: int, value: bytes, *, checksum: bool = True) -> None:
        """Put a value into the header of one that grows, which is behind its first footer."""
        self._data[512 + offset : 512 + offset + len(value)] = value
        if checksum:
            self._data[548:552] = bytes(4)
            self._data[548:552] = struct.pack(">I", ~sum(self._data[512:1536]) & 0xFFFFFFFF)
        self._path.write_bytes(self._data)


kinds = pytest.mark.parametrize("kind", ["dynamic", "fixed"])
AS_QEMU = (b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"vpc ", b"qemu")
"""Of the creators that it knows, qemu takes one size whatever its version."""


@kinds
@pytest.mark.parametrize("creator", [*AS_QEMU, b"wa\0\0", b"vbox", b"\0\0\0\0"])
def test_the_size_of_a_vhd(creator: bytes, kind: str, raw: Path, path: Path) -> None:
    """By the size, but for Virtual PC and old versions of qemu."""
    vhd = Vhd(raw, path, kind)
    vhd.set(28, creator)
    vhd.set(56, struct.pack(">HBB", *GEOMETRY))
    size = BY_GEOMETRY if creator in (b"vpc ", b"qemu") else SIZE
    assert content(path) == raw.read_bytes()[:size]
    if creator in AS_QEMU:
        assert content(path) == by_qemu(path)


@kinds
def test_the_largest_geometry_says_nothing(kind: str, raw: Path, path: Path) -> None:
    vhd = Vhd(raw, path, kind)
    vhd.set(28, b"vpc ")
    vhd.set(56, struct.pack(">HBB", 65535, 16, 255))
    assert content(path) == by_qemu(path) == raw.read_bytes()


def test_a_fixed_vhd_is_inspected_as_such(raw: Path, path: Path) -> None:
    """Nothing at its start tells what it is."""
    sources.qemu("vpc", "-o", "subformat=fixed,force_size=on")(raw, path)
    found = look(path)
    assert (found.form, found.size) == ("vhd", SIZE)


@kinds
def test_as_qemu_makes_it_of_old(kind: str, raw: Path, path: Path) -> None:
    """Rounded up to a geometry."""
    sources.qemu("vpc", "-o", f"subformat={kind}")(raw, path)
    found = content(path)
    assert found == by_qemu(path) == raw.read_bytes().ljust(len(found), b"\0")
    assert SIZE < len(found) < SIZE + MIB


@kinds
@pytest.mark.parametrize(
    ("field", "says"),
    [
        ((60, struct.pack(">I", 4)), "has a parent file"),
        ((60, struct.pack(">I", 7)), "it is of type 7"),
        ((48, struct.pack(">Q", 0)), "its size is said to be 0 bytes"),
        ((48, struct.pack(">Q", SIZE + 1)), f"its size is said to be {SIZE + 1} bytes"),
    ],
)
def test_footers_of_vhds(
    field: tuple[int, bytes], says: str, kind: str, raw: Path, path: Path
) -> None:
    Vhd(raw, path, kind).set(*field)
    assert says in refused(path)


@kinds
def test_a_footer_that_is_damaged(kind: str, raw: Path, path: Path) -> None:
    Vhd(raw, path, kind).set(100, b"x", checksum=False)
    assert "the checksum of its footer does not fit" in refused(path)


@kinds
def test_a_geometry_beyond_the_size(kind: str, raw: Path, path: Path) -> None:
    vhd = Vhd(raw, path, kind)
    vhd.set(28, b"vpc ")
    vhd.set(56, struct.pack(">HBB", 100, 4, 17))
    assert "its geometry has" in refused(path)


@pytest.mark.parametrize("change", [-512, 512, 1 << 40])
def test_a_fixed_vhd_of_another_length(change: int, raw: Path, path: Path) -> None:
    Vhd(raw, path, "fixed").set(48, struct.pack(">Q", SIZE + change))
    assert f"it holds {SIZE} bytes, and its footer says {SIZE + change}" in refused(path)


def test_a_vhd_that_is_said_to_be_fixed_at_its_start(raw: Path, path: Path) -> None:
    """For qemu its header would be the start of the disk."""
    Vhd(raw, path, "dynamic").set(60, struct.pack(">I", 2))
    assert "it is of type 2" in refused(path)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"xxsparse"),
        (16, struct.pack(">Q", 1 << 40)),
        (16, struct.pack(">Q", (1 << 64) - 512)),
        (28, struct.pack(">I", 0xFFFFFFFF)),
        (28, struct.pack(">I", 1 << 22)),
        (28, struct.pack(">I", 0)),
        (32, struct.pack(">I", 3)),
        (32, struct.pack(">I", 0)),
    ],
)
def test_tables_of_vhds(offset: int, value: bytes, raw: Path, path: Path) -> None:
    Vhd(raw, path, "dynamic").header(offset, value)
    refused(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_vhd_that_is_cut_short(share: float, raw: Path, path: Path) -> None:
    sources.qemu("vpc", "-o", "force_size=on")(raw, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(path)


@pytest.mark.parametrize("block", [0, 1, 0x7FFFFFFF, 0xFFFFFFFE])
def test_blocks_of_a_vhd_that_are_elsewhere(block: int, raw: Path, path: Path) -> None:
    """They overlap others, or lie behind the end: no byte of another file, and none made up."""
    Vhd(raw, path, "dynamic").header(1024, struct.pack(">I", block), checksum=False)
    try:
        found = content(path)
    except ImageError:
        return
    assert found == by_qemu(path)


# --- VHDX ---

PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
LOCATOR = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
SECTOR_SIZE = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le


def test_a_vhdx_with_a_parent(raw: Path, path: Path) -> None:
    sources.qemu("vhdx")(raw, path)
    data = bytearray(path.read_bytes())
    entry, table = data.index(PARAMETERS), data.index(b"metadata")
    data[table + struct.unpack_from("<I", data, entry + 16)[0] + 4] |= 2
    path.write_bytes(data)
    assert "(vhdx) has a parent file" in refused(path)


def test_a_vhdx_with_the_name_of_a_parent(raw: Path, path: Path) -> None:
    sources.qemu("vhdx")(raw, path)
    path.write_bytes(path.read_bytes().replace(SECTOR_SIZE, LOCATOR))
    assert "(vhdx) has a parent file" in refused(path)


@pytest.mark.parametrize("starts", [(64 << 10, 128 << 10), (192 << 10, 256 << 10), (2 * MIB,)])
def test_a_vhdx_that_is_damaged(starts: tuple[int, ...], raw: Path, path: Path) -> None:
    sources.qemu("vhdx")(raw, path)
    data = bytearray(path.read_bytes())
    for start in starts:
        data[start : start + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    refused(path)


# --- OVA ---

LONG = "a folder/" * 20 + "disk.vmdk"


@pytest.fixture(scope="module")
def vmdk(raw: Path) -> bytes:
    return sources.vmdk_stream(raw)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (tarfile.USTAR_FORMAT, "box-disk1.vmdk"),
        (tarfile.USTAR_FORMAT, "disk"),
        (tarfile.GNU_FORMAT, LONG),
        (tarfile.PAX_FORMAT, "d\u00efsk.vmdk"),
        (tarfile.PAX_FORMAT, LONG),
    ],
)
def test_the_disk_in_an_ova(kind: int, name: str, raw: Path, vmdk: bytes, path: Path) -> None:
    others = {"box.nvram": b"n" * 3000, "cd.iso": b"i" * 100_000}
    sources.ova(path, {**others, name: vmdk}, kind)
    assert content(path) == raw.read_bytes()


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ((), "no vmdk that is read in it ('box.ovf', 'box.mf')"),
        (("one.vmdk", "two.vmdk"), "several disks in it ('one.vmdk', 'two.vmdk')"),
        (("one.vmdk", "two.VHD"), "several disks in it ('one.vmdk', 'two.VHD')"),
        (("one.vmdk", "two.img"), "several disks in it ('one.vmdk', 'two.img')"),
        (("disk.vmdk.gz",), "no vmdk that is read in it ('disk.vmdk.gz')"),
        (("disk.vmdk.000000000",), "no vmdk that is read in it ('disk.vmdk.000000000')"),
        (("disk.qcow2",), "no vmdk that is read in it ('disk.qcow2')"),
        (("a\nb.vhdx",), "no vmdk that is read in it ('a\\nb.vhdx')"),
        (tuple(f"{n}.img" for n in range(20)), "'7.img', ...)"),
    ],
)
def test_not_one_disk_in_an_ova(names: tuple[str, ...], says: str, vmdk: bytes, path: Path) -> None:
    sources.ova(path, {name: vmdk if name.endswith("vmdk") else b"x" * 600 for name in names})
    assert says in refused(path)


def test_an_ova_whose_disk_is_not_alone(raw: Path, path: Path, tmp_path: Path) -> None:
    parent, child = tmp_path / "parent", tmp_path / "child"
    sources.qemu("vmdk")(raw, parent)
    run(["qemu-img", "create", "-q", "-f", "vmdk", "-b", parent, "-F", "vmdk", child])
    sources.ova(path, {"disk.vmdk": child.read_bytes()})
    assert "(ova) has a parent file" in refused(path)


@pytest.mark.parametrize("kind", ["gnu", "posix"])
def test_an_ova_whose_disk_is_sparse(kind: str, vmdk: bytes, path: Path, tmp_path: Path) -> None:
    """Of a member with holes the bytes do not stand there as they are."""
    (tmp_path / "box.ovf").touch()
    with (tmp_path / "disk.vmdk").open("wb") as file:
        file.write(vmdk)
        file.truncate(64 * MIB)
    words = ("-C", tmp_path, "box.ovf", "disk.vmdk")
    run(["tar", f"--format={kind}", "--sparse", "-cf", path, *words])
    assert "no vmdk that is read in it ('disk.vmdk')" in refused(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_an_ova_that_is_cut_short(share: float, vmdk: bytes, path: Path) -> None:
    sources.ova(path, {"disk.vmdk": vmdk})
    path.write_bytes(path.read_bytes()[: 2048 + int(len(vmdk) * share)])
    assert "(ova) is cut short" in refused(path)


def test_an_ova_with_a_damaged_header(vmdk: bytes, path: Path) -> None:
    sources.ova(path, {"disk.vmdk": vmdk})
    sources.flip(path, 1024 + 150)
    assert "(ova) is damaged or cut short" in refused(path)


def test_an_ova_of_a_great_many_files(path: Path, vmdk: bytes) -> None:
    sources.ova(path, {f"{number}": b"" for number in range(1001)} | {"disk.vmdk": vmdk})
    assert "(ova) is damaged or cut short: its archive cannot be read" in refused(path)


# --- the command ---


def test_a_form_on_a_device_is_taken_if_told(raw: Path, path: Path) -> None:
    sources.qemu("qcow2")(raw, path)
    device = run(["losetup", "--find", "--show", path]).decode().strip()
    words = ["bundle", "--state", "none", device, str(path.with_name("bundle"))]
    try:
        told = attempt(*words)
        assert told.code == 1
        assert "(--source qcow2 reads that, --source raw takes the file as it is)" in told.err
        assert f"{device} is qcow2, not vhd" in attempt(*words, "--source", "vhd").err
        assert attempt(*words, "--source", "qcow2", "--type", "kernel").code == 2
        assert attempt(*words, "--source", "qcow2").code == 0
    finally:
        run(["losetup", "--detach", device])
