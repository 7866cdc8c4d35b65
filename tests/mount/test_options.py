"""What the options of `bundlefs mount` do to real mounts, and who may mount."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.mount.commands import (
    AS_USER,
    NOBODY,
    ROOT,
    as_user,
    assert_nothing_left,
    attempt,
    eventually,
    mounts_at,
    names,
    users_folder,
)
from tests.support import images, oracles
from tests.support.keys import KeyPair
from tests.support.mounts import bundlefs, mount_table, mounted
from tests.support.processes import open_files
from tests.support.tools import ACCOUNT, tool

MIB = images.MIB


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.text_image(tmp_path_factory.mktemp("image") / "disk", 3 * MIB + 5)


# What is in the bundle


def test_prefix(image: Path, mountpoint: Path) -> None:
    with mounted(image, mountpoint, "--prefix", "my ami.2") as mount:
        assert names(mount.path) == ["my ami.2.manifest.xml", "my ami.2.part.00"]
        manifest = mount.manifest("my ami.2.manifest.xml")
        assert "<image><name>my ami.2</name><user>" in manifest.read_text()
        assert oracles.part_names(manifest) == ["my ami.2.part.00"]


def test_regions(image: Path, mountpoint: Path, region_keys: KeyPair, user_keys: KeyPair) -> None:
    regions = ["us-east-1", "eu-west-1", "us-gov-west-1", "cn-north-1", "test-1", "eu-west-1"]
    options = [word for region in regions for word in ("--region", region)]
    options += [f"--ec2-cert=test-1={region_keys.certificate}", f"--user-key={user_keys.private}"]
    wanted = [f"image{region}.manifest.xml" for region in ("", *OWN_KEYS, ".test-1")]
    with mounted(image, mountpoint, *options) as mount:
        assert names(mount.path) == sorted([*wanted, "image.part.00"])
        contents = {name: mount.manifest(name).read_bytes() for name in wanted}
        theirs = oracles.secrets(mount.manifest(wanted[-1]), region_keys.private, "ec2")
        users = [oracles.secrets(mount.manifest(name), user_keys.private) for name in wanted]
    assert users == [theirs] * len(wanted)
    assert len(set(contents.values())) == len(wanted)
    # 1,024 bits for the standard key and gov's, 2,048 for China's and ours
    lengths = [len(wrapped_for_ec2(contents[name])) for name in wanted]
    assert lengths == [256, 256, 512, 512]


OWN_KEYS = (".us-gov-west-1", ".cn-north-1")


def wrapped_for_ec2(manifest: bytes) -> bytes:
    found = re.search(rb"<ec2_encrypted_key[^>]*>([0-9a-f]+)<", manifest)
    assert found
    return found[1]


def test_a_certificate_without_a_region_replaces_the_standard_key(
    image: Path, mountpoint: Path, region_keys: KeyPair, user_keys: KeyPair
) -> None:
    options = ("--ec2-cert", region_keys.certificate, "--user-cert", user_keys.certificate)
    with mounted(image, mountpoint, *options) as mount:
        assert names(mount.path) == ["image.manifest.xml", "image.part.00"]
        theirs = oracles.secrets(mount.manifest(), region_keys.private, "ec2")
        assert theirs == oracles.secrets(mount.manifest(), user_keys.private)


def test_a_certificate_whose_name_has_an_equals_sign(
    image: Path, mountpoint: Path, region_keys: KeyPair, tmp_path: Path
) -> None:
    path = Path(shutil.copy(region_keys.certificate, tmp_path / "key=1.pem"))
    options = (
        "--ec2-cert",
        path,
        "--ec2-cert",
        f"test-1={path}",
        "--user-key",
        region_keys.private,
    )
    with mounted(image, mountpoint, *options) as mount:
        manifests = [mount.manifest(), mount.manifest("image.test-1.manifest.xml")]
        theirs = [oracles.secrets(made, region_keys.private, "ec2") for made in manifests]
        assert theirs == [oracles.secrets(mount.manifest(), region_keys.private)] * 2


METADATA = {
    "--arch": "arm64",
    "--kernel": "aki-1",
    "--ramdisk": "ari-2",
    "--type": "machine",
}


def test_metadata_is_in_the_manifest(image: Path, mountpoint: Path) -> None:
    options = [word for pair in METADATA.items() for word in pair]
    options += ["-B", "root=/dev/sda1", "--block-device-mapping", "ami=sda"]
    options += ["--product-code", "P1", "--product-code", "P2"]
    options += ["--ancestor-ami", "ami-1", "--ancestor-ami", "ami-2"]
    with mounted(image, mountpoint, *options, "--account", "9999-8888-7777") as mount:
        content = mount.manifest().read_text()
    assert (
        "<machine_configuration><architecture>arm64</architecture><block_device_mapping>"
        "<mapping><virtual>ami</virtual><device>sda</device></mapping>"
        "<mapping><virtual>root</virtual><device>/dev/sda1</device></mapping>"
        "</block_device_mapping><kernel_id>aki-1</kernel_id><ramdisk_id>ari-2</ramdisk_id>"
        "<product_codes><product_code>P1</product_code><product_code>P2</product_code>"
        "</product_codes></machine_configuration>"
        "<image><name>image</name><user>999988887777</user><type>machine</type>"
        "<ancestry><ancestor_ami_id>ami-1</ancestor_ami_id>"
        "<ancestor_ami_id>ami-2</ancestor_ami_id></ancestry><digest"
    ) in content


def test_a_kernel(image: Path, mountpoint: Path) -> None:
    options = ("--type", "kernel", "--kernel-name", "vmlinuz-6.1")
    with mounted(image, mountpoint, *options) as mount:
        content = mount.manifest().read_text()
    assert "<type>kernel</type><kernel_name>vmlinuz-6.1</kernel_name><digest" in content


def test_a_ramdisk(image: Path, mountpoint: Path) -> None:
    with mounted(image, mountpoint, "--type", "ramdisk") as mount:
        assert oracles.element(mount.manifest(), "type") == "ramdisk"


def test_the_account_comes_from_the_environment(image: Path, mountpoint: Path) -> None:
    with mounted(image, mountpoint, env={"BUNDLEFS_ACCOUNT": "1111-2222-3333"}) as mount:
        assert oracles.element(mount.manifest(), "user") == "111122223333"
    with mounted(image, mountpoint, "--account", ACCOUNT, env={"BUNDLEFS_ACCOUNT": "1"}) as mount:
        assert oracles.element(mount.manifest(), "user") == ACCOUNT


# How it is made


@pytest.mark.parametrize("level", range(10))
def test_every_level_unbundles(
    level: int, image: Path, mountpoint: Path, user_keys: KeyPair, tmp_path: Path
) -> None:
    options = ("--level", str(level), "--jobs", "1", "--user-key", user_keys.private)
    with mounted(image, mountpoint, *options) as mount:
        secrets = oracles.secrets(mount.manifest(), user_keys.private)
        tar = oracles.unseal(mount.parts(), secrets, tmp_path / "tar")
        sealed = sum(part.stat().st_size for part in mount.parts())
    [extracted] = oracles.untar(tar, tmp_path / "out")
    oracles.assert_same(extracted, image)
    assert (sealed > 3 * MIB) == (level == 0)


def test_eager_starts_by_itself(image: Path, mountpoint: Path) -> None:
    with mounted(image, mountpoint, "--eager") as mount:
        assert eventually(lambda: mount.status()["phase"] == "complete")
    with mounted(image, mountpoint, "--prefix", "lazy") as mount:
        assert mount.status()["phase"] == "idle"
        assert mount.status()["image_bytes_read"] == 0


def test_cache_dir(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    options = ("--cache-size", "0", "--cache-dir", tmp_path)
    with mounted(image, mountpoint, *options) as mount:
        assert len(mount.parts()) == 1
        files = open_files(mount.pid).values()
        assert any(name.startswith(f"{tmp_path}/") and "(deleted)" in name for name in files)


# FUSE options and users


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--allow-other"], {"allow_other"}),
        (["-o", "allow_other"], {"allow_other"}),
        (["-o", "noatime,nosuid", "-odirsync"], {"noatime", "nosuid", "dirsync"}),
    ],
)
def test_fuse_options(words: list[str], shown: set[str], image: Path, mountpoint: Path) -> None:
    with mounted(image, mountpoint, *words) as mount:
        [line] = [line for line in mount_table() if line.split(" ")[4] == str(mount.path)]
    assert shown | {"ro", "nodev"} <= set(line.replace(" ", ",").split(","))
    assert f" - fuse.bundlefs {image} " in line


@pytest.mark.parametrize("name", ["a,b", "back\\slash", "a b", "a=b", "\u00fcml\u00e4ut"])
def test_odd_names(name: str, tmp_path: Path) -> None:
    """Commas part FUSE's options, spaces the kernel's table of mounts; neither may break one."""
    image = images.text_image(tmp_path / name, 4096)
    with mounted(image, tmp_path / f"mnt {name}") as mount:
        assert names(mount.path)
        assert bundlefs("status", mount.path).startswith(f"image     {image}, 4.0 KiB\n")
        bundlefs("umount", mount.path)
        assert mounts_at(mount.path) == 0


AS_A_USER_DOES = """
folder=$1 run=$2; shift 2
"$@" mount "$folder/disk" "$folder/mnt"
trap '"$@" umount "$folder/mnt"' EXIT
"$@" status "$folder/mnt"
$run ls "$folder/mnt"
$run stat -c %u:%a "$folder/mnt" "$folder/mnt/image.part.00"
$run sha1sum "$folder/mnt/image.part.00"
$run getfattr --absolute-names --only-values -n user.bundlefs.sha1 "$folder/mnt/image.part.00"
"""


def test_a_user_who_is_not_root(tmp_path: Path) -> None:
    user = NOBODY if ROOT else os.getuid()
    run = f"{tool('setpriv')} --reuid={user} --regid={user} --clear-groups" if ROOT else ""
    with users_folder() as folder:
        images.text_image(folder / "disk", 4096)
        program = as_user(AS_A_USER_DOES, folder, run, *AS_USER, scratch=tmp_path)
        home = {"HOME": str(folder), "XDG_STATE_HOME": str(folder)}
        done = attempt(program=program, env=home)
        assert_nothing_left(done)
    assert (done.code, done.err) == (0, "")
    *status, manifest, part, root, mode, summed, attribute = done.out.splitlines()
    assert status[1].startswith("phase     idle")
    assert (manifest, part) == ("image.manifest.xml", "image.part.00")
    assert (root, mode) == (f"{user}:555", f"{user}:444")
    assert summed.split()[0] == attribute
