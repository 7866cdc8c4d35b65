"""Bundles as other tools make them: stock tar, compressors, openssl and split, in every mix.

Nothing here knows of bundlefs. The manifest is written by a few lines of text of
its own, its keys wrapped and its signature made by openssl, so that what reads it
is held against the format and not against its own writer [contrib/format.md].
"""

import shutil
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.support import images
from tests.support.keys import KeyPair
from tests.support.oracles import sha1sum
from tests.support.tools import ACCOUNT, pipeline, run

KEY = "00112233445566778899aabbccddeeff"
IV = "f0e1d2c3b4a5968778695a4b3c2d1e0f"
SCALR_IV = "0123456789abcdef"  # 16 digits, as scalarizr writes; openssl fills up with zeros
OF_NOTHING = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
UNSIGNED = "UNSIGNED"  # what euca2ools writes in place of a signature

MAPPING = (
    "<block_device_mapping><mapping><virtual>ami</virtual><device>sda1</device></mapping>"
    "<mapping><virtual>root</virtual><device>/dev/sda1</device></mapping></block_device_mapping>"
)

Archiver = Callable[[Path, Path], object]
"""Writes the tar stream of an image: takes the image and where the stream goes."""


def gnu_tar(*options: str) -> Archiver:
    """Return GNU tar with `options`; the member has the image's own name."""

    def archive(image: Path, tar: Path) -> None:
        run(["tar", *options, "-C", image.parent, "-cf", tar, image.name])

    return archive


def python_tar(tar_format: int) -> Archiver:
    """Return Python's tarfile, which knows no holes."""

    def archive(image: Path, tar: Path) -> None:
        with tarfile.open(tar, "w", format=tar_format) as stream:
            stream.add(image, "image")

    return archive


@dataclass(frozen=True, slots=True)
class Bundler:
    """How a tool makes bundles.

    Attributes:
        archive: makes the tar stream.
        compress: the command that turns it to gzip, from stdin to stdout.
        part_name: the name of a part, by its index.
        part_size: bytes.
        empty_end: whether an empty part follows an exact multiple of the part size.
        version: of the manifest.
        iv: 16 or 32 hex digits.
        signed: whether it has a user's key, and so a signature.
        pretty: whether its manifest is indented, with double quotes.
        digest: what it takes for the SHA-1 of the tar stream, if that is not it.
    """

    archive: Archiver
    compress: Sequence[str] = ("gzip", "-9")
    part_name: Callable[[int], str] = "image.part.{:02}".format
    part_size: int = 10 << 20
    empty_end: bool = False
    version: str = "2007-10-10"
    iv: str = IV
    signed: bool = True
    pretty: bool = False
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a manifest says; `parts` are (file name, SHA-1). None and '' leave an element out.

    `user` and `ec2` are (key, IV), wrapped, in hex.
    """

    parts: Sequence[tuple[str, str]]
    size: int
    bundled_size: int | None
    digest: str | None
    user: tuple[str, str] | None = field(repr=False)
    ec2: tuple[str, str] | None = field(repr=False)
    name: str = "image"
    version: str = "2007-10-10"
    kernel: str = ""
    pretty: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """A bundle in a folder, and what it was made from."""

    image: Path
    tar: Path
    manifest: Path
    parts: list[Path]
    facts: Facts

    def rewrite(self, signer: KeyPair, **changes: object) -> None:
        """Say something else in the manifest, and sign that."""
        facts = replace(self.facts, **changes)  # type: ignore[arg-type]  # mypy cannot know which
        self.manifest.write_text(manifest(facts, signer), encoding="utf-8")

    def copy(self, folder: Path) -> "Made":
        """Copy it to a new folder, to be damaged there."""
        shutil.copytree(self.manifest.parent, folder)
        parts = [folder / part.name for part in self.parts]
        return replace(self, manifest=folder / self.manifest.name, parts=parts)


@dataclass(frozen=True, slots=True)
class Stages:
    """An image, the tar stream of it, and that compressed: the files that a bundle comes from."""

    image: Path
    tar: Path
    compressed: Path


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where bundles are made: whose keys they are for, and a folder for them to lie in."""

    folder: Path
    user: KeyPair
    ec2: KeyPair

    def make(self, image: Path, bundler: Bundler, name: str = "bundle") -> Made:
        """Bundle `image` as `bundler` does, in a new folder `name`."""
        stages = Stages(image, self.folder / f"{name}.tar", self.folder / f"{name}.gz")
        bundler.archive(image, stages.tar)
        script = 'tar=$1 gz=$2; shift 2; "$@" < "$tar" > "$gz"'
        pipeline(script, stages.tar, stages.compressed, *bundler.compress)
        return self.seal(stages, bundler, name)

    def seal(self, stages: Stages, bundler: Bundler, name: str = "bundle") -> Made:
        """Encrypt and cut what was compressed, and write the manifest beside it."""
        folder = self.folder / name
        folder.mkdir()
        parts = cut(stages.compressed, folder, bundler)
        secret = (KEY, bundler.iv)
        facts = Facts(
            parts=list(zip([part.name for part in parts], sha1sum(parts), strict=True)),
            size=stages.image.stat().st_size,
            bundled_size=sum(part.stat().st_size for part in parts),
            digest=bundler.digest or sha1sum([stages.tar])[0],
            user=wrap(secret, self.user) if bundler.signed else None,
            ec2=wrap(secret, self.ec2),
            version=bundler.version,
            pretty=bundler.pretty,
        )
        text = manifest(facts, self.user if bundler.signed else None)
        path = folder / "image.manifest.xml"
        path.write_text(text, encoding="utf-8")
        return Made(stages.image, stages.tar, path, parts, facts)

    def key(self, bundler: Bundler) -> tuple[str, Path]:
        """Return the option that opens what `bundler` makes."""
        own = ("--user-key", self.user.private)
        return own if bundler.signed else ("--ec2-key", self.ec2.private)


def cut(compressed: Path, folder: Path, bundler: Bundler) -> list[Path]:
    """Encrypt with openssl, cut with split, and give the parts, named as the bundler does."""
    script = (
        'openssl enc -e -aes-128-cbc -K "$2" -iv "$3" -in "$1" 2>"$6" |'
        ' split -b "$4" -d -a 5 - "$5/piece."'
    )
    complaints = folder.with_suffix(".openssl")  # that a short IV is filled up
    arguments = (KEY, bundler.iv, str(bundler.part_size), folder, complaints)
    pipeline(script, compressed, *arguments)
    pieces = sorted(folder.glob("piece.*"))
    if bundler.empty_end and pieces[-1].stat().st_size == bundler.part_size:
        pieces.append(folder / "piece.end")
        pieces[-1].touch()
    return [piece.rename(folder / bundler.part_name(at)) for at, piece in enumerate(pieces)]


def wrap(secret: tuple[str, str], to: KeyPair) -> tuple[str, str]:
    """Encrypt key and IV, as the hex digits that they are written in, with openssl."""
    command: list[str | Path] = ["openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", to.public]
    key, iv = (run(command, data=digits.encode()).hex() for digits in secret)
    return key, iv


def manifest(facts: Facts, user: KeyPair | None) -> str:
    """Write a manifest, signed by openssl over the text between its tags."""
    image = _image(facts)
    machine = "" if facts.version == "3" else _machine(facts)
    bundler = "<bundler><name>another</name><version>1.3</version><release>672</release></bundler>"
    signature = _signature(machine + image, user)
    body = f"<version>{facts.version}</version>{bundler}{machine}{image}"
    head = '<?xml version="1.0" encoding="UTF-8"?>\n' if facts.pretty else "<?xml version='1.0'?>"
    return f"{head}<manifest>{body}<signature>{signature}</signature></manifest>\n"


def _signature(text: str, user: KeyPair | None) -> str:
    if user is None:
        return UNSIGNED
    return run(["openssl", "dgst", "-sha1", "-sign", user.private], data=text.encode()).hex()


def _machine(facts: Facts) -> str:
    inner = f"<architecture>x86_64</architecture>{MAPPING}{_element('kernel_id', facts.kernel)}"
    return _laid_out(f"<machine_configuration>{inner}</machine_configuration>", facts)


def _image(facts: Facts) -> str:
    kind = "<type>machine</type>" if facts.version == "2007-10-10" else ""
    listed = "".join(
        f"<part index='{at}'><filename>{name}</filename>"
        f"<digest algorithm='SHA1'>{digest}</digest></part>"
        for at, (name, digest) in enumerate(facts.parts)
    )
    digest = f"<digest algorithm='SHA1'>{facts.digest}</digest>" if facts.digest else ""
    inner = (
        f"<name>{facts.name}</name><user>{ACCOUNT}</user>{kind}{digest}<size>{facts.size}</size>"
        f"{_element('bundled_size', facts.bundled_size)}{_keys(facts)}"
        f"<parts count='{len(facts.parts)}'>{listed}</parts>"
    )
    return _laid_out(f"<image>{inner}</image>", facts)


def _keys(facts: Facts) -> str:
    """Return the four wrapped values; euca2ools leaves those empty that it has no key for."""
    user, ec2 = facts.user or ("", ""), facts.ec2 or ("", "")
    aes = " algorithm='AES-128-CBC'"
    return (
        f"<ec2_encrypted_key{aes}>{ec2[0]}</ec2_encrypted_key>"
        f"<user_encrypted_key{aes}>{user[0]}</user_encrypted_key>"
        f"<ec2_encrypted_iv>{ec2[1]}</ec2_encrypted_iv>"
        f"<user_encrypted_iv>{user[1]}</user_encrypted_iv>"
    )


def _element(name: str, value: object) -> str:
    return f"<{name}>{value}</{name}>" if value else ""


def _laid_out(text: str, facts: Facts) -> str:
    return text.replace("><", ">\n  <").replace("'", '"') if facts.pretty else text


def mixed_image(path: Path) -> Path:
    """Write some MiB of everything: text, noise, zeros that are no hole, holes, an odd size."""
    mib = images.MIB
    data = {0: images.text(900_000), mib: bytes(mib), 2 * mib: b"".join(images.noise(2 * mib))}
    return images.sparse_image(path, 6 * mib + 777, {**data, 5 * mib + 5: b"x" * 70_000})


def zeros_gzip(start: bytes, zeros: int) -> bytes:
    """Return a gzip stream of `start` and of `zeros` MiB of zeros behind it, without making them.

    A MiB of zeros that is flushed fully is the same each time. The stream has no end, and so
    no checksum: nobody should get there.
    """
    head = zlib.compressobj(9, wbits=31)
    begun = head.compress(start) + head.flush(zlib.Z_FULL_FLUSH)
    machine = zlib.compressobj(9, wbits=-15)
    mib = machine.compress(bytes(1 << 20)) + machine.flush(zlib.Z_FULL_FLUSH)
    return begun + mib * zeros


def member(name: str, size: int, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    """Return the header of a tar member."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, target
    return info.tobuf(tarfile.GNU_FORMAT)


_EC2_TAR = gnu_tar("-S", "-h")
_SMALL = 1 << 20

BUNDLERS = {
    # tar -S | gzip -9 | openssl | split; parts padded to the width of their count
    "ec2-ami-tools": Bundler(_EC2_TAR, part_size=_SMALL),
    "ec2-ami-tools, version 2007-08-29": Bundler(
        _EC2_TAR, part_size=_SMALL, part_name="image.part.{}".format, version="2007-08-29"
    ),
    "ec2-ami-tools, version 20070829": Bundler(
        _EC2_TAR, part_size=_SMALL, part_name="image.part.{}".format, version="20070829"
    ),
    # no sum of the tar stream, but of nothing
    "euca2ools 1.0": Bundler(
        gnu_tar("-S"), ("gzip",), part_name="image.part.{}".format, digest=OF_NOTHING
    ),
    "rPath, version 3": Bundler(
        gnu_tar("--format=ustar"), part_size=_SMALL, part_name="part{:02}".format, version="3"
    ),
    "euca2ools": Bundler(gnu_tar("--format=gnu"), ("pigz", "-6"), part_size=_SMALL, pretty=True),
    "euca2ools, unsigned": Bundler(gnu_tar("--format=gnu"), ("pigz",), signed=False),
    "pgzip": Bundler(gnu_tar(), ("pigz", "-b", "128", "-i", "-p", "2"), part_size=_SMALL),
    "scalarizr": Bundler(_EC2_TAR, ("gzip",), iv=SCALR_IV),
    "pax": Bundler(gnu_tar("--format=pax"), ("gzip", "-1"), part_name="anything at all {}".format),
    "pax, sparse": Bundler(gnu_tar("--format=pax", "-S"), part_size=_SMALL),
    "pax, sparse 0.1": Bundler(gnu_tar("--format=pax", "-S", "--sparse-version=0.1")),
    "pax, sparse 0.0": Bundler(gnu_tar("--format=pax", "-S", "--sparse-version=0.0")),
    "tarfile, GNU": Bundler(python_tar(tarfile.GNU_FORMAT), ("gzip", "-6"), part_size=_SMALL),
    "tarfile, PAX": Bundler(python_tar(tarfile.PAX_FORMAT), ("gzip", "-6"), part_size=_SMALL),
    "two gzip members": Bundler(
        gnu_tar(), ("bash", "-c", "head -c 1000000 | gzip; cat | gzip"), part_size=_SMALL
    ),
}
