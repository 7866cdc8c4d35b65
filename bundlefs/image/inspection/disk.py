"""The facts of a disk image: form, size, partitions, file systems, and what can be seen in them.

`look` gathers them; what EC2 makes of them is for `ec2`. Each step that fails leaves a line in
`unknown` and no more: a damaged disk is told of as far as it can be read.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bundlefs.base.errors import BundlefsError
from bundlefs.base.spans import Span
from bundlefs.image import forms, unpack
from bundlefs.image.forms import Form
from bundlefs.image.inspection.beginning import MOST, Beginning
from bundlefs.image.inspection.estimate import Estimate, estimate
from bundlefs.image.inspection.tools import ToolError, Tools
from bundlefs.image.look import superblocks
from bundlefs.image.look.architecture import Seen, seen
from bundlefs.image.look.boot import Boot, boot
from bundlefs.image.look.doubts import doubts
from bundlefs.image.look.ext import Ext
from bundlefs.image.look.free import OldData, old_data
from bundlefs.image.look.fstab import LONGEST
from bundlefs.image.look.partitions import Partition, Table, partition_table
from bundlefs.image.look.superblocks import System
from bundlefs.image.look.window import Budget, UnreadableError, Window
from bundlefs.image.open import open_source, tail_of
from bundlefs.image.raw import Image
from bundlefs.image.source import Source

log = logging.getLogger(__name__)

_READS, _BYTES = 60_000, 512 << 20
_LARGEST = 1 << 50
"""The size that is taken for that of an image of which only the beginning is known."""

_ENOUGH = 128 << 10
"""Bytes at the start of a partition within which its superblock lies."""

_MOST_PROBED = 64
"""Parts of a disk that are looked at; a table may name more."""

_KNOWN_TABLES = {"gpt", "dos", "PMBR"}
_BY_SFDISK = {"sun", "sgi"}
_ON_A_DISK = {"iso9660", "udf"}
"""File systems that a disk with a partition table may have over all of it."""

_EXT = ("ext2", "ext3", "ext4")
_OTHERS = ("xfs", "btrfs", "f2fs", "jfs", "reiserfs", "nilfs2")
"""File systems that a system may be in, and that are not read here."""

VOLUMES = ("LVM2_member", "crypto_LUKS", "linux_raid_member", "bcache", "several")
"""What has file systems in it that are not seen."""


@dataclass(frozen=True, slots=True)
class Place:
    """A part of the disk: a partition, or all of it (`partition` is None), and what is in it."""

    start: int
    size: int
    partition: Partition | None
    system: System | None
    looked_at: bool = True


@dataclass(slots=True)
class Disk:
    """What is known of a disk image; None where it is not known.

    Attributes:
        form: as `forms` names it.
        file_size: of the file that it is in, bytes.
        size: of the disk, bytes.
        data: bytes of it that are data; the others are holes.
        whole: whether all of it could be read, not only its beginning.
        table: the partition table, if there is one.
        other_table: a table of another kind: its name.
        places: its partitions, and what is over all of it.
        architecture: of the code in it.
        boot: what it can be started by; of a disk with a table alone.
        fstabs: (where, text).
        old: old data in free space, by where.
        estimates: of its bundle.
        doubts: what is odd about its size.
        unknown: what could not be told, and why.
    """

    form: str
    file_size: int
    size: int | None = None
    data: int | None = None
    whole: bool = True
    table: Table | None = None
    other_table: str | None = None
    places: list[Place] = field(default_factory=list)
    architecture: Seen | None = None
    boot: Boot | None = None
    fstabs: list[tuple[Place, bytes]] = field(default_factory=list)
    old: list[tuple[Place, OldData]] = field(default_factory=list)
    estimates: tuple[Estimate, ...] = ()
    doubts: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """Have a step that fails leave `what` unknown."""
        try:
            yield
        except (UnreadableError, BundlefsError, ToolError, OSError) as error:
            self.unknown.append(f"{what}: {getattr(error, 'strerror', None) or error}")


def name(place: Place) -> str:
    """Return a place in words."""
    return f"partition {place.partition.number}" if place.partition else "the disk"


def look(path: Path) -> Disk:
    """Look at a disk image.

    Raises:
        ImageError: it cannot be read, or is no image.
    """
    with ExitStack() as stack:
        file = stack.enter_context(Image.open(path))
        form = forms.of(file.peek(0, forms.HEAD_SIZE), tail_of(file))
        disk = Disk(form.value, file.size)
        source = _opened(file, form, path)
        stack.callback(source.close)
        _Look(disk, source).all()
    return disk


def _opened(file: Image, form: Form, path: Path) -> Source:
    """Open the image; one that would have to be unpacked first is known by its beginning."""
    if form not in forms.UNPACKED or file.identity.is_block_device:
        return open_source(path)
    return Beginning(file, form)


class _Deep:
    """An image as a look reads it: also what takes time to reach. Its end may not be known."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.known = source.size
        self.size = source.size
        if isinstance(source, Beginning) and not source.whole:
            self.size = _LARGEST

    def peek(self, offset: int, length: int) -> bytes:
        """Return bytes, fewer behind those that are known."""
        length = max(min(length, self.known - offset), 0)
        return self._source.read(offset, length) if length else b""


class _Look:
    """The steps of a look at one disk."""

    def __init__(self, disk: Disk, source: Source) -> None:
        self._disk = disk
        self._source = source
        self._deep = _Deep(source)
        self._window = Window(self._deep.peek, self._deep.size, 0, Budget(_READS, _BYTES))
        self._extents: tuple[Span, ...] = (Span(0, source.size),)

    def all(self) -> None:
        """Go through all of them; what the later ones need comes first."""
        disk = self._disk
        self._sizes()
        with disk.trying("partition table"):
            disk.table = partition_table(self._window)
        self._systems()
        with disk.trying("architecture"):
            disk.architecture = seen(self._deep)
        with disk.trying("boot loader"):
            disk.boot = boot(self._window, disk.table) if disk.table else None
        for place in disk.places:
            if place.system and place.system.kind in _EXT:
                self._in_ext(place)
            elif place.system and place.system.kind in _OTHERS:
                disk.unknown.append(
                    f"fstab and old data in {name(place)}: they are looked for in ext2, ext3 and"
                    f" ext4 alone, and this is {place.system.kind}"
                )
        with disk.trying("whether it is whole"):
            disk.doubts = doubts(self._deep)
        if disk.whole:
            with disk.trying("size of the bundle"):
                disk.estimates = estimate(self._source, self._extents)
        else:
            disk.unknown.append(f"size of the bundle: {self._only_beginning()}")

    def _sizes(self) -> None:
        disk, source = self._disk, self._source
        if isinstance(source, Beginning) and not source.whole:
            disk.whole = False
            disk.unknown.append(f"size of the image: {self._only_beginning()}")
            return
        disk.size = source.size
        if disk.form in {form.value for form in unpack.PACKINGS}:
            disk.unknown.append(f"data and holes: a {disk.form} file does not tell of holes")
            return
        if source.identity.is_block_device:
            disk.unknown.append("data and holes: a block device does not tell of holes")
            return
        with disk.trying("data and holes"):
            self._extents = source.extents()
            disk.data = sum(extent.length for extent in self._extents)

    def _only_beginning(self) -> str:
        command = forms.command(Form(self._disk.form), str(self._source.path))
        return (
            f"a {self._disk.form} file is read from its start alone, and its first"
            f" {MOST >> 20} MiB were looked at; for more, unpack it: {command}"
        )

    def _systems(self) -> None:
        """Find what is in the partitions, and over all of the disk."""
        disk = self._disk
        own = self._source.fileno() if isinstance(self._source, Image) else None
        with Tools(self._window.size, self._deep.peek, own) as tools:
            probe = _Probe(disk, self._window, tools)
            over_all = probe.system(0, self._window.size, "the disk")
            if disk.table and over_all and over_all.kind not in _ON_A_DISK:
                # One of them is what an earlier use has left behind, or a boot sector's code.
                if disk.table.doubtful:
                    disk.table = None
                else:
                    over_all = None
            self._other_table(probe.table, tools)
            partitions = disk.table.partitions if disk.table else ()
            if over_all or not partitions:
                disk.places.append(Place(0, self._window.size, None, over_all))
            for count, one in enumerate(partitions):
                disk.places.append(self._place(one, probe, looked=count < _MOST_PROBED))
        if len(partitions) > _MOST_PROBED:
            disk.unknown.append(f"what is in partitions behind the first {_MOST_PROBED}")

    def _place(self, one: Partition, probe: "_Probe", *, looked: bool) -> Place:
        size = min(one.size, max(self._window.size - one.start, 0))
        if not size or one.is_container or not looked:
            return Place(one.start, size, one, None, looked_at=one.is_container)
        if self._deep.known - one.start < min(size, _ENOUGH):
            self._disk.unknown.append(f"what is in partition {one.number}: it lies further behind")
            return Place(one.start, size, one, None, looked_at=False)
        found = probe.system(one.start, size, f"partition {one.number}")
        return Place(one.start, size, one, found)

    def _other_table(self, kind: str | None, tools: Tools) -> None:
        disk = self._disk
        if disk.table or kind is None or kind in _KNOWN_TABLES:
            return
        disk.other_table = kind
        if kind not in _BY_SFDISK:
            disk.unknown.append(f"partitions: those of a table of the kind {kind} are not read")
            return
        with disk.trying("partitions"):
            disk.table = Table(kind, tools.partitions(), 0)

    def _in_ext(self, place: Place) -> None:
        part = self._window.at(place.start, place.size)
        try:
            self._disk.fstabs.append((place, Ext(part).text("/etc/fstab", LONGEST)))
        except UnreadableError as error:
            log.debug("%s: fstab: %s", name(place), error)
        except (OSError, BundlefsError) as error:
            self._disk.unknown.append(f"fstab in {name(place)}: {error}")
        with self._disk.trying(f"old data in the free space of {name(place)}"):
            if not self._disk.whole:
                raise UnreadableError("only the beginning of the image was unpacked")
            self._disk.old.append((place, old_data(part, place.start, self._extents)))


class _Probe:
    """Finds file systems: by blkid where it answers, and by our own reader."""

    def __init__(self, disk: Disk, window: Window, tools: Tools) -> None:
        self._disk = disk
        self._window = window
        self._tools = tools
        self._without: str | None = None
        self.table: str | None = None

    def system(self, start: int, size: int, what: str) -> System | None:
        """Return what is in a part of the disk, or None if nothing is known to be."""
        found = self._own(start, size, what)
        told = self._by_blkid(start, size, what)
        if told is None:
            return found
        if found is None or found.kind != told.kind:
            return told
        return System(told.kind, told.label or found.label, told.uuid or found.uuid, found.size)

    def _own(self, start: int, size: int, what: str) -> System | None:
        try:
            return superblocks.system(self._window.at(start, size))
        except (OSError, BundlefsError) as error:
            self._disk.unknown.append(f"file system of {what}: {error}")
            return None

    def _by_blkid(self, start: int, size: int, what: str) -> System | None:
        if self._without:
            return None
        try:
            found, table = self._tools.system(start, size)
        except ToolError as error:
            self._without = str(error)
            self._disk.unknown.append(
                f"file systems of kinds that only blkid knows, in {what} and what follows: {error}"
            )
            return None
        except (OSError, BundlefsError) as error:
            self._disk.unknown.append(f"file system of {what}: {error}")
            return None
        if not start and size == self._window.size:
            self.table = table
        return found
