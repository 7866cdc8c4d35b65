"""The format of a state file, byte by byte; contrib/format.md describes it for other programs.

One line names the format and its version, one line of JSON is the header, the arrays of the index
and the extents of the image follow, and a SHA-256 of all that ends the file. Nothing here
touches a file.
"""

import hashlib
import json
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from bundlefs.base.spans import Span
from bundlefs.keys.rsa import Secret
from bundlefs.state.index import IndexDump, Totals

VERSION = 1
MAGIC = b"bundlefs-state "
_CHECKSUM = 32


@dataclass(frozen=True, slots=True)
class StateContents:
    """All that a state file holds.

    Attributes:
        image: the path of the image.
        terms: what the bytes depend on, by names that a person understands.
        recipients: the fingerprint of the key that each manifest is encrypted for, by file name.
        created_ns: when the bundle was begun; all times are in nanoseconds since 1970.
        extents: where the image has data, or None if its holes are stored as well.
        manifests: those that were rendered, by file name.
        shown_ns: the time that the files show, or 0 while that is `created_ns`.
        taken_ns: when this became the current bundle the last time, or 0 while that is
            `created_ns`.
        untouched: whether nobody can have read a byte of it, ever.
        gone_ns: the latest `taken` of the bundles that were read and are not kept any more.
    """

    image: str
    terms: dict[str, str]
    recipients: dict[str, str]
    secret: Secret
    created_ns: int
    extents: tuple[Span, ...] | None = field(repr=False)
    index: IndexDump = field(repr=False)
    manifests: dict[str, str] = field(repr=False)
    shown_ns: int = 0
    taken_ns: int = 0
    untouched: bool = False
    gone_ns: int = 0

    @property
    def shown(self) -> int:
        """The time that the files show, in ns since 1970."""
        return self.shown_ns or self.created_ns

    @property
    def taken(self) -> int:
        """When this became the current bundle the last time, in ns since 1970."""
        return self.taken_ns or self.created_ns

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        arrays = self._arrays()
        header = self._header() | {"arrays": [len(data) for data in arrays]}
        line = json.dumps(header).encode()
        body = b"".join((MAGIC, b"%d\n" % VERSION, line, b"\n", *arrays))
        return body + hashlib.sha256(body).digest()

    def _header(self) -> dict[str, Any]:
        return {
            "image": self.image,
            "terms": self.terms,
            "recipients": self.recipients,
            "key": self.secret.key.hex(),
            "iv": self.secret.iv.hex(),
            "created_ns": self.created_ns,
            "shown_ns": self.shown_ns,
            "taken_ns": self.taken_ns,
            "untouched": self.untouched,
            "gone_ns": self.gone_ns,
            "sparse": self.extents is not None,
            "part_digests": self.index.part_digests,
            "totals": asdict(self.index.totals) if self.index.totals else None,
            "manifests": self.manifests,
        }

    def _arrays(self) -> tuple[bytes, ...]:
        edges = [edge for span in self.extents or () for edge in (span.start, span.stop)]
        index = self.index
        return index.offsets, index.crcs, index.states, array("Q", edges).tobytes()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return what the bytes of a file hold.

        Raises:
            ValueError: they are damaged, or of a version that is not known here.
        """
        version, line, rest = _checked(data)
        if version != VERSION:
            raise ValueError(f"it is of version {version}; this bundlefs knows version {VERSION}")
        header = json.loads(line)
        return cls._from(header, list(_cut(rest, header["arrays"])))

    @classmethod
    def _from(cls, header: dict[str, Any], arrays: list[bytes]) -> Self:
        offsets, crcs, states, edges = arrays
        spans = array("Q", edges)
        totals = Totals(**header["totals"]) if header["totals"] else None
        return cls(
            image=header["image"],
            terms=header["terms"],
            recipients=header["recipients"],
            secret=Secret(bytes.fromhex(header["key"]), bytes.fromhex(header["iv"])),
            created_ns=header["created_ns"],
            extents=tuple(map(Span, spans[::2], spans[1::2])) if header["sparse"] else None,
            index=IndexDump(offsets, crcs, states, tuple(header["part_digests"]), totals),
            manifests=header["manifests"],
            # Files of earlier releases lack these. Each has a default, so VERSION is the same.
            shown_ns=header.get("shown_ns", 0),
            taken_ns=header.get("taken_ns", 0),
            untouched=header.get("untouched", False),
            gone_ns=header.get("gone_ns", 0),
        )


def _checked(data: bytes) -> tuple[int, bytes, bytes]:
    """Return the version, the header and what is behind it, where the checksum fits."""
    first, _, after = data.partition(b"\n")
    number = first.removeprefix(MAGIC)
    if not first.startswith(MAGIC) or not number.isdigit():
        raise ValueError("it is not a state file of bundlefs, or is damaged")
    # A later version may have its checksum elsewhere: it is named first.
    if int(number) == VERSION and hashlib.sha256(data[:-_CHECKSUM]).digest() != data[-_CHECKSUM:]:
        raise ValueError("it is damaged or cut short (its checksum does not fit)")
    line, _, rest = after[:-_CHECKSUM].partition(b"\n")
    return int(number), line, rest


def _cut(data: bytes, lengths: list[int]) -> Iterator[bytes]:
    start = 0
    for length in lengths:
        yield data[start : start + length]
        start += length
