"""contrib/format.md agrees with what is written: by its tables, and by a reader made from it."""

import hashlib
import hmac
import json
import re
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import bundlefs
from bundlefs.base.spans import Span
from bundlefs.bundling.recipe import Recipe
from bundlefs.codec import tar
from bundlefs.codec.cbc import CbcState, decrypt
from bundlefs.keys.rsa import Secret
from bundlefs.manifest.write import Contents, Metadata, WrappedSecrets, render
from bundlefs.state import kept
from bundlefs.state.format import StateContents
from bundlefs.state.index import PART_SIZE, Index, Totals
from bundlefs.state.lock import lock_path
from bundlefs.state.sealed_index import LARGEST, index_size, largest_index, seal_index

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "contrib" / "format.md").read_text()
SECRET = Secret(bytes(range(16)), bytes(range(100, 116)))
GIB = 1 << 30


def section(heading: str) -> str:
    """Return what is under a heading, up to the next one of any level."""
    return re.split(r"^#+ ", PAGE.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def table(heading: str, number: int = 0) -> list[list[str]]:
    """Return the rows of a table under a heading, without its head."""
    found = re.findall(r"(?:^\|.*\|\n)+", section(heading), re.MULTILINE)[number]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines()]
    return rows[2:]


def state() -> StateContents:
    """Return a state of three blocks whose numbers can be told from each other."""
    index = Index(SECRET.iv)
    for number in range(1, 3):
        size = 1000 + number
        carry = (10 + sum(range(1001, 1001 + number))) % 16
        index.append(size, CbcState(bytes([number]) * 16, bytes([40 + number]) * carry), number)
    index.append_last(100, CbcState(b"e" * 16, b""), 3, Totals(7, "d" * 40, 2128))
    index.part_digests.append("a" * 40)
    return StateContents(
        image="/data/disk-\udce9.img",
        terms={"prefix": "image"},
        recipients={"image.manifest.xml": "aa"},
        secret=SECRET,
        created_ns=1_700_000_000_123_456_789,
        extents=(Span(0, 4096), Span(8192, 9000)),
        index=index.dump(),
        manifests={"image.manifest.xml": "<manifest/>"},
    )


def read_by_the_page(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Read a state file with nothing but what the page says."""
    assert data[:17] == b"bundlefs-state 1\n"
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()
    line, rest = data[17:-32].split(b"\n", 1)
    header, arrays = json.loads(line.decode("ascii")), []
    for length in header["arrays"]:
        arrays.append(rest[:length])
        rest = rest[length:]
    assert not rest
    return header, arrays


KINDS = {
    "string": str,
    "integer": int,
    "boolean": bool,
    "object": dict,
    "array": list,
}


def test_each_field_of_the_state_is_described_with_its_type() -> None:
    header, _ = read_by_the_page(state().encode())
    described = {row[0].strip("`"): row[1] for row in table("The header")}
    assert list(described) == list(header)
    for name, value in header.items():
        kind = re.match(r"\w+", described[name])
        assert kind
        if " of strings" in described[name]:
            inner = value.values() if hasattr(value, "values") else value
            assert {type(one) for one in inner} == {str}, name
        assert type(value) is KINDS[kind[0]], name
    totals = next(row[2] for row in table("The header") if row[0] == "`totals`")
    assert re.findall(r"`(\w+)`", totals) == list(header["totals"])


def test_fields_that_came_later_may_be_missing_and_no_others() -> None:
    data = state().encode()
    for name, kind, _ in table("The header"):
        header, arrays = read_by_the_page(data)
        del header[name.strip("`")]
        body = b"".join((data[:17], json.dumps(header).encode(), b"\n", *arrays))
        older = body + hashlib.sha256(body).digest()
        if "later" in kind:
            assert StateContents.decode(older) == state()
        else:
            with pytest.raises((KeyError, ValueError)):
                StateContents.decode(older)


def test_the_arrays_are_what_the_page_says() -> None:
    _, (offsets, crcs, states, extents) = read_by_the_page(state().encode())
    sizes = [row[1] for row in table("The arrays")]
    assert sizes == ["8 (N + 1)", "4 N", "32 (N + 1)", "16 E"]
    numbers = struct.unpack("=4Q", offsets)
    assert numbers == (10, 1011, 2013, 2113)
    assert struct.unpack("=3I", crcs) == (1, 2, 3)
    assert len(states) == 32 * 4
    assert states[:32] == SECRET.iv + b"\x1f\x8b\x08" + bytes(6) + b"\x03" + bytes(6)
    assert states[32:64] == bytes([1]) * 16 + (bytes([41]) * (numbers[1] % 16)).ljust(16, b"\0")
    assert struct.unpack("=4Q", extents) == (0, 4096, 8192, 9000)


def test_the_index_is_read_with_nothing_but_what_the_page_says() -> None:
    page, data = section("The index"), seal_index(state().index, SECRET)
    sizes = [row[1] for row in table("The index")]
    blocks = 3
    assert sizes == ["17", "32", "16", "8 (N + 1), and 8 more where N is even", "32"]
    assert len(data) == 17 + 32 + 16 + 8 * (blocks + 1) + 32 == index_size(blocks)
    assert index_size(4) == index_size(blocks) + 16
    labels = re.findall(r"`bundlefs-index ([a-z]+)`", page)
    encrypt, start, sign = (
        hmac.digest(SECRET.key, f"bundlefs-index {label}".encode(), "sha256") for label in labels
    )
    assert data[:17] == b"bundlefs-index 1\n"
    assert data[17:49] == hashlib.sha256(b"a" * 40).digest()
    assert data[-32:] == hmac.digest(sign, data[:-32], "sha256")
    plain = decrypt(encrypt[:16], data[49:65], data[65:-32])
    entries, padding = plain[: 8 * blocks], plain[8 * blocks :]
    assert padding == bytes([8]) * 8
    assert struct.unpack("<6I", entries) == (1001, 1, 1002, 2, 100, 3)
    assert data[49:65] == hmac.digest(start, entries, "sha256")[:16]
    assert f"{LARGEST >> 20} MiB" in page
    assert largest_index(6400) == 6400 // 64 + 256
    assert "a 64th of the parts and 256 bytes" in page


def test_the_files_beside_it_have_these_names() -> None:
    names = {row[0].strip("`") for row in table("Beside it")}
    path = Path("/folder/FILE")
    assert lock_path(path).name in names
    contents = state()
    assert kept.place(path, contents).name.replace(str(contents.created_ns), "N") in names
    assert f"at most {kept.MOST} bundles" in section("Beside it")


def test_each_element_of_a_manifest_is_named_in_its_order() -> None:
    metadata = Metadata(
        account="123456789012",
        image_type="kernel",
        kernel="aki-12345678",
        ramdisk="ari-12345678",
        mappings=(("ami", "sda1"), ("root", "/dev/sda1")),
        product_codes=("code",),
        ancestors=("ami-12345678",),
        kernel_name="vmlinuz",
    )
    contents = Contents("image", 1, 2, "d" * 40, (("image.part.00", "e" * 40),))
    xml = render(metadata, contents, WrappedSecrets("1", "2", "3", "4"), lambda _: "5").decode()
    outline = re.search(r"(?:^    .*\n)+", section("The manifest"), re.MULTILINE)
    assert outline
    described = {"manifest": ""}
    children: dict[str, list[str]] = {}
    parents: list[str] = []
    for line in outline[0].splitlines():
        heads, _, text = line.strip().partition("  ")
        names = heads.split(", ")
        depth = (len(line) - len(line.lstrip())) // 2 - 2
        parents[depth:] = [names[-1]]
        if depth:
            children.setdefault(parents[depth - 1], []).extend(names)
        described |= dict.fromkeys(names, text)
    root = ET.fromstring(xml)  # noqa: S314  # our own
    assert root.tag == "manifest"
    for parent, tags in children.items():
        [found] = root.iter(parent)
        assert [child.tag for child in found] == tags
    for leaf in described.keys() - children.keys():
        for found in root.iter(leaf):
            inside = {below.tag for below in found.iter()} - {leaf}
            assert [tag for tag in inside if not re.search(rf"\b{tag}\b", described[leaf])] == []
    assert described["version"].strip() == root.findtext("version")


@pytest.mark.parametrize("extents", [None, tuple(Span(n << 20, (n << 20) + 512) for n in range(9))])
def test_the_fields_of_the_tar_header_are_where_the_page_says(
    extents: tuple[Span, ...] | None,
) -> None:
    layout = tar.layout("image", 16 << 20, 1_700_000_000, extents)
    head = layout.head[:512]
    rows = table("tar: the plain stream")
    fields = {row[2]: head[int(row[0]) : int(row[0]) + int(row[1])] for row in rows}
    assert fields["name"].rstrip(b"\0") == b"image"
    assert fields["mode"] == b"0000644\0"
    assert fields["uid"] == fields["gid"] == b"0000000\0"
    assert int(fields["mtime"].rstrip(b"\0"), 8) == 1_700_000_000
    assert fields["type"] == (b"S" if extents else b"0")
    assert fields["link name"] == bytes(100)
    assert fields["magic, version"] == b"ustar  \0"
    assert {fields[name].rstrip(b"\0") for name in ("owner", "group")} == {b"root"}
    blank = head[:148] + b" " * 8 + head[156:]
    assert fields["checksum"] == b"%06o\0 " % sum(blank)
    if extents:
        more = [row[:2] for row in table("tar: the plain stream", 1)]
        entries, extended, size = [head[int(at) : int(at) + int(length)] for at, length in more]
        assert len(entries) == 4 * 24
        assert extended == b"\x01"
        assert int(size.rstrip(b"\0"), 8) == 16 << 20


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    assert f"({PART_SIZE:,} bytes)" in section("Parts")
    default = Recipe.__dataclass_fields__["user_key"].default
    assert f"`{default}` is an ephemeral one" in section("The header")


def test_the_files_that_the_page_names_are_there() -> None:
    named = re.findall(r"\b(?:tests|bundlefs)/[\w/]+\.py", PAGE)
    assert named
    # The tests may run beside no package of that name, against the one that is installed.
    homes = {"tests": ROOT, "bundlefs": Path(bundlefs.__file__).parents[1]}
    assert [name for name in named if not (homes[name.split("/")[0]] / name).is_file()] == []
