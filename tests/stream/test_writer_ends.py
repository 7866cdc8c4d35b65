"""The end of a `BundleWriter`: what it leaves behind, and which manifests there are after it."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from bundlefs import BundlefsError, BundleWriter, DirectorySink, MemorySink, Metadata
from bundlefs.base.errors import UsageError
from bundlefs.bundling.sinks import Sink
from bundlefs.keys.rsa import UserKeys
from bundlefs.keys.types import PublicKey
from tests.stream.badsinks import NotingSink, Plan, identity
from tests.stream.engine import HANG, SECRET
from tests.stream.writers import METADATA, PROMPT, bundled, writer
from tests.support import images, oracles
from tests.support.keys import KeyPair
from tests.support.tools import ACCOUNT

MIB = 1 << 20


# --- its end ---


def test_to_close_again_does_nothing() -> None:
    sink = NotingSink()
    bundle = writer(100, sink)
    bundle.write(bytes(100))
    bundle.close()
    before = dict(sink.files)
    bundle.close()
    bundle.abort()
    bundle.close()
    assert sink.files == before
    assert sink.order == ["image.part.00"]
    assert bundle.write_manifest(METADATA)


@pytest.mark.parametrize("end", [BundleWriter.close, BundleWriter.abort])
def test_nothing_is_written_after_the_end(end: Callable[[BundleWriter], None]) -> None:
    bundle = writer(100, MemorySink())
    bundle.write(bytes(100))
    end(bundle)
    with pytest.raises(BundlefsError, match="closed; nothing more"):
        bundle.write(b"x")
    with pytest.raises(BundlefsError, match="closed; nothing more"):
        bundle.write(b"")


def test_an_exception_leaves_whole_parts_alone() -> None:
    image = b"".join(images.noise(25 * MIB))
    sink = NotingSink()
    bundle = writer(len(image), sink)
    with pytest.raises(ZeroDivisionError), bundle:  # noqa: PT012  # what a user's block does
        bundle.write(image[: 23 * MIB])
        wait_until(lambda: len(sink.files) == 2)
        raise ZeroDivisionError
    assert sink.loose == []
    assert sink.files == dict(list(bundled(image, []).files.items())[:2])
    with pytest.raises(BundlefsError, match="given up"):
        bundle.write_manifest(METADATA)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def test_nothing_is_left_of_its_threads() -> None:
    before = threading.active_count()
    for end in (BundleWriter.close, BundleWriter.abort):
        bundle = writer(3 * MIB, MemorySink())
        bundle.write(bytes(3 * MIB))
        end(bundle)
    assert threading.active_count() == before


def test_a_program_ends_though_nobody_closed_it(tmp_path: Path) -> None:
    """A script that breaks off must show its traceback and not stand still for ever."""
    script = (
        "import sys; from bundlefs import *;"
        " w = BundleWriter('image', 9_000_000, DirectorySink(sys.argv[1]));"
        " w.write(bytes(5_000_000)); raise ZeroDivisionError"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        capture_output=True,
        text=True,
        timeout=PROMPT,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError"
    assert done.stderr.count("Traceback") == 1


# --- manifests ---


def closed(sink: Sink) -> BundleWriter:
    bundle = writer(100, sink)
    bundle.write(bytes(100))
    bundle.close()
    return bundle


@pytest.mark.parametrize("written", [0, 100])
def test_no_manifest_before_the_end(written: int) -> None:
    sink = NotingSink()
    bundle = writer(100, sink)
    bundle.write(bytes(written))
    with pytest.raises(BundlefsError, match="close the bundle first"):
        bundle.write_manifest(METADATA)
    bundle.abort()
    with pytest.raises(BundlefsError, match="given up"):
        bundle.write_manifest(METADATA)
    assert sink.files == {}


def test_regions_share_the_parts() -> None:
    sink, elsewhere = MemorySink(), MemorySink()
    bundle = closed(sink)
    assert bundle.write_manifest(METADATA, region="eu-west-1") == "image.manifest.xml"
    cn = bundle.write_manifest(METADATA, region="cn-north-1")
    gov = bundle.write_manifest(Metadata(ACCOUNT, arch="i386"), elsewhere, region="us-gov-west-1")
    assert (cn, gov) == ("image.cn-north-1.manifest.xml", "image.us-gov-west-1.manifest.xml")
    assert sorted(sink.files) == [cn, "image.manifest.xml", "image.part.00"]
    assert list(elsewhere.files) == [gov]
    assert b"<architecture>i386</architecture>" in elsewhere.files[gov]


@pytest.mark.parametrize("region", ["ap-east-1", "mars-1", "../x"])
def test_a_region_whose_key_nobody_knows_is_refused(region: str) -> None:
    sink = MemorySink()
    bundle = closed(sink)
    with pytest.raises(UsageError, match="region"):
        bundle.write_manifest(METADATA, region=region)
    assert list(sink.files) == ["image.part.00"]


@pytest.mark.parametrize("region", ["mars-1", "eu-west-1", None])
def test_a_key_may_be_given_for_any_region(
    region: str | None, region_keys: KeyPair, user_keys: KeyPair, tmp_path: Path
) -> None:
    key = load_pem_public_key(region_keys.public.read_bytes())
    assert isinstance(key, PublicKey)
    bundle = BundleWriter(
        "image",
        100,
        DirectorySink(tmp_path),
        user_keys=UserKeys.load(user_keys.private, None),
        state=identity(),
    )
    with bundle:
        bundle.write(bytes(100))
    name = bundle.write_manifest(METADATA, region=region, ec2_key=key)
    assert name == f"image.{region}.manifest.xml" if region else "image.manifest.xml"
    wanted = oracles.Secrets(SECRET.key.hex(), SECRET.iv.hex())
    assert oracles.secrets(tmp_path / name, region_keys.private, "ec2") == wanted
    assert oracles.secrets(tmp_path / name, user_keys.private, "user") == wanted
    assert oracles.verify_signature(tmp_path / name, user_keys.public, tmp_path) == "Verified OK"
    assert oracles.part_names(tmp_path / name) == ["image.part.00"]
    assert oracles.part_digests(tmp_path / name) == oracles.sha1sum([tmp_path / "image.part.00"])


def test_a_manifest_that_cannot_be_written_is_tried_again() -> None:
    for call in ("open", "write", "close"):
        sink = NotingSink()
        bundle = closed(sink)
        sink.plan = Plan(call, times=1)
        with pytest.raises(OSError, match="No space"):
            bundle.write_manifest(METADATA)
        assert (list(sink.files), sink.loose) == (["image.part.00"], []), call
        assert bundle.write_manifest(METADATA) in sink.files
