"""Keys, wrapped secrets and signatures against openssl: it makes the keys and undoes our work."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from bundlefs.base.errors import KeyFileError
from bundlefs.keys.files import load_private_key, load_public_key
from bundlefs.keys.regions import recipients
from bundlefs.keys.rsa import Secret, UserKeys, sign, wrap
from bundlefs.manifest.write import Contents, Metadata, WrappedSecrets, render

PASSPHRASE = "correct horse"  # noqa: S105  # protects keys that live for one test run
SECRET = Secret(bytes(range(16)), bytes(range(0xF0, 0x100)))
KEY_DIGITS = b"000102030405060708090a0b0c0d0e0f"
IV_DIGITS = b"f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"


def openssl(*arguments: str | Path, data: bytes | None = None) -> bytes:
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def modulus(pem: Path, *kind: str) -> int:
    """Read the modulus as openssl sees it."""
    return int(openssl(*kind, "-noout", "-modulus", "-in", pem).split(b"=")[1], 16)


@dataclass(frozen=True)
class Owner:
    """One RSA-2048 key in every form that openssl writes, in files of `folder` named by form."""

    folder: Path

    def __getitem__(self, form: str) -> Path:
        return self.folder / form

    @property
    def modulus(self) -> int:
        return modulus(self["pkcs1.pem"], "rsa")


PRIVATE_FORMS: dict[str, tuple[str, ...]] = {
    "pkcs1.der": ("rsa", "-traditional", "-outform", "DER"),
    "pkcs8.pem": ("pkcs8", "-topk8", "-nocrypt"),
    "pkcs8.der": ("pkcs8", "-topk8", "-nocrypt", "-outform", "DER"),
}
_TO = ("-passout", f"pass:{PASSPHRASE}")
ENCRYPTED_FORMS: dict[str, tuple[str, ...]] = {
    "pkcs1-aes256.pem": ("rsa", "-traditional", "-aes256", *_TO),
    "pkcs1-des3.pem": ("rsa", "-traditional", "-des3", *_TO),
    "pkcs8-aes256.pem": ("pkcs8", "-topk8", "-v2", "aes256", *_TO),
    "pkcs8-aes256.der": ("pkcs8", "-topk8", "-v2", "aes256", "-outform", "DER", *_TO),
    "pkcs8-scrypt.pem": ("pkcs8", "-topk8", "-scrypt", *_TO),
}
PUBLIC_FORMS: dict[str, tuple[str, ...]] = {
    "public.pem": ("rsa", "-pubout"),
    "public.der": ("rsa", "-pubout", "-outform", "DER"),
    "public-pkcs1.pem": ("rsa", "-RSAPublicKey_out"),
    "public-pkcs1.der": ("rsa", "-RSAPublicKey_out", "-outform", "DER"),
}
_SELF = ("req", "-x509", "-new", "-subj", "/CN=test", "-key")


def make_certificates(owner: Owner) -> None:
    key = owner["pkcs1.pem"]
    openssl(*_SELF, key, "-days", "1", "-out", owner["cert.pem"])
    openssl("x509", "-in", owner["cert.pem"], "-outform", "DER", "-out", owner["cert.der"])
    odd = owner["cert-serial-0.pem"]
    openssl(*_SELF, key, "-set_serial", "0", "-out", odd)
    openssl("x509", "-in", odd, "-outform", "DER", "-out", owner["cert-serial-0.der"])
    text = openssl("x509", "-in", owner["cert.pem"], "-text")
    owner["cert-text.pem"].write_bytes(text)
    owner["combined.pem"].write_bytes(key.read_bytes() + owner["cert.pem"].read_bytes())
    make_expired(owner)


def make_expired(owner: Owner) -> None:
    """Make a certificate of 2005, like EC2's own; only `openssl ca` sets dates in every version."""
    config, request = owner["ca.cnf"], owner["request.pem"]
    openssl("req", "-new", "-subj", "/CN=test", "-key", owner["pkcs1.pem"], "-out", request)
    owner["index.txt"].touch()
    config.write_text(
        f"[ca]\ndefault_ca=own\n[own]\ndatabase={owner['index.txt']}\nnew_certs_dir={owner.folder}\n"
        "rand_serial=yes\ndefault_md=sha256\npolicy=any\n[any]\ncommonName=supplied\n"
    )
    dates = ("-startdate", "20050809000000Z", "-enddate", "20060809000000Z")
    keys = ("-selfsign", "-keyfile", owner["pkcs1.pem"])
    files = ("-in", request, "-out", owner["cert-expired.pem"])
    openssl("ca", "-batch", "-notext", "-config", config, *keys, *dates, *files)


CERTIFICATES = (
    "cert.pem",
    "cert.der",
    "cert-serial-0.pem",
    "cert-serial-0.der",
    "cert-text.pem",
    "cert-expired.pem",
    "combined.pem",
)


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Owner:
    made = Owner(tmp_path_factory.mktemp("owner"))
    openssl("genrsa", "-traditional", "-out", made["pkcs1.pem"], "2048")
    for form, command in (PRIVATE_FORMS | ENCRYPTED_FORMS | PUBLIC_FORMS).items():
        openssl(*command, "-in", made["pkcs1.pem"], "-out", made[form])
    make_certificates(made)
    return made


def never() -> str:
    pytest.fail("a passphrase was asked for, and none is needed")


@pytest.mark.parametrize("form", ["pkcs1.pem", *PRIVATE_FORMS, "combined.pem"])
def test_private_key_in_every_form(owner: Owner, form: str) -> None:
    key = load_private_key(owner[form], never)
    assert key.private_numbers().public_numbers.n == owner.modulus


@pytest.mark.parametrize("form", ENCRYPTED_FORMS)
def test_encrypted_private_key_in_every_form(owner: Owner, form: str) -> None:
    key = load_private_key(owner[form], lambda: PASSPHRASE)
    assert key.private_numbers().public_numbers.n == owner.modulus


@pytest.mark.parametrize("form", ENCRYPTED_FORMS)
def test_wrong_passphrase_in_every_form(owner: Owner, form: str) -> None:
    # Old PEM encryption has no check of its own: some wrong passphrases decrypt to rubbish.
    for number in range(300 if form.startswith("pkcs1") else 1):
        with pytest.raises(KeyFileError, match=f"the passphrase does not open .*{form}"):
            load_private_key(owner[form], partial("wrong {}".format, number))


@pytest.mark.parametrize("form", ENCRYPTED_FORMS)
def test_encrypted_key_needs_a_passphrase(owner: Owner, form: str) -> None:
    with pytest.raises(KeyFileError, match=f"{form}' is encrypted: give its passphrase"):
        load_private_key(owner[form])


@pytest.mark.parametrize("form", [*PUBLIC_FORMS, *CERTIFICATES])
def test_public_key_in_every_form(owner: Owner, form: str) -> None:
    assert load_public_key(owner[form]).public_numbers().n == owner.modulus


def test_the_expired_certificate_is_expired(owner: Owner) -> None:
    dates = openssl("x509", "-noout", "-dates", "-in", owner["cert-expired.pem"])
    assert b"notAfter=Aug  9 00:00:00 2006 GMT" in dates


@pytest.mark.parametrize("form", ["pkcs1.pem", *PRIVATE_FORMS, *ENCRYPTED_FORMS])
def test_private_key_where_a_public_one_is_wanted(owner: Owner, form: str) -> None:
    with pytest.raises(KeyFileError, match=f"{form}' is a private key, but a certificate or pub"):
        load_public_key(owner[form])


@pytest.mark.parametrize("form", [*PUBLIC_FORMS, *CERTIFICATES[:-1]])
def test_public_key_where_a_private_one_is_wanted(owner: Owner, form: str) -> None:
    kind = "public key" if form.startswith("public") else "certificate"
    with pytest.raises(KeyFileError, match=f"{form}' is a {kind}, but a private key is wanted"):
        load_private_key(owner[form], never)


@pytest.mark.parametrize("load", [load_public_key, load_private_key])
def test_certificate_request_is_neither(owner: Owner, load: Callable[[Path], object]) -> None:
    message = "request.pem' (is neither a certificate|holds no private key, but CERTIFICATE REQ)"
    with pytest.raises(KeyFileError, match=message):
        load(owner["request.pem"])


OTHER_KEYS = {
    "EC": ("ecparam", "-genkey", "-name", "prime256v1"),  # with its EC PARAMETERS block in front
    "Ed25519": ("genpkey", "-algorithm", "ed25519"),
}


@pytest.mark.parametrize("kind", OTHER_KEYS)
def test_keys_that_are_not_rsa(tmp_path: Path, kind: str) -> None:
    key, public, cert = (tmp_path / name for name in ("key.pem", "public.pem", "cert.pem"))
    openssl(*OTHER_KEYS[kind], "-out", key)
    openssl("pkey", "-in", key, "-pubout", "-out", public)
    openssl(*_SELF, key, "-out", cert)
    message = f"holds a key of type {kind}, but a bundle needs an RSA key"
    with pytest.raises(KeyFileError, match=message):
        load_private_key(key)
    for path in (public, cert):
        with pytest.raises(KeyFileError, match=message):
            load_public_key(path)


def test_openssh_key_says_how_to_convert_it(tmp_path: Path, owner: Owner) -> None:
    copy = tmp_path / "id_rsa"
    copy.write_bytes(owner["pkcs1.pem"].read_bytes())
    copy.chmod(0o600)
    rewrite = ("ssh-keygen", "-q", "-p", "-P", "", "-N", "", "-f", copy)
    subprocess.run(rewrite, check=True, capture_output=True)
    with pytest.raises(KeyFileError, match="ssh-keygen -p -m PEM"):
        load_private_key(copy)
    subprocess.run([*rewrite, "-m", "PEM"], check=True, capture_output=True)
    assert load_private_key(copy).private_numbers().public_numbers.n == owner.modulus


def test_small_keys(tmp_path: Path) -> None:
    key, public = tmp_path / "key.pem", tmp_path / "public.pem"
    for bits in ("512", "1023"):
        openssl("genrsa", "-out", key, bits)
        openssl("rsa", "-in", key, "-pubout", "-out", public)
        for load, path in ((load_public_key, public), (load_private_key, key)):
            with pytest.raises(KeyFileError, match=f"has {bits} bits, and a bundle needs 1024"):
                load(path)


def test_the_size_of_ec2s_own_key_is_enough(tmp_path: Path) -> None:
    openssl("genrsa", "-out", tmp_path / "key.pem", "1024")
    users = UserKeys.load(tmp_path / "key.pem", None)
    wrapped = bytes.fromhex(wrap(users.public, SECRET)[0])
    assert opened(tmp_path, tmp_path / "key.pem", wrapped) == KEY_DIGITS


def opened(folder: Path, key: Path, wrapped: bytes) -> bytes:
    """Undo RSA PKCS#1 v1.5 with openssl, which fails on padding that is not right."""
    (folder / "wrapped").write_bytes(wrapped)
    padding = ("-pkeyopt", "rsa_padding_mode:pkcs1")
    return openssl("pkeyutl", "-decrypt", *padding, "-inkey", key, "-in", folder / "wrapped")


def cut(manifest: bytes, start: bytes, stop: bytes) -> bytes:
    """Cut what is between two strings that stand in the manifest once."""
    assert (manifest.count(start), manifest.count(stop)) == (1, 1)
    return manifest.split(start)[1].split(stop)[0]


@pytest.fixture
def manifest(owner: Owner, ec2_key: Path) -> bytes:
    users = UserKeys.load(owner["pkcs8-aes256.pem"], owner["cert-expired.pem"], lambda: PASSPHRASE)
    (ec2,) = recipients("image", [], [("test-1", load_public_key(ec2_key.with_suffix(".pub")))])
    wrapped = WrappedSecrets(*wrap(ec2.public, SECRET), *wrap(users.public, SECRET))
    metadata = Metadata("123456789012", kernel="<é&\"'>", mappings=(("ami", "sda1"),))
    contents = Contents("image", 512, 4096, "0a" * 20, (("image.part.00", "0b" * 20),))
    return render(metadata, contents, wrapped, lambda text: sign(users.private, text))


@pytest.fixture(scope="module")
def ec2_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the private key of a test region, with the public one beside it."""
    path = tmp_path_factory.mktemp("ec2") / "region.pem"
    openssl("genrsa", "-out", path, "1024")
    openssl("rsa", "-in", path, "-pubout", "-out", path.with_suffix(".pub"))
    return path


def test_both_owners_open_the_secrets_of_a_manifest(
    tmp_path: Path, manifest: bytes, owner: Owner, ec2_key: Path
) -> None:
    for who, key in ((b"ec2", ec2_key), (b"user", owner["pkcs1.pem"])):
        sealed_key = cut(
            manifest,
            b"<%s_encrypted_key algorithm='AES-128-CBC'>" % who,
            b"</%s_encrypted_key>" % who,
        )
        sealed_iv = cut(manifest, b"<%s_encrypted_iv>" % who, b"</%s_encrypted_iv>" % who)
        assert opened(tmp_path, key, bytes.fromhex(sealed_key.decode())) == KEY_DIGITS
        assert opened(tmp_path, key, bytes.fromhex(sealed_iv.decode())) == IV_DIGITS


def verified(folder: Path, public: Path, signature: bytes, text: bytes) -> bool:
    (folder / "signature").write_bytes(signature)
    command = ("openssl", "dgst", "-sha1", "-verify", public, "-signature", folder / "signature")
    done = subprocess.run(command, input=text, capture_output=True, check=False)
    return done.returncode == 0 and done.stdout == b"Verified OK\n"


def test_openssl_verifies_the_literal_text(tmp_path: Path, manifest: bytes, owner: Owner) -> None:
    start, stop = b"<machine_configuration>", b"</image>"
    text = start + cut(manifest, start, stop) + stop
    signature = bytes.fromhex(cut(manifest, b"<signature>", b"</signature>").decode())
    assert verified(tmp_path, owner["public.pem"], signature, text)
    assert not verified(tmp_path, owner["public.pem"], signature, text.replace(b"0b0b", b"0b0c", 1))
