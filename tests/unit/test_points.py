"""Chunks: each is made once, however many want it; what could not be made is tried again."""

import gzip
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from bundlefs.base.spans import Span
from bundlefs.codec.gzip_points import Chunks, GzipPoints

SIZE = 1000
CONTENT = bytes(range(256)) * 40


class Made:
    """Makes chunks of `CONTENT` and counts; each takes until `go` is set."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.go = threading.Event()

    def __call__(self, number: int) -> bytes:
        self.counts[number] += 1
        assert self.go.wait(10)
        return CONTENT[number * SIZE : (number + 1) * SIZE]


def test_reads_across_chunks_and_at_the_end() -> None:
    made = Made()
    made.go.set()
    chunks = Chunks(SIZE, made)
    for offset, length in [(0, 0), (0, 1), (999, 2), (10, 5000), (10_230, 100), (10_240, 1)]:
        assert chunks.read(offset, length) == CONTENT[offset : offset + length]


def test_a_chunk_that_many_wait_for_is_made_once() -> None:
    made = Made()
    chunks = Chunks(SIZE, made)
    together = threading.Barrier(17)

    def read(at: int) -> bytes:
        together.wait(10)
        return chunks.read(2 * SIZE + at, 10)

    with ThreadPoolExecutor(16) as pool:
        reads = [pool.submit(read, at) for at in range(16)]
        together.wait(10)
        time.sleep(0.1)  # for all to be waiting
        made.go.set()
        for at, answer in enumerate(reads):
            assert answer.result() == CONTENT[2 * SIZE + at : 2 * SIZE + at + 10]
    assert made.counts == {2: 1}


def test_nobody_waits_for_another_chunk() -> None:
    made = Made()
    slow = Chunks(SIZE, lambda number: made(number) if number else CONTENT[:SIZE])
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(slow.read, SIZE, 10)
        while not made.counts:
            time.sleep(0.001)
        assert slow.read(0, 10) == CONTENT[:10]
        made.go.set()
        assert read.result() == CONTENT[SIZE : SIZE + 10]


def test_what_failed_is_tried_again() -> None:
    attempts: list[int] = []

    def make(number: int) -> bytes:
        attempts.append(number)
        if len(attempts) == 1:
            raise ValueError("not yet")
        return CONTENT[:SIZE]

    chunks = Chunks(SIZE, make)
    with pytest.raises(ValueError, match="not yet"):
        chunks.read(0, 10)
    assert chunks.read(0, 10) == CONTENT[:10]
    assert attempts == [0, 0]


class Stream:
    """A gzip stream; notes how far the pass is that a read of it waits for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.points: GzipPoints | None = None
        self.seen: list[int | None] = []

    def read(self, span: Span) -> bytes:
        wait = self.points and self.points.wait
        self.seen.append(wait.done if wait else None)
        return self.data[span.start : span.stop]


def test_a_read_that_goes_through_much_is_told_of() -> None:
    stream = Stream(gzip.compress(bytes(160 << 20), 0))
    stream.points = points = GzipPoints(stream, ValueError, name="image")  # type: ignore[arg-type]
    assert points.read(8 << 20, 1) == b"\0"
    assert set(stream.seen) == {None}
    stream.seen.clear()
    assert points.read(150 << 20, 1) == b"\0"
    done = [each for each in stream.seen if each is not None]
    assert done == sorted(done)
    assert len(set(done)) > 10
    assert done[-1] < stream.size
    assert points.wait is None
    stream.seen.clear()
    # It was gone through: the points lead there now.
    assert points.read(100 << 20, 1) == points.read(20 << 20, 1) == b"\0"
    assert set(stream.seen) == {None}
    points.close()
