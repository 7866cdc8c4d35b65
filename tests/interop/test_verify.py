"""`bundlefs verify`: what is checked with which keys, what is not and why, and the exit code."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.interop.back import MIB, done, peak_memory, refused, report
from tests.mount.commands import IMPATIENT, attempt, terminal
from tests.support import bundles, images
from tests.support.bundles import BUNDLERS, OF_NOTHING, Bundler, Made, Stages, Workshop
from tests.support.tools import pipeline, run

CHECKS = ["manifest", "signature", "sizes of the parts", "digests of the parts"]
CONTENT = "decryption, tar digest, image size"


@pytest.fixture(scope="module")
def image(workshop: Workshop) -> Path:
    return bundles.mixed_image(workshop.folder / "disk")


@pytest.fixture(scope="module")
def made(workshop: Workshop, image: Path) -> Made:
    return workshop.make(image, BUNDLERS["ec2-ami-tools"])


def outcomes(found: dict[str, tuple[str, str]]) -> list[str]:
    assert list(found) == [*CHECKS, CONTENT]
    return [outcome for outcome, _ in found.values()]


@pytest.mark.parametrize("name", [name for name, each in BUNDLERS.items() if each.signed])
def test_with_the_users_key_all_is_checked(name: str, workshop: Workshop, image: Path) -> None:
    made = workshop.make(image, BUNDLERS[name], name)
    found = report(done("verify", made.manifest, "--user-key", workshop.user.private).out)
    assert outcomes(found) == ["ok"] * 5
    assert BUNDLERS[name].version in found["manifest"][1]
    assert f"{len(made.parts)} parts" in found["manifest"][1]
    assert str(made.facts.size) in found[CONTENT][1]
    said = "not checked" if made.facts.digest == OF_NOTHING else str(made.facts.digest)
    assert said in found[CONTENT][1]


def test_without_a_key_the_parts_are(made: Made) -> None:
    found = report(done("verify", made.manifest).out)
    assert outcomes(found) == ["ok", "skipped", "ok", "ok", "skipped"]
    assert "--user-cert" in found["signature"][1]
    assert "--user-key" in found[CONTENT][1]


@pytest.mark.parametrize("form", ["certificate", "public"])
def test_with_a_certificate_the_signature_is(made: Made, workshop: Workshop, form: str) -> None:
    certificate = getattr(workshop.user, form)
    found = report(done("verify", made.manifest, "--user-cert", certificate).out)
    assert outcomes(found) == ["ok", "ok", "ok", "ok", "skipped"]
    assert "--user-key" in found[CONTENT][1]


def test_with_ec2s_key_all_but_the_signature_is(made: Made, workshop: Workshop) -> None:
    found = report(done("verify", made.manifest, "--ec2-key", workshop.ec2.private).out)
    assert outcomes(found) == ["ok", "skipped", "ok", "ok", "ok"]
    assert "--user-cert" in found["signature"][1]


def test_an_unsigned_bundle(workshop: Workshop, image: Path) -> None:
    made = workshop.make(image, BUNDLERS["euca2ools, unsigned"], "unsigned")
    keys = ("--ec2-key", workshop.ec2.private, "--user-cert", workshop.user.certificate)
    found = report(done("verify", made.manifest, *keys).out)
    assert outcomes(found) == ["ok", "skipped", "ok", "ok", "ok"]
    assert "has none" in found["signature"][1]


def test_an_encrypted_key(made: Made, workshop: Workshop, tmp_path: Path) -> None:
    locked = tmp_path / "locked.pem"
    options = ("-aes-256-cbc", "-passout", "pass:sesame", "-out", locked)
    run(("openssl", "pkey", "-in", workshop.user.private, *options))
    env = {"BUNDLEFS_PASSPHRASE": "sesame"}
    ending = done("verify", made.manifest, "--user-key", locked, env=env)
    assert outcomes(report(ending.out)) == ["ok"] * 5
    assert "sesame" not in ending.out + ending.err


def test_a_key_and_a_certificate_of_another(made: Made, workshop: Workshop) -> None:
    keys = ("--user-key", workshop.user.private, "--user-cert", workshop.ec2.certificate)
    assert "is not for the private key" in refused("verify", made.manifest, *keys, code=2)


def test_one_byte_of_the_manifest(made: Made, workshop: Workshop, tmp_path: Path) -> None:
    copy = made.copy(tmp_path / "copy")
    text = copy.manifest.read_text()
    copy.manifest.write_text(text.replace("<device>sda1<", "<device>sdb1<"))
    for option, key in (("--user-cert", "certificate"), ("--user-key", "private")):
        ending = attempt("verify", copy.manifest, option, getattr(workshop.user, key))
        found = report(ending.out)
        content = "ok" if option == "--user-key" else "skipped"
        assert outcomes(found) == ["ok", "FAILED", "ok", "ok", content]
        assert (ending.code, ending.err) == (1, "")
        assert "damaged" not in found[CONTENT][1]


def test_what_is_not_signed_may_change(made: Made, workshop: Workshop, tmp_path: Path) -> None:
    copy = made.copy(tmp_path / "copy")
    text = copy.manifest.read_text()
    copy.manifest.write_text(text.replace("<name>another<", "<name>renamed<"))
    found = report(done("verify", copy.manifest, "--user-key", workshop.user.private).out)
    assert outcomes(found) == ["ok"] * 5


def test_the_signature_of_another(made: Made, workshop: Workshop) -> None:
    ending = attempt("verify", made.manifest, "--user-cert", workshop.ec2.certificate)
    assert outcomes(report(ending.out)) == ["ok", "FAILED", "ok", "ok", "skipped"]
    assert ending.code == 1


def test_the_wrong_private_key(made: Made, workshop: Workshop) -> None:
    ending = attempt("verify", made.manifest, "--ec2-key", workshop.user.private)
    found = report(ending.out)
    assert outcomes(found) == ["ok", "skipped", "ok", "ok", "FAILED"]
    assert "does not open" in found[CONTENT][1]
    assert ending.code == 1


def test_a_wrong_tar_digest(made: Made, workshop: Workshop, tmp_path: Path) -> None:
    copy = made.copy(tmp_path / "copy")
    copy.rewrite(workshop.user, digest="1" * 40)
    ending = attempt("verify", copy.manifest, "--user-key", workshop.user.private)
    found = report(ending.out)
    assert outcomes(found) == ["ok", "ok", "ok", "ok", "FAILED"]
    assert str(made.facts.digest) in found[CONTENT][1]
    assert "1" * 40 in found[CONTENT][1]
    assert ending.code == 1


def test_what_the_manifest_does_not_say(made: Made, workshop: Workshop, tmp_path: Path) -> None:
    copy = made.copy(tmp_path / "copy")
    copy.rewrite(workshop.user, digest=None, bundled_size=None)
    found = report(done("verify", copy.manifest, "--user-key", workshop.user.private).out)
    assert outcomes(found) == ["ok"] * 5
    assert "does not tell" in found["sizes of the parts"][1]
    assert "not checked" in found[CONTENT][1]


def flip(part: Path) -> None:
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)


def test_every_damaged_part_is_named(made: Made, workshop: Workshop, tmp_path: Path) -> None:
    copy = made.copy(tmp_path / "copy")
    assert len(copy.parts) == 3
    flip(copy.parts[0])
    flip(copy.parts[2])
    ending = attempt("verify", copy.manifest, "--user-key", workshop.user.private)
    found = report(ending.out)
    assert outcomes(found) == ["ok", "ok", "ok", "FAILED", "skipped"]
    says = found["digests of the parts"][1]
    assert [part.name in says for part in copy.parts] == [True, False, True]
    assert "damaged" in found[CONTENT][1]
    assert ending.code == 1


@pytest.mark.parametrize("damage", [Path.unlink, lambda part: os.truncate(part, 1000)])
def test_parts_that_are_not_all_there(
    made: Made, workshop: Workshop, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    copy = made.copy(tmp_path / "copy")
    damage(copy.parts[1])
    ending = attempt("verify", copy.manifest, "--user-key", workshop.user.private)
    found = report(ending.out)
    assert outcomes(found) == ["ok", "ok", "FAILED", "skipped", "skipped"]
    assert copy.parts[1].name in found["sizes of the parts"][1]
    assert ending.code == 1


def test_parts_in_another_folder(made: Made, workshop: Workshop, tmp_path: Path) -> None:
    alone = tmp_path / "alone.xml"
    alone.write_bytes(made.manifest.read_bytes())
    words = ("verify", alone, "--user-key", workshop.user.private)
    found = report(done(*words, "--parts", made.manifest.parent).out)
    assert outcomes(found) == ["ok"] * 5
    assert attempt(*words).code == 1


def test_a_progress_bar_on_a_terminal(workshop: Workshop) -> None:
    stages = Stages(*(workshop.folder / f"zeros.{name}" for name in ("disk", "tar", "gz")))
    images.sparse_image(stages.image, 1024 * MIB, {})
    stages.tar.touch()
    start = bundles.member("image", 1024 * MIB)
    stages.compressed.write_bytes(bundles.zeros_gzip(start, 1024))
    made = workshop.seal(stages, Bundler(bundles.gnu_tar(), part_size=16 * 1024), "zeros")
    with terminal("verify", made.manifest, "--user-key", workshop.user.private) as shown:
        assert shown.finish() == 1  # the stream has no end
    for doing in ("digesting", "decrypting"):
        assert re.search(rf"\r{doing} image.manifest.xml: *[1-9][0-9]*%\|", shown.shown)
    with terminal("verify", "--quiet", made.manifest, "--user-key", workshop.user.private) as quiet:
        assert quiet.finish() == 1
    assert "%|" not in quiet.shown


def test_lines_of_progress_without_a_terminal(made: Made, workshop: Workshop) -> None:
    words = ("verify", made.manifest, "--user-key", workshop.user.private)
    ending, quiet = (attempt(*words, *option, program=IMPATIENT) for option in ((), ("-q",)))
    decrypting, digesting = ending.err.splitlines()  # and only what was not digested by then
    assert digesting.startswith(f"bundlefs: {made.manifest}: digesting, ")
    assert decrypting.startswith(f"bundlefs: {made.manifest}: decrypting, ")
    assert (ending.code, ending.out) == (quiet.code, quiet.out)
    assert (quiet.code, quiet.err) == (0, "")


def test_memory_does_not_grow_with_the_parts(made: Made, workshop: Workshop) -> None:
    folder = workshop.folder / "huge"
    folder.mkdir()
    # one large part, all of it a hole
    part = images.sparse_image(folder / "image.part.0", 256 * MIB, {})
    digest = run(["sha1sum", part]).split()[0].decode()
    huge = made.copy(workshop.folder / "copied")
    huge.rewrite(workshop.user, parts=[(part.name, digest)], bundled_size=256 * MIB)
    words = ("verify", "--parts", folder)
    usual = peak_memory("verify", made.manifest)
    code, peak = peak_memory(*words, huge.manifest)
    assert (usual[0], code) == (0, 0)
    assert peak < usual[1] + 64 * MIB


def test_a_reader_that_reads_no_further(made: Made) -> None:
    """As `bundlefs verify | head -1`: an end without a traceback."""
    script = '{ "$1" -m bundlefs verify "$2" && exit 1 || test $? = 141; } | true'
    assert pipeline(script, sys.executable, made.manifest) == (b"", "")


def as_json(*words: str | Path) -> tuple[int, dict[str, Any]]:
    ending = attempt("verify", "--json", *words)
    assert ending.err == ""
    return ending.code, json.loads(ending.out)


def test_as_json(made: Made, workshop: Workshop) -> None:
    """The same checks, words and exit code."""
    words = (made.manifest, "--user-key", workshop.user.private)
    code, found = as_json(*words)
    assert (code, list(found), found["ok"]) == (0, ["ok", "checks"], True)
    lines = [f"{each['result']:7}  {each['name']}: {each['text']}" for each in found["checks"]]
    assert lines == done("verify", *words).out.splitlines()
    assert [each["name"] for each in found["checks"]] == [*CHECKS, CONTENT]


def test_what_fails_and_what_is_skipped_as_json(
    made: Made, workshop: Workshop, tmp_path: Path
) -> None:
    copy = made.copy(tmp_path / "copy")
    flip(copy.parts[0])
    code, found = as_json(copy.manifest, "--ec2-key", workshop.ec2.private)
    results = [each["result"] for each in found["checks"]]
    assert (code, found["ok"]) == (1, False)
    assert results == ["ok", "skipped", "ok", "failed", "skipped"]
    code, found = as_json(made.manifest)
    assert (code, found["ok"]) == (0, True), "what nobody could check has not failed"


def test_no_manifest_as_json(tmp_path: Path) -> None:
    path = tmp_path / "image.manifest.xml"
    path.write_text("<html/>")
    code, found = as_json(path)
    [check] = found["checks"]
    assert (code, found["ok"]) == (1, False)
    assert (check["name"], check["result"]) == ("manifest", "failed")
    assert refused("verify", path) == f"bundlefs: {check['text']}"
