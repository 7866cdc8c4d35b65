"""The keys that `bundlefs unbundle` opens a bundle with, and those that it does not."""

from pathlib import Path

from tests.interop.back import done, leftovers, refused
from tests.support import oracles
from tests.support.bundles import BUNDLERS, Made, Workshop
from tests.support.keys import KeyPair
from tests.support.tools import run


def test_an_iv_of_sixteen_digits_is_filled_up(
    mixed: Path, out: Path, own_workshop: Workshop
) -> None:
    bundler = BUNDLERS["scalarizr"]
    made, key = own_workshop.make(mixed, bundler), own_workshop.key(bundler)
    wrapped = oracles.element(made.manifest, "user_encrypted_iv")
    command: list[str | Path] = [
        "openssl",
        "pkeyutl",
        "-decrypt",
        "-inkey",
        own_workshop.user.private,
    ]
    assert len(run(command, data=bytes.fromhex(wrapped))) == 16
    done("unbundle", made.manifest, *key, "-o", out / "disk")
    oracles.assert_same(out / "disk", mixed)


def test_without_a_private_key(mixed_bundle: Made, out: Path, user_keys: KeyPair) -> None:
    assert "--user-key" in refused("unbundle", mixed_bundle.manifest, "-o", out / "disk")
    words = (
        "unbundle",
        mixed_bundle.manifest,
        "--user-cert",
        user_keys.certificate,
        "-o",
        out / "disk",
    )
    assert "--user-key" in refused(*words)
    assert leftovers(out) == []


def test_the_wrong_key(
    mixed_bundle: Made, out: Path, user_keys: KeyPair, region_keys: KeyPair
) -> None:
    for option, key in (("--user-key", region_keys), ("--ec2-key", user_keys)):
        line = refused("unbundle", mixed_bundle.manifest, option, key.private, "-o", out / "disk")
        assert "does not open" in line
    assert leftovers(out) == []


def test_ec2s_key_opens_what_the_users_does(
    mixed_bundle: Made, out: Path, region_keys: KeyPair
) -> None:
    done("unbundle", mixed_bundle.manifest, "--ec2-key", region_keys.private, "-o", out / "disk")
    oracles.assert_same(out / "disk", mixed_bundle.image)


def test_an_unsigned_bundle_is_ec2s_alone(mixed: Path, out: Path, own_workshop: Workshop) -> None:
    made = own_workshop.make(mixed, BUNDLERS["euca2ools, unsigned"])
    own = ("--user-key", own_workshop.user.private)
    line = refused("unbundle", made.manifest, *own, "-o", out / "disk")
    assert "--ec2-key" in line


def test_an_encrypted_key(
    mixed_bundle: Made, tmp_path: Path, out: Path, user_keys: KeyPair
) -> None:
    locked = tmp_path / "locked.pem"
    options = ("-aes-256-cbc", "-passout", "pass:open sesame", "-out", locked)
    run(("openssl", "pkey", "-in", user_keys.private, *options))
    words = ("unbundle", mixed_bundle.manifest, "--user-key", locked, "-o", out / "disk")
    assert "BUNDLEFS_PASSPHRASE" in refused(*words, code=2)
    assert "passphrase" in refused(*words, code=2, env={"BUNDLEFS_PASSPHRASE": "wrong"})
    named = (*words, "--passphrase-env", "MINE")
    done(*named, env={"MINE": "open sesame"})
    oracles.assert_same(out / "disk", mixed_bundle.image)
