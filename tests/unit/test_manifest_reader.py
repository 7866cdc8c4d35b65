"""Manifests of every writer and version, and each way in which one cannot be what it claims."""

import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundlefs.base.errors import BundleError, UsageError
from bundlefs.manifest import write as manifest
from bundlefs.manifest.elements import LONGEST_MANIFEST
from bundlefs.manifest.read import (
    LARGEST_IMAGE,
    BundleManifest,
    PartEntry,
    find_manifest,
    parse_manifest,
    read_manifest,
)

KEY = "<ec2_encrypted_key algorithm='AES-128-CBC'>e1e1</ec2_encrypted_key>"
PARTS = (
    "<parts count='2'>"
    "<part index='0'><filename>image.part.0</filename>"
    f"<digest algorithm='SHA1'>{'a0' * 20}</digest></part>"
    "<part index='1'><filename>image.part.1</filename>"
    f"<digest algorithm='SHA1'>{'b1' * 20}</digest></part>"
    "</parts>"
)
MACHINE = "<machine_configuration><architecture>x86_64</architecture></machine_configuration>"
IMAGE = (
    "<image><name>image</name><user>123456789012</user><type>machine</type>"
    f"<digest algorithm='SHA1'>{'1f' * 20}</digest>"
    "<size>1234</size><bundled_size>10485792</bundled_size>"
    f"{KEY}<user_encrypted_key algorithm='AES-128-CBC'>c3c3</user_encrypted_key>"
    "<ec2_encrypted_iv>e2e2</ec2_encrypted_iv><user_encrypted_iv>f2f2</user_encrypted_iv>"
    f"{PARTS}</image>"
)
PLAIN = (
    "<?xml version='1.0'?><manifest><version>2007-10-10</version>"
    "<bundler><name>ec2-ami-tools</name><version>1.5</version><release>1</release></bundler>"
    f"{MACHINE}{IMAGE}<signature>5151</signature></manifest>"
)

# As lxml writes it: no declaration, type behind the sizes, device before virtual name, an empty
# product code before each, and nothing where there is no key of the user.
EUCA2OOLS = (
    "<manifest><version>2007-10-10</version>"
    "<bundler><name>euca2ools</name><version>3.4.0</version><release>0</release></bundler>"
    "<machine_configuration><architecture>armhf</architecture>"
    "<kernel_id>eki-1</kernel_id><ramdisk_id>eri-2</ramdisk_id>"
    "<block_device_mapping><mapping><device>sda1</device><virtual>ami</virtual></mapping>"
    "<mapping><device>/dev/sda1</device><virtual>root</virtual></mapping></block_device_mapping>"
    "<product_codes><product_code/><product_code>774F4FF8</product_code></product_codes>"
    "</machine_configuration>"
    "<image><name>image</name><user>123456789012</user>"
    f'<digest algorithm="SHA1">{"1f" * 20}</digest><size>1234</size>'
    "<bundled_size>16</bundled_size><type>machine</type>"
    '<ec2_encrypted_key algorithm="AES-128-CBC">e1e1</ec2_encrypted_key>'
    "<user_encrypted_key/><ec2_encrypted_iv>e2e2</ec2_encrypted_iv><user_encrypted_iv/>"
    '<parts count="1"><part index="0"><filename>image.part.00</filename>'
    f'<digest algorithm="SHA1">{"a0" * 20}</digest></part></parts></image>'
    "<signature>UNSIGNED</signature></manifest>"
)

VERSION_3_IMAGE = f"""<image>
    <name>server-1.img</name>
    <user>123456789012</user>
    <digest algorithm="SHA1">{"1F" * 20}</digest>
    <size>2212962304</size>
    <bundled_size>334302128</bundled_size>
    <ec2_encrypted_key algorithm="AES-128-CBC">e1e1</ec2_encrypted_key>
    <user_encrypted_key algorithm="AES-128-CBC">c3c3</user_encrypted_key>
    <ec2_encrypted_iv>e2e2</ec2_encrypted_iv>
    <user_encrypted_iv>f2f2</user_encrypted_iv>
    <parts count="2">
      <part index="0">
        <filename>part00</filename>
        <digest>{"a0" * 20}</digest>
      </part>
      <part index="1">
        <filename>part01</filename>
        <digest algorithm="SHA1">{"b1" * 20}</digest>
      </part>
    </parts>
  </image>"""
VERSION_3 = f"""<?xml version="1.0"?>
<manifest>
  <version>3</version>
  <bundler>
    <name>ec2-ami-tools</name>
    <version>1.2</version>
    <release>7221</release>
  </bundler>
  {VERSION_3_IMAGE}
  <signature>51e6</signature>
</manifest>
"""


def parse(text: str) -> BundleManifest:
    return parse_manifest(text.encode())


def refused(text: str, reason: str) -> None:
    """Show that `text` is refused for `reason`, in one line that a person can read."""
    with pytest.raises(BundleError, match=reason) as caught:
        parse(text)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400


def changed(old: str, new: str, text: str = PLAIN) -> str:
    assert old in text
    return text.replace(old, new, 1)


def rendered(sign: Callable[[bytes], str]) -> bytes:
    return manifest.render(
        manifest.Metadata(
            account="1234-5678-9012",
            arch="arm64",
            image_type="kernel",
            kernel="aki-1",
            ramdisk="ari-2",
            mappings=(("root", "/dev/sda1"), ("ami", "sda1")),
            product_codes=("774F4FF8", "A&B"),
            ancestors=("ami-3", "ami-4"),
            kernel_name="vmlinuz <5>",
        ),
        manifest.Contents("größe & <co>", 1234, 32, "1f" * 20, (("p&.0", "a0" * 20),)),
        manifest.WrappedSecrets(ec2_key="E1", ec2_iv="e2", user_key="f1", user_iv="f2"),
        sign,
    )


def test_our_own_manifest() -> None:
    signed: list[bytes] = []

    def sign(text: bytes) -> str:
        signed.append(text)
        return "51"

    found = parse_manifest(rendered(sign))
    assert found == BundleManifest(
        version="2007-10-10",
        name="größe & <co>",
        user="123456789012",
        arch="arm64",
        image_type="kernel",
        kernel="aki-1",
        ramdisk="ari-2",
        mappings=(("ami", "sda1"), ("root", "/dev/sda1")),
        product_codes=("774F4FF8", "A&B"),
        ancestors=("ami-3", "ami-4"),
        kernel_name="vmlinuz <5>",
        digest="1f" * 20,
        size=1234,
        bundled_size=32,
        ec2_key="E1",
        ec2_iv="e2",
        user_key="f1",
        user_iv="f2",
        parts=(PartEntry("p&.0", "a0" * 20),),
        signature="51",
        signed_text=signed[0],
    )


def test_manifest_of_ec2_ami_tools() -> None:
    found = parse(PLAIN)
    assert found.signed_text.decode() == MACHINE + IMAGE
    assert [part.filename for part in found.parts] == ["image.part.0", "image.part.1"]
    assert (found.kernel, found.ramdisk, found.kernel_name) == (None, None, None)
    assert (found.mappings, found.product_codes, found.ancestors) == ((), (), ())
    assert found.signature == "5151"


def test_manifest_of_euca2ools() -> None:
    found = parse(EUCA2OOLS)
    assert found.arch == "armhf"
    assert (found.kernel, found.ramdisk) == ("eki-1", "eri-2")
    assert found.mappings == (("ami", "sda1"), ("root", "/dev/sda1"))
    assert found.product_codes == ("774F4FF8",)
    assert (found.user_key, found.user_iv, found.signature) == (None, None, None)
    assert (found.ec2_key, found.ec2_iv) == ("e1e1", "e2e2")
    start = EUCA2OOLS.index("<machine_configuration>")
    assert found.signed_text.decode() == EUCA2OOLS[start : EUCA2OOLS.index("<signature>")]


def test_names_that_euca2ools_reads_but_does_not_write() -> None:
    text = (
        EUCA2OOLS.replace("block_device_mapping>", "block_device_mappings>")
        .replace("mapping>", "block_device_mapping>")
        .replace("product_codes>", "productcodes>")
    )
    assert text.count("<block_device_mapping>") == 2
    found, stock = parse(text), parse(EUCA2OOLS)
    assert replace(found, signed_text=b"") == replace(stock, signed_text=b"")


def test_version_3() -> None:
    found = parse(VERSION_3)
    assert (found.version, found.arch, found.image_type) == ("3", "i386", "machine")
    assert (found.size, found.bundled_size) == (2212962304, 334302128)
    assert found.digest == "1f" * 20
    assert found.parts == (PartEntry("part00", "a0" * 20), PartEntry("part01", "b1" * 20))
    # version 3 signs the image alone [ec2-ami-tools, manifestv3.rb, authenticate]
    assert found.signed_text.decode() == VERSION_3_IMAGE


def test_version_2007_08_29_has_no_type() -> None:
    text = changed("2007-10-10", "2007-08-29", changed("<type>machine</type>", ""))
    found = parse(text)
    assert (found.version, found.arch, found.image_type) == ("2007-08-29", "x86_64", "machine")
    assert found.signed_text.decode() == MACHINE + IMAGE.replace("<type>machine</type>", "")


@pytest.mark.parametrize("version", ["20070829", "20071010"])
def test_versions_as_numbers(version: str) -> None:
    """As ec2-ami-tools writes 2007-08-29: `VERSION`, not `VERSION_STRING`."""
    found = parse(changed("2007-10-10", f" {version}\n"))
    assert found == replace(parse(PLAIN), version=version)


@pytest.mark.parametrize("version", ["2", "4", "200708-29", "2007_08_29", "20071011", "2007-10-1"])
def test_other_versions(version: str) -> None:
    refused(
        changed("2007-10-10", version),
        f"version '{version}' is unknown: those known are 2007-10-10, 2007-08-29, 3",
    )


def test_what_is_not_signed_in_version_3_is_not_read() -> None:
    machine = (
        "<machine_configuration><architecture>x86_64</architecture><kernel_id>aki-1</kernel_id>"
        "<ramdisk_id>ari-2</ramdisk_id><product_codes><product_code>p</product_code></product_codes>"
        "<block_device_mapping><mapping><virtual>v</virtual><device>d</device></mapping>"
        "</block_device_mapping></machine_configuration>"
    )
    for text in (changed("<image>", f"{machine}<image>", VERSION_3), VERSION_3 + " "):
        assert parse(text) == parse(VERSION_3)


def test_the_digest_of_nothing_is_none() -> None:
    """euca2ools 1.0 writes it, whatever the image."""
    assert parse(changed("1f" * 20, hashlib.sha1(b"").hexdigest())).digest is None


@pytest.mark.parametrize("text", [PLAIN, EUCA2OOLS, VERSION_3])
def test_white_space_between_elements_says_nothing(text: str) -> None:
    root = ET.fromstring(text)  # noqa: S314 (text of this file)
    ET.indent(root, "\t \n")
    found, stock = parse(ET.tostring(root, "unicode")), parse(text)
    assert replace(found, signed_text=b"") == replace(stock, signed_text=b"")


def test_white_space_around_texts_says_nothing() -> None:
    text = re.sub(r">([^<>]+)</", r"> \n\1\t</", PLAIN)
    assert replace(parse(text), signed_text=b"") == replace(parse(PLAIN), signed_text=b"")


@pytest.mark.parametrize(
    "head",
    [
        "",
        "<?xml version='1.0' encoding='UTF-8' standalone='yes'?>\r\n",
        "\N{BYTE ORDER MARK}<?xml version='1.0'?>",
        "<!-- größe <manifest> --><?note x?>",
    ],
)
def test_what_stands_before_the_root(head: str) -> None:
    assert parse(head + PLAIN.partition("?>")[2]) == parse(PLAIN)


def test_unknown_elements_are_passed_over() -> None:
    extra = "<comment by='x'>a<size>0</size><image/><deep><manifest/></deep></comment>"
    text = changed("<size>", f"{extra}<size>", changed("<signature>", f"{extra}<signature>"))
    found = parse(text)
    assert replace(found, signed_text=b"") == replace(parse(PLAIN), signed_text=b"")
    assert found.signed_text.decode() == MACHINE + IMAGE.replace("<size>", f"{extra}<size>")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<manifest>", "<manifest><!-- <image></image><machine_configuration> -->"),
        ("<release>1", "<release><![CDATA[<image></image>]]>"),
        ("<release>1", "<release><image></image>"),
    ],
)
def test_signed_text_is_found_by_position(old: str, new: str) -> None:
    assert parse(changed(old, new)).signed_text.decode() == MACHINE + IMAGE


def test_signed_text_has_comments_and_end_tags_as_they_stand() -> None:
    image = IMAGE.replace("</image>", "<!-- </image> --></image\n >")
    assert parse(changed(IMAGE, image)).signed_text.decode() == MACHINE + image


@pytest.mark.parametrize("machine", ["<machine_configuration/>", "<machine_configuration  />"])
def test_signed_text_of_an_empty_machine_configuration(machine: str) -> None:
    found = parse(changed(MACHINE, machine))
    assert found.signed_text.decode() == machine + IMAGE
    assert found.arch == "i386"


def test_signed_text_joins_what_stands_apart() -> None:
    text = changed(IMAGE, "", changed("<version>", f"{IMAGE}\n<version>"))
    assert parse(text).signed_text.decode() == MACHINE + IMAGE


def test_parts_come_in_the_order_of_their_indexes() -> None:
    first, second = re.findall("<part .*?</part>", PARTS)
    found = parse(changed(first + second, second + first))
    assert found.parts == parse(PLAIN).parts


@pytest.mark.parametrize("old", ["<signature>5151</signature>", "5151"])
def test_no_signature(old: str) -> None:
    assert parse(changed(old, "")).signature is None


@pytest.mark.parametrize(
    ("old", "field"),
    [
        (f"<digest algorithm='SHA1'>{'1f' * 20}</digest>", "digest"),
        ("<bundled_size>10485792</bundled_size>", "bundled_size"),
        (KEY, "ec2_key"),
    ],
)
def test_what_may_be_missing(old: str, field: str) -> None:
    assert getattr(parse(changed(old, "")), field) is None
    assert getattr(parse(PLAIN), field) is not None


def test_algorithms_in_any_case() -> None:
    text = PLAIN.replace("SHA1", "sha1").replace("AES-128-CBC", "aes-128-cbc")
    assert parse(text).parts == parse(PLAIN).parts


@pytest.mark.parametrize("name", ["part 0", "größe", ".part", "...", "part\\0", "-rf", "a" * 255])
def test_any_plain_name_is_a_part(name: str) -> None:
    assert parse(changed("image.part.0", name)).parts[0].filename == name


def test_repr_has_neither_secrets_nor_ten_thousand_parts() -> None:
    shown = repr(parse(PLAIN))
    assert "size=1234" in shown
    assert not any(text in shown for text in ("e1e1", "e2e2", "c3c3", "f2f2", "image.part"))


# Bad input


@pytest.mark.parametrize(
    "dtd",
    [
        "<!DOCTYPE manifest>",
        "<!DOCTYPE manifest SYSTEM 'http://localhost/manifest.dtd'>",
        "<!DOCTYPE manifest [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]>",
        "<!DOCTYPE manifest [<!ENTITY % a SYSTEM 'file:///etc/passwd'> %a;]>",
    ],
)
def test_document_type(dtd: str) -> None:
    refused(dtd + PLAIN.partition("?>")[2], "it has a document type .<!DOCTYPE>., which a manifest")


def test_unknown_entity() -> None:
    refused(changed("x86_64", "&arch;"), "it is not well-formed XML: undefined entity")


@pytest.mark.parametrize("name", ["elsewhere", "version"])
def test_deep_nesting(name: str) -> None:
    nested = f"<{name}x>" * 20 + f"</{name}x>" * 20
    refused(changed("<signature>", f"{nested}<signature>"), "elements are nested more than 16 deep")


def test_an_image_instead() -> None:
    refused("\N{NULL}" * (LONGEST_MANIFEST + 1), "it is no XML, and larger than the")


def test_more_than_a_manifest_may_have() -> None:
    refused(PLAIN + " " * LONGEST_MANIFEST, f"it is larger than the {LONGEST_MANIFEST} bytes")
    parse(PLAIN.ljust(LONGEST_MANIFEST))


def test_more_parts_than_are_read() -> None:
    refused(changed("count='2'", "count='100001'"), "the count of parts is '100001', and must be")
    refused(changed("index='1'", "index='100000'"), "a part's index is '100000', and must be")


@pytest.mark.parametrize("flood", ["<a/>" * 1_200_000, "<a " + "b='' " * 600_001 + "/>"])
def test_more_markup_than_parts_need(flood: str) -> None:
    refused(changed("<signature>", f"{flood}<signature>"), "more elements or attributes than")


def test_one_text_of_megabytes() -> None:
    refused(changed("x86_64", "x" * 2_000_000), "architecture' is longer than 1024 characters")
    refused(changed("c3c3", "f1" * 5_000), "user_encrypted_key' is longer than 8192 characters")
    refused(changed("image.part.0", "&#65;" * 2_000), "filename' is longer than 1024 characters")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not well-formed XML: no element found"),
        ("size: 5", "not well-formed XML: syntax error"),
        (PLAIN[:-30], "not well-formed XML: "),
        (PLAIN + PLAIN, "not well-formed XML: "),
        (changed("x86_64", "\N{NULL}"), "not XML in UTF-8: it has a zero byte"),
        ("<html><body/></html>", "it is no manifest but has the element 'html' at its root"),
        ("<image/>", "it is no manifest but has the element 'image' at its root"),
    ],
)
def test_no_manifest_at_all(text: str, reason: str) -> None:
    refused(text, reason)


def test_other_encodings() -> None:
    with pytest.raises(BundleError, match="it is not XML in UTF-8: it has a zero byte"):
        parse_manifest(PLAIN.encode("utf-16"))
    latin = PLAIN.replace("image.part.0", "größe").replace("'1.0'", "'1.0' encoding='ISO-8859-1'")
    with pytest.raises(BundleError, match=r"XML: not well-formed \(invalid token\)"):
        parse_manifest(latin.encode("latin-1"))


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../image",
        "a/b",
        "/",
        ".",
        "..",
        "a&#10;b",
        "a&#9;b",
        "a&#x7f;b",
        "a&#x85;b",
        "a\N{LINE SEPARATOR}b",
        "a" * 256,
        "ü" * 128,
    ],
)
def test_part_names_that_are_no_plain_names(name: str) -> None:
    refused(changed("image.part.0", name), "the part name '.*' is no plain file name: it may have")


@pytest.mark.parametrize("name", ["a&#0;b", "a&#27;b"])
def test_part_names_with_characters_that_xml_has_not(name: str) -> None:
    refused(changed("image.part.0", name), "reference to invalid character number")


def test_part_name_with_a_zero_byte() -> None:
    refused(changed("image.part.0", "a\0b"), "it has a zero byte in it")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("image.part.1", "image.part.0", "parts 0 and 1 have the same file name 'image.part.0'"),
        ("index='1'", "index='0'", "it has two parts of the index 0"),
        ("index='1'", "index='2'", "it lists 2 parts, but none of the index 1"),
        ("index='0'", "index='-1'", "a part's index is '-1', and must be a number from 0 to 99999"),
        ("index='0'", "index='zero'", "a part's index is 'zero', and must be"),
        ("index='0'", "", "a part's index is '', and must be"),
        ("count='2'", "count='1'", "it announces 1 parts and lists 2"),
        ("count='2'", "count='3'", "it announces 3 parts and lists 2"),
        ("count='2'", "count='0x2'", "the count of parts is '0x2', and must be"),
        ("count='2'", "", "the count of parts is '', and must be"),
        (PARTS, "", "its 'manifest/image/parts' is missing"),
        (PARTS, "<parts count='0'/>", "it lists no part, and a bundle has at least one"),
    ],
)
def test_indexes_and_count(old: str, new: str, reason: str) -> None:
    refused(changed(old, new), reason)


@pytest.mark.parametrize("element", ["size", "bundled_size"])
@pytest.mark.parametrize(
    "size",
    [
        "-1",
        "+1",
        "1.5",
        "1e9",
        "0x10",
        "1 000",
        "1_000",
        "٣",
        str(2 * LARGEST_IMAGE + 1),
        str(2**63),
        "9" * 1000,
    ],
)
def test_sizes_that_cannot_be(element: str, size: str) -> None:
    text = re.sub(f"<{element}>[0-9]+<", f"<{element}>{size}<", PLAIN)
    refused(text, f"the {element.replace('_', ' ')} is '.*, and must be a number from 0 to")


def test_largest_size() -> None:
    assert parse(changed("1234<", f"{LARGEST_IMAGE}<")).size == LARGEST_IMAGE
    refused(changed("1234<", f"{LARGEST_IMAGE + 1}<"), "and must be a number from 0 to")


def test_sizes_of_nothing() -> None:
    refused(changed("1234<", "0<"), "the size is 0, and a bundle has an image of 1 byte or more")
    refused(changed("10485792", "0"), "the bundled size is 0")
    refused(changed("1234<", "<"), "its 'manifest/image/size' is missing or empty")


@pytest.mark.parametrize(
    "value", ["e1e", "xyzw", "0x12", "e1 e1", "e1:e1", "é1é1", "\N{DIGIT ONE}²"]
)
@pytest.mark.parametrize("old", ["e1e1", "e2e2", "c3c3", "f2f2", "5151"])
def test_hex_that_is_none(old: str, value: str) -> None:
    refused(changed(old, value), "'manifest/.*' '.*' is not hex: two digits for each byte")


@pytest.mark.parametrize("value", ["1f" * 19, "1f" * 21, "1g" * 20, "1f" * 16 + " " + "1f" * 4])
def test_digests_that_are_none(value: str) -> None:
    refused(changed("1f" * 20, value), "its digest '.*' is no SHA-1: 40 hex digits")
    refused(changed("b1" * 20, value), "the digest '.*' of its part 1 is no SHA-1: 40 hex digits")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            "SHA1",
            "MD5",
            "'manifest/image/digest' is of the unknown algorithm 'MD5': it must be SHA1",
        ),
        ("AES-128-CBC", "AES-256-CBC", "unknown algorithm 'AES-256-CBC': it must be AES-128-CBC"),
        ("AES-128-CBC", "", "_key' is of the unknown algorithm '': it must be AES-128-CBC"),
        (f"SHA1'>{'b1' * 20}", f"SHA256'>{'b1' * 20}", "parts/part/digest' is of the unknown"),
        (" algorithm='SHA1'", "", "its 'manifest/image/digest' does not say its algorithm"),
    ],
)
def test_unknown_algorithms(old: str, new: str, reason: str) -> None:
    refused(changed(old, new), reason)


@pytest.mark.parametrize("version", ["2006-01-01", "2007-10-11", "4", "2", "03", "2007-10-10-beta"])
def test_unknown_versions(version: str) -> None:
    refused(changed("2007-10-10", version), f"its version '{version}' is unknown: those known are")


@pytest.mark.parametrize(
    ("element", "text"),
    [
        ("manifest/version", "<version>2007-10-10</version>"),
        ("manifest/image/name", "<name>image</name>"),
        ("manifest/image/user", "<user>123456789012</user>"),
        ("manifest/image/size", "<size>1234</size>"),
        ("manifest/image/name", IMAGE),
    ],
)
def test_missing_elements(element: str, text: str) -> None:
    refused(changed(text, ""), f"its '{element}' is missing or empty")


@pytest.mark.parametrize(
    "text",
    [
        "<version>2007-10-10</version>",
        MACHINE,
        IMAGE,
        PARTS,
        KEY,
        "<size>1234</size>",
        "<architecture>x86_64</architecture>",
        "<filename>image.part.0</filename>",
        "<signature>5151</signature>",
    ],
)
def test_elements_that_are_there_twice(text: str) -> None:
    refused(changed(text, text + text), "it has a second element 'manifest/.*' where one may be")


@pytest.mark.parametrize(
    ("before", "element", "path"),
    [
        ("<signature>", "<size>5</size>", "manifest/size"),
        ("<version>", "<part index='2'/>", "manifest/part"),
        ("<size>", "<filename>x</filename>", "manifest/image/filename"),
        ("1234</size>", "<digest/>", "manifest/image/size/digest"),
        ("<architecture>", "<image/>", "manifest/machine_configuration/image"),
        ("<part ", "<filename>x</filename>", "manifest/image/parts/filename"),
    ],
)
def test_elements_out_of_place(before: str, element: str, path: str) -> None:
    refused(
        changed(before, element + before), f"has the element '{path}', which has no place there"
    )


@pytest.mark.parametrize(
    "text", ["<part index='2'/>", "<part index='2'><filename>x</filename></part>"]
)
def test_incomplete_part(text: str) -> None:
    refused(changed("</parts>", f"{text}</parts>"), "part/(filename|digest)' is missing or empty")


def test_incomplete_mapping() -> None:
    text = changed("<device>sda1</device>", "", EUCA2OOLS)
    refused(text, "block_device_mapping/mapping/device' is missing or empty")


@pytest.mark.parametrize("old", ["x86_64", "<name>image", "123456789012", "<type>machine"])
def test_control_characters_in_texts(old: str) -> None:
    refused(changed(old, f"{old}&#x9b;31m&#10;"), "has a control character in it")


def test_messages_are_short() -> None:
    refused(changed("2007-10-10", "\\" * 1000), "its version '.*…' is unknown")
    refused(
        changed("<signature>", f"<image{'x' * 9000}/><signature>"[:-1] + "y>"), "not well-formed"
    )


# Files


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "image.manifest.xml"
    path.write_text(PLAIN)
    assert read_manifest(path) == read_manifest(str(path)) == parse(PLAIN)


def test_file_that_is_no_manifest(tmp_path: Path) -> None:
    path = tmp_path / "image.manifest.xml"
    path.write_text("no manifest")
    with pytest.raises(BundleError, match=f"^the manifest '{path}' cannot be used: it is not well"):
        read_manifest(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"missing\.xml': No such file or directory"):
        read_manifest(tmp_path / "missing.xml")
    with pytest.raises(BundleError, match=r"cannot read the manifest '.*': Is a directory"):
        read_manifest(tmp_path)
    with pytest.raises(
        BundleError, match=r"cannot read the manifest 'a\\x00b': embedded null byte"
    ):
        read_manifest("a\0b")


def test_only_the_start_of_an_endless_file_is_read() -> None:
    with pytest.raises(BundleError, match=f"larger than the {LONGEST_MANIFEST} bytes"):
        read_manifest("/dev/zero")


@given(st.lists(st.binary(min_size=20, max_size=20), min_size=1, max_size=30), st.randoms())
def test_any_number_of_parts_in_any_order(digests: list[bytes], random: Random) -> None:
    entries = [
        f"<part index='{index}'><filename>p{index}</filename>"
        f"<digest algorithm='SHA1'>{digest.hex()}</digest></part>"
        for index, digest in enumerate(digests)
    ]
    random.shuffle(entries)
    text = changed(PARTS, f"<parts count='{len(entries)}'>{''.join(entries)}</parts>")
    assert parse(text).parts == tuple(
        PartEntry(f"p{index}", digest.hex()) for index, digest in enumerate(digests)
    )


def test_a_folder_with_one_manifest(tmp_path: Path) -> None:
    (tmp_path / "image.part.00").touch()
    alone = tmp_path / "any.xml"
    alone.touch()
    assert find_manifest(tmp_path) == find_manifest(str(tmp_path)) == alone
    usual = tmp_path / "image.manifest.xml"
    usual.touch()
    assert find_manifest(tmp_path) == usual, "the usual name goes before any other"
    assert find_manifest(alone) == alone
    assert find_manifest(tmp_path / "missing") == tmp_path / "missing"
    assert find_manifest("a\0b") == Path("a\0b")


def test_folders_with_no_manifest_or_several(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no manifest \(NAME\.manifest\.xml\) in it"):
        find_manifest(tmp_path)
    names = [f"{name}.manifest.xml" for name in ("image.cn-north-1", "im\nage", "image")]
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match="has several manifests, so name one of them") as caught:
        find_manifest(tmp_path)
    assert all(repr(name) in str(caught.value) for name in names)
    assert str(caught.value).isprintable()
