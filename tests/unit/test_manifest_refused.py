"""Each way in which a manifest cannot be what it claims, and what is said of it."""

import re

import pytest

from bundlefs.base.errors import BundleError
from bundlefs.manifest.elements import LONGEST_MANIFEST
from bundlefs.manifest.read import LARGEST_IMAGE, parse_manifest
from tests.unit.manifests import (
    EUCA2OOLS,
    IMAGE,
    KEY,
    MACHINE,
    PARTS,
    PLAIN,
    changed,
    parse,
    refused,
)


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
