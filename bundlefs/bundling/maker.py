"""Makes the blocks of a tar stream: reads those of an image, and deflates them.

    image - tar layout - blocks of 1 MiB - deflate each apart

A `Maker` is shared by the frontier, which has each block made once, and by those who read
behind it and need it again. It keeps nothing.

Concurrency: any thread may read or deflate any block.
"""

import threading
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

from bundlefs.base.errors import ImageChangedError
from bundlefs.base.spans import Span, ceil_div, joined
from bundlefs.base.storage import Storage
from bundlefs.codec import cbc, tar
from bundlefs.codec.deflate import BLOCK_SIZE, GZIP_HEADER, Codec, crc32, gzip_trailer, stored_size
from bundlefs.image.source import Source


class TarStream(Protocol):
    """The bytes that are bundled. `read` may be called from any thread."""

    @property
    def size(self) -> int:
        """Length of the tar stream in bytes."""

    def read(self, span: Span) -> bytes:
        """Return exactly the bytes of `span`, or raise."""


class ImageTar:
    """The tar stream of an image, by its layout."""

    def __init__(self, image: Source, layout: tar.TarLayout) -> None:
        self._image = image
        self._layout = layout
        self.size = layout.size

    def read(self, span: Span) -> bytes:
        """Return exactly the bytes of `span`, or raise."""
        return joined(
            [
                self._image.read(piece.span.start, piece.length)
                if isinstance(piece, tar.FromImage)
                else piece.data
                for piece in self._layout.pieces(span)
            ]
        )


@dataclass(frozen=True, slots=True)
class MadeBlock:
    """A block of the tar stream: its length, its CRC-32 and its deflated form."""

    size: int
    crc: int
    deflated: bytes


class Maker:
    """Reads and deflates the block of a number. The only caller of the codec.

    Attributes:
        size: of the tar stream, in bytes.
        blocks: how many it has.
        made: how many have been deflated, those that were made again included.
        made_again: how many of these somebody needed who read behind the frontier.

    Args:
        stream: what is bundled.
        codec: deflates.
        storage: what the stream lies on, if that may keep a read waiting.
    """

    def __init__(self, stream: TarStream, codec: Codec, storage: Storage | None = None) -> None:
        self._stream = stream
        self._storage = storage
        self._codec = codec
        self.size = stream.size
        self.blocks = ceil_div(stream.size, BLOCK_SIZE)
        self._lock = threading.Lock()
        self.made = self.made_again = 0

    def read(self, block: int) -> bytes:
        """Return the plain bytes of a block, from 0."""
        start = block * BLOCK_SIZE
        span = Span(start, min(start + BLOCK_SIZE, self.size))
        with self._storage.asked() if self._storage else nullcontext():
            return self._stream.read(span)

    @property
    def silent_seconds(self) -> float:
        """For how long storage has not answered; 0 for what any storage may take."""
        return self._storage.silent_seconds if self._storage else 0.0

    def deflate(self, plain: bytes) -> MadeBlock:
        """Deflate the plain bytes of a block."""
        made = MadeBlock(len(plain), crc32(plain), self._codec.compress(plain))
        with self._lock:
            self.made += 1
        return made

    def deflate_again(self, plain: bytes) -> MadeBlock:
        """Deflate the plain bytes of a block that was sealed before."""
        made = self.deflate(plain)
        with self._lock:
            self.made_again += 1
        return made


def require_same(block: int, before: int, now: int) -> None:
    """Refuse a block whose plain bytes are not what they were when it was first sealed."""
    if before != now:
        raise ImageChangedError(
            f"the image has changed: block {block}, at offset {block * BLOCK_SIZE} of its tar"
            f" stream, had CRC-32 {before:08x} and has {now:08x}; mount it anew with --fresh"
        )


def stored_stream_size(tar_size: int) -> int:
    """Return the size of the sealed stream with stored blocks: level 0's own, others' bound."""
    blocks, rest = divmod(tar_size, BLOCK_SIZE)
    deflated = blocks * stored_size(BLOCK_SIZE) + (stored_size(rest) if rest else 0)
    return cbc.sealed_size(len(GZIP_HEADER) + deflated + len(gzip_trailer(0, tar_size)))
