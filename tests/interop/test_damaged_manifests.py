"""Manifests that are damaged, or made to do harm: one clear error each, and nothing left behind.

Every case is run through `verify` and `unbundle`. What of a manifest is refused and why
is for the readers' own tests; here it is one of each.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.back import leftovers, refused, within
from tests.support.bundles import Made
from tests.support.keys import KeyPair

MANIFESTS: dict[str, tuple[Callable[[str], str], str]] = {
    "an entity bomb": (
        lambda text: text.replace(
            "<manifest>", '<!DOCTYPE m [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><manifest>', 1
        ),
        "document type",
    ),
    "100 MB": (lambda text: text.replace("<image>", "<image>" + " " * 100_000_000), "larger"),
    "nested": (lambda text: text.replace("<image>", "<image>" + "<a>" * 5000), "nested"),
    "a path": (lambda text: text.replace("image.part.02", "../part"), "plain file name"),
    "an absolute path": (lambda text: text.replace("image.part.02", "/etc/passwd"), "plain file"),
    "a dot": (lambda text: text.replace("image.part.02", ".."), "plain file name"),
    "a control character": (lambda text: text.replace("image.part.02", "a&#10;b"), "plain file"),
    "a NUL": (lambda text: text.replace("image.part.02", "a\0b"), "zero byte"),
    "an index twice": (lambda text: text.replace("index='2'", "index='1'"), "two parts"),
    "an index that is missing": (lambda text: text.replace("index='2'", "index='9'"), "index 2"),
    "a wrong count": (lambda text: text.replace("count='5'", "count='6'"), "6 parts"),
    "a negative size": (lambda text: text.replace("<size>", "<size>-"), "the size"),
    "an absurd size": (lambda text: text.replace("<size>", "<size>999999999999"), "the size"),
    "bad hex": (lambda text: re.sub("(<user_encrypted_iv>).", r"\1g", text), "not hex"),
    "another digest": (lambda text: text.replace("algorithm='SHA1'", "algorithm='MD5'"), "MD5"),
    "another cipher": (lambda text: text.replace("AES-128-CBC", "AES-256-GCM"), "AES-256-GCM"),
    "another version": (lambda text: text.replace("2007-10-10", "2038-01-19"), "2038-01-19"),
    "no XML": (lambda _: "no XML", "XML"),
    "nothing": (lambda _: "", "XML"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_cannot_be_used(
    name: str, bundle: Made, tmp_path: Path, user_keys: KeyPair
) -> None:
    change, says = MANIFESTS[name]
    bundle.manifest.write_text(change(bundle.manifest.read_text()))
    out = tmp_path / "out"
    out.mkdir()
    words = (bundle.manifest, "--user-key", user_keys.private)
    line = refused("unbundle", *words, "-o", out / "disk")
    assert says in line
    assert len(line) < 1000
    assert within("verify", *words) == (1, "", f"{line}\n")
    assert leftovers(out) == []


def test_no_manifest_at_all(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        assert str(path) in refused("verify", path)
