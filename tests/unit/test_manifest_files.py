"""Where a manifest is read from: a file, or a folder with one of them."""

from pathlib import Path

import pytest

from bundlefs.base.errors import BundleError, UsageError
from bundlefs.manifest.elements import LONGEST_MANIFEST
from bundlefs.manifest.read import find_manifest, read_manifest
from tests.unit.manifests import PLAIN, parse


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
