"""EC2's public keys, the regions that use them, and which manifests a bundle gets.

The keys are numbers in the code, so no certificate has to be shipped that expires or gets lost.
They are those of the certificates of ec2-ami-tools (`etc/ec2/amitools/cert-ec2*.pem`). A region
whose key is not known is refused: with the standard key the bundle could not be launched there.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from bundlefs.base.errors import UsageError
from bundlefs.keys.rsa import same_key

EXPONENT = 65537
# cert-ec2.pem of ec2-ami-tools, 1024 bits.
STANDARD_MODULUS = int(
    "bcbff5f9cd9bfc08055f366bc13346ebfd151c7f5c14f310b9776a2d15042c40"
    "a077aa25a88f7a0778e5ac90e9533c5559f0dfbf84468c8f2394920dbe83a5c4"
    "6a0090b45084073515a0c8e240804f8968f9096905b656afdb3b77dcb67412b4"
    "cd0f8c658fb15016a6dacad1d4f71b907053b6a75d9b7484e206ce4ac288bd6d",
    16,
)
# cert-ec2-gov.pem, 1024 bits.
GOV_MODULUS = int(
    "db212a78700d4676ffa549c154ec5cc508d4219de6ba52a522d40871aea8823e"
    "04352f9e9fec3f1775bbaf88d50adb69a0403a6ebe7af33becceef3495d8dfe2"
    "56d3454eb3d3603c45c19a7e945784753fb0e58cabab586991a7c163d72554e2"
    "c4a066aaafef84b2843d19e0049ccd570e89364809eb90a09c26799f05db4a0b",
    16,
)
# cert-ec2-cn-north-1.pem, 2048 bits.
CN_MODULUS = int(
    "eb4d5513d6a752790ce707a04c7114a8d913edfc1a28aa1333ea15ea7d21e43e"
    "0b17fa98ec8b92ed89713f7d3c3f4d3213a227e191c7bdcd44fd7d5eb37eadee"
    "88dd971f0f8348f314b8abdbb0564a5f9d7591892e5d2ef051732543e6a9e890"
    "656de62a8b0ea80a23fc2e61b2f5e74a62c6c5deb5f5e1b3dbe29e977f0b3e1c"
    "3303c3d978d86297f78ae77a28fe1edd66f454b47dbecdb617c6ae50dadb1137"
    "511fe1068d78a1d276ea68f1e14d52799281e118cf5442ff64039fa30aeee5e2"
    "8ce7ede06ea210ee1cf8f791c0bc815bc60c95ad92264d67e33e20992276d6e0"
    "99d01bf40368ffddff899a0368e102c8025fd40560534fe7920056302d50e5af",
    16,
)

STANDARD_REGIONS = (
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "ca-central-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "eu-central-1",
    "eu-north-1",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-south-1",
    "sa-east-1",
)
# Regions whose own key is known.
OWN_MODULUS = {
    "us-gov-west-1": GOV_MODULUS,
    "us-gov-east-1": GOV_MODULUS,
    "cn-north-1": CN_MODULUS,
    "cn-northwest-1": CN_MODULUS,
}
KNOWN_REGIONS = (*STANDARD_REGIONS, *OWN_MODULUS)
# Regions that certainly have a key of their own, which is not known here: ec2-ami-tools lists a
# certificate for each of them.
KEYLESS_REGIONS = (
    "af-south-1",
    "ap-east-1",
    "ap-south-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "eu-central-2",
    "eu-south-1",
    "eu-south-2",
    "il-central-1",
    "me-central-1",
    "me-south-1",
)

# Wider than Amazon's own names: other clouds name regions as they like.
_REGION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LONGEST_NAME = 255  # bytes: NAME_MAX of Linux


Cert = tuple[str | None, RSAPublicKey]
"""A key that the user gave, and the region that it is for, if it is for one alone."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """One manifest of a bundle: for whom it is made, and how it is called.

    Attributes:
        filename: of the manifest.
        public: EC2's key, which the secret is wrapped with.
        regions: those that the user named, in that order; none for the default, and for a
            certificate that came without a region.
    """

    filename: str
    public: RSAPublicKey
    regions: tuple[str, ...]


def recipients(
    prefix: str,
    regions: Sequence[str],
    certs: Sequence[Cert],
) -> tuple[Recipient, ...]:
    """Decide which manifests a bundle gets: those of `certs` first, each group as it was given.

    Regions that share the standard key share `PREFIX.manifest.xml`, and a region with a key of
    its own gets `PREFIX.REGION.manifest.xml`. If nothing is given, there is one manifest, with
    the standard key.

    Args:
        prefix: what the names of the bundle's files start with.
        regions: names as the user gave them; a name that is given twice counts once.
        certs: keys that the user gave. One with a region is for that region, known or not, and
            asks for its manifest; one without a region takes the standard key's place.

    Raises:
        UsageError: a region whose key is not known, a bad region name, or two manifests
            with one name and different keys.
    """
    given = _by_region(certs)
    wanted = [_given(prefix, region, key) for region, key in given.items()]
    wanted += [_known(prefix, region) for region in regions if region not in given]
    return _merged(wanted or [Recipient(f"{prefix}.manifest.xml", _key(STANDARD_MODULUS), ())])


def _key(modulus: int) -> RSAPublicKey:
    return RSAPublicNumbers(EXPONENT, modulus).public_key()


def _by_region(
    certs: Iterable[Cert],
) -> dict[str | None, RSAPublicKey]:
    """Return the key of each region; None stands for no region."""
    found: dict[str | None, RSAPublicKey] = {}
    for region, key in certs:
        _require_name(region)
        if not same_key(found.setdefault(region, key), key):
            option = "--ec2-cert" if region is None else f"--ec2-cert {region}="
            raise UsageError(
                f"{option} is given twice with different keys, for one manifest: "
                "keep one, or name the region of each with --ec2-cert REGION=PEM"
            )
    return found


def _require_name(region: str | None) -> None:
    if region is not None and not _REGION_NAME.fullmatch(region):
        raise UsageError(
            f"--ec2-cert: {region!r} is not the name of a region: "
            "it is made of letters, digits, '.', '_' and '-', and of 64 characters at most"
        )


def _given(prefix: str, region: str | None, key: RSAPublicKey) -> Recipient:
    if region is None:
        return Recipient(f"{prefix}.manifest.xml", key, ())
    return Recipient(f"{prefix}.{region}.manifest.xml", key, (region,))


def _known(prefix: str, region: str) -> Recipient:
    if region in STANDARD_REGIONS:
        return Recipient(f"{prefix}.manifest.xml", _key(STANDARD_MODULUS), (region,))
    if region in OWN_MODULUS:
        return _given(prefix, region, _key(OWN_MODULUS[region]))
    raise _key_unknown(region)


def _key_unknown(region: str) -> UsageError:
    if region in KEYLESS_REGIONS:
        why = f"region {region!r} has an EC2 key of its own that bundlefs does not know"
    else:
        why = f"unknown region {region!r}"
    name = region if _REGION_NAME.fullmatch(region) else "REGION"
    return UsageError(
        f"{why}: give its certificate with --ec2-cert {name}=PEM. With the standard key "
        f"the bundle could not be launched there. Known regions: {', '.join(KNOWN_REGIONS)}"
    )


def _merged(wanted: Iterable[Recipient]) -> tuple[Recipient, ...]:
    """Merge recipients of the same file name, whose keys must be the same."""
    found: dict[str, Recipient] = {}
    for new in wanted:
        old = found.setdefault(new.filename, new)
        if not same_key(old.public, new.public):
            raise _two_keys(new)
        regions = tuple(dict.fromkeys(old.regions + new.regions))
        found[new.filename] = replace(old, regions=regions)
    for filename in found:
        _require_length(filename)
    return tuple(found.values())


def _two_keys(new: Recipient) -> UsageError:
    region = new.regions[0]
    return UsageError(
        f"two manifests would be named {new.filename!r}: --ec2-cert without a region replaces "
        f"the standard key, which --region {region} uses. Leave one of them out, or name the "
        f"region of the certificate: --ec2-cert REGION=PEM"
    )


def _require_length(filename: str) -> None:
    size = len(filename.encode("utf-8", "surrogateescape"))
    if size > _LONGEST_NAME:
        raise UsageError(
            f"the manifest's name {filename!r} has {size} bytes, and a file name has at most "
            f"{_LONGEST_NAME}: choose a shorter --prefix"
        )
