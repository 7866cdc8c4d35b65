"""Parts: they are cut where they end, and after an error nothing more is written."""

import threading
import time
from typing import Any

import pytest

from bundlefs import (
    MemorySink,
)
from bundlefs.base.errors import ClosedError
from bundlefs.bundling.sinks import PartWriter, written
from bundlefs.state.index import PART_SIZE, part_name
from tests import reference
from tests.stream.badsinks import IMAGE, MIB, NotingSink, Plan, bundle_to, parts_in
from tests.stream.engine import HANG


def name(number: int) -> str:
    return part_name("image", number, 2)


@pytest.mark.parametrize("piece", [PART_SIZE - 1, PART_SIZE, 3 * MIB, 25 * MIB])
def test_parts_are_cut_where_they_end(piece: int) -> None:
    sink = MemorySink()
    parts = PartWriter(sink, name)
    sealed = memoryview(IMAGE)
    for start in range(0, len(sealed), piece):
        parts.write(sealed[start : start + piece])
    parts.close()
    assert parts_in(sink.files) == reference.cut(IMAGE)


def test_a_full_last_part_has_no_empty_one_behind_it() -> None:
    sink = MemorySink()
    parts = PartWriter(sink, name, start=3 * PART_SIZE)
    parts.write(memoryview(IMAGE)[: 2 * PART_SIZE])
    parts.close()
    parts.close()
    assert sorted(sink.files) == ["image.part.03", "image.part.04"]


@pytest.mark.parametrize("call", ["open", "write", "close"])
def test_nothing_is_written_after_an_error(call: str) -> None:
    sink = NotingSink(Plan(call, times=1))
    parts = PartWriter(sink, name)
    with pytest.raises(OSError, match="No space"):
        parts.write(memoryview(IMAGE)[:PART_SIZE])
    assert (sink.files, sink.loose) == ({}, [])
    with pytest.raises(ClosedError):
        parts.write(memoryview(IMAGE)[: 2 * PART_SIZE])
    with pytest.raises(ClosedError):
        parts.close()
    parts.discard()
    assert (sink.files, sink.loose) == ({}, [])


def test_to_give_up_waits_for_the_write_under_way() -> None:
    """Else its file would be opened again behind the one who has swept up."""
    sink = NotingSink(pause=0.3)
    parts = PartWriter(sink, name)
    results: list[BaseException] = []

    def write() -> None:
        try:
            for _ in range(20):
                parts.write(memoryview(bytes(MIB)))
        except ClosedError as error:
            results.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(0.1)
    parts.discard()
    assert (sink.files, sink.loose) == ({}, [])
    thread.join(HANG)
    assert (sink.files, sink.loose, len(results)) == ({}, [], 1)


def test_the_first_error_is_the_one_that_is_told() -> None:
    class Worse(NotingSink):
        def open(self, filename: str) -> Any:  # noqa: ANN401  # a file of its own
            file = super().open(filename)

            def discard() -> None:
                raise ZeroDivisionError

            file.discard = discard  # type: ignore[method-assign]  # what a bad sink does
            return file

    with pytest.raises(OSError, match="No space"):
        bundle_to(Worse(Plan("write", 1)), IMAGE)
    with pytest.raises(OSError, match="No space"), written(Worse(Plan("close")), "x"):
        pass
