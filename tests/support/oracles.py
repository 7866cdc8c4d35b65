"""The way back from a bundle by stock tools alone: openssl, gunzip, GNU tar, sha1sum, cmp.

The recipe is that of contrib/format.md. Python only carries names and bytes between the tools.
"""

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.tools import pipeline, run

HEX_TEXT = re.compile(rb"[0-9a-f]{32}")
TAR_FLAGS = (
    "--format=gnu",
    "--hole-detection=seek",
    "--owner=root:0",
    "--group=root:0",
    "--mode=0644",
)


@dataclass(frozen=True, slots=True)
class Secrets:
    """AES key and IV, each as 32 lowercase hex digits."""

    key: str = field(repr=False)
    iv: str = field(repr=False)


def element(manifest: Path, name: str) -> str:
    """Return the text of the one element `name`, as `sed` would find it."""
    found = re.findall(rf"<{name}(?: [^>]*)?>([^<]*)</{name}>", manifest.read_text("ascii"))
    assert len(found) == 1, f"{name} stands {len(found)} times in {manifest}"
    return str(found[0])


def unwrap(wrapped: str, private_key: Path) -> str:
    """Decrypt a hex RSA ciphertext with `openssl pkeyutl` and give the 32 digits inside."""
    command: list[str | Path] = ["openssl", "pkeyutl", "-decrypt", "-inkey", private_key]
    digits = run(command, data=bytes.fromhex(wrapped))
    assert HEX_TEXT.fullmatch(digits), "the decrypted text is not 32 lowercase hex digits"
    return digits.decode()


def secrets(manifest: Path, private_key: Path, whose: str = "user") -> Secrets:
    """Open the copy of key and IV that is meant for `whose`: `user` or `ec2`."""
    key, iv = (element(manifest, f"{whose}_encrypted_{what}") for what in ("key", "iv"))
    return Secrets(unwrap(key, private_key), unwrap(iv, private_key))


def part_names(manifest: Path) -> list[str]:
    """Return the part names in document order."""
    return re.findall(r"<filename>([^<]*)</filename>", manifest.read_text("ascii"))


def part_digests(manifest: Path) -> list[str]:
    """Return the parts' SHA-1 as the manifest states them, in document order."""
    pattern = r"</filename><digest algorithm='SHA1'>([^<]*)</digest></part>"
    return re.findall(pattern, manifest.read_text("ascii").replace('"', "'"))


def image_digest(manifest: Path) -> str:
    """Return the SHA-1 of the tar stream as the manifest states it."""
    found = re.findall(r"<digest [^>]*>([^<]*)</digest><size>", manifest.read_text("ascii"))
    assert len(found) == 1, f"{len(found)} digests stand before the size in {manifest}"
    return str(found[0])


def sha1sum(paths: Iterable[Path]) -> list[str]:
    """Return the SHA-1 of each file, by coreutils."""
    return [run(["sha1sum", "--", path]).split()[0].decode() for path in paths]


def verify_signature(manifest: Path, public_key: Path, scratch: Path) -> str:
    """Check the signature over the literal text with openssl; gives openssl's verdict."""
    content = manifest.read_bytes()
    signed = re.search(rb"<machine_configuration>.*</image>", content, re.DOTALL)
    assert signed is not None, f"{manifest} has no machine_configuration and image"
    signature = scratch / "signature"
    signature.write_bytes(bytes.fromhex(element(manifest, "signature")))
    options = ["-verify", str(public_key), "-signature", str(signature)]
    return run(["openssl", "dgst", "-sha1", *options], data=signed[0]).decode().strip()


def unseal(parts: Iterable[Path], key: Secrets, tar: Path) -> Path:
    """Write the tar stream of a bundle: `cat | openssl | gunzip`."""
    script = (
        'tar=$1 key=$2 iv=$3; shift 3; cat -- "$@" |'
        ' openssl enc -d -aes-128-cbc -K "$key" -iv "$iv" | gunzip > "$tar"'
    )
    pipeline(script, tar, key.key, key.iv, *parts)
    return tar


def compare_streaming(parts: Iterable[Path], key: Secrets, image: Path) -> str:
    """Compare the extracted image with `image` without storing it; gives tar's long listing."""
    script = (
        'image=$1 key=$2 iv=$3; shift 3; cat -- "$@" |'
        ' openssl enc -d -aes-128-cbc -K "$key" -iv "$iv" | gunzip |'
        ' tar --numeric-owner -xvvSOf - | cmp - "$image"'
    )
    _, listing = pipeline(script, image, key.key, key.iv, *parts)
    return listing


def untar(tar: Path, folder: Path) -> list[Path]:
    """Extract with GNU tar, holes and all; gives what came out."""
    folder.mkdir()
    run(["tar", "-xSf", tar, "-C", folder])
    return sorted(folder.iterdir())


def gnu_tar(image: Path, tar: Path, *, name: str, mtime: int, sparse: bool) -> Path:
    """Write what GNU tar makes of `image` as member `name`, `mtime` in seconds."""
    flags = [*TAR_FLAGS, *(["-S"] if sparse else []), f"--mtime=@{mtime}"]
    renamed = f"--transform=s,.*,{name},"
    run(["tar", *flags, renamed, "-C", image.parent, "-cf", tar, image.name])
    return tar


def tar_mtime(tar: Path) -> int:
    """Return the member's time in seconds, from the octal digits of the header."""
    with tar.open("rb") as stream:
        return int(stream.read(512)[136:147], 8)


def assert_same(ours: Path, theirs: Path) -> None:
    """Fail with `cmp`'s words where two files differ."""
    run(["cmp", ours, theirs])


def assert_same_sparse(ours: Path, theirs: Path) -> None:
    """Fail where two files differ, without reading what is a hole in both: zeros, so the same."""
    assert ours.stat().st_size == theirs.stat().st_size
    with ours.open("rb") as our, theirs.open("rb") as their:
        for start, end in extents(our.fileno()) | extents(their.fileno()):
            data = (os.pread(file.fileno(), end - start, start) for file in (our, their))
            assert len(set(data)) == 1, f"{ours} and {theirs} differ in {start} to {end}"


def extents(file: int) -> set[tuple[int, int]]:
    """Return the start and end of what the file system calls data."""
    found, size, end = set(), os.fstat(file).st_size, 0
    with contextlib.suppress(OSError):  # ENXIO: nothing but a hole is left
        while end < size:
            start = os.lseek(file, end, os.SEEK_DATA)
            end = os.lseek(file, start, os.SEEK_HOLE)
            found.add((start, end))
    return found
