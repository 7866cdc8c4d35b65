"""How a file is cut for the kernel: whole pages, and its end first."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bundlefs.fuse.pagecache import slices


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=12), st.integers(1, 50))
def test_slices_are_the_file(pieces: list[bytes], length: int) -> None:
    whole = b"".join(pieces)
    cut = list(slices([memoryview(piece) for piece in pieces], length))
    assert [offset for offset, _ in cut] == list(reversed(range(0, len(whole), length)))
    assert b"".join(data for _, data in reversed(cut)) == whole
    assert all(len(data) == length for _, data in itertools.islice(cut, 1, None))
