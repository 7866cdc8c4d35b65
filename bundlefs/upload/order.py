"""The order of an upload: parts, then their sizes compared, then manifests, then the AMI."""

import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from bundlefs.upload.aws import Aws
from bundlefs.upload.bundle import compare, read_bundle, registering, to_register
from bundlefs.upload.course import Course, Stand
from bundlefs.upload.feeds import Feed
from bundlefs.upload.places import Wanted
from bundlefs.upload.progress import Progress
from bundlefs.upload.rclone import Rclone
from bundlefs.upload.senders import Sender, start_sending
from bundlefs.upload.words import ask, draw, need, tell

Tool = Aws | Rclone


def tool_for(wanted: Wanted) -> Tool:
    """Return the tool that copies to a destination.

    Raises:
        UploadError: one that is needed is not installed.
    """
    if wanted.register:
        need("aws", "--register")
    return (Rclone if wanted.dest.remote else Aws)(wanted)


def upload(tool: Tool, feed: AbstractContextManager[Feed], work: Path, wanted: Wanted) -> list[str]:
    """Upload a bundle, and return the lines to show: commands that register, or an AMI's ID.

    Args:
        tool: what copies.
        feed: gives the parts; entered once the bucket was looked at.
        work: an empty folder that nobody else may look into.
        wanted: what is asked for.

    Raises:
        UploadError: a tool failed, or the bundle or the bucket cannot be used.
        OSError: the bundle cannot be read.
    """
    if not wanted.no_check:
        tool.check()
    # It starts while the mount does, and ends before that, whose files it has open.
    with closing(tool.sender(work)) as sender, feed as parts, closing(sender):
        manifests = to_register(parts.manifests, wanted)
        tell(f"bundlefs-upload: sending to {wanted.dest} by {tool.name}")
        _send(parts, sender, Progress(quiet=wanted.quiet))
        bundle = parts.bundle()
        if bundle.index:
            sender.send([bundle.folder / name for name in bundle.index])
        compare(bundle, tool.sizes())
        sender.send([bundle.folder / name for name in bundle.manifests])
        commands = [registering(bundle, manifest, wanted) for manifest in manifests]
    return [_registered(words, wanted) for words in commands]


def _send(feed: Feed, sender: Sender, progress: Progress) -> None:
    ahead = min(sender.ahead, feed.room or sender.ahead)
    course = Course(ahead, sender.at_first, min(sender.least, ahead // 2), feed.let_go)

    def tick(stand: Stand) -> None:
        progress(feed.total(), stand)

    with _drawing():
        try:
            feed.start(course, sender.is_there)
            start_sending(course, sender)
            course.wait(tick)
        finally:
            course.stop()


@contextmanager
def _drawing() -> Iterator[None]:
    """Take the line away that shows progress."""
    try:
        yield
    finally:
        draw("")


def _registered(words: list[str], wanted: Wanted) -> str:
    if wanted.register:
        return ask(*words, "--query", "ImageId", "--output", "text").strip()
    return shlex.join(words)


def rehearse_image(tool: Tool, image: Path, options: list[str], wanted: Wanted) -> list[str]:
    """Check all that can be checked, and show what would be run; the manifest is not there yet."""
    if not wanted.no_check:
        tool.check()
    tell(f"+ {shlex.join(['bundlefs', 'mount', *options, str(image), '...'])}")
    tell(f"+ {shlex.join(tool.copying(Path('...')))}")
    return []


def rehearse(tool: Tool, folder: Path, wanted: Wanted) -> list[str]:
    """Check all that can be checked, show what would be run, and return commands that register.

    Raises:
        UploadError: the bundle or the bucket cannot be used.
        OSError: the bundle cannot be read.
    """
    bundle = read_bundle(folder)
    manifests = to_register(bundle.manifests, wanted)
    if not wanted.no_check:
        tool.check()
    for what in (["--exclude", "*.manifest.xml"], []):
        tell(f"+ {shlex.join([*tool.copying(folder), *what])}")
    return [shlex.join(registering(bundle, manifest, wanted)) for manifest in manifests]
