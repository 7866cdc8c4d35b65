"""Which manifests a bundle gets, and with which key each."""

import hashlib
from itertools import combinations

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, generate_private_key

from bundlefs.base.errors import UsageError
from bundlefs.keys.regions import (
    CN_MODULUS,
    EXPONENT,
    GOV_MODULUS,
    KEYLESS_REGIONS,
    KNOWN_REGIONS,
    OWN_MODULUS,
    STANDARD_MODULUS,
    STANDARD_REGIONS,
    Recipient,
    recipients,
)
from bundlefs.keys.rsa import same_key


def new_key() -> RSAPublicKey:
    return generate_private_key(public_exponent=65537, key_size=2048).public_key()


CERT = new_key()
OTHER = new_key()


def named(found: tuple[Recipient, ...]) -> dict[str, tuple[str, ...]]:
    return {recipient.filename: recipient.regions for recipient in found}


def modulus(recipient: Recipient) -> int:
    return recipient.public.public_numbers().n


def again(key: RSAPublicKey) -> RSAPublicKey:
    """Return the same key as another object, as a second file would."""
    return key.public_numbers().public_key()


@pytest.mark.parametrize(
    ("number", "bits", "sha256"),
    [
        (
            STANDARD_MODULUS,
            1024,
            "d76e841c2bffdcbbfd519c01d295de58ea2685a06fb87db78ab1b060f0afedfd",
        ),
        (GOV_MODULUS, 1024, "f7e38674e48e2321b56b132a262392918b7af4e379f5967e1d93be676e9fae29"),
        (CN_MODULUS, 2048, "056511da71f2410f73aaabddb2502089e0858d8cedf0c634b851267c6a74f236"),
    ],
    ids=["standard", "gov", "cn"],
)
def test_moduli_have_their_published_digest(number: int, bits: int, sha256: str) -> None:
    assert number.bit_length() == bits
    assert hashlib.sha256(number.to_bytes(bits // 8)).hexdigest() == sha256


def test_no_region_is_in_two_lists() -> None:
    for one, other in combinations((STANDARD_REGIONS, tuple(OWN_MODULUS), KEYLESS_REGIONS), 2):
        assert not set(one) & set(other)
    assert (len(STANDARD_REGIONS), len(OWN_MODULUS), len(KEYLESS_REGIONS)) == (17, 4, 11)
    assert len(set(KNOWN_REGIONS)) == 21


def test_nothing_given_is_the_standard_key_alone() -> None:
    (only,) = recipients("image", [], [])
    assert (only.filename, only.regions) == ("image.manifest.xml", ())
    assert modulus(only) == STANDARD_MODULUS
    assert only.public.public_numbers().e == EXPONENT


def test_all_standard_regions_share_one_manifest() -> None:
    (only,) = recipients("disk", STANDARD_REGIONS, [])
    assert (only.filename, only.regions) == ("disk.manifest.xml", STANDARD_REGIONS)
    assert modulus(only) == STANDARD_MODULUS


@pytest.mark.parametrize("region", OWN_MODULUS)
def test_region_with_a_key_of_its_own_gets_a_manifest_of_its_own(region: str) -> None:
    (only,) = recipients("image", [region], [])
    assert (only.filename, only.regions) == (f"image.{region}.manifest.xml", (region,))
    assert modulus(only) == (GOV_MODULUS if "gov" in region else CN_MODULUS)


def test_regions_of_all_kinds_together_and_twice() -> None:
    asked = ["us-east-1", "us-gov-west-1", "cn-north-1", "us-gov-east-1", "eu-west-1", "us-east-1"]
    found = recipients("image", asked, [])
    assert named(found) == {
        "image.manifest.xml": ("us-east-1", "eu-west-1"),
        "image.us-gov-west-1.manifest.xml": ("us-gov-west-1",),
        "image.cn-north-1.manifest.xml": ("cn-north-1",),
        "image.us-gov-east-1.manifest.xml": ("us-gov-east-1",),
    }
    assert [modulus(each) for each in found] == [
        STANDARD_MODULUS,
        GOV_MODULUS,
        CN_MODULUS,
        GOV_MODULUS,
    ]


def test_bare_cert_replaces_the_standard_key() -> None:
    assert recipients("image", [], [(None, CERT)]) == (Recipient("image.manifest.xml", CERT, ()),)


def test_bare_cert_beside_a_region_with_its_own_key() -> None:
    found = recipients("image", ["cn-north-1"], [(None, CERT)])
    assert named(found) == {
        "image.manifest.xml": (),
        "image.cn-north-1.manifest.xml": ("cn-north-1",),
    }
    assert [modulus(each) for each in found] == [CERT.public_numbers().n, CN_MODULUS]


@pytest.mark.parametrize("region", ["me-south-1", "eucalyptus", "My_Cloud.Region-1"])
@pytest.mark.parametrize("asked", [False, True])
def test_cert_with_a_region_asks_for_it(region: str, asked: bool) -> None:  # noqa: FBT001  # a case
    found = recipients("image", [region] if asked else [], [(region, CERT)])
    assert found == (Recipient(f"image.{region}.manifest.xml", CERT, (region,)),)


@pytest.mark.parametrize("region", ["us-east-1", "us-gov-west-1"])
def test_cert_with_a_known_region_overrides_its_key(region: str) -> None:
    found = recipients("image", [region], [(region, CERT)])
    assert found == (Recipient(f"image.{region}.manifest.xml", CERT, (region,)),)


def test_cert_of_one_region_leaves_the_others_alone() -> None:
    found = recipients("image", ["us-east-1", "us-west-1"], [("us-east-1", CERT)])
    assert named(found) == {
        "image.us-east-1.manifest.xml": ("us-east-1",),
        "image.manifest.xml": ("us-west-1",),
    }
    assert modulus(found[1]) == STANDARD_MODULUS


@pytest.mark.parametrize("region", [None, "me-south-1"])
def test_the_same_key_twice_is_one(region: str | None) -> None:
    found = recipients("image", [], [(region, CERT), (region, again(CERT))])
    assert len(found) == 1
    assert same_key(found[0].public, CERT)


def test_the_standard_key_given_as_a_cert_agrees_with_its_regions() -> None:
    (standard,) = recipients("image", [], [])
    found = recipients("image", ["us-east-1"], [(None, again(standard.public))])
    assert named(found) == {"image.manifest.xml": ("us-east-1",)}


@pytest.mark.parametrize("region", [*KEYLESS_REGIONS, "mars-1", "US-EAST-1", ""])
def test_region_without_a_key_is_refused(region: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipients("image", ["us-east-1", region], [])
    text = str(caught.value)
    assert repr(region) in text
    assert f"--ec2-cert {region or 'REGION'}=PEM" in text
    assert "could not be launched" in text
    assert all(known in text for known in KNOWN_REGIONS)
    assert ("unknown region" in text) == (region not in KEYLESS_REGIONS)


def test_bare_cert_does_not_stand_in_for_a_region() -> None:
    with pytest.raises(UsageError, match="--ec2-cert me-south-1=PEM"):
        recipients("image", ["me-south-1"], [(None, CERT)])


@pytest.mark.parametrize(
    ("regions", "certs", "message"),
    [
        (["us-east-1"], [(None, CERT)], "'image.manifest.xml'.*--region us-east-1"),
        ([], [(None, CERT), (None, OTHER)], "--ec2-cert is given twice"),
        ([], [("a-1", CERT), ("a-1", OTHER)], "--ec2-cert a-1= is given twice"),
    ],
)
def test_one_name_with_two_keys_is_refused(
    regions: list[str], certs: list[tuple[str | None, RSAPublicKey]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        recipients("image", regions, certs)


@pytest.mark.parametrize("region", ["", "a/b", "a\nb", "a b", "\x1b[m", "ü", "-a", ".", "a" * 65])
def test_bad_region_of_a_cert_is_shown_escaped(region: str) -> None:
    with pytest.raises(UsageError, match="not the name of a region") as caught:
        recipients("image", [], [(region, CERT)])
    assert repr(region) in str(caught.value)


def test_control_characters_of_a_region_are_shown_escaped() -> None:
    with pytest.raises(UsageError) as caught:
        recipients("image", ["us\n\x1b[31m"], [])
    assert str(caught.value).isprintable()


def test_a_name_that_no_file_can_have_is_refused() -> None:
    longest = "p" * (255 - len(".manifest.xml"))
    assert len(recipients(longest, [], [])[0].filename) == 255
    with pytest.raises(UsageError, match=r"256 bytes.*--prefix"):
        recipients(longest + "p", [], [])
    with pytest.raises(UsageError, match="--prefix"):
        recipients(longest, ["cn-north-1"], [])
