"""What `bundlefs mount` and `bundlefs bundle` begin with: an image, its oddities, and its state.

What is odd is told as a warning by whoever opens an image: at once to a user who waits, or in the
log for the images of a folder.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bundlefs.base.errors import BundlefsError, FormError, UsageError
from bundlefs.bundling.recipe import Recipe
from bundlefs.bundling.states import kept_state
from bundlefs.cli.common import human
from bundlefs.cli.options.bundling import ImageOptions, StateOptions
from bundlefs.cli.streams import print_warning
from bundlefs.image.look.doubts import doubts
from bundlefs.image.look.launch import launch_doubts
from bundlefs.image.look.writers import writer
from bundlefs.image.open import open_source, require_raw
from bundlefs.image.source import Source
from bundlefs.state.memory import State
from bundlefs.state.places import default_path, points_path

MAX_ROOT_SIZE = 10 << 30
"""EC2 refuses a root image larger than 10 GiB [ec2-ami-tools bundleimage.rb MAX_SIZE]."""


def open_image(
    options: ImageOptions, state: StateOptions, path: Path, *, descriptor: int | None = None
) -> Source:
    """Open an image in the form that it has, or as it is where the options say so.

    Where there is a `descriptor`, that is the image, and `path` is what people call it.
    """
    if options.form and options.as_it_is:
        raise UsageError(
            f"--source {options.source}: a {options.type} is taken as it is; leave it out"
        )
    kept = _points_path(state, path) if descriptor is None else None
    with _told_of_raw():
        return open_source(
            path, raw=options.as_it_is, form=options.form, kept=kept, descriptor=descriptor
        )


@contextmanager
def _told_of_raw() -> Iterator[None]:
    """Add to an error the option that takes the file in spite of it."""
    try:
        yield
    except FormError as error:
        other = f"--source {error.form} reads that, " if error.form else ""
        raise FormError(f"{error} ({other}--source raw takes the file as it is)") from error


def require_raw_pipe(options: ImageOptions, head: bytes) -> None:
    """Refuse an image from standard input whose first bytes, `head`, are known to be no disk's."""
    if not options.as_it_is:
        with _told_of_raw():
            require_raw(head)


def _points_path(options: StateOptions, path: Path) -> Path | None:
    """Return the file for the access points of a compressed image, which is beside its state."""
    if options.nowhere:
        return None
    if options.state:
        return Path(f"{options.state}.points").absolute()
    # What is wrong with the path is found, and told, when the image is opened.
    with suppress(OSError):
        return points_path(path)
    return None


def warn_of_size(
    image: Source, options: ImageOptions, warn: Callable[[str], None] = print_warning
) -> None:
    """Warn if EC2 is going to refuse this image."""
    warn_if_large(image.size, image.path, options, warn)


def warn_if_large(
    size: int,
    name: object,
    options: ImageOptions,
    warn: Callable[[str], None] = print_warning,
) -> None:
    """Warn if EC2 is going to refuse an image of this size."""
    if size > MAX_ROOT_SIZE and not options.no_size_limit:
        warn(
            f"{name} has {human(size)}; EC2 takes root images of at most 10 GiB"
            " (--no-size-limit silences this)"
        )


def warn_of_doubts(
    image: Source,
    options: ImageOptions,
    warn: Callable[[str], None] = print_warning,
    *,
    kernel: str | None = None,
) -> None:
    """Warn if an image seems to be cut short, starts nothing, or is still being written.

    `kernel` is the one that the bundle names, if any.
    """
    if not options.as_it_is:
        # What cannot be read is found, and told, by whoever needs it.
        with suppress(OSError, BundlefsError):
            for doubt in doubts(image) or launch_doubts(image, paravirtual=kernel is not None):
                warn(f"{image.path} {doubt}")
    if who := writer(image.path):
        warn(
            f"{image.path} is open for writing by {who}: once its bytes change, the bundle fails;"
            " let that end first, or bundle a snapshot"
        )


def open_state(
    options: StateOptions, image: Source, recipe: Recipe, *, fresh: bool | None = None
) -> State:
    """Take up the state of an earlier mount, or begin one, in a file or not.

    `fresh` says whether to begin one; without it, the options do.
    """
    fresh = options.fresh if fresh is None else fresh
    return kept_state(_state_path(options, image, recipe), image, recipe, fresh=fresh)


def _state_path(options: StateOptions, image: Source, recipe: Recipe) -> Path | None:
    if options.nowhere:
        return None
    return Path(options.state) if options.state else default_path(image.path, recipe.prefix)
