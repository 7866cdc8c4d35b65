"""What is written to a `BundleWriter` is a bundle, whatever the pieces; nothing else ever is."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bundlefs import BundlefsError, BundleWriter, DirectorySink, MemorySink, Metadata
from bundlefs.base.errors import ClosedError, UsageError
from bundlefs.bundling.sinks import Sink
from bundlefs.keys.rsa import UserKeys
from bundlefs.keys.types import PublicKey
from bundlefs.state.index import PART_SIZE
from tests import reference
from tests.stream.badsinks import NotingSink, Plan, identity, no_room, parts_in
from tests.stream.engine import (
    CREATED,
    HANG,
    SECRET,
    Setting,
    manifest_of,
    opened,
    read_parts,
    user_keys,
)
from tests.support import images, oracles
from tests.support.keys import KeyPair
from tests.support.tools import ACCOUNT

KIB = 1 << 10
MIB = 1 << 20
METADATA = Metadata(ACCOUNT)
TAR_HEADER = 512
PROMPT = 10
"""Seconds within which an error must have reached the caller; it takes milliseconds."""


def writer(size: int, sink: Sink, level: int = 1, jobs: int | None = 2) -> BundleWriter:
    """Make a writer with the identity of the other tests."""
    keys = user_keys()
    return BundleWriter(
        "image", size, sink, level=level, jobs=jobs, user_keys=keys, state=identity()
    )


def bundled(image: bytes, cuts: list[int], level: int = 1, jobs: int = 2) -> MemorySink:
    """Write `image` in pieces that end at `cuts`."""
    sink = MemorySink()
    with writer(len(image), sink, level, jobs) as bundle:
        for start, stop in zip([0, *cuts], [*cuts, len(image)], strict=True):
            bundle.write(image[start:stop])
    return sink


def undone(sink: MemorySink) -> bytes:
    """Give the tar stream of a bundle."""
    return reference.unbundle(parts_in(sink.files), SECRET.key, SECRET.iv)


def expected_tar(image: bytes) -> bytes:
    return reference.tar_stream(image, "image", CREATED)


# --- the bytes ---


@pytest.mark.parametrize("level", [0, 1, 6])
@pytest.mark.parametrize(
    "size",
    [1, 511, 512, 513, 9 * KIB, MIB - TAR_HEADER - 1, MIB - TAR_HEADER, MIB - TAR_HEADER + 1,
     MIB, 2 * MIB, 10 * MIB, 11 * MIB + 3],
)  # fmt: skip
def test_any_size_is_what_python_archives(size: int, level: int) -> None:
    image = b"".join(images.noise(size))
    sink = bundled(image, [], level)
    assert undone(sink) == expected_tar(image)
    parts = parts_in(sink.files)
    assert {len(part) for part in parts[:-1]} <= {PART_SIZE}
    assert 0 < len(parts[-1]) <= PART_SIZE


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 3 * MIB),
    cuts=st.lists(st.integers(0, 3 * MIB), max_size=12),
    jobs=st.integers(1, 4),
)
@example(size=MIB - TAR_HEADER, cuts=[MIB - TAR_HEADER], jobs=1)
@example(size=2 * MIB, cuts=[MIB - TAR_HEADER, MIB - TAR_HEADER], jobs=1)
def test_any_pieces_give_the_same(size: int, cuts: list[int], jobs: int) -> None:
    image = images.text(size)
    pieces = sorted(min(cut, size) for cut in cuts)
    sink = bundled(image, pieces, jobs=jobs)
    assert undone(sink) == expected_tar(image)


def test_pieces_of_every_size_give_the_same_parts() -> None:
    image = b"".join(images.noise(PART_SIZE + 300 * KIB))
    whole = bundled(image, []).files
    for piece in (4093, MIB - 1, MIB, 4 * MIB + 1):
        assert bundled(image, list(range(piece, len(image), piece))).files == whole


def test_single_bytes_are_taken() -> None:
    image = images.text(70_001)
    assert undone(bundled(image, list(range(1, len(image))))) == expected_tar(image)


@pytest.mark.parametrize(
    "form",
    [
        bytes,
        bytearray,
        memoryview,
        lambda data: memoryview(bytearray(data)),
        lambda data: memoryview(data).cast("I"),
        lambda data: memoryview(b"__" + data)[2:],
    ],
)
def test_any_bytes_like_is_taken(form: Callable[[bytes], bytes]) -> None:
    image = images.text(2 * MIB + 4)
    sink = MemorySink()
    with writer(len(image), sink) as bundle:
        assert bundle.write(form(image[:MIB])) == MIB
        assert bundle.write(form(b"")) == 0
        assert bundle.write(form(image[MIB:])) == MIB + 4
    assert undone(sink) == expected_tar(image)


def test_a_buffer_may_be_used_again_at_once() -> None:
    image = b"".join(images.noise(3 * MIB))
    buffer = bytearray(100_000)
    sink = MemorySink()
    with writer(len(image), sink) as bundle:
        for start in range(0, len(image), len(buffer)):
            piece = image[start : start + len(buffer)]
            buffer[: len(piece)] = piece
            bundle.write(memoryview(buffer)[: len(piece)])
            buffer[:] = bytes(len(buffer))
            # A buffer that something still looks into could not grow.
            buffer.append(0)
            del buffer[-1]
    assert undone(sink) == expected_tar(image)


@pytest.mark.parametrize("level", [0, 1, 6])
def test_it_writes_what_a_mount_shows(mixed: Path, level: int) -> None:
    sink = bundled(mixed.read_bytes(), [5 * MIB], level)
    with opened(mixed, Setting(level=level, sparse=False)) as bundle:
        assert parts_in(sink.files) == read_parts(bundle)


def test_its_manifest_says_what_that_of_a_mount_says(mixed: Path) -> None:
    sink = MemorySink()
    with writer(mixed.stat().st_size, sink) as bundle:
        bundle.write(mixed.read_bytes())
    assert bundle.write_manifest(METADATA) == "image.manifest.xml"
    with opened(mixed, Setting(level=1, sparse=False)) as shown:
        theirs = manifest_of(shown)
    ours = sink.files["image.manifest.xml"].decode()
    assert without_random(ours) == without_random(theirs)
    assert "<filename>image.part.01</filename>" in ours


def without_random(manifest: str) -> str:
    """Cut out what is encrypted, which never comes out twice the same, and its signature."""
    for name in ("ec2_encrypted_key", "ec2_encrypted_iv", "user_encrypted_key",
                 "user_encrypted_iv", "signature"):  # fmt: skip
        head, tag, rest = manifest.partition(f"<{name}")
        assert tag, name
        manifest = head + rest[rest.index(f"</{name}>") :]
    return manifest


def test_every_bundle_has_a_secret_of_its_own() -> None:
    once, again = MemorySink(), MemorySink()
    for sink in (once, again):
        with BundleWriter("image", 100, sink) as bundle:
            bundle.write(bytes(100))
    assert once.files != again.files


# --- how many bytes ---


@pytest.mark.parametrize("written", [0, 1, 99])
def test_fewer_bytes_are_refused_at_the_end(written: int) -> None:
    sink = NotingSink()
    bundle = writer(100, sink)
    bundle.write(bytes(written))
    with pytest.raises(BundlefsError, match=rf"^{written} bytes .*announced is 100$"):
        bundle.close()
    assert (sink.files, sink.loose) == ({}, [])


@pytest.mark.parametrize("before", [0, 60, 100])
def test_more_bytes_are_refused_at_once(before: int) -> None:
    sink = MemorySink()
    with writer(100, sink) as bundle:
        bundle.write(bytes(before))
        with pytest.raises(BundlefsError, match=r"^101 bytes .*announced is 100$"):
            bundle.write(bytes(101 - before))
        # Nothing of it was taken, so that the rest may still come.
        bundle.write(bytes(100 - before))
    assert undone(sink) == expected_tar(bytes(100))


@pytest.mark.parametrize("size", [0, -1, -(1 << 40)])
def test_no_image_is_that_small(size: int) -> None:
    with pytest.raises(UsageError, match=f"1 byte or more, not {size}"):
        BundleWriter("image", size, MemorySink())


@pytest.mark.parametrize(
    "name", ["", "a/b", "../x", "/x", ".", "..", ".x", "a\nb", "a\0b", "x" * 101]
)
def test_a_name_is_one_of_files(name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        BundleWriter(name, 1, MemorySink())


@pytest.mark.parametrize("level", [-1, 10])
def test_levels_are_0_to_9(level: int) -> None:
    with pytest.raises(UsageError, match="level"):
        BundleWriter("image", 1, MemorySink(), level=level)


@pytest.mark.parametrize("jobs", [0, -1])
def test_somebody_must_work(jobs: int) -> None:
    with pytest.raises(UsageError, match="thread"):
        BundleWriter("image", 1, MemorySink(), jobs=jobs)


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


# --- a sink that fails ---

IMAGE = b"".join(images.noise(25 * MIB))
CALLS = {
    "the first part is not opened": Plan("open", 0),
    "the second part is not opened": Plan("open", 1),
    "the first write": Plan("write", 0),
    "a write in the middle": Plan("write", 14),
    "the first part is not closed": Plan("close", 0),
    "the last part is not closed": Plan("close", 2),
}


def pieces(image: bytes, size: int = 256 * KIB) -> Iterator[bytes]:
    return (image[start : start + size] for start in range(0, len(image), size))


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    return bundled(IMAGE, [], 0).files


@pytest.mark.parametrize("times", [1, 1 << 30])
@pytest.mark.parametrize("case", CALLS)
def test_a_failure_reaches_the_caller(case: str, times: int, whole: dict[str, bytes]) -> None:
    """Also where the sink would take more after it: what comes then has lost what came before."""
    plan = CALLS[case]
    error = no_room()
    sink = NotingSink(Plan(plan.call, plan.after, times, error))
    start = time.monotonic()
    with pytest.raises(OSError, match="No space") as raised:  # noqa: SIM117, PT012  # the whole use
        with writer(len(IMAGE), sink, 0) as bundle:
            for piece in pieces(IMAGE):
                bundle.write(piece)
    assert time.monotonic() - start < PROMPT
    assert raised.value is error
    assert sink.loose == []
    assert sink.files.items() < whole.items()
    with pytest.raises(BundlefsError, match="given up"):
        bundle.write_manifest(METADATA)
    sink.plan = Plan()
    with writer(len(IMAGE), sink, 0) as bundle:
        bundle.write(IMAGE)
    assert sink.files == whole


def test_what_a_sink_lost_is_not_made_up_for() -> None:
    """One write fails, those on their way behind it would fill the part up: it must not be."""
    sink = NotingSink(Plan("write", 5, times=1), pause=0.03)
    sink.gate.clear()
    bundle = writer(30 * MIB, sink, 0)
    bundle.write(bytes(18 * MIB))
    sink.gate.set()
    # The caller is busy elsewhere; all that is on its way has time to arrive.
    time.sleep(1)
    with pytest.raises(OSError, match="No space"):
        bundle.close()
    assert (sink.files, sink.loose) == ({}, [])


def test_the_error_of_a_sink_comes_again_at_the_end() -> None:
    """Who closes in a `finally` hears of the disk, and not that bytes are missing."""
    sink = NotingSink(Plan("write", 3))
    bundle = writer(len(IMAGE), sink, 0)
    with pytest.raises(OSError, match="No space"):  # noqa: PT012  # one of them
        for piece in pieces(IMAGE):
            bundle.write(piece)
    with pytest.raises(OSError, match="No space"):
        bundle.write(b"x")
    with pytest.raises(OSError, match="No space"):
        bundle.close()
    assert (sink.files, sink.loose) == ({}, [])


def test_a_writer_that_waits_hears_of_the_failure() -> None:
    """The sink is stuck, then fails: the caller is in the middle of a `write` that waits for it."""
    sink = NotingSink(Plan("write", 0))
    sink.gate.clear()
    threading.Timer(0.3, sink.gate.set).start()
    start = time.monotonic()
    bundle = writer(60 * MIB, sink, 0, 1)
    with pytest.raises(OSError, match="No space"):
        bundle.write(bytes(60 * MIB))
    assert 0.2 < time.monotonic() - start < PROMPT
    bundle.abort()


def test_a_slow_sink_holds_the_caller_up() -> None:
    sink = NotingSink()
    sink.gate.clear()
    bundle = writer(80 * MIB, sink, 0, 1)
    taken = threading.Semaphore(0)

    def feed() -> None:
        with suppress(BundlefsError):
            for _ in range(80):
                bundle.write(bytes(MIB))
                taken.release()

    thread = threading.Thread(target=feed)
    thread.start()
    ahead = 0
    while taken.acquire(timeout=0.5):
        ahead += 1
    assert 2 < ahead < 40
    sink.gate.set()
    thread.join(HANG)
    bundle.close()
    assert reference.untar(
        reference.unbundle(parts_in(sink.files), SECRET.key, SECRET.iv)
    ) == bytes(80 * MIB)


def test_an_interrupted_write_is_no_bundle() -> None:
    """Ctrl-C while `write` waits: it is not known what was taken, so nothing goes on from there."""
    sink = NotingSink()
    sink.gate.clear()
    bundle = writer(60 * MIB, sink, 0, 1)
    source = bundle._source  # noqa: SLF001  # where a signal would come in
    push = source.push

    def interrupted(data: memoryview, ended: Callable[[], bool]) -> None:
        push(data[: MIB + 7], ended)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "push", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bundle.write(bytes(2 * MIB))
    sink.gate.set()
    with pytest.raises(ClosedError, match="interrupted"):
        bundle.write(bytes(2 * MIB))
    with pytest.raises(ClosedError, match="interrupted"):
        bundle.close()
    assert (sink.files, sink.loose) == ({}, [])


# --- memory and processors ---

DROPPING = """
import json, sys, threading
from bundlefs import BundleWriter
from bundlefs.bundling.writer import default_jobs
class Dropped:
    def open(self, name): return self
    def write(self, data): pass
    def close(self): pass
    def discard(self): pass
size, level = int(sys.argv[1]), int(sys.argv[2])
piece = bytes(range(256)) * (1 << 14)
pool = set()
with BundleWriter("image", size, Dropped(), level=level) as writer:
    for _ in range(size // len(piece)):
        writer.write(piece)
        pool |= {t.name for t in threading.enumerate() if t.name.startswith("block")}
# Not getrusage: that counts what the process was before its exec.
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(json.dumps({"peak": int(peak) << 10, "pool": len(pool), "jobs": default_jobs()}))
"""


def dropped(size: int, level: int) -> dict[str, int]:
    """Bundle `size` bytes to nowhere, in a process of its own; give its peak memory and threads."""
    command = [sys.executable, "-c", DROPPING, str(size), str(level)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("level", [0, 1])
def test_memory_does_not_grow_with_the_image(level: int) -> None:
    small, large = dropped(256 * MIB, level), dropped(1024 * MIB, level)
    assert large["peak"] < small["peak"] + 16 * MIB
    assert large["peak"] < 160 * MIB


def test_all_processors_are_used() -> None:
    found = dropped(64 * MIB, 1)
    assert found["pool"] == found["jobs"]


def test_it_says_nothing_by_itself(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A library that fails tells its caller, not the caller's stderr."""
    (tmp_path / "file").touch()
    script = (
        "from bundlefs import *\n"
        "with BundleWriter('image', 1, DirectorySink('file/x')) as w: w.write(b'x')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.stderr.startswith("Traceback")
    assert "'file/x'" in done.stderr.splitlines()[-1]
    assert capfd.readouterr() == ("", "")
