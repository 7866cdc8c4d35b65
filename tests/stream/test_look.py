"""What an image tells of its architecture and of its size, in images that real tools make."""

import lzma
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundlefs.image.look.architecture import Seen, machine, seen
from bundlefs.image.look.ext import Ext
from bundlefs.image.look.fat import Fat
from bundlefs.image.look.partitions import table
from bundlefs.image.look.window import Budget, UnreadableError, Window
from bundlefs.image.open import open_source
from bundlefs.image.raw import Image
from tests.support import images, sources
from tests.support.systems import ARM64, RISCV, X64, X86, disk, program, system, tree
from tests.support.tools import run

MIB = images.MIB
CORPUS = Path(__file__).parents[1] / "corpus/fat"
ROOT_X64 = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
ROOT_ARM64 = "B921B045-1DF0-41C3-AF44-4C6F280D3FAE"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"


def efi(folder: Path, bits: int) -> Path:
    path = folder / "efi"
    path.write_bytes(lzma.decompress((CORPUS / f"fat{bits}.xz").read_bytes())[: 33 * MIB])
    return path


def look(path: Path) -> Seen:
    with closing(open_source(path)) as source:
        found = seen(source)
        assert source.bytes_read == 0
    return found


# --- the architecture ---


@pytest.mark.parametrize(("number", "name"), [(X86, "i386"), (X64, "x86_64"), (ARM64, "arm64")])
@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_of_a_file_system_without_partitions(
    number: int, name: str, kind: str, tmp_path: Path
) -> None:
    found = look(system(tmp_path / "image", number, kind))
    assert found == Seen(((name, "/sbin/init"),), structured=True)
    assert found.name == name


@pytest.mark.parametrize("layout", ["plain", "script"])
def test_by_the_first_program_of_each_kind_of_system(layout: str, tmp_path: Path) -> None:
    found = look(system(tmp_path / "image", ARM64, layout=layout))
    assert found.found == (("arm64", "/bin/sh" if layout == "script" else "/sbin/init"),)


@pytest.mark.parametrize(
    "options",
    [
        ["-b", "1024"],
        ["-I", "128"],
        ["-O", "^64bit"],
        ["-O", "^64bit,^extent"],
        ["-O", "bigalloc", "-N", "1024"],
    ],
)
def test_in_the_variants_of_ext4(options: list[str], tmp_path: Path) -> None:
    path, folder = tmp_path / "image", tree(tmp_path / "tree", ARM64)
    run(["mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", folder, path, "24M"])
    assert look(path).name == "arm64"


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_in_a_partition(label: str, tmp_path: Path) -> None:
    root = system(tmp_path / "root", ARM64)
    kind = LINUX if label == "gpt" else "83"
    assert look(disk(tmp_path / "image", [(kind, None), (kind, root)], label)).name == "arm64"


@pytest.mark.parametrize(("kind", "name"), [(ROOT_X64, "x86_64"), (ROOT_ARM64, "arm64")])
def test_by_the_type_of_a_partition(kind: str, name: str, tmp_path: Path) -> None:
    found = look(disk(tmp_path / "image", [(LINUX, None), (kind, None)]))
    assert found == Seen(((name, "the type of a partition"),), structured=True)


@pytest.mark.parametrize("bits", [12, 16, 32])
@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_by_the_boot_loader(bits: int, label: str, tmp_path: Path) -> None:
    kind = ESP if label == "gpt" else "ef"
    found = look(disk(tmp_path / "image", [(kind, efi(tmp_path, bits))], label))
    assert found == Seen((("arm64", "EFI/BOOT/BOOTAA64.EFI"),), structured=True)


def test_what_contradicts_itself_tells_nothing(tmp_path: Path) -> None:
    root = system(tmp_path / "root", X86)
    found = look(disk(tmp_path / "image", [(ESP, efi(tmp_path, 16)), (LINUX, root)]))
    assert found.name is None
    assert found.why == "arm64 by EFI/BOOT/BOOTAA64.EFI, i386 by /sbin/init"


@pytest.mark.parametrize("form", ["gzip", "xz", "qcow2"])
def test_in_another_form(form: str, tmp_path: Path) -> None:
    # So small that the program is in the first megabytes, which is all that is read of a gzip file.
    root = system(tmp_path / "root", ARM64, layout="plain", size="2M")
    raw = disk(tmp_path / "raw", [(ROOT_ARM64, root)])
    path = tmp_path / "image"
    if form == "qcow2":
        sources.qemu("qcow2")(raw, path)
    else:
        path.write_bytes(run([form, "-1", "-c", raw]))
    found = look(path)
    assert found.name == "arm64"
    assert len(found.found) == 2


def test_the_same_is_seen_with_access_points_as_without(tmp_path: Path) -> None:
    """Else a resumed mount would have another architecture, and be another bundle."""
    raw = disk(tmp_path / "raw", [(LINUX, None), (LINUX, system(tmp_path / "root", ARM64))])
    path, kept = tmp_path / "image", tmp_path / "points"
    path.write_bytes(run(["gzip", "-1", "-c", raw]))
    found = []
    for _ in range(3):
        with closing(open_source(path, kept=kept)) as source:
            found.append(seen(source))
            source.read(source.size - 512, 512)
    assert found == [Seen((), structured=True)] * 3


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 4096, b"\x7fELF" * 1024, bytes(510) + b"\x55\xaa"]
)
def test_of_nothing_nothing_is_seen(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(content + b"\0")
    assert look(path) == Seen((), structured=False)


def test_a_program_of_another_architecture_has_its_name() -> None:
    assert machine(program(RISCV)[:32]) == "riscv64"
    assert machine(b"\x7fELF\2\2\1" + bytes(11) + b"\0\x15" + bytes(8)) == "ppc64"
    assert machine(b"\x7fELF\2\1\1" + bytes(11) + b"\x15\0" + bytes(8)) == "ppc64le"
    assert machine(b"#!/bin/sh\n".ljust(64)) is None
    assert machine(b"\x7fELF") is None


def test_a_look_into_a_large_image_takes_no_time(tmp_path: Path) -> None:
    """A disk of 10 GiB, with its system behind 9 GiB of another partition."""
    path, root = tmp_path / "image", system(tmp_path / "root", ARM64)
    images.sparse_image(path, 10 << 30, {})
    run(["sfdisk", "-q", path], data=f"label: gpt\n2048,{9 << 21},{LINUX}\n,,{LINUX}\n".encode())
    with path.open("r+b") as file:
        file.seek(MIB + (9 << 30))
        file.write(root.read_bytes())
    reads: list[int] = []
    with Image.open(path) as image:
        start = time.process_time()

        class Counted:
            size = image.size

            @staticmethod
            def peek(offset: int, length: int) -> bytes:
                reads.append(length)
                return image.peek(offset, length)

        assert seen(Counted()).name == "arm64"
        assert time.process_time() - start < 0.5
    assert len(reads) < 100
    assert sum(reads) < MIB


# --- nothing that an image says is trusted ---


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("samples")
    root = system(folder / "root", ARM64)
    return {
        "ext4": root.read_bytes()[: 4 * MIB],
        "ext2": system(folder / "ext2", ARM64, "ext2").read_bytes()[: 4 * MIB],
        "fat": efi(folder, 16).read_bytes()[:MIB],
        "gpt": disk(folder / "gpt", [(ROOT_X64, None)]).read_bytes()[:MIB],
    }


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_is_never_more_than_not_seen(samples: dict[str, bytes], data: st.DataObject) -> None:
    content = bytearray(samples[data.draw(st.sampled_from(sorted(samples)))])
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.one_of(st.integers(0, 4096), st.integers(0, 64 << 10)))
        junk = data.draw(st.binary(min_size=1, max_size=8))
        content[place : place + len(junk)] = junk
    spent: list[int] = []

    class Damaged:
        size = len(content)

        @staticmethod
        def peek(offset: int, length: int) -> bytes:
            spent.append(length)
            return bytes(content[offset : offset + length])

    seen(Damaged())
    assert sum(spent) <= 8 * MIB
    window = Window(Damaged.peek, Damaged.size, 0, Budget())
    for part in (Fat, Ext):
        with suppress(UnreadableError):
            part(window)
    table(window)
