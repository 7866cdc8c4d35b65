"""A `BundleWriter` whose sink fails or is slow: the caller hears of it, or waits for it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from bundlefs import BundlefsError
from bundlefs.base.errors import ClosedError
from tests import reference
from tests.stream.badsinks import NotingSink, Plan, no_room, parts_in
from tests.stream.engine import HANG, SECRET
from tests.stream.writers import METADATA, PROMPT, bundled, writer
from tests.support import images

KIB = 1 << 10
MIB = 1 << 20

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
