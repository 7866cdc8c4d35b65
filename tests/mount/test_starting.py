"""A mount that cannot start, or ends before it answers: a line that says why, and nothing left."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bundlefs.base.errors import UsageError
from bundlefs.cli.common import reported
from tests.mount.commands import attempt, eventually, in_namespace, names, refusal
from tests.support import images
from tests.support.keys import KeyPair
from tests.support.mounts import BUNDLEFS, bundlefs, is_mounted, settings
from tests.support.tools import run, tool

SLOW_TO_ANSWER = """
import os, sys, threading
from bundlefs.cli import main

def stat(path, real=os.stat, **how):
    if os.fspath(path) == sys.argv[-1] and not how:
        threading.Event().wait()
    return real(path, **how)

os.stat = stat
sys.exit(main(sys.argv[1:]))
"""
"""A mount whose process never hears the first answer of its own mount."""

WITHOUT = """
mount -t tmpfs none "$1"
mkdir "$1/real" "$1/shown"
mount --bind "$2" "$1/real"
ln -s "$1"/real/* "$1/shown"
rm "$1/shown/libfuse3.so"*
mount --bind "$1/shown" "$2"
shift 2
exec "$@"
"""
"""Takes libfuse out of the folder of libraries, for one command alone."""


TRACED = (sys.executable, "-X", "importtime", "-m", "bundlefs")
NOT_FOR_RAW_IMAGES = {
    # Libraries
    *("cryptography.x509", "cryptography.hazmat.primitives.serialization", "indexed_gzip"),
    *("backports.zstd", "tqdm", "argcomplete", "fsspec"),
    # Of Python's own: what some of the above would bring as well
    *("getpass", "difflib", "html", "pyexpat", "logging.handlers"),
    # Ours, for other commands and other images
    *("bundlefs.api", "bundlefs.keys.files", "bundlefs.manifest.read", "bundlefs.unbundling"),
    *("bundlefs.image.gzipped", "bundlefs.image.qemu", "bundlefs.image.spool"),
    *("bundlefs.fuse.shelf", "bundlefs.cli.bars", "bundlefs.bundling.writer"),
}
NOT_FOR_QUESTIONS = {
    *("trio", "pyfuse3", "cryptography", "isal", "deflate", "zlib_ng", "indexed_gzip", "tqdm"),
    *("bundlefs.bundling", "bundlefs.image", "bundlefs.keys", "bundlefs.state"),
}
NOT_FOR_BUNDLES = {
    *("trio", "pyfuse3", "cryptography.x509", "indexed_gzip", "tqdm", "getpass"),
    *("bundlefs.bundling", "bundlefs.state.choice", "bundlefs.image.open", "bundlefs.image.look"),
    *("bundlefs.manifest.write", "bundlefs.cli.bars"),
}


def loaded(said: str) -> set[str]:
    """Return the modules that `-X importtime` says were loaded, by a parent and its child."""
    return {line.rpartition("|")[2].strip() for line in said.splitlines() if "|" in line}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.text_image(tmp_path / "disk", 4096)


# What is loaded before it is ready: that is most of the time that it takes


def test_what_is_not_needed_is_not_loaded(image: Path, mountpoint: Path) -> None:
    mounting = attempt("mount", image, mountpoint, program=TRACED)
    try:
        asking = attempt("status", mountpoint, program=TRACED)
    finally:
        ending = attempt("umount", mountpoint, program=TRACED)
    assert mounting.code == asking.code == ending.code == 0
    assert {"bundlefs.fuse.session", "trio", "deflate"} <= loaded(mounting.err)
    assert loaded(mounting.err) & NOT_FOR_RAW_IMAGES == set()
    for said in (asking.err, ending.err):
        assert "bundlefs.fuse.mountpoint" in loaded(said)
        assert loaded(said) & NOT_FOR_QUESTIONS == set()


def test_a_folder_of_images_has_all_readers_before_it_is_ready(
    tmp_path: Path, mountpoint: Path
) -> None:
    (tmp_path / "images").mkdir()
    mounting = attempt("mount", tmp_path / "images", mountpoint, program=TRACED)
    try:
        assert mounting.code == 0, mounting.err
        assert {"bundlefs.image.gzipped", "indexed_gzip"} <= loaded(mounting.err)
        assert {"bundlefs.image.qemu", "bundlefs.image.spool"} <= loaded(mounting.err)
    finally:
        bundlefs("umount", mountpoint)


def test_the_way_back_loads_what_it_needs(image: Path, tmp_path: Path, user_keys: KeyPair) -> None:
    bundle, keys = tmp_path / "bundle", ("--user-key", user_keys.private)
    bundle.mkdir()
    assert attempt("bundle", *keys, image, bundle).code == 0
    manifest, back = bundle / "image.manifest.xml", tmp_path / "back"
    for words in (("verify", *keys, manifest), ("unbundle", *keys, manifest, "-o", back)):
        done = attempt(*words, program=TRACED)
        assert done.code == 0, done.err
        assert {"cryptography", "bundlefs.unbundling.extract"} <= loaded(done.err)
        assert loaded(done.err) & NOT_FOR_BUNDLES == set()
    assert back.read_bytes() == image.read_bytes()


# Ended before it is ready


def test_unmounted_before_it_is_ready(image: Path, mountpoint: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_TO_ANSWER, "mount", str(image), str(mountpoint)],
        env=settings(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert eventually(lambda: is_mounted(mountpoint))
        assert process.poll() is None
        bundlefs("umount", mountpoint)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    line = "bundlefs: the mount was unmounted or told to end before it was ready\n"
    assert (process.returncode, said) == (1, line)


# libfuse


@pytest.fixture
def without_libfuse(tmp_path: Path) -> tuple[str, ...]:
    """Give bundlefs where libfuse is not installed."""
    maps = run([sys.executable, "-c", "import pyfuse3; print(open('/proc/self/maps').read())"])
    [library] = {line.split()[-1] for line in maps.decode().splitlines() if "libfuse3" in line}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return (*in_namespace(WITHOUT, scratch, Path(library).parent), *BUNDLEFS)


def test_without_libfuse(
    without_libfuse: tuple[str, ...],
    image: Path,
    mountpoint: Path,
    tmp_path: Path,
    user_keys: KeyPair,
) -> None:
    bundle = tmp_path / "bundle"
    keys = ("--user-key", user_keys.private)
    bundle.mkdir()
    # What does not mount does not need it.
    assert attempt("bundle", *keys, image, bundle, program=without_libfuse).code == 0
    assert names(bundle) == ["image.manifest.xml", "image.part.00"]
    manifest = bundle / "image.manifest.xml"
    words: list[tuple[str | Path, ...]] = [("mount", image), ("open", *keys, manifest)]
    for each in words:
        line = refusal(*each, mountpoint, code=1, program=without_libfuse)
        # Debian 13 has libfuse3.so.4.
        assert re.match(r"bundlefs: FUSE's library cannot be loaded \(libfuse3\.so\.\d: ", line)
        assert line.endswith("install the package fuse3")


# pyfuse3


OLD_PYFUSE3 = """
import sys, pyfuse3
for name in [name for name in vars(pyfuse3) if name.endswith("T")]:
    delattr(pyfuse3, name)
from bundlefs.cli import main
sys.exit(main())
"""
"""A pyfuse3 without names for types, as those before 3.4 are."""


def test_with_the_pyfuse3_of_debian_12(image: Path, mountpoint: Path) -> None:
    program = (sys.executable, "-c", OLD_PYFUSE3)
    words = ("--state", "none", "--arch", "x86_64", image, mountpoint)
    assert attempt("mount", *words, program=program).code == 0
    try:
        assert names(mountpoint) == ["image.manifest.xml", "image.part.00"]
        part = mountpoint / "image.part.00"
        assert len(part.read_bytes()) == part.stat().st_size > 0
        assert os.listxattr(part) == ["user.bundlefs.sha1"]
    finally:
        bundlefs("umount", mountpoint)


# What the system refuses


@pytest.mark.parametrize("options", [(), ("-f",)])
def test_too_few_open_files(options: tuple[str, ...], image: Path, mountpoint: Path) -> None:
    limit = 8
    program = (tool("sh"), "-c", f'ulimit -n {limit}; exec "$@"', "sh", *BUNDLEFS)
    # In the foreground the log is on stderr: there must be nothing to note of the image.
    given = (*options, "--arch", "x86_64", "--state", "none")
    line = refusal("mount", *given, image, mountpoint, code=1, program=program)
    said = f"too many open files: {limit} are allowed; raise the limit with `ulimit -n`"
    assert line == f"bundlefs: {said}"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "/a b"), "/a b: No such file"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("without a number"), "without a number"),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [OSError(5, "bad", "disk")])]), "disk: "),
        (ExceptionGroup("tasks", [UsageError("no account")]), "no account"),
    ],
)
def test_an_error_of_the_system(
    error: Exception,
    line: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def work() -> int:
        raise error

    code = 2 if "account" in line else 1
    assert reported(work) == code
    said = capsys.readouterr().err
    assert said.startswith(f"bundlefs: {line}")
    assert said.count("\n") == 1
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]
