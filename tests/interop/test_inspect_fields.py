"""The fields that contrib/inspect.md lists are those that `bundlefs inspect --json` prints."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.stream.inspecting import inspected, output
from tests.support import bundles
from tests.support.bundles import BUNDLERS, Workshop
from tests.support.documents import CONTRIB
from tests.support.keys import KeyPair
from tests.support.systems import X64, disk, system

PAGE = (CONTRIB / "inspect.md").read_text()
FIELDS = PAGE.split("\n## Fields\n")[1]
LISTED = set(re.findall(r"`(?:[a-z_]+\.)?([a-z_0-9]+)(?:\[\])?`", FIELDS))
VALUES = {
    *("bundlefs", "disk", "bundle", "mount", "warning", "note", "hvm", "paravirtual", "holds"),
    *("bad", "missing", "unchecked", "raw", "gzip", "bzip2", "xz", "zstd", "qcow2", "vmdk", "vdi"),
    *("opened", "images", "vhd", "vhdx", "ova"),
}
"""What stands in the same quotes and is a value."""

BY_ITS_OWN_PAGE = ("status",)


def names(document: Any) -> set[str]:  # noqa: ANN401  # any JSON
    """Return the names of all fields at any depth."""
    if isinstance(document, list):
        return set().union(*map(names, document))
    if not isinstance(document, dict):
        return set()
    inner = (value for name, value in document.items() if name not in BY_ITS_OWN_PAGE)
    return set(document).union(*map(names, inner))


@pytest.fixture(scope="module")
def printed(
    tmp_path_factory: pytest.TempPathFactory, user_keys: KeyPair, region_keys: KeyPair
) -> set[str]:
    folder = tmp_path_factory.mktemp("fields")
    root = system(folder / "root", X64)
    of_disk = inspected(disk(folder / "disk", [("83", root)], "dos"))
    workshop = Workshop(folder, user_keys, region_keys)
    made = workshop.make(bundles.mixed_image(folder / "image"), BUNDLERS["ec2-ami-tools"])
    of_bundle = inspected(made.manifest, "--user-key", user_keys.private)
    return names(of_disk) | names(of_bundle)


def test_each_field_is_on_the_page(printed: set[str]) -> None:
    assert printed - LISTED == set()


def test_each_field_on_the_page_is_printed(printed: set[str]) -> None:
    assert LISTED - VALUES - printed <= {"status"}


def test_the_codes_of_remarks_are_on_the_page() -> None:
    import bundlefs.cli.inspected  # noqa: PLC0415  # where the package is
    import bundlefs.image.inspection.ec2  # noqa: PLC0415  # same

    modules = (bundlefs.cli.inspected, bundlefs.image.inspection.ec2)
    sources = "".join(Path(str(one.__file__)).read_text() for one in modules)
    used = set(re.findall(r'Remark\(\s*"([a-z-]+)"', sources))
    assert len(used) > 10
    assert used == {one for one in used if f"`{one}`" in PAGE}


def test_what_people_get_has_no_control_character(tmp_path: Path) -> None:
    text = output(system(tmp_path / "image", X64))
    assert all(line.isprintable() for line in text.splitlines())
