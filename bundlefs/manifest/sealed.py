"""The manifest with its keys: the one place that wraps the secret, signs, and renders.

A manifest carries the bundle's secret twice, encrypted with EC2's key and with the user's, and
the user's signature over what it says. Wrapping is randomised, so no two renderings are the same
bytes, though all have the same length. That is known before: `rendered_size`.
"""

from typing import TYPE_CHECKING

from bundlefs.base.errors import BundleError
from bundlefs.keys.regions import Recipient
from bundlefs.keys.rsa import Secret, UserKeys, sign, wrap, wrapped_digits
from bundlefs.manifest.write import Contents, Metadata, WrappedSecrets, render

if TYPE_CHECKING:
    from bundlefs.manifest.read import BundleManifest


def render_sealed(
    metadata: Metadata, contents: Contents, to: Recipient, keys: UserKeys, secret: Secret
) -> bytes:
    """Return a manifest: the secret wrapped for `to` and for the user, and signed by the user."""
    wrapped = WrappedSecrets(*wrap(to.public, secret), *wrap(keys.public, secret))
    return render(metadata, contents, wrapped, lambda text: sign(keys.private, text))


def rendered_size(metadata: Metadata, contents: Contents, to: Recipient, keys: UserKeys) -> int:
    """Return the size of what `render_sealed` makes of these, without any use of the keys."""
    ec2, user = "0" * wrapped_digits(to.public), "0" * keys.wrapped_digits
    signature = "0" * keys.signature_digits
    wrapped = WrappedSecrets(ec2, ec2, user, user)
    return len(render(metadata, contents, wrapped, lambda _: signature))


def render_anew(
    manifest: "BundleManifest", metadata: Metadata, to: Recipient, keys: UserKeys, secret: Secret
) -> bytes:
    """Return another manifest of the bundle that `manifest` describes.

    Raises:
        BundleError: it does not say what a manifest must.
    """
    if manifest.digest is None or manifest.bundled_size is None:
        raise BundleError(
            "the manifest lacks the digest or the bundled size: EC2 refuses such a one"
        )
    contents = Contents(
        name=manifest.name,
        size=manifest.size,
        bundled_size=manifest.bundled_size,
        digest=manifest.digest,
        parts=tuple((entry.filename, entry.digest) for entry in manifest.parts),
    )
    return render_sealed(metadata, contents, to, keys, secret)
