"""Parts that change between their digest and their use, for everything that reads them twice."""

import subprocess
from pathlib import Path

import pytest

from bundlefs import OpenedBundle, open_bundle
from bundlefs.base.errors import BundleChangedError, BundleError, ClosedError
from bundlefs.base.workers import Workers
from bundlefs.manifest.read import read_manifest
from bundlefs.unbundling.extract import Pass, check_parts
from bundlefs.unbundling.outputs import Nowhere
from bundlefs.unbundling.parts import PartFiles
from bundlefs.unbundling.unlock import Keys, unlock
from tests.interop.back import MIB
from tests.support import bundles, images
from tests.support.bundles import Bundler, Made, Workshop
from tests.support.changes import CHANGES, TOUCHES, Change, edit
from tests.support.keys import KeyPair
from tests.support.mounts import BUNDLEFS, settings

SIZE = 24 * MIB


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, user_keys: KeyPair, region_keys: KeyPair
) -> Made:
    workshop = Workshop(tmp_path_factory.mktemp("workshop"), user_keys, region_keys)
    image = images.write(workshop.folder / "disk", images.noise(SIZE, "changes"))
    return workshop.make(image, Bundler(bundles.gnu_tar(), ("gzip", "-1")))


@pytest.fixture
def bundle(made: Made, tmp_path: Path) -> Made:
    return made.copy(tmp_path / "bundle")


# unbundle and verify


def nothing(*_: int) -> None:
    """Take no notice of progress."""


@pytest.mark.parametrize("change", CHANGES)
def test_verify_digests_first_and_decrypts_what_it_has_digested(
    change: Change, bundle: Made, user_keys: KeyPair
) -> None:
    manifest = read_manifest(bundle.manifest)
    secret = unlock(manifest, Keys.load(user_keys.private, None, None, None))
    with PartFiles(manifest, bundle.manifest.parent) as parts, Workers(2) as workers:
        check_parts(parts, workers, nothing)
        change(bundle.parts[1])
        with pytest.raises(BundleChangedError, match=f"{bundle.parts[1]} was changed"):
            Pass(manifest, parts, secret, workers).run(Nowhere(), nothing)


def test_unbundle_names_the_part_that_changes_under_it(bundle: Made, user_keys: KeyPair) -> None:
    """The last part is digested first: its end tells the size of the stream."""
    words = ("unbundle", bundle.manifest, "--user-key", user_keys.private, "-o", "-")
    command = [*BUNDLEFS, *map(str, words)]
    image = bundle.image.read_bytes()
    with subprocess.Popen(
        command, env=settings(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        begun = process.stdout.read(MIB)
        edit(bundle.parts[-1])
        out, err = begun + process.stdout.read(), process.stderr.read().decode()
    assert process.returncode == 1
    assert image.startswith(out)
    assert f"{bundle.parts[-1]} was changed after it was first read" in err
    assert "Traceback" not in err


# The Python API


@pytest.fixture
def disk(bundle: Made, user_keys: KeyPair) -> OpenedBundle:
    return open_bundle(bundle.manifest, user_keys.private)


@pytest.mark.parametrize("change", CHANGES)
def test_a_disk_whose_part_changes(change: Change, bundle: Made, disk: OpenedBundle) -> None:
    image, part = bundle.image.read_bytes(), bundle.parts[0]
    whole = part.read_bytes()
    with disk:
        assert disk.read(5 * MIB, 100) == image[5 * MIB : 5 * MIB + 100]
        change(part)
        for _ in range(2):
            with pytest.raises(BundleChangedError, match=f"{part} was changed"):
                disk.read(9 * MIB, 100)
            part.write_bytes(whole)
        assert disk.read(5 * MIB, 100) == image[5 * MIB : 5 * MIB + 100]


@pytest.mark.parametrize("touch", TOUCHES)
def test_a_disk_whose_parts_are_touched(touch: Change, bundle: Made, disk: OpenedBundle) -> None:
    with disk:
        disk.read(5 * MIB, 100)
        for part in bundle.parts:
            touch(part)
        assert disk.read(0, SIZE) == bundle.image.read_bytes()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_disk_that_is_closed(bundle: Made, user_keys: KeyPair) -> None:
    before = open_files()
    with open_bundle(bundle.manifest, user_keys.private) as disk:
        disk.read(0, SIZE)
        assert open_files() > before
    assert open_files() == before
    with pytest.raises(ClosedError):
        disk.read(0, 1)
    disk.close()


def test_a_disk_that_cannot_be_opened_leaves_nothing_open(bundle: Made, user_keys: KeyPair) -> None:
    before = open_files()
    edit(bundle.parts[0])
    with pytest.raises(BundleError, match="damaged"):
        open_bundle(bundle.manifest, user_keys.private)
    assert open_files() == before
