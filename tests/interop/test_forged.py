"""A bundle that somebody else put in the place of the user's: who looks at the signature, and how.

The forger can write to the bucket and has the user's certificate, but not the private key: parts,
AES key and digests are theirs, and everything but the signature is right.
"""

import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bundlefs import open_bundle
from bundlefs.base.errors import SignatureError
from tests.interop.back import done, leftovers, refused
from tests.mount.commands import attempt, refusal
from tests.mount.opened import opened
from tests.support import bundles, images, oracles
from tests.support.bundles import BUNDLERS, Made, Workshop
from tests.support.keys import KeyPair
from tests.support.mounts import BUNDLEFS, detach

MIB = 1 << 20
OPTION = "--ignore-signature"
MOUNT_BUNDLEFS = (sys.executable, "-c", "import sys, bundlefs.cli.mount8 as m; sys.exit(m.main())")


@pytest.fixture(scope="module")
def made(workshop: Workshop) -> Made:
    """A bundle that is the user's own."""
    image = images.text_image(workshop.folder / "disk", 300_000)
    return workshop.make(image, BUNDLERS["ec2-ami-tools"], "own")


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Made:
    return made.copy(tmp_path / "bundle")


@pytest.fixture
def user(user_keys: KeyPair) -> tuple[str | Path, ...]:
    return ("--user-key", user_keys.private)


def by_another(bundle: Made, workshop: Workshop) -> None:
    """All new: the image, the AES key, the digests; signed by a key that is not the user's."""
    folder = bundle.manifest.parent / "forged"
    forger = Workshop(bundle.manifest.parent, workshop.user, workshop.ec2)
    image = images.text_image(folder.with_suffix(".disk"), 200_000)
    forged = forger.make(image, BUNDLERS["ec2-ami-tools"], folder.name)
    forged.rewrite(workshop.ec2)
    for part in forged.parts:
        part.rename(bundle.manifest.parent / part.name)
    forged.manifest.rename(bundle.manifest)


def one_byte(bundle: Made, _: Workshop) -> None:
    text = bundle.manifest.read_text()
    bundle.manifest.write_text(text.replace("<device>sda1<", "<device>sdb1<"))


def of_another_bundle(bundle: Made, workshop: Workshop) -> None:
    """A signature that the user did make, of something else."""
    mine = oracles.element(bundle.manifest, "signature")
    text = bundle.manifest.read_text()
    bundle.rewrite(workshop.user, name="another")
    other = oracles.element(bundle.manifest, "signature")
    assert mine != other
    bundle.manifest.write_text(text.replace(mine, other))


FORGERIES = (by_another, one_byte, of_another_bundle)
Forgery = Callable[[Made, Workshop], None]


@pytest.fixture(params=FORGERIES)
def forged(request: pytest.FixtureRequest, copy: Made, workshop: Workshop) -> Made:
    request.param(copy, workshop)
    return copy


@pytest.fixture(params=["user", "ec2"])
def keys(request: pytest.FixtureRequest, workshop: Workshop) -> tuple[str | Path, ...]:
    """The keys that open it and can check it: the user's, or EC2's and the user's certificate."""
    if request.param == "user":
        return ("--user-key", workshop.user.private)
    return ("--ec2-key", workshop.ec2.private, "--user-cert", workshop.user.certificate)


def test_unbundle(forged: Made, keys: tuple[str | Path, ...], tmp_path: Path) -> None:
    words = ("unbundle", forged.manifest, *keys, "-o")
    for output in (tmp_path / "disk", "-"):
        line = refused(*words, output)
        assert "signature of the manifest does not hold" in line
        assert str(forged.manifest) in line
        assert OPTION in line
    assert not (tmp_path / "disk").exists()
    ending = done(*words, tmp_path / "disk", OPTION)
    assert (tmp_path / "disk").exists()
    warned, said = ending.err.splitlines()
    assert "did not make it" in warned
    assert "did not make it" in said


def test_manifest(forged: Made, keys: tuple[str | Path, ...], tmp_path: Path) -> None:
    """What was forged gets no signature that is good."""
    words = ("manifest", forged.manifest, *keys, "-o", tmp_path / "new.xml")
    assert OPTION in refused(*words)
    assert not (tmp_path / "new.xml").exists()
    assert "did not make it" in done(*words, OPTION).err
    assert (tmp_path / "new.xml").exists()


def test_open(forged: Made, keys: tuple[str | Path, ...], mountpoint: Path) -> None:
    assert OPTION in refusal("open", forged.manifest, *keys, mountpoint, code=1)
    with opened(forged.manifest, mountpoint, *keys, OPTION) as mount:
        assert mount.disk.stat().st_size


def test_open_as_mount_gives_options(
    copy: Made, workshop: Workshop, user: tuple[str, Path], mountpoint: Path
) -> None:
    by_another(copy, workshop)
    words = (copy.manifest, mountpoint, "-o", f"open,user_key={user[1]}")
    assert OPTION in refused(*words)
    assert OPTION in refused(*words, "-f", program=MOUNT_BUNDLEFS, code=32)
    assert done(*words, "-f", "-o", "ignore_signature", program=MOUNT_BUNDLEFS).out == ""
    assert list(mountpoint.iterdir()) == []
    try:
        done(*words, "-o", "ignore_signature")
        assert (mountpoint / "image.img").stat().st_size == 200_000
    finally:
        detach(mountpoint)


def test_the_library(forged: Made, user_keys: KeyPair, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SignatureError, match="signature of the manifest does not hold") as caught:
        open_bundle(forged.manifest, user_keys.private)
    assert "--" not in str(caught.value), "a program has no options"
    with (
        caplog.at_level(logging.WARNING),
        open_bundle(forged.manifest, user_keys.private, ignore_signature=True) as disk,
    ):
        assert disk.read(0, 10)
    assert "did not make it" in caplog.text


def test_verify(forged: Made, keys: tuple[str | Path, ...]) -> None:
    ending = attempt("verify", "--json", forged.manifest, *keys)
    found = json.loads(ending.out)
    results = {check["name"]: check["result"] for check in found["checks"]}
    assert (ending.code, found["ok"], results.pop("signature")) == (1, False, "failed")
    assert set(results.values()) == {"ok"}, "all else is right: that is the point"


# What nobody can check is said


def unsigned(bundle: Made) -> None:
    signature = oracles.element(bundle.manifest, "signature")
    text = bundle.manifest.read_text()
    bundle.manifest.write_text(text.replace(signature, "UNSIGNED"))


def missing(bundle: Made) -> None:
    text = bundle.manifest.read_text()
    head, _, tail = text.partition("<signature>")
    bundle.manifest.write_text(head + tail.partition("</signature>")[2])


@pytest.fixture(params=[unsigned, missing])
def bare(request: pytest.FixtureRequest, copy: Made) -> Made:
    request.param(copy)
    return copy


SAID = "signature: the manifest has none"


@pytest.mark.parametrize("command", ["unbundle", "manifest"])
def test_no_signature(
    command: str, bare: Made, user: tuple[str | Path, ...], tmp_path: Path
) -> None:
    assert SAID in done(command, bare.manifest, *user, "-o", tmp_path / "new").err
    piped = ("sh", "-c", '"$@" -o - >/dev/null', "sh", *BUNDLEFS)
    ending = attempt(command, bare.manifest, *user, program=piped)
    assert (ending.code, SAID in ending.err) == (0, True)


def test_no_signature_of_what_is_opened(
    bare: Made,
    user: tuple[str, Path],
    mountpoint: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with opened(bare.manifest, mountpoint, *user) as mount:
        assert SAID in mount.log.read_text()
    with open_bundle(bare.manifest, user[1]):
        assert SAID in caplog.text


def test_ec2s_key_alone_cannot_check(made: Made, workshop: Workshop, tmp_path: Path) -> None:
    key = ("--ec2-key", workshop.ec2.private)
    said = "signature: not checked, since no key or certificate of the user is given (--user-cert)"
    assert said in done("unbundle", made.manifest, *key, "-o", tmp_path / "disk").err
    assert said in done("manifest", made.manifest, *key, "-o", tmp_path / "new.xml").err


def test_what_holds_is_said(
    made: Made, user: tuple[str, Path], tmp_path: Path, mountpoint: Path
) -> None:
    said = "signature: made by the user's key"
    assert said in done("unbundle", made.manifest, *user, "-o", tmp_path / "disk").err
    with opened(made.manifest, mountpoint, *user) as mount:
        assert said in mount.log.read_text()
    assert done("manifest", made.manifest, *user).err == ""


def test_the_wrong_key_is_told_before(made: Made, workshop: Workshop, tmp_path: Path) -> None:
    words = ("--user-key", workshop.ec2.private, "-o", tmp_path / "disk")
    assert "does not open" in refused("unbundle", made.manifest, *words)


def test_a_certificate_of_another(made: Made, workshop: Workshop, tmp_path: Path) -> None:
    keys = ("--ec2-key", workshop.ec2.private, "--user-cert", workshop.ec2.certificate)
    assert OPTION in refused("unbundle", made.manifest, *keys, "-o", tmp_path / "disk")
    assert "disk" not in leftovers(tmp_path)


@pytest.mark.parametrize("name", [name for name, each in BUNDLERS.items() if each.signed])
def test_no_bundler_is_taken_for_a_forger(
    name: str, made: Made, workshop: Workshop, tmp_path: Path, user: Sequence[str | Path]
) -> None:
    there = Workshop(tmp_path, workshop.user, workshop.ec2).make(made.image, BUNDLERS[name])
    ending = done("unbundle", there.manifest, *user, "-o", tmp_path / "disk")
    assert "signature: made by the user's key" in ending.err


def test_of_version_3_only_what_is_signed_is_read(workshop: Workshop, tmp_path: Path) -> None:
    """Its signature is over the image alone: a kernel that somebody put there is not the user's."""
    image = images.text_image(tmp_path / "disk", 10_000)
    there = Workshop(tmp_path, workshop.user, workshop.ec2)
    made = there.make(image, BUNDLERS["rPath, version 3"])
    forged = (
        "<machine_configuration><architecture>evil</architecture>"
        f"{bundles.MAPPING}<kernel_id>aki-evil</kernel_id></machine_configuration><image>"
    )
    text = made.manifest.read_text()
    made.manifest.write_text(text.replace("<image>", forged))
    new = tmp_path / "new.xml"
    done("manifest", made.manifest, "--user-key", workshop.user.private, "-o", new)
    assert oracles.element(new, "architecture") == "i386"
    assert "evil" not in new.read_text()
    assert "mapping" not in new.read_text()
