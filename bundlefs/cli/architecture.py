"""The architecture of a bundle: the one asked for, else the image's, else this host's."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from bundlefs.base.errors import BundlefsError, ImageError, UnknownArchitectureError, UsageError
from bundlefs.bundling.recipe import Recipe
from bundlefs.cli.options.bundling import ArchOptions
from bundlefs.image.look.architecture import Seen, seen
from bundlefs.image.source import Source
from bundlefs.manifest.write import KNOWN_ARCHITECTURES, Metadata, architecture

log = logging.getLogger(__name__)

_ANY = "for those, give --force-arch besides"
_UNDECIDED = "x86_64"
"""What a recipe has until the image has been looked at."""


def asked(options: ArchOptions) -> str | None:
    """Return the architecture that is asked for, as EC2 writes it, or None.

    Raises:
        UsageError: EC2 knows no such architecture, or none is named.
    """
    if options.force_arch and not options.arch:
        raise UsageError("--force-arch: name the architecture with --arch")
    if options.arch is None:
        return None
    try:
        return architecture(options.arch, any_arch=options.force_arch)
    except UnknownArchitectureError as error:
        raise UsageError(f"--arch {options.arch}: {error}; {_ANY}") from error


def arch_of_metadata(options: ArchOptions) -> str:
    """Return what goes into the metadata before an image is there to be looked at."""
    return asked(options) or _UNDECIDED


@dataclass(frozen=True, slots=True)
class Telling:
    """Who is told what: a user at once, or whoever reads the log, be it when all is done."""

    warn: Callable[[str], None]
    note: Callable[[str], None] = log.info
    piped: bool = False
    """Whether the image came through a pipe, where nobody expects it to be looked into."""

    def of_host(self, *, structured: bool) -> Callable[[str], None]:
        """Return who is told that this host's architecture is taken.

        An image without a structure that is known may be no system at all.
        """
        return self.warn if structured and not self.piped else self.note


def for_image(options: ArchOptions, image: Source, recipe: Recipe, telling: Telling) -> Recipe:
    """Return the recipe with the architecture of an image, unless the options name one.

    Raises:
        ImageError: it cannot be read, or its architecture is none that EC2 knows.
    """
    if options.arch is not None:
        if not options.force_arch:
            _compare(recipe.metadata.arch, image, telling.warn)
        return recipe
    try:
        about = seen(image)
    except OSError as error:
        raise ImageError(
            f"cannot read image {image.path} to see its architecture: {error.strerror}; --arch"
            " names it"
        ) from error
    return replace(recipe, metadata=_with(recipe.metadata, _decided(about, image, telling)))


def for_pipe(options: ArchOptions, metadata: Metadata, note: Callable[[str], None]) -> Metadata:
    """Return the metadata of an image from a pipe, into which nobody can look."""
    if options.arch is not None:
        return metadata
    return _with(metadata, _host_instead("standard input", "it comes through a pipe", note))


def _with(metadata: Metadata, arch: str) -> Metadata:
    return replace(metadata, arch=arch)


def _compare(arch: str, image: Source, warn: Callable[[str], None]) -> None:
    # What the user says holds, whatever is found.
    with suppress(OSError, BundlefsError):
        about = seen(image)
        if about.name and about.name != arch:
            warn(
                f"{image.path} has code for {about.why}, and --arch says {arch}: an instance of"
                " that kind may not start"
            )


def _decided(about: Seen, image: Source, telling: Telling) -> str:
    if about.name in KNOWN_ARCHITECTURES:
        log.info("%s: architecture %s", image.path, about.why)
        return about.name
    if about.name:
        raise ImageError(
            f"{image.path} has code for {about.why}, which EC2 does not know: --arch"
            f" {about.name} --force-arch says so for another cloud, --arch names another"
        )
    tell = telling.of_host(structured=about.structured)
    return _host_instead(str(image.path), about.why, tell)


def _host_instead(what: str, why: str, tell: Callable[[str], None]) -> str:
    machine = os.uname().machine
    try:
        host = architecture(machine)
    except UsageError as error:
        raise ImageError(
            f"the architecture of {what} is not seen in it ({why}), and this host's is none of"
            f" EC2's ({machine}): name it with --arch"
        ) from error
    tell(
        f"{what}: its architecture is not seen in it ({why}), so this host's is taken: {host};"
        " --arch names another"
    )
    return host
