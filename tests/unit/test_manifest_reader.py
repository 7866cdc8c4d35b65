"""Manifests of every writer and version: what is read of them, and which text is signed."""

import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundlefs.manifest import write as manifest
from bundlefs.manifest.read import BundleManifest, PartEntry, parse_manifest
from tests.unit.manifests import (
    EUCA2OOLS,
    IMAGE,
    KEY,
    MACHINE,
    PARTS,
    PLAIN,
    VERSION_3,
    VERSION_3_IMAGE,
    changed,
    parse,
    refused,
)


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
