"""The largest manifests that are read, and larger ones: read or refused, soon and in little memory.

Each is read in a process of its own, which is given no more than so much beyond its start.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.corpus import CORPUS

MIB = 1 << 20


LIMITED = """
import resource, sys
from bundlefs.base.errors import BundleError
from bundlefs.manifest.read import read_manifest

with open("/proc/self/statm") as status:
    size = int(status.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[2]),) * 2)
try:
    print(len(read_manifest(sys.argv[1]).parts))
except BundleError as error:
    print(error)
"""


def limited(path: Path, memory: int) -> str:
    """Read the manifest `path` with at most `memory` bytes and 20 seconds; give what is said."""
    command = [sys.executable, "-c", LIMITED, str(path), str(memory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_manifest_of_100_mb(tmp_path: Path) -> None:
    path = tmp_path / "manifest.xml"
    chunk = b"<part index='0'><filename>x</filename></part>" * 23_000
    with path.open("wb") as file:
        file.write(b"<manifest><version>3</version><image><parts count='5'>")
        for _ in range(100):
            file.write(chunk)
    assert path.stat().st_size > 100 * 10**6
    assert "it is larger than the 16777216 bytes" in limited(path, 64 * MIB)


def test_entity_bomb() -> None:
    said = limited(CORPUS / "manifest/entity-bomb.xml", 32 * MIB)
    assert "it has a document type" in said


@pytest.mark.parametrize(
    ("head", "repeated", "tail", "said"),
    [
        (b"<manifest>", b"<a>", b"", "nested more than 16 deep"),
        (b"<manifest><version>", b"&#65;", b"", "'manifest/version' is longer than 1024"),
        (b"<manifest><bundler>", b"x", b"</bundler></manifest>", "version' is missing or empty"),
        (b"<manifest><bundler>", b"<!---->", b"", "more elements or attributes than 100000 parts"),
        (b"<manifest a='", b"x", b"'/>", "'manifest/version' is missing or empty"),
        (b"<!--", b"x", b"-->", "no element found"),
        (b"<", b"x", b"", "unclosed token"),
        (b"<manifest><![CDATA[", b"]", b"", "unclosed CDATA section"),
    ],
)
def test_as_much_as_is_read_of_one_thing(
    tmp_path: Path, head: bytes, repeated: bytes, tail: bytes, said: str
) -> None:
    path = tmp_path / "manifest.xml"
    many = 1_000_000 if repeated == b"<a>" else (16 * MIB - 100) // len(repeated)
    path.write_bytes(head + repeated * many + tail)
    assert said in limited(path, 96 * MIB)


def test_as_many_attributes_as_are_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.xml"
    many = b" ".join(b"a%d=''" % number for number in range(590_000))
    path.write_bytes(b"<manifest " + many + b"/>")
    assert "'manifest/version' is missing" in limited(path, 256 * MIB)


def test_as_many_names_as_are_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.xml"
    many = b"".join(b"<a%d/>" % number for number in range(1_100_000))
    path.write_bytes(b"<manifest>" + many + b"</manifest>")
    assert "'manifest/version' is missing" in limited(path, 256 * MIB)


def test_as_many_parts_as_are_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.xml"
    with path.open("w") as file:
        file.write("<manifest><version>3</version><image><name>i</name><user>u</user>")
        file.write("<size>5</size><parts count='100000'>")
        for index in range(100_000):
            file.write(f"<part index='{index}'><filename>image.part.{index:05}</filename>")
            file.write(f"<digest algorithm='SHA1'>{index:040x}</digest></part>")
        file.write("</parts></image></manifest>")
    assert limited(path, 128 * MIB) == "100000\n"
