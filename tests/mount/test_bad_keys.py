"""Keys, certificates and passphrases that are of no use: one line that says why."""

import shutil
from pathlib import Path

import pytest

from tests.mount.commands import (
    END,
    INTERRUPT,
    POWERLESS,
    mounts_at,
    refusal,
    terminal,
)
from tests.support import images
from tests.support.keys import KeyPair
from tests.support.mounts import BUNDLEFS, bundlefs, is_mounted, mounted
from tests.support.tools import run

PASSPHRASE = "correct horse"  # noqa: S105  # opens a key that is made for the test


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.text_image(tmp_path / "disk", 4096)


# Regions and keys


@pytest.mark.parametrize("region", ["mars-1", "af-south-1"])
def test_a_region_whose_key_is_not_known(region: str, image: Path, mountpoint: Path) -> None:
    line = refusal("mount", "--region", region, image, mountpoint, code=2)
    assert repr(region) in line
    assert f"--ec2-cert {region}=PEM" in line
    assert "Known regions: us-east-1, " in line
    assert line.endswith("cn-northwest-1")


def test_two_manifests_of_one_name(region_keys: KeyPair, image: Path, mountpoint: Path) -> None:
    options = ("--region", "eu-west-1", "--ec2-cert", region_keys.certificate)
    line = refusal("mount", *options, image, mountpoint, code=2)
    assert "two manifests would be named 'image.manifest.xml'" in line
    assert "--ec2-cert REGION=PEM" in line


def test_two_certificates_for_one_manifest(
    region_keys: KeyPair, user_keys: KeyPair, image: Path, mountpoint: Path
) -> None:
    options = ("--ec2-cert", region_keys.public, "--ec2-cert", user_keys.public)
    line = refusal("mount", *options, image, mountpoint, code=2)
    assert "--ec2-cert is given twice with different keys" in line


@pytest.fixture
def elliptic(tmp_path: Path) -> KeyPair:
    """Keys of a kind that cannot wrap a secret."""
    pair = KeyPair(*(tmp_path / f"elliptic.{kind}" for kind in ("private", "public", "cert")))
    curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    run(["openssl", "genpkey", "-quiet", *curve, "-out", pair.private])
    run(["openssl", "pkey", "-in", pair.private, "-pubout", "-out", pair.public])
    request = ["openssl", "req", "-new", "-x509", "-subj", "/CN=elliptic"]
    run([*request, "-key", pair.private, "-out", pair.certificate])
    return pair


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("--user-key", "private"),
        ("--user-cert", "public"),
        ("--user-cert", "certificate"),
        ("--ec2-cert", "certificate"),
    ],
)
def test_a_key_that_is_not_rsa(
    option: str, kind: str, elliptic: KeyPair, image: Path, mountpoint: Path
) -> None:
    path = getattr(elliptic, kind)
    line = refusal("mount", option, path, image, mountpoint, code=2)
    assert str(path) in line
    assert "a bundle needs an RSA key" in line


@pytest.mark.parametrize("option", ["--user-key", "--user-cert", "--ec2-cert"])
def test_no_key_file(option: str, image: Path, mountpoint: Path, tmp_path: Path) -> None:
    line = refusal("mount", option, tmp_path / "none.pem", image, mountpoint, code=2)
    assert f"cannot read the key file '{tmp_path}/none.pem': No such file or directory" in line


@pytest.mark.parametrize("option", ["--user-key", "--user-cert", "--ec2-cert"])
def test_rubbish_for_a_key(option: str, image: Path, mountpoint: Path) -> None:
    line = refusal("mount", option, image, image, mountpoint, code=2)
    assert f"'{image}' is n" in line  # neither a certificate ..., or: not a private key


def test_no_permission_to_read_the_key(
    user_keys: KeyPair, image: Path, mountpoint: Path, tmp_path: Path
) -> None:
    key = Path(shutil.copy(user_keys.private, tmp_path / "key.pem"))
    key.chmod(0)
    program = (*POWERLESS, *BUNDLEFS)
    line = refusal("mount", "--user-key", key, image, mountpoint, code=2, program=program)
    assert line == f"bundlefs: cannot read the key file '{key}': Permission denied"


def test_a_key_and_a_certificate_that_do_not_match(
    user_keys: KeyPair, region_keys: KeyPair, image: Path, mountpoint: Path
) -> None:
    options = ("--user-key", user_keys.private, "--user-cert", region_keys.certificate)
    line = refusal("mount", *options, image, mountpoint, code=2)
    assert str(region_keys.certificate) in line
    assert str(user_keys.private) in line
    assert "give the two that belong together, or the key alone" in line


# The passphrase


@pytest.fixture
def locked(user_keys: KeyPair, tmp_path: Path) -> Path:
    """The user's key, encrypted."""
    path = tmp_path / "locked.pem"
    secret = ["-passout", f"pass:{PASSPHRASE}"]
    run(["openssl", "pkcs8", "-topk8", "-in", user_keys.private, "-out", path, *secret])
    return path


def test_the_right_passphrase(locked: Path, image: Path, mountpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(PASSPHRASE + "\nsecond line\n")
    with mounted(image, mountpoint, "--user-key", locked, "--passphrase-file", tmp_path / "secret"):
        pass
    with mounted(image, mountpoint, "--user-key", locked, env={"BUNDLEFS_PASSPHRASE": PASSPHRASE}):
        pass
    options = ("--user-key", locked, "--passphrase-env", "MINE")
    with mounted(image, mountpoint, *options, env={"MINE": PASSPHRASE}):
        pass


def test_a_wrong_passphrase_in_a_file(
    locked: Path, image: Path, mountpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("wrong horse\n")
    options = ("--user-key", locked, "--passphrase-file", tmp_path / "secret")
    line = refusal("mount", *options, image, mountpoint, code=2)
    assert line == f"bundlefs: the passphrase does not open the private key in '{locked}'"


def test_a_wrong_passphrase_in_the_environment(locked: Path, image: Path, mountpoint: Path) -> None:
    env = {"BUNDLEFS_PASSPHRASE": "wrong horse"}
    line = refusal("mount", "--user-key", locked, image, mountpoint, code=2, env=env)
    assert line == f"bundlefs: the passphrase does not open the private key in '{locked}'"


def test_no_passphrase_file(locked: Path, image: Path, mountpoint: Path, tmp_path: Path) -> None:
    options = ("--user-key", locked, "--passphrase-file", tmp_path / "none")
    line = refusal("mount", *options, image, mountpoint, code=2)
    assert line == f"bundlefs: --passphrase-file {tmp_path}/none: No such file or directory"


def test_no_terminal_to_ask_for_the_passphrase(locked: Path, image: Path, mountpoint: Path) -> None:
    line = refusal("mount", "--user-key", locked, image, mountpoint, code=2)
    assert f"{locked} is encrypted and there is no terminal to ask" in line
    assert "give --passphrase-file or set BUNDLEFS_PASSPHRASE" in line


def test_the_passphrase_is_asked_for(locked: Path, image: Path, mountpoint: Path) -> None:
    with terminal("mount", "--user-key", locked, image, mountpoint) as shell:
        shell.wait_for(f"Passphrase of {locked}: ")
        shell.type(PASSPHRASE + "\n")
        assert shell.finish() == 0
    assert PASSPHRASE not in shell.shown
    assert is_mounted(mountpoint)
    bundlefs("umount", mountpoint)


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        ("wrong horse\n", 2, "the passphrase does not open the private key"),
        (END, 2, "no passphrase was typed: give --passphrase-file"),
        (INTERRUPT, 130, ""),
    ],
    ids=["wrong", "end of file", "interrupt"],
)
def test_no_passphrase_is_typed(
    typed: str, code: int, said: str, locked: Path, mountpoint: Path
) -> None:
    # The key is opened before the image, so any file will do for that.
    with terminal("mount", "--user-key", locked, locked, mountpoint) as shell:
        shell.wait_for("Passphrase of")
        shell.type(typed)
        assert shell.finish() == code
    assert said in shell.shown
    assert "Traceback" not in shell.shown
    assert "horse" not in shell.shown
    assert mounts_at(mountpoint) == 0
