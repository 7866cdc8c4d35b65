"""What names may start with."""

from pathlib import Path

import pytest

from bundlefs import Bundle, BundleWriter, MemorySink, Metadata
from bundlefs.base.errors import UsageError
from bundlefs.bundling.recipe import check_prefix
from tests.support.tools import ACCOUNT


@pytest.mark.parametrize(
    "prefix", ["image", "a b", "x.part.00", "ümläut", "x" * 100, "é" * 50, "-"]
)
def test_prefixes(prefix: str) -> None:
    assert check_prefix(prefix) == prefix


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        ("", "must not be empty"),
        (".", "start with a dot"),
        ("..", "start with a dot"),
        (".bundlefs", "start with a dot"),
        ("a/b", "have '/'"),
        ("a\0b", "control characters"),
        ("a\u2028b", "control characters"),
        ("a\udcff", "control characters"),
        ("x" * 101, "101 bytes; tar has room for 100"),
        ("é" * 51, "102 bytes; tar has room for 100"),
    ],
)
def test_what_is_no_prefix(prefix: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        check_prefix(prefix)
    assert str(caught.value).startswith(f"prefix {prefix!r}: ")
    assert str(caught.value).isprintable()


def test_who_asks_for_one() -> None:
    """All that makes a bundle, before it opens anything."""
    with pytest.raises(UsageError, match="prefix 'a/b': "):
        Bundle.from_image(Path("/no/image"), Metadata(account=ACCOUNT), prefix="a/b")
    with pytest.raises(UsageError, match="prefix 'a/b': "):
        BundleWriter("a/b", 1, MemorySink())
