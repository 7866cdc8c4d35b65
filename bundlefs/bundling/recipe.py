"""What a bundle is made of besides the image: its recipe, and all that its bytes depend on."""

from dataclasses import asdict, dataclass

from bundlefs.base.errors import UsageError
from bundlefs.codec.deflate import codec_for
from bundlefs.codec.tar import NAME_LIMIT
from bundlefs.image.source import Source
from bundlefs.keys.regions import Recipient
from bundlefs.keys.rsa import UserKeys, fingerprint
from bundlefs.manifest.write import Metadata
from bundlefs.state.choice import Wanted

FORMAT = 1
"""This number must be raised when the same terms come to give other bytes."""
EPHEMERAL = "made for the occasion"
"""What a state has for an ephemeral key of the user; states of today have these words."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is to be made of an image: names, keys and parameters.

    Raises:
        UsageError: the prefix cannot be.
    """

    prefix: str
    metadata: Metadata
    recipients: tuple[Recipient, ...]
    user_keys: UserKeys
    level: int = 6
    sparse: bool = True
    user_key: str = EPHEMERAL
    """The fingerprint of the user's key if one was given."""
    with_index: bool = False
    """Whether the index is among the files. No byte of the others depends on it."""

    def __post_init__(self) -> None:
        check_prefix(self.prefix)


def check_prefix(prefix: str) -> str:
    """Return the prefix if the names of files and of the tar member can start with it.

    Raises:
        UsageError: they cannot.
    """
    if not prefix or "/" in prefix or not prefix.isprintable() or prefix.startswith("."):
        raise UsageError(
            f"prefix {prefix!r}: it starts file names, so it must not be empty, start with a dot,"
            " or have '/' or control characters in it"
        )
    if (length := len(prefix.encode())) > NAME_LIMIT:
        raise UsageError(
            f"prefix {prefix!r}: a name of {length} bytes; tar has room for {NAME_LIMIT}"
        )
    return prefix


def wanted(image: Source, recipe: Recipe) -> Wanted:
    """Return what a bundle is going to depend on, to be compared with an earlier state."""
    now = image.identity
    stat = {"image's size": now.size}
    if not now.is_block_device:
        stat |= {
            "image's mtime": now.mtime_ns,
            "image's ctime": now.ctime_ns,
            "image's inode": now.inode,
        }
    terms = stat | {
        "tar and block format": FORMAT,
        "prefix": recipe.prefix,
        "holes": "left out" if recipe.sparse else "stored",
        "codec": codec_for(recipe.level).version,
        "user's key": recipe.user_key,
        **asdict(recipe.metadata),
    }
    return Wanted(
        image=image.path,
        terms={name: str(value) for name, value in terms.items()},
        recipients={to.filename: fingerprint(to.public) for to in recipe.recipients},
        extents=image.extents() if recipe.sparse else None,
    )
