"""What a mount and `bundlefs bundle` begin with: the image and its state."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bundlefs.base.errors import BundlefsError, FormError
from bundlefs.bundling.recipe import Recipe, wanted
from bundlefs.cli.common import human
from bundlefs.cli.streams import say
from bundlefs.image.look.doubts import doubts
from bundlefs.image.look.writers import writer
from bundlefs.image.open import open_source, require_raw
from bundlefs.image.source import Source
from bundlefs.state.memory import State
from bundlefs.state.open import open_file
from bundlefs.state.places import default_path, points_path

MAX_ROOT_SIZE = 10 << 30
"""EC2 refuses a root image larger than 10 GiB [ec2-ami-tools bundleimage.rb MAX_SIZE]."""


def open_image(
    arguments: argparse.Namespace, path: Path, *, descriptor: int | None = None
) -> Source:
    """Open an image in the form that it has, or that --source says.

    Where there is a `descriptor`, that is the image, and `path` is what people call it.
    """
    kept = _points_path(arguments, path) if descriptor is None else None
    with _told_of_raw():
        return open_source(path, raw=_as_it_is(arguments), kept=kept, descriptor=descriptor)


def _as_it_is(arguments: argparse.Namespace) -> bool:
    """Tell whether the bytes of the file are the image; a kernel or ramdisk is no disk."""
    return bool(arguments.source == "raw" or arguments.type in ("kernel", "ramdisk"))


@contextmanager
def _told_of_raw() -> Iterator[None]:
    """Add to an error the option that takes the file in spite of it."""
    try:
        yield
    except FormError as error:
        raise FormError(f"{error} (--source raw takes the file as it is)") from error


def require_raw_pipe(arguments: argparse.Namespace, head: bytes) -> None:
    """Refuse an image from standard input that begins with `head`, if it is known to be no disk."""
    if not _as_it_is(arguments):
        with _told_of_raw():
            require_raw(head)


def _points_path(arguments: argparse.Namespace, path: Path) -> Path | None:
    """Name the file for what is known of a compressed image, beside its state."""
    if arguments.state == "none":
        return None
    if arguments.state:
        return Path(f"{arguments.state}.points").absolute()
    # What is wrong with the path is found, and said, on opening it.
    with suppress(OSError):
        return points_path(path)
    return None


def print_warning(text: str) -> None:
    """Tell who waits for the command."""
    say(f"warning: {text}")


def warn_of_size(
    image: Source, arguments: argparse.Namespace, warn: Callable[[str], None] = print_warning
) -> None:
    """Say so if EC2 is going to refuse this image."""
    warn_if_large(image.size, image.path, arguments, warn)


def warn_if_large(
    size: int,
    name: object,
    arguments: argparse.Namespace,
    warn: Callable[[str], None] = print_warning,
) -> None:
    """Say so if EC2 is going to refuse an image of this size."""
    if size > MAX_ROOT_SIZE and not arguments.no_size_limit:
        warn(
            f"{name} has {human(size)}; EC2 takes root images of at most 10 GiB"
            " (--no-size-limit silences this)"
        )


def warn_of_doubts(
    image: Source, arguments: argparse.Namespace, warn: Callable[[str], None] = print_warning
) -> None:
    """Say so if an image seems to be cut short, or is still being written."""
    if not _as_it_is(arguments):
        # What cannot be read is found, and said, by who needs it.
        with suppress(OSError, BundlefsError):
            for doubt in doubts(image):
                warn(f"{image.path} {doubt}")
    if who := writer(image.path):
        warn(
            f"{image.path} is open for writing by {who}: once its bytes change, the bundle fails;"
            " let that end first, or bundle a snapshot"
        )


def open_state(
    arguments: argparse.Namespace, image: Source, recipe: Recipe, *, fresh: bool
) -> State:
    """Take up the state of an earlier mount, or begin one, in a file or not."""
    asked = wanted(image, recipe)
    if arguments.state == "none":
        return State(asked.extents)
    path = Path(arguments.state) if arguments.state else default_path(image.path, recipe.prefix)
    return open_file(path.absolute(), asked, fresh=fresh)
