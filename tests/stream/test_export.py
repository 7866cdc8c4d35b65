"""`Export`: the files of a bundle in a sink, each block made once, the manifest last."""

import hashlib
import shutil
import threading
import time
from pathlib import Path

import pytest

from bundlefs import DirectorySink
from bundlefs.base.errors import ImageChangedError
from bundlefs.bundling.names import Entry
from tests.stream.badsinks import NotingSink, Plan, bundle_to, no_room, parts_in
from tests.stream.engine import HANG, Setting, opened, read_parts
from tests.stream.exports import MANIFESTS, blocks_of, exporting
from tests.support import images
from tests.support.folders import contents

MIB = 1 << 20
PROMPT = 10
"""Seconds within which an error must have come; it takes milliseconds."""


# --- one pass ---


@pytest.mark.parametrize("level", [0, 1, 6])
def test_it_writes_what_a_mount_shows(mixed: Path, level: int) -> None:
    sink = NotingSink()
    with exporting(mixed, sink, level=level) as run:
        run.export.run()
        assert run.compressed() == blocks_of(run)
    with opened(mixed, Setting(level=level)) as bundle:
        assert parts_in(sink.files) == read_parts(bundle)


def test_each_block_is_made_once_and_the_image_read_once(
    noisy: Path, parts: dict[str, bytes]
) -> None:
    sink = NotingSink(pause=0.005)
    with exporting(noisy, sink) as run:
        run.export.run()
        status = run.bundle.status()
    assert status.blocks_compressed == -(-status.tar_size // MIB)
    assert status.image_bytes_read == status.image_size
    assert sink.loose == []
    assert sink.order == [*sorted(parts), *MANIFESTS], "parts in order, the manifests last"
    assert parts_in(sink.files) == list(parts.values())
    for number, data in enumerate(parts.values()):
        digest = hashlib.sha1(data, usedforsecurity=False).hexdigest().encode()
        entry = b"<part index='%d'><filename>image.part.%02d</filename><digest algorithm='SHA1'>%s"
        for manifest in MANIFESTS:
            assert entry % (number, number, digest) in sink.files[manifest]


def test_writer_and_export_agree_where_there_are_no_holes(noisy: Path) -> None:
    ours, theirs = NotingSink(), NotingSink()
    with exporting(noisy, ours) as run:
        run.export.run()
    bundle_to(theirs, noisy.read_bytes())
    assert parts_in(ours.files) == parts_in(theirs.files)


# --- failures ---

CALLS = {
    "the first part is not opened": Plan("open", 0),
    "the third part is not opened": Plan("open", 2),
    "the first write": Plan("write", 0),
    "a write in the middle": Plan("write", 25),
    "the first part is not closed": Plan("close", 0),
    "the last part is not closed": Plan("close", 5),
    "the manifest is not opened": Plan("open", 6),
    "the second manifest is not closed": Plan("close", 8),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_failure_reaches_the_caller(case: str, noisy: Path, parts: dict[str, bytes]) -> None:
    plan, error = CALLS[case], no_room()
    sink = NotingSink(Plan(plan.call, plan.after, 1, error))
    start = time.monotonic()
    with exporting(noisy, sink) as run, pytest.raises(OSError, match="No space") as raised:
        run.export.run()
    assert time.monotonic() - start < PROMPT
    assert raised.value is error
    assert sink.loose == []
    assert {name: data for name, data in sink.files.items() if ".part." in name}.items() <= (
        parts.items()
    )
    if "manifest" not in case:
        assert not [name for name in sink.files if "manifest" in name]
    sink.plan = Plan()
    with exporting(noisy, sink) as run:
        run.export.run()
    assert parts_in(sink.files) == list(parts.values())


def test_what_the_sink_lost_is_not_made_up_for(noisy: Path) -> None:
    """One write fails, those on their way behind it would fill the part up: it must not be."""
    sink = NotingSink(Plan("write", 5, times=1), pause=0.03)
    with exporting(noisy, sink) as run:
        with pytest.raises(OSError, match="No space"):
            run.export.run()
        time.sleep(0.6)
        assert (sink.files, sink.loose) == ({}, [])


def test_an_image_that_changes_is_no_bundle(noisy: Path, tmp_path: Path) -> None:
    """The sink is slow: what is still on its way to it must not come in after the error."""
    image = tmp_path / "disk"
    shutil.copy(noisy, image)
    sink = NotingSink(pause=0.05)
    with exporting(image, sink) as run:
        threading.Timer(0.5, image.touch).start()
        with pytest.raises(ImageChangedError, match="mtime"):
            run.export.run()
        before = dict(sink.files)
        assert sink.loose == []
        time.sleep(1)
        assert (sink.files, sink.loose) == (before, [])
    assert not [name for name in sink.files if "manifest" in name]


def test_an_image_that_changes_before_the_manifest_has_none(noisy: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(noisy.read_bytes())
    sink = DirectorySink(tmp_path / "dest")
    with exporting(image, sink) as run:
        complete = run.bundle.entries

        def spoiled() -> tuple[Entry, ...]:
            image.with_name("other").write_bytes(b"another")
            image.with_name("other").rename(image)
            return complete()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run.bundle, "entries", spoiled)
            with pytest.raises(ImageChangedError):
                run.export.run()
    assert len(contents(sink.folder)) > 0
    assert not list(sink.folder.glob("*.xml"))


def test_a_stuck_sink_holds_the_bundle_up(noisy: Path, parts: dict[str, bytes]) -> None:
    """Memory stays bounded: no more is sealed than the sink is behind."""
    sink = NotingSink()
    sink.gate.clear()
    with exporting(noisy, sink) as run:
        thread = threading.Thread(target=run.export.run)
        thread.start()
        time.sleep(1.5)
        assert 5 * MIB < run.bundle.status().sealed_bytes < 12 * MIB
        sink.gate.set()
        thread.join(HANG)
    assert parts_in(sink.files) == list(parts.values())


def test_images_of_one_byte_and_of_holes(tmp_path: Path) -> None:
    for path in (
        images.random_image(tmp_path / "one", 1),
        images.sparse_image(tmp_path / "hole", 100 * MIB, {}),
    ):
        sink = NotingSink()
        with exporting(path, sink) as run:
            run.export.run()
        with opened(path, Setting()) as bundle:
            assert parts_in(sink.files) == read_parts(bundle)
        assert sink.order == ["image.part.00", *MANIFESTS]
