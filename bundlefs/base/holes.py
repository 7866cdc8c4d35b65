"""Runs of zeros in data, for whoever leaves them out of a file: a hole there reads as zeros."""

from collections.abc import Iterator

GRAIN = 64 << 10
"""Bytes that are looked at together: a hole is as long or longer."""

_ZEROS = bytes(GRAIN)


def grains_with_data(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Cut `data` into grains and return those that are not all zeros, each with its offset in it.

    Grains are counted from the start of `data`, and the last one may be shorter.
    """
    for start in range(0, len(data), GRAIN):
        grain = data[start : start + GRAIN]
        if grain != _ZEROS[: len(grain)]:
            yield start, grain
