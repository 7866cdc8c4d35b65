"""A host without pyfuse3: all works but `mount` and `open`, which say what is missing.

Such a host installs what `contrib/requirements-without-fuse.txt` names, and needs no compiler.
"""

import sys
from pathlib import Path

import pytest

from tests.mount.commands import attempt, names, refusal
from tests.support import images
from tests.support.keys import KeyPair
from tests.support.oracles import assert_same

HIDE = """
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {"pyfuse3", "trio"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""
WITHOUT = (sys.executable, "-c", HIDE + "from bundlefs.cli import main; sys.exit(main())")
LIBRARY = f"""{HIDE}
import bundlefs
for name in bundlefs.__all__:
    getattr(bundlefs, name)
keys = bundlefs.UserKeys.load(sys.argv[2], None)
metadata = bundlefs.Metadata(account="123456789012")
with bundlefs.view_image(sys.argv[1], metadata, user_keys=keys) as view:
    assert sorted(view.names()) == ["image.manifest.xml", "image.part.00"]
with bundlefs.open_bundle(sys.argv[3], sys.argv[2]) as disk:
    assert disk.read(0, disk.size) == open(sys.argv[1], "rb").read()
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.text_image(tmp_path_factory.mktemp("image") / "disk", images.MIB)


@pytest.fixture(scope="module")
def bundle(image: Path, user_keys: KeyPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    done = attempt("bundle", "--user-key", user_keys.private, image, folder, program=WITHOUT)
    assert (done.code, names(folder)) == (0, ["image.manifest.xml", "image.part.00"]), done
    return folder / "image.manifest.xml"


def test_there_and_back(bundle: Path, image: Path, user_keys: KeyPair, tmp_path: Path) -> None:
    given = ("--user-key", user_keys.private, bundle)
    assert attempt("verify", *given, program=WITHOUT).code == 0
    assert attempt("unbundle", *given, "-o", tmp_path / "back", program=WITHOUT).code == 0
    assert_same(tmp_path / "back", image)
    region = ("--region", "cn-north-1", "-o", tmp_path / "manifest.xml")
    assert attempt("manifest", *given, *region, program=WITHOUT).code == 0


def test_the_library(bundle: Path, image: Path, user_keys: KeyPair) -> None:
    program = (sys.executable, "-c", LIBRARY)
    done = attempt(image, user_keys.private, bundle, program=program)
    assert not done.err
    assert done.code == 0


@pytest.mark.parametrize("command", ["mount", "open"])
def test_a_mount_says_what_it_needs(
    command: str, bundle: Path, image: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    words = {"mount": (image,), "open": ("--user-key", user_keys.private, bundle)}[command]
    line = refusal(command, *words, tmp_path, code=1, program=WITHOUT)
    assert "mounting needs the Python package pyfuse3, which is not installed" in line


def test_the_parser_of_all_commands_is_there() -> None:
    """And one that asks mounts from outside finds none."""
    program = (
        *(sys.executable, "-c"),
        f"{HIDE}from bundlefs.cli import main, parser\nparser()\nsys.exit(main())",
    )
    assert "no bundlefs answers at /" in attempt("status", "/", program=program).err
