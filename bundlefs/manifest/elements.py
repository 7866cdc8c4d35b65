"""The elements of a manifest, gathered from XML that nobody vouches for.

What may live here: comparing what expat reports with the elements that a manifest may have. The
limits on memory and time are kept here, and each part is checked as it comes, so that nothing
large is ever held but the list of parts. What the texts mean is for `manifest.read`.
"""

import re
from dataclasses import dataclass
from typing import Final
from xml.parsers import expat

from bundlefs.base.errors import BundleError
from bundlefs.base.escapes import cite

# Eucalyptus takes 5 MiB; 100,000 parts are 12 MiB.
LONGEST_MANIFEST = 16 << 20
MOST_PARTS = 100_000

_DEEPEST = 16
_LONGEST_TEXT = 1024
_LONGEST_HEX = 8192  # an RSA key of 32,768 bits
_LONGEST_NAME = 255
# Twice as many as a manifest with the most parts has. They are counted before anything is parsed,
# since expat keeps each name and all attributes of an element before it asks anyone.
_MOST_TAGS = 12 * MOST_PARTS
_MOST_EQUAL_SIGNS = 6 * MOST_PARTS
_CHUNK = 256 << 10
_LONGEST_BEGINNING = 80
_BLANKS = " \t\r\n"

MACHINE = "manifest/machine_configuration"
IMAGE = "manifest/image"
_PART = f"{IMAGE}/parts/part"
_IGNORED = "manifest/bundler"
# euca2ools reads other names than it writes, so there may be both.
_MAPPINGS = (
    f"{MACHINE}/block_device_mapping/mapping",
    f"{MACHINE}/block_device_mappings/block_device_mapping",
)
REPEATED_TEXTS = (
    f"{MACHINE}/product_codes/product_code",
    f"{MACHINE}/productcodes/product_code",
    f"{IMAGE}/ancestry/ancestor_ami_id",
)
_KEYS = (f"{IMAGE}/ec2_encrypted_key", f"{IMAGE}/user_encrypted_key")
_DIGESTS = (f"{IMAGE}/digest", f"{_PART}/digest")
_HEX = (
    *_KEYS,
    *_DIGESTS,
    f"{IMAGE}/ec2_encrypted_iv",
    f"{IMAGE}/user_encrypted_iv",
    "manifest/signature",
)
_TEXTS = (
    *_HEX,
    *REPEATED_TEXTS,
    "manifest/version",
    *(f"{MACHINE}/{tag}" for tag in ("architecture", "kernel_id", "ramdisk_id")),
    *(f"{IMAGE}/{tag}" for tag in ("name", "user", "type", "kernel_name", "size", "bundled_size")),
    f"{_PART}/filename",
    *(f"{mapping}/{tag}" for mapping in _MAPPINGS for tag in ("virtual", "device")),
)
_REPEATED = frozenset((_PART, *_MAPPINGS, *REPEATED_TEXTS))


def _with_parents(path: str) -> set[str]:
    tags = path.split("/")
    return {"/".join(tags[:count]) for count in range(1, len(tags) + 1)}


_LIMITS: Final = {path: _LONGEST_HEX if path in _HEX else _LONGEST_TEXT for path in _TEXTS}
_KNOWN: Final = frozenset().union(*map(_with_parents, (*_TEXTS, _IGNORED)))
_KNOWN_TAGS: Final = frozenset(path.rpartition("/")[2] for path in _KNOWN)
_ALGORITHMS: Final = dict.fromkeys(_DIGESTS, "SHA1") | dict.fromkeys(_KEYS, "AES-128-CBC")

_NUMBER = re.compile("[0-9]{1,19}")
DIGEST = re.compile("[0-9a-fA-F]{40}")
CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class PartEntry:
    """A part of the bundle.

    Attributes:
        filename: a plain file name: no path, no control character, at most 255 bytes.
        digest: SHA-1 of the part's bytes, 40 lowercase hex digits.
    """

    filename: str
    digest: str


def gather(data: bytes) -> "Elements":
    """Go through the XML `data`.

    Raises:
        BundleError: it is too large, not XML in UTF-8, has a DTD or elements at places where
            they do not belong, a part's entry cannot be, or two parts have one index.
    """
    _require_modest(data)
    elements = Elements(data)
    elements.parse()
    return elements


def _require_modest(data: bytes) -> None:
    """Refuse what would cost memory before it could be refused while parsing."""
    if len(data) > LONGEST_MANIFEST:
        what = "" if _begins_as_xml(data) else "no XML, and "
        raise BundleError(
            f"it is {what}larger than the {LONGEST_MANIFEST} bytes that a manifest may have"
        )
    if b"\0" in data:
        raise BundleError("it is not XML in UTF-8: it has a zero byte in it")
    if b"<!DOCTYPE" in data:
        raise BundleError("it has a document type (<!DOCTYPE>), which a manifest may not have")
    if data.count(b"<") > _MOST_TAGS or data.count(b"=") > _MOST_EQUAL_SIGNS:
        raise BundleError(f"it has more elements or attributes than {MOST_PARTS} parts need")


def _begins_as_xml(data: bytes) -> bool:
    head = data[:_LONGEST_BEGINNING].removeprefix("\N{BYTE ORDER MARK}".encode())
    return head.lstrip(_BLANKS.encode()).startswith(b"<")


class Elements:
    """Gathers the texts of known elements as expat goes through the bytes. `gather` makes one.

    Attributes:
        texts: of elements that may stand only once, by path.
        lists: of elements that may stand many times, by path.
        mappings: (virtual name, device).
        parts: by index.
        count: what `parts` announces.
        unnamed: the first digest that does not say its algorithm.
        spans: the bytes of the elements that are signed.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        # Given an encoding, expat goes by no other that the text declares.
        self._expat = expat.ParserCreate("utf-8")
        self._expat.buffer_text = True
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._characters
        self._path = ""
        self._depth = 0
        self._passed_over = 0  # elements deep in one that is not known
        self._seen: set[str] = set()
        self._text: list[str] = []
        self._length = 0
        self._index = 0
        self._starts: dict[str, int] = {}
        self.texts: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {path: [] for path in REPEATED_TEXTS}
        self.mappings: list[tuple[str, str]] = []
        self.parts: dict[int, PartEntry] = {}
        self.count: int | None = None
        self.unnamed: str | None = None
        self.spans: dict[str, bytes] = {}

    def parse(self) -> None:
        """Go through all of the data, in chunks.

        Once a handler has raised, pyexpat still goes on to the end of what it was handed.
        """
        view = memoryview(self._data)
        try:
            for at in range(0, len(view), _CHUNK):
                self._expat.Parse(view[at : at + _CHUNK], False)  # noqa: FBT003 (takes no keyword)
            self._expat.Parse(b"", True)  # noqa: FBT003 (takes no keyword)
        except expat.ExpatError as error:
            raise BundleError(f"it is not well-formed XML: {error}") from error
        finally:
            del self._expat  # it knows this object: a circle that would keep the data

    def forget_machine(self) -> None:
        """Drop the machine configuration with all that is in it."""
        inside = f"{MACHINE}/"
        self.texts = {
            path: text for path, text in self.texts.items() if not path.startswith(inside)
        }
        for path in filter(lambda path: path.startswith(inside), self.lists):
            self.lists[path].clear()
        self.mappings.clear()
        self.spans.pop(MACHINE, None)

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise BundleError(f"its elements are nested more than {_DEEPEST} deep")
        path = f"{self._path}/{tag}" if self._path else tag
        if self._passed_over or path not in _KNOWN or path == _IGNORED:
            self._pass_over(tag, path)
            return
        if path not in _REPEATED and path in self._seen:
            raise BundleError(f"it has a second element {cite(path)} where one may be")
        self._seen.add(path)
        self._path = path
        self._text.clear()
        self._length = 0
        self._starts[path] = self._expat.CurrentByteIndex
        self._read_attributes(path, attributes)

    def _pass_over(self, tag: str, path: str) -> None:
        if not self._passed_over and path != _IGNORED:
            if not self._path:
                raise BundleError(f"it is no manifest but has the element {cite(tag)} at its root")
            if tag in _KNOWN_TAGS:
                raise BundleError(f"it has the element {cite(path)}, which has no place there")
        self._passed_over += 1

    def _read_attributes(self, path: str, attributes: dict[str, str]) -> None:
        if path in _ALGORITHMS:
            self._require_algorithm(path, attributes.get("algorithm"))
        elif path == _PART:
            self._index = number(attributes.get("index", ""), "a part's index", MOST_PARTS - 1)
        elif path == f"{IMAGE}/parts":
            self.count = number(attributes.get("count", ""), "the count of parts", MOST_PARTS)

    def _require_algorithm(self, path: str, algorithm: str | None) -> None:
        if algorithm is None:
            if path in _DIGESTS:  # unsigned bundles of euca2ools have keys of nothing
                self.unnamed = self.unnamed or path
        elif algorithm.upper() != _ALGORITHMS[path]:
            raise BundleError(
                f"its {cite(path)} is of the unknown algorithm {cite(algorithm)}: it must be "
                f"{_ALGORITHMS[path]}"
            )

    def _characters(self, text: str) -> None:
        if self._passed_over or self._path not in _LIMITS:
            return
        self._length += len(text)
        if self._length > _LIMITS[self._path]:
            raise BundleError(
                f"its {cite(self._path)} is longer than {_LIMITS[self._path]} characters"
            )
        self._text.append(text)

    def _end(self, _tag: str) -> None:
        self._depth -= 1
        if self._passed_over:
            self._passed_over -= 1
            return
        path = self._path
        if path in self.lists:
            self.lists[path].append("".join(self._text).strip(_BLANKS))
        elif path in _LIMITS:
            self.texts[path] = "".join(self._text).strip(_BLANKS)
        elif path == _PART:
            self._end_part()
        elif path in _MAPPINGS:
            self.mappings.append((self._take(path, "virtual"), self._take(path, "device")))
        elif path in {MACHINE, IMAGE}:
            self.spans[path] = self._data[self._starts[path] : self._stop(path)]
        self._path = path.rpartition("/")[0]

    def _stop(self, path: str) -> int:
        """Return where the element that ends now stops.

        expat's byte index is that of its end tag, or just after a tag that is both (`<image/>`).
        """
        at = self._expat.CurrentByteIndex
        tag = path.rpartition("/")[2].encode()
        return self._data.index(b">", at) + 1 if self._data.startswith(b"</" + tag, at) else at

    def _end_part(self) -> None:
        index = self._index
        if index in self.parts:
            raise BundleError(f"it has two parts of the index {index}")
        filename = self._take(_PART, "filename")
        digest = self._take(_PART, "digest")
        _require_file_name(filename)
        if not DIGEST.fullmatch(digest):
            raise BundleError(
                f"the digest {cite(digest)} of its part {index} is no SHA-1: 40 hex digits"
            )
        self.parts[index] = PartEntry(filename, digest.lower())

    def _take(self, parent: str, tag: str) -> str:
        """Return the text of an element in the repeated element `parent`; it may come again."""
        path = f"{parent}/{tag}"
        self._seen.discard(path)
        text = self.texts.pop(path, "")
        if not text:
            raise BundleError(f"its {cite(path)} is missing or empty")
        return text


def _require_file_name(name: str) -> None:
    if (
        "/" in name
        or name in {".", ".."}
        or CONTROL.search(name)
        or len(name.encode()) > _LONGEST_NAME
    ):
        raise BundleError(
            f"the part name {cite(name)} is no plain file name: it may have no '/' and no control "
            f"character, be neither '.' nor '..', and have at most {_LONGEST_NAME} bytes"
        )


def number(text: str, what: str, largest: int) -> int:
    """Read a plain decimal number from 0 to `largest`; the error begins with `what` it is.

    Raises:
        BundleError: it is no such number.
    """
    if not _NUMBER.fullmatch(text) or int(text) > largest:
        raise BundleError(f"{what} is {cite(text)}, and must be a number from 0 to {largest}")
    return int(text)
