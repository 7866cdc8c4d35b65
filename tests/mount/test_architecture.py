"""The architecture in the manifest: the image's own, or by any of its usual names."""

import platform
import subprocess
from pathlib import Path

import pytest

from bundlefs.manifest.write import architecture
from tests.mount.commands import attempt, refusal
from tests.support import images, oracles
from tests.support.mounts import BUNDLEFS, detach, mounted, settings
from tests.support.systems import ARM64, RISCV, X64, X86, disk, system

OPTIONS = ("--level", "1")
HOST = architecture(platform.machine())
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"


def told(manifest: Path) -> str:
    return oracles.element(manifest, "architecture")


@pytest.mark.parametrize(("number", "arch"), [(X86, "i386"), (X64, "x86_64"), (ARM64, "arm64")])
def test_the_images_own_is_taken(number: int, arch: str, tmp_path: Path) -> None:
    """And a remount is the same bundle."""
    image, log = system(tmp_path / "image", number), tmp_path / "log"
    manifests = []
    for _ in range(2):
        with mounted(image, tmp_path / "mnt", *OPTIONS, "--log-file", log) as mount:
            manifests.append(mount.manifest().read_bytes())
            assert told(mount.manifest()) == arch
    assert manifests[0] == manifests[1]
    assert f"architecture {arch} by /sbin/init" in log.read_text()
    assert "WARNING" not in log.read_text()


def test_what_is_seen_and_what_is_asked_is_one_bundle(tmp_path: Path) -> None:
    image, log = system(tmp_path / "image", ARM64), tmp_path / "log"
    manifests = set()
    for options in ((), ("--arch", "aarch64"), ("--arch", "arm64"), ()):
        with mounted(image, tmp_path / "mnt", *OPTIONS, *options, "--log-file", log) as mount:
            manifests.add(mount.manifest().read_bytes())
    assert len(manifests) == 1


def test_a_bundle_that_said_another_begins_anew_and_says_why(tmp_path: Path) -> None:
    """As one does that was begun when this host's was taken."""
    image, log = system(tmp_path / "image", ARM64), tmp_path / "log"
    with mounted(image, tmp_path / "mnt", *OPTIONS, "--arch", "i386"):
        pass
    with mounted(image, tmp_path / "mnt", *OPTIONS, "--log-file", log) as mount:
        assert told(mount.manifest()) == "arm64"
    assert "arch was i386, is arm64" in log.read_text()


def test_this_hosts_is_taken_with_a_word(tmp_path: Path, mountpoint: Path) -> None:
    image = disk(tmp_path / "image", [(LINUX, None)])
    done = attempt("mount", *OPTIONS, image, mountpoint)
    try:
        assert done.code == 0
        assert done.err == (
            f"bundlefs: warning: {image}: its architecture is not seen in it (nothing tells it),"
            f" so this host's is taken: {HOST}; --arch names another\n"
        )
        assert told(mountpoint / "image.manifest.xml") == HOST
    finally:
        detach(mountpoint)


def test_an_image_without_any_structure_is_told_of_in_the_log(tmp_path: Path) -> None:
    image, log = images.random_image(tmp_path / "image", 1 << 20), tmp_path / "log"
    with mounted(image, tmp_path / "mnt", *OPTIONS, "--log-file", log) as mount:
        assert told(mount.manifest()) == HOST
    assert f"INFO: {image}: its architecture is not seen in it" in log.read_text()


@pytest.mark.parametrize(
    ("given", "arch"), [("amd64", "x86_64"), ("AArch64", "arm64"), ("i686", "i386")]
)
def test_usual_names_are_translated(given: str, arch: str, tmp_path: Path) -> None:
    image = images.random_image(tmp_path / "image", 1 << 20)
    with mounted(image, tmp_path / "mnt", *OPTIONS, "--arch", given) as mount:
        assert told(mount.manifest()) == arch


def test_another_clouds_is_taken_if_forced(tmp_path: Path, mountpoint: Path) -> None:
    image = images.random_image(tmp_path / "image", 1 << 20)
    for arch in ("armhf", "riscv64", "amd46"):
        line = refusal("mount", "--arch", arch, image, mountpoint, code=2)
        assert f"--arch {arch}: " in line
        assert "x86_64, i386, arm64" in line
        assert "--force-arch" in line
    line = refusal("mount", "--force-arch", image, mountpoint, code=2)
    assert "--arch" in line
    options = (*OPTIONS, "--arch", "armhf", "--force-arch")
    with mounted(image, tmp_path / "mnt", *options) as mount:
        assert told(mount.manifest()) == "armhf"


def test_an_image_that_ec2_does_not_run(tmp_path: Path, mountpoint: Path) -> None:
    image = system(tmp_path / "image", RISCV)
    line = refusal("mount", image, mountpoint, code=1)
    assert "has code for riscv64 by /sbin/init, which EC2 does not know" in line
    assert "--arch riscv64 --force-arch" in line
    options = (*OPTIONS, "--arch", "riscv64", "--force-arch")
    with mounted(image, tmp_path / "mnt", *options) as mount:
        assert told(mount.manifest()) == "riscv64"


def test_what_is_asked_holds_and_a_contradiction_is_told(tmp_path: Path, mountpoint: Path) -> None:
    image = system(tmp_path / "image", ARM64)
    done = attempt("mount", *OPTIONS, "--arch", "x86_64", image, mountpoint)
    try:
        assert (
            f"warning: {image} has code for arm64 by /sbin/init, and --arch says x86_64" in done.err
        )
        assert told(mountpoint / "image.manifest.xml") == "x86_64"
    finally:
        detach(mountpoint)


def test_each_image_of_a_folder_has_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    numbers = {"arm64": ARM64, "i386": X86, "x86_64": X64}
    for arch, number in numbers.items():
        system(folder / arch, number)
    with mounted(folder, tmp_path / "mnt", *OPTIONS) as mount:
        for arch in numbers:
            assert told(mount.path / arch / "image.manifest.xml") == arch


def test_the_bundle_command(tmp_path: Path) -> None:
    image, folder = system(tmp_path / "image", ARM64), tmp_path / "bundle"
    assert attempt("bundle", *OPTIONS, image, folder).code == 0
    assert told(folder / "image.manifest.xml") == "arm64"


def test_from_a_pipe_it_is_this_hosts(tmp_path: Path) -> None:
    image, folder = system(tmp_path / "image", ARM64), tmp_path / "bundle"
    words = ("bundle", *OPTIONS, "--size", str(image.stat().st_size), "-", str(folder))
    with image.open("rb") as stream:
        done = subprocess.run(
            [*BUNDLEFS, *words],
            stdin=stream,
            env=settings(),
            capture_output=True,
            text=True,
            check=True,
        )
    assert "standard input: its architecture is not seen in it" in done.stderr
    assert told(folder / "image.manifest.xml") == HOST


def test_the_manifest_command_keeps_what_is_there(tmp_path: Path, mountpoint: Path) -> None:
    image, folder = images.random_image(tmp_path / "image", 1 << 20), tmp_path / "bundle"
    keys = tmp_path / "key.pem"
    subprocess.run(["openssl", "genrsa", "-out", keys, "2048"], check=True, capture_output=True)
    keys.chmod(0o600)
    options = (*OPTIONS, "--user-key", keys, "--arch", "armhf", "--force-arch")
    assert attempt("bundle", *options, image, folder).code == 0
    make = ("manifest", "--user-key", keys, folder / "image.manifest.xml", "-o")
    for number, (more, arch) in enumerate(
        [((), "armhf"), (("--arch", "amd64"), "x86_64"), (("--arch", "ppc", "--force-arch"), "ppc")]
    ):
        done = attempt(*make, tmp_path / f"{number}.xml", *more)
        assert done.code == 0, done
        assert told(tmp_path / f"{number}.xml") == arch
    assert attempt(*make, mountpoint / "x", "--arch", "ppc").code == 2
