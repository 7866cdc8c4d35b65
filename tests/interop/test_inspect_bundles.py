"""`bundlefs inspect` of bundles: those of all writers are told as their manifests and parts are."""

import os
from pathlib import Path
from typing import Any

import pytest

from bundlefs.cli import main
from tests.stream.inspecting import codes, inspected, output, remark
from tests.support import bundles
from tests.support.bundles import BUNDLERS, KEY, Made, Workshop
from tests.support.keys import KeyPair
from tests.support.tools import ACCOUNT

TARS = {
    "ec2-ami-tools": ("GNU, sparse", True),
    "euca2ools": ("GNU", False),
    "rPath, version 3": ("ustar", False),
    "pax": ("pax", False),
    "pax, sparse": ("pax", True),
    "pax, sparse 0.0": ("pax", True),
    "tarfile, PAX": ("pax", False),
}


@pytest.fixture(scope="module")
def image(workshop: Workshop) -> Path:
    return bundles.mixed_image(workshop.folder / "disk")


@pytest.fixture(scope="module")
def made(workshop: Workshop, image: Path) -> Made:
    return workshop.make(image, BUNDLERS["ec2-ami-tools"])


def one(path: Path, *words: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the document and what it says of the one manifest; no secret is in it."""
    document = inspected(path, *words)
    assert document["what"] == "bundle"
    assert KEY not in str(document)
    [found] = document["bundle"]["manifests"]
    return document, found


@pytest.mark.parametrize("name", BUNDLERS)
def test_of_any_writer(name: str, workshop: Workshop, image: Path) -> None:
    bundler = BUNDLERS[name]
    made = workshop.make(image, bundler, f"of-{name}")
    document, found = one(made.manifest.parent, *workshop.key(bundler))
    assert found["version"] == bundler.version
    assert found["bundler"] == ["another", "1.3", "672"]
    assert (found["name"], found["account"]) == ("image", ACCOUNT)
    assert found["architecture"] == ("i386" if bundler.version == "3" else "x86_64")
    assert found["size"] == image.stat().st_size
    assert found["bundled_size"] == sum(part.stat().st_size for part in made.parts)
    assert found["signature"] == ("holds" if bundler.signed else "missing")
    parts = found["parts"]
    assert (parts["count"], parts["present"]) == (len(made.parts), len(made.parts))
    assert (parts["missing"], parts["odd"]) == ([], [])
    assert parts["size"] == found["bundled_size"]
    tar = found["tar"]
    assert tar["member"] in (image.name, "image")
    assert tar["sparse"] == (tar["data"] < found["size"])
    if name in TARS:
        assert (tar["kind"], tar["sparse"]) == TARS[name]
    assert found["opens"]["user_key_bits"] == (2048 if bundler.signed else None)
    assert found["opens"]["ec2_key_bits"] == 2048
    assert codes(document) == ([] if bundler.signed else ["signature"])
    assert document["unknown"] == []


def test_without_a_key_what_cannot_be_told_is_unknown(made: Made) -> None:
    document, found = one(made.manifest)
    assert (found["signature"], found["tar"]) == ("unchecked", None)
    assert document["unknown"] == ["tar form of image.manifest.xml: no private key was given"]
    text = output(made.manifest)
    assert "signature: there is one; unchecked" in text
    assert "made by: another 1.3 672" in text
    assert "opens with: the user's private key (2048 bits) or EC2's (2048 bits" in text


def test_with_anothers_key(made: Made, region_keys: KeyPair) -> None:
    document, found = one(made.manifest, "--user-key", region_keys.private)
    assert (found["signature"], found["tar"]) == ("bad", None)
    assert codes(document) == ["signature"]
    assert len(document["unknown"]) == 1


def test_parts_that_are_not_there_or_of_another_size(made: Made, tmp_path: Path) -> None:
    copy = made.copy(tmp_path / "copy")
    copy.parts[1].unlink()
    os.truncate(copy.parts[0], 1000)
    document, found = one(copy.manifest.parent)
    assert found["parts"]["present"] == len(copy.parts) - 1
    assert found["parts"]["missing"] == [copy.parts[1].name]
    assert [copy.parts[0].name, 1000] in found["parts"]["odd"]
    assert codes(document) == ["part-size", "parts-missing"]
    assert copy.parts[1].name in remark(document, "parts-missing")
    empty = tmp_path / "empty"
    empty.mkdir()
    _, found = one(copy.manifest, "--parts", empty)
    assert found["parts"]["present"] == 0
    assert len(found["parts"]["missing"]) == len(copy.parts)
    # Of all the parts the last alone is shorter than the manifest says.
    copy = made.copy(tmp_path / "cut")
    os.truncate(copy.parts[-1], copy.parts[-1].stat().st_size - 16)
    document, found = one(copy.manifest)
    assert [name for name, _ in found["parts"]["odd"]] == [copy.parts[-1].name]
    assert codes(document) == ["part-size"]


def test_of_a_part_its_bundle_is_told(made: Made) -> None:
    _, found = one(made.parts[1])
    assert found["path"] == str(made.manifest)


def test_a_bundle_of_several_regions(image: Path, tmp_path: Path, user_keys: KeyPair) -> None:
    """Its own, by `bundlefs bundle`."""
    dest = tmp_path / "dest"
    dest.mkdir()
    words = ["--account", ACCOUNT, "--region", "us-east-1", "--region", "cn-north-1"]
    words += ["--region", "us-gov-west-1", "--user-key", str(user_keys.private), "--arch", "i386"]
    words += ["--block-device-mapping", "ephemeral0=sdb", "--quiet"]
    assert main(["bundle", *words, str(image), str(dest)]) == 0
    document = inspected(dest, "--user-key", user_keys.private)
    assert codes(document) == []
    found = {Path(each["path"]).name: each for each in document["bundle"]["manifests"]}
    assert [each["opens"]["region_by_file_name"] for each in found.values()] == [
        "cn-north-1",
        None,
        "us-gov-west-1",
    ]
    assert found["image.cn-north-1.manifest.xml"]["opens"]["ec2_keys_that_fit"] == [
        "cn-north-1",
        "cn-northwest-1",
    ]
    assert "standard" in found["image.manifest.xml"]["opens"]["ec2_keys_that_fit"]
    assert (
        "us-gov-west-1" in found["image.us-gov-west-1.manifest.xml"]["opens"]["ec2_keys_that_fit"]
    )
    first = found["image.manifest.xml"]
    assert first["bundler"][0] == "bundlefs"
    assert ["ephemeral0", "sdb"] in first["block_device_mapping"]
    assert first["tar"]["kind"] == "GNU, sparse"


def test_a_manifest_that_says_odd_things(made: Made, tmp_path: Path) -> None:
    copy = made.copy(tmp_path / "copy")
    text = copy.manifest.read_text()
    odd = "<name>x&#x9b;31m\u202e</name>" + "<version>" + "v" * 1000 + "</version><odd><a/></odd>"
    start, end = text.index("<bundler>"), text.index("</bundler>")
    copy.manifest.write_text(f"{text[:start]}<bundler>{odd}{text[end:]}")
    document, found = one(copy.manifest)
    assert found["bundler"] == ["x\x9b31m\u202e", "v" * 100]
    assert document["bundle"]["manifests"][0]["signature"] == "unchecked"
    assert r"made by: x\x9b31m\u202e vvv" in output(copy.manifest)
