"""Random access to the tar stream in a bundle.

There are two ways to reach a point of its gzip stream. If bundlefs made the bundle and its index
is at hand, that tells where each block begins, and each block inflates alone. For any other
bundle there are access points.

Concurrency: any thread may read.
"""

from typing import Protocol

from isal import igzip_lib

from bundlefs.base.errors import BundleError
from bundlefs.base.progress import Wait
from bundlefs.base.spans import Span
from bundlefs.codec.deflate import BLOCK_SIZE, crc32
from bundlefs.codec.gzip_points import Chunks, GzipPoints
from bundlefs.state.points_file import PointsFile
from bundlefs.unbundling.unseal import Unsealed


class Plain(Protocol):
    """The tar stream by offset."""

    @property
    def wait(self) -> Wait | None:
        """What a read waits for that takes long, if one does."""

    def is_near(self, offset: int) -> bool:
        """Return whether bytes at an offset are quickly reached."""

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`, fewer only at the end of the stream."""

    def close(self) -> None:
        """Let go of the stream, and keep what is of use the next time."""


class Blocks(Protocol):
    """Where the blocks of a bundle are, and what is in them: an index, from wherever it came."""

    @property
    def blocks(self) -> int:
        """Number of blocks."""

    def gzip_span(self, block: int) -> Span:
        """Return the range of the gzip stream that a block makes up."""

    def crc(self, block: int) -> int:
        """Return the CRC-32 of the plain bytes of a block."""


class PlainByBlocks:
    """The tar stream of a bundle that bundlefs made, by its index."""

    def __init__(self, unsealed: Unsealed, index: Blocks) -> None:
        self._unsealed = unsealed
        self._index = index
        self._chunks = Chunks(BLOCK_SIZE, self._inflate)
        self.wait = None

    def is_near(self, offset: int) -> bool:  # noqa: ARG002  # so is every one
        """Return true: each block is reached at once."""
        return True

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`."""
        return self._chunks.read(offset, length)

    def _inflate(self, block: int) -> bytes:
        if block >= self._index.blocks:
            return b""
        deflated = self._unsealed.read(self._index.gzip_span(block))
        decoder = igzip_lib.IgzipDecompressor()
        try:
            plain = decoder.decompress(deflated, BLOCK_SIZE)
        except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub says instance
            raise BundleError(f"block {block} of the bundle is damaged: {error}") from error
        if crc32(plain) != self._index.crc(block):
            raise BundleError(f"block {block} of the bundle is not what its index says")
        return plain

    def close(self) -> None:
        """Do nothing: there is nothing to keep that the index does not have."""


class PlainByPoints:
    """The tar stream of any bundle, by access points, which are kept in `kept` if it is given."""

    def __init__(self, unsealed: Unsealed, kept: PointsFile | None, name: str) -> None:
        self._kept = kept
        known = self._kept.load() if self._kept else None
        self._points = GzipPoints(unsealed, BundleError, index=known, name=name)

    @property
    def wait(self) -> Wait | None:
        """The pass over the bundle, while a read waits for it."""
        return self._points.wait

    def is_near(self, offset: int) -> bool:
        """Return whether bytes at an offset are reached without a pass."""
        return self._points.is_near(offset)

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`."""
        return self._points.read(offset, length)

    def close(self) -> None:
        """Keep the access points, if there are more than there were."""
        grown = self._points.grown()
        if self._kept and grown:
            self._kept.save(grown)
        self._points.close()
