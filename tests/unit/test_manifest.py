"""The manifest's text: every element in its place, escaping, sizes, and what is refused."""

import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundlefs import __version__
from bundlefs.base.errors import UsageError
from bundlefs.manifest.write import (
    PLACEHOLDER_DIGEST,
    Contents,
    Metadata,
    WrappedSecrets,
    parse_mapping,
    render,
)

CONTENTS = Contents(
    name="image",
    size=1234,
    bundled_size=10_485_792,
    digest="1f" * 20,
    parts=(("image.part.00", "a0" * 20), ("image.part.01", "b1" * 20)),
)
WRAPPED = WrappedSecrets(ec2_key="e1" * 3, ec2_iv="e2" * 3, user_key="f1" * 3, user_iv="f2" * 3)
MINIMAL = Metadata("123456789012")
FULL = Metadata(
    account="1234-5678-9012",
    arch="arm64",
    image_type="kernel",
    kernel="aki-1",
    ramdisk="ari-2",
    mappings=(("root", "/dev/sda1"), ("ami", "sda1")),
    product_codes=("774F4FF8", "B"),
    ancestors=("ami-1", "ami-2"),
    kernel_name="vmlinuz",
)

# From contrib/format.md, "The manifest", by hand; nothing here is made by the code under test.
MINIMAL_TEXT = (
    "<?xml version='1.0'?>\n"
    "<manifest><version>2007-10-10</version>"
    f"<bundler><name>bundlefs</name><version>{__version__}</version><release>0</release></bundler>"
    "<machine_configuration><architecture>x86_64</architecture></machine_configuration>"
    "<image><name>image</name><user>123456789012</user><type>machine</type>"
    "<digest algorithm='SHA1'>1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f</digest>"
    "<size>1234</size><bundled_size>10485792</bundled_size>"
    "<ec2_encrypted_key algorithm='AES-128-CBC'>e1e1e1</ec2_encrypted_key>"
    "<user_encrypted_key algorithm='AES-128-CBC'>f1f1f1</user_encrypted_key>"
    "<ec2_encrypted_iv>e2e2e2</ec2_encrypted_iv><user_encrypted_iv>f2f2f2</user_encrypted_iv>"
    "<parts count='2'><part index='0'><filename>image.part.00</filename>"
    "<digest algorithm='SHA1'>a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0</digest></part>"
    "<part index='1'><filename>image.part.01</filename>"
    "<digest algorithm='SHA1'>b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1</digest></part></parts>"
    "</image><signature>5161</signature></manifest>"
)

FULL_ELEMENTS = [
    ("manifest", None),
    ("version", "2007-10-10"),
    ("bundler", None),
    ("name", "bundlefs"),
    ("version", __version__),
    ("release", "0"),
    ("machine_configuration", None),
    ("architecture", "arm64"),
    ("block_device_mapping", None),
    ("mapping", None),
    ("virtual", "ami"),
    ("device", "sda1"),
    ("mapping", None),
    ("virtual", "root"),
    ("device", "/dev/sda1"),
    ("kernel_id", "aki-1"),
    ("ramdisk_id", "ari-2"),
    ("product_codes", None),
    ("product_code", "774F4FF8"),
    ("product_code", "B"),
    ("image", None),
    ("name", "image"),
    ("user", "123456789012"),
    ("type", "kernel"),
    ("kernel_name", "vmlinuz"),
    ("ancestry", None),
    ("ancestor_ami_id", "ami-1"),
    ("ancestor_ami_id", "ami-2"),
    ("digest", "1f" * 20),
    ("size", "1234"),
    ("bundled_size", "10485792"),
    ("ec2_encrypted_key", "e1e1e1"),
    ("user_encrypted_key", "f1f1f1"),
    ("ec2_encrypted_iv", "e2e2e2"),
    ("user_encrypted_iv", "f2f2f2"),
    ("parts", None),
    ("part", None),
    ("filename", "image.part.00"),
    ("digest", "a0" * 20),
    ("part", None),
    ("filename", "image.part.01"),
    ("digest", "b1" * 20),
    ("signature", "5161"),
]


def rendered(metadata: Metadata, contents: Contents = CONTENTS) -> bytes:
    return render(metadata, contents, WRAPPED, lambda _: "5161")


def parsed(manifest: bytes) -> ET.Element:
    return ET.fromstring(manifest)  # noqa: S314  # our own output


def texts(root: ET.Element, path: str) -> list[str | None]:
    return [element.text for element in root.findall(path)]


def test_minimal_manifest_is_exactly_this_text() -> None:
    assert rendered(MINIMAL).decode() == MINIMAL_TEXT


def test_full_manifest_has_every_element_in_order() -> None:
    root = parsed(rendered(FULL))
    assert [(element.tag, element.text) for element in root.iter()] == FULL_ELEMENTS


def test_full_manifest_nests_and_has_attributes() -> None:
    root = parsed(rendered(FULL))
    assert [child.tag for child in root] == [
        "version",
        "bundler",
        "machine_configuration",
        "image",
        "signature",
    ]
    attributes = [(each.tag, each.attrib) for each in root.iter() if each.attrib]
    assert attributes == [
        ("digest", {"algorithm": "SHA1"}),
        ("ec2_encrypted_key", {"algorithm": "AES-128-CBC"}),
        ("user_encrypted_key", {"algorithm": "AES-128-CBC"}),
        ("parts", {"count": "2"}),
        ("part", {"index": "0"}),
        ("digest", {"algorithm": "SHA1"}),
        ("part", {"index": "1"}),
        ("digest", {"algorithm": "SHA1"}),
    ]
    assert texts(root, "machine_configuration/block_device_mapping/mapping/virtual") == [
        "ami",
        "root",
    ]
    assert texts(root, "image/ancestry/ancestor_ami_id") == ["ami-1", "ami-2"]
    assert texts(root, "image/parts/part/filename") == ["image.part.00", "image.part.01"]


def test_one_line_after_the_declaration_and_no_space_between_elements() -> None:
    declaration, line = rendered(FULL).split(b"\n")
    assert declaration == b"<?xml version='1.0'?>"
    assert b"> <" not in line
    assert all(element.tail is None for element in parsed(rendered(FULL)).iter())


def test_what_is_signed_is_what_stands_in_the_file() -> None:
    asked: list[bytes] = []

    def sign(text: bytes) -> str:
        asked.append(text)
        return "00"

    manifest = render(replace(FULL, kernel_name="<&é"), CONTENTS, WRAPPED, sign)
    start = manifest.index(b"<machine_configuration>")
    stop = manifest.index(b"</image>") + len(b"</image>")
    assert asked == [manifest[start:stop]]


printable = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=255)


@given(printable, printable)
def test_any_text_comes_back_from_an_xml_parser(first: str, second: str) -> None:
    metadata = replace(
        MINIMAL, kernel=first, product_codes=(second, first), mappings=((first, second),)
    )
    root = parsed(rendered(metadata))
    assert texts(root, "machine_configuration/kernel_id") == [first]
    assert texts(root, "machine_configuration/product_codes/product_code") == [second, first]
    assert texts(root, ".//mapping/virtual") == [first]
    assert texts(root, ".//mapping/device") == [second]


def test_text_cannot_forge_an_element() -> None:
    forged = "</image><signature>"
    manifest = rendered(replace(MINIMAL, ramdisk=forged))
    assert manifest.count(b"</image>") == 1
    assert texts(parsed(manifest), ".//ramdisk_id") == [forged]


@given(st.binary(min_size=20, max_size=20), st.binary(min_size=20, max_size=20))
def test_size_is_known_before_the_digests_are(tar: bytes, part: bytes) -> None:
    names = [name for name, _ in CONTENTS.parts]
    early = replace(
        CONTENTS,
        digest=PLACEHOLDER_DIGEST,
        parts=tuple((name, PLACEHOLDER_DIGEST) for name in names),
    )
    late = replace(CONTENTS, digest=tar.hex(), parts=tuple((name, part.hex()) for name in names))
    assert len(rendered(FULL, early)) == len(rendered(FULL, late))


def test_a_thousand_parts_take_milliseconds() -> None:
    parts = tuple((f"image.part.{number:04}", "0a" * 20) for number in range(1000))
    started = time.process_time()
    manifest = rendered(MINIMAL, replace(CONTENTS, parts=parts))
    assert time.process_time() - started < 0.2  # tens of times what it takes
    root = parsed(manifest)
    assert [part.get("index") for part in root.iter("part")] == [str(n) for n in range(1000)]
    assert [part.findtext("filename") for part in root.iter("part")] == [name for name, _ in parts]


def test_no_part_at_all() -> None:
    assert b"<parts count='0'></parts>" in rendered(MINIMAL, replace(CONTENTS, parts=()))


@pytest.mark.parametrize("account", ["123456789012", "1234-5678-9012", " 123456789012\n"])
def test_account_is_twelve_digits(account: str) -> None:
    assert Metadata(account).account == "123456789012"


@pytest.mark.parametrize(
    "account", ["", "12345678901", "1234567890123", "12345678901a", "١٢٣٤٥٦٧٨٩٠١٢", "123456 789012"]
)
def test_bad_account_says_how_to_find_it(account: str) -> None:
    with pytest.raises(UsageError, match="aws sts get-caller-identity") as caught:
        Metadata(account)
    assert repr(account) in str(caught.value)


@pytest.mark.parametrize(
    ("given", "arch"),
    [
        *((name, "x86_64") for name in ("x86_64", "amd64", "AMD64", "x64", "x86-64", "X86_64")),
        *((name, "i386") for name in ("i386", "i486", "i586", "i686", "x86", "ia32", "IA-32")),
        *((name, "arm64") for name in ("arm64", "aarch64", "AArch64", "ARM64", " arm64 ")),
    ],
)
def test_architectures(given: str, arch: str) -> None:
    metadata = replace(MINIMAL, arch=given)
    assert metadata.arch == arch
    assert f"<architecture>{arch}</architecture>".encode() in rendered(metadata)


@pytest.mark.parametrize(
    "arch", ["armhf", "ppc", "ppc64", "ppc64le", "riscv64", "x86_64h", "noarch"]
)
def test_architectures_of_other_clouds_are_taken_if_told(arch: str) -> None:
    with pytest.raises(UsageError, match=f"{arch}.*x86_64, i386, arm64; other clouds.*armhf"):
        Metadata(MINIMAL.account, arch=arch)
    metadata = Metadata(MINIMAL.account, arch=arch, any_arch=True)
    assert f"<architecture>{arch}</architecture>".encode() in rendered(metadata)


def test_an_architecture_that_is_told_is_taken_as_it_is_written() -> None:
    assert Metadata(MINIMAL.account, arch="amd64", any_arch=True).arch == "amd64"


def test_how_the_architecture_was_given_makes_no_other_bundle() -> None:
    """A state's terms are these fields: one more and every bundle would begin anew."""
    fields = asdict(Metadata(MINIMAL.account, arch="amd64"))
    assert fields == asdict(Metadata(MINIMAL.account, arch="x86_64", any_arch=True))
    assert "any_arch" not in fields


Change = Callable[[Metadata], Metadata]
BAD: dict[str, tuple[Change, str]] = {
    "arch": (lambda m: replace(m, arch="x86 64"), "architecture 'x86 64'.*arm64"),
    "arch long": (lambda m: replace(m, arch="x" * 300), "architecture 'xxx.*arm64"),
    "arch forced": (lambda m: replace(m, arch="<b>", any_arch=True), "architecture '<b>'"),
    "arch empty": (lambda m: replace(m, arch=""), "architecture ''"),
    "type": (lambda m: replace(m, image_type="disk"), "'disk'.*machine, kernel, ramdisk"),
    "kernel name": (lambda m: replace(m, kernel_name="v"), "'v' is for images of type kernel"),
    "kernel empty": (lambda m: replace(m, kernel=""), "kernel id ''"),
    "kernel control": (lambda m: replace(m, kernel="aki\n1"), r"kernel id 'aki\\n1'"),
    "ramdisk DEL": (lambda m: replace(m, ramdisk="a\x7f"), r"ramdisk id 'a\\x7f'"),
    "ramdisk long": (lambda m: replace(m, ramdisk="r" * 256), "ramdisk id .*1 to 255"),
    "code surrogate": (lambda m: replace(m, product_codes=("\udcff",)), "product code"),
    "code space": (lambda m: replace(m, product_codes=("A", " B")), "product code ' B'"),
    "ancestor": (lambda m: replace(m, ancestors=("ami\0",)), "ancestor AMI id"),
    "virtual": (lambda m: replace(m, mappings=(("a\tb", "sda"),)), "mapping's virtual name"),
    "device": (lambda m: replace(m, mappings=(("ami", ""),)), "mapping's device ''"),
    "double": (lambda m: replace(m, mappings=(("ami", "a"), ("ami", "b"))), "'ami' is mapped"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_metadata_is_refused_by_value(name: str) -> None:
    change, message = BAD[name]
    with pytest.raises(UsageError, match=message) as caught:
        change(MINIMAL)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("length", [1, 255])
def test_the_longest_text_is_taken(length: int) -> None:
    assert b"k" * length in rendered(replace(MINIMAL, kernel="k" * length))


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("ami=sda1", ("ami", "sda1")),
        ("root=/dev/xvda", ("root", "/dev/xvda")),
        (" ephemeral0 = sdb ", ("ephemeral0", "sdb")),
        ("cloud-scratch=vdz", ("cloud-scratch", "vdz")),
    ],
)
def test_mapping_is_a_pair(text: str, pair: tuple[str, str]) -> None:
    assert parse_mapping(text) == pair


@pytest.mark.parametrize("text", ["", "ami", "ami=", "=sda1", "ami=a=b", "ami=a,root=b", "ami=a,"])
def test_bad_mapping_shows_the_form(text: str) -> None:
    with pytest.raises(UsageError, match="VIRTUAL=DEVICE") as caught:
        parse_mapping(text)
    assert repr(text) in str(caught.value)
