"""The index: what the frontier leaves behind, and all that random access needs.

A *boundary* lies before each block and after the last. It is the offset in the gzip stream, the
CBC state there, and (for the block before it) the CRC-32 of the block's plain bytes: about 44
bytes for each MiB of the tar stream. Ciphertext comes in whole 16-byte units, so a block's sealed
bytes start at its gzip offset rounded down to 16; the bytes in between are the carry.

Concurrency: one writer (the frontier's sealing lane) and any number of readers, who see an
immutable prefix: `append` publishes a boundary by its very last step.
"""

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field

from bundlefs.base.spans import Span, ceil_div
from bundlefs.codec.cbc import BLOCK as CBC_BLOCK
from bundlefs.codec.cbc import CbcState
from bundlefs.codec.deflate import GZIP_HEADER

PART_SIZE = 10 << 20
"""Every known bundler cuts here [contrib/format.md]."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What is known at the end: CRC-32 and SHA-1 of the tar stream, size of the sealed stream."""

    crc: int
    digest: str
    sealed_size: int


@dataclass(frozen=True, slots=True)
class IndexDump:
    """An index as bytes to be saved: arrays of u64 and u32 in native byte order, 32-byte states."""

    offsets: bytes
    crcs: bytes
    states: bytes = field(repr=False)
    part_digests: tuple[str, ...]
    totals: Totals | None

    @property
    def blocks(self) -> int:
        """Number of blocks sealed."""
        return len(self.crcs) // array("I").itemsize


class Index:
    """Boundaries of the blocks sealed so far, digests of the parts, and the totals at the end."""

    def __init__(self, iv: bytes) -> None:
        self._offsets = array("Q", [len(GZIP_HEADER)])
        self._crcs = array("I")
        self._states = bytearray(_pack(CbcState(iv, GZIP_HEADER)))
        # The totals, and how many blocks there are once they count.
        self._end: tuple[int, Totals] | None = None
        self.part_digests: list[str] = []

    @property
    def totals(self) -> Totals | None:
        """What is known once the last block is sealed."""
        return self._totals_at(self.blocks)

    def _totals_at(self, blocks: int) -> Totals | None:
        return self._end[1] if self._end and self._end[0] == blocks else None

    @property
    def blocks(self) -> int:
        """Number of blocks sealed."""
        return len(self._offsets) - 1

    @property
    def position(self) -> int:
        """Length of the sealed stream as far as it has been made."""
        totals = self.totals
        return totals.sealed_size if totals else self._sealed(self.blocks)

    def append(self, deflated_size: int, state: CbcState, crc: int) -> None:
        """Add the boundary behind the next block."""
        self._crcs.append(crc)
        self._states += _pack(state)
        self._offsets.append(self._offsets[-1] + deflated_size)

    def append_last(self, deflated_size: int, state: CbcState, crc: int, totals: Totals) -> None:
        """Add the last boundary; the totals count from the moment when it is there."""
        self._end = self.blocks + 1, totals
        self.append(deflated_size, state, crc)

    def dump(self) -> IndexDump:
        """Return a copy of what is published now; the writer may go on meanwhile."""
        blocks = self.blocks
        totals = self._totals_at(blocks)
        position = self._sealed(blocks)
        full = len(self.part_digests) if totals else position // PART_SIZE
        return IndexDump(
            self._offsets[: blocks + 1].tobytes(),
            self._crcs[:blocks].tobytes(),
            bytes(self._states[: (blocks + 1) * 2 * CBC_BLOCK]),
            tuple(self.part_digests[:full]),
            totals,
        )

    def load(self, dump: IndexDump) -> None:
        """Take over a dump, before anyone has read or written this index."""
        self._offsets = array("Q", dump.offsets)
        self._crcs = array("I", dump.crcs)
        self._states = bytearray(dump.states)
        self.part_digests = list(dump.part_digests)
        self._end = (self.blocks, dump.totals) if dump.totals else None

    def state(self, boundary: int) -> CbcState:
        """Return the CBC state at a boundary, from 0 to `blocks`."""
        start = boundary * 2 * CBC_BLOCK
        middle = start + CBC_BLOCK
        carry = self._offsets[boundary] % CBC_BLOCK
        return CbcState(
            bytes(self._states[start:middle]), bytes(self._states[middle : middle + carry])
        )

    def crc(self, block: int) -> int:
        """Return the CRC-32 of the plain bytes of a sealed block."""
        return self._crcs[block]

    def block_span(self, block: int) -> Span:
        """Return the range of the sealed stream that a sealed block makes up."""
        totals = self.totals
        if totals and block == self.blocks - 1:
            return Span(self._sealed(block), totals.sealed_size)
        return Span(self._sealed(block), self._sealed(block + 1))

    def gzip_span(self, block: int) -> Span:
        """Return the range of the gzip stream that a sealed block makes up."""
        return Span(self._offsets[block], self._offsets[block + 1])

    def block_at(self, offset: int) -> int:
        """Return the sealed block that holds this offset of the sealed stream."""
        # Several boundaries may lie in one 16-byte unit: the last block that starts there has it.
        behind = bisect_right(self._offsets, offset // CBC_BLOCK, key=_unit)
        return min(behind - 1, self.blocks - 1)

    def _sealed(self, boundary: int) -> int:
        return _unit(self._offsets[boundary]) * CBC_BLOCK


def _unit(offset: int) -> int:
    """Return the number of the 16-byte unit of ciphertext that an offset lies in."""
    return offset // CBC_BLOCK


def _pack(state: CbcState) -> bytes:
    return state.chain + state.carry.ljust(CBC_BLOCK, b"\0")


def part_count(sealed_size: int) -> int:
    """Return the number of parts; there is no empty one behind an exact multiple."""
    return ceil_div(sealed_size, PART_SIZE)


def number_width(bound: int) -> int:
    """Return how many digits a part's number has in its name, for a sealed stream up to `bound`.

    Names are fixed before anything is made: the width is that of the largest possible number,
    and at least 2.
    """
    return max(2, len(str(part_count(bound) - 1)))


def part_name(prefix: str, number: int, width: int) -> str:
    """Return the file name of a part, whose number has `width` digits."""
    return f"{prefix}.part.{number:0{width}d}"
