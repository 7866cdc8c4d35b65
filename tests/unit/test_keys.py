"""Keys made and files refused, without stock tools; those are in interop/test_manifest_openssl."""

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from bundlefs.base.errors import KeyFileError
from bundlefs.keys.files import load_private_key, load_public_key
from bundlefs.keys.rsa import Secret, UserKeys, same_key, sign, wrap

NOBODY = 65534
SECRET = Secret(bytes(range(16)), bytes(range(0xF0, 0x100)))
LOADERS = (load_public_key, load_private_key)


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def private_pem(key: RSAPrivateKey, encryption: KeySerializationEncryption | None = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def public_pem(key: RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def never() -> str:
    pytest.fail("a passphrase was asked for, and none is needed")


@contextmanager
def unprivileged() -> Iterator[None]:
    """Drop root's right to read everything, where the tests run as root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def test_secrets_are_new_each_time_and_sixteen_bytes() -> None:
    made = [Secret.generate() for _ in range(8)]
    assert {(len(each.key), len(each.iv)) for each in made} == {(16, 16)}
    assert len({each.key for each in made} | {each.iv for each in made}) == 16


@pytest.mark.parametrize(("key_size", "iv_size"), [(15, 16), (16, 17), (0, 16), (32, 32)])
def test_secret_of_another_size_is_refused(key_size: int, iv_size: int) -> None:
    with pytest.raises(ValueError, match="16 bytes each"):
        Secret(b"k" * key_size, b"i" * iv_size)


def test_nothing_secret_is_shown(key: RSAPrivateKey) -> None:
    users = UserKeys(key.public_key(), key)
    shown = f"{SECRET!r} {SECRET} {users!r} {users}"
    numbers = key.private_numbers()
    secret_texts = [
        repr(SECRET.key)[2:-1],
        repr(SECRET.iv)[2:-1],
        SECRET.key.hex(),
        SECRET.iv.hex(),
    ]
    secret_texts += [str(numbers.d), f"{numbers.d:x}", str(numbers.p), "RSAPrivateKey"]
    assert [text for text in secret_texts if text in shown] == []


def test_wrap_hides_the_lowercase_hex_digits(key: RSAPrivateKey) -> None:
    opened = [
        key.decrypt(bytes.fromhex(each), PKCS1v15()) for each in wrap(key.public_key(), SECRET)
    ]
    assert opened == [b"000102030405060708090a0b0c0d0e0f", b"f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"]


def test_wrapping_is_random_and_of_fixed_width(key: RSAPrivateKey) -> None:
    made = {text for _ in range(20) for text in wrap(key.public_key(), SECRET)}
    assert len(made) == 40
    assert {len(text) for text in made} == {512}
    assert all(text == text.lower() for text in made)


def test_signature_is_rsa_sha1_of_fixed_width(key: RSAPrivateKey) -> None:
    for number in range(300):  # enough for a leading zero byte, which must not be dropped
        assert len(sign(key, b"%d" % number)) == 512
    signature = bytes.fromhex(sign(key, b"text"))
    algorithm = SHA1()  # noqa: S303  # the format's
    key.public_key().verify(signature, b"text", PKCS1v15(), algorithm)
    with pytest.raises(InvalidSignature):
        key.public_key().verify(signature, b"texT", PKCS1v15(), algorithm)


def test_without_files_both_keys_are_one_that_is_ephemeral() -> None:
    first, second = UserKeys.load(None, None), UserKeys.load(None, None)
    assert first.private.key_size == 2048
    assert same_key(first.public, first.private.public_key())
    assert not same_key(first.public, second.public)


def test_key_alone_wraps_and_signs(tmp_path: Path, key: RSAPrivateKey) -> None:
    users = UserKeys.load(write(tmp_path / "key", private_pem(key)), None, never)
    assert same_key(users.public, key.public_key())
    assert same_key(users.private.public_key(), key.public_key())


def test_cert_alone_wraps_and_another_key_signs(tmp_path: Path, key: RSAPrivateKey) -> None:
    users = UserKeys.load(None, write(tmp_path / "pub", public_pem(key)), never)
    assert same_key(users.public, key.public_key())
    assert not same_key(users.private.public_key(), key.public_key())
    assert users.private.key_size == 2048


def test_key_and_cert_that_match(tmp_path: Path, key: RSAPrivateKey) -> None:
    paths = write(tmp_path / "key", private_pem(key)), write(tmp_path / "pub", public_pem(key))
    users = UserKeys.load(*paths)
    assert same_key(users.public, users.private.public_key())


def test_key_and_cert_that_do_not_match_are_both_named(tmp_path: Path, key: RSAPrivateKey) -> None:
    other = generate_private_key(public_exponent=65537, key_size=2048)
    key_path = write(tmp_path / "key.pem", private_pem(key))
    cert_path = write(tmp_path / "cert.pem", public_pem(other))
    with pytest.raises(KeyFileError, match=r"cert\.pem' is not for the private key in .*key\.pem'"):
        UserKeys.load(key_path, cert_path)


def test_passphrase_is_asked_for_once_and_any_text_will_do(
    tmp_path: Path, key: RSAPrivateKey
) -> None:
    text = "pässwörd \udcff"  # the last is a byte that is not UTF-8, as os.environ gives it
    encryption = BestAvailableEncryption(text.encode("utf-8", "surrogateescape"))
    path = write(tmp_path / "key", private_pem(key, encryption))
    asked: list[str] = []

    def passphrase() -> str:
        asked.append(text)
        return text

    assert same_key(load_private_key(path, passphrase).public_key(), key.public_key())
    assert len(asked) == 1


@pytest.mark.parametrize("text", ["wrong-passphrase", "", "x" * 2000])
def test_wrong_passphrase_is_not_shown(tmp_path: Path, key: RSAPrivateKey, text: str) -> None:
    path = write(tmp_path / "key", private_pem(key, BestAvailableEncryption(b"right")))
    with pytest.raises(KeyFileError, match="the passphrase does not open") as caught:
        load_private_key(path, lambda: text)
    assert str(path) in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert not text or text not in shown


def test_encrypted_key_without_a_passphrase(tmp_path: Path, key: RSAPrivateKey) -> None:
    path = write(tmp_path / "key", private_pem(key, BestAvailableEncryption(b"right")))
    with pytest.raises(KeyFileError, match="is encrypted: give its passphrase"):
        load_private_key(path, None)


def test_what_a_passphrase_raises_is_passed_on(tmp_path: Path, key: RSAPrivateKey) -> None:
    path = write(tmp_path / "key", private_pem(key, BestAvailableEncryption(b"right")))

    def passphrase() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_private_key(path, passphrase)


Loader = Callable[[Path], object]


@pytest.mark.parametrize("load", LOADERS)
def test_missing_file(tmp_path: Path, load: Loader) -> None:
    with pytest.raises(KeyFileError, match="none': No such file or directory") as caught:
        load(tmp_path / "none")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("load", LOADERS)
def test_directory(tmp_path: Path, load: Loader) -> None:
    with pytest.raises(KeyFileError, match="Is a directory"):
        load(tmp_path)


@pytest.mark.parametrize("load", LOADERS)
def test_file_that_may_not_be_read(tmp_path: Path, key: RSAPrivateKey, load: Loader) -> None:
    path = write(tmp_path / "key", private_pem(key))
    path.chmod(0)
    with unprivileged(), pytest.raises(KeyFileError, match="key': Permission denied"):
        load(path)


@pytest.mark.parametrize("load", LOADERS)
def test_path_that_no_file_can_have(load: Loader) -> None:
    with pytest.raises(KeyFileError, match=r"'a\\x00b': .*null"):
        load(Path("a\0b"))


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello\n", "is neither a certificate nor a public key|is not a private key"),
        (b"0\x82\x01", "is neither a certificate nor a public key|is not a private key"),
        (b"ssh-rsa AAAA me\n", "is neither a certificate nor a public key|is not a private key"),
        (b"-----BEGIN PGP MESSAGE-----\n", "neither a certificate nor|no private key, but PGP"),
    ],
)
def test_what_is_no_key(tmp_path: Path, load: Loader, data: bytes, message: str) -> None:
    with pytest.raises(KeyFileError, match=message) as caught:
        load(write(tmp_path / "file", data))
    assert str(tmp_path / "file") in str(caught.value)


@pytest.mark.parametrize("load", LOADERS)
def test_a_disk_image_is_not_read_whole(tmp_path: Path, load: Loader) -> None:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # reading it all would end the test run
    with pytest.raises(KeyFileError, match="larger than 1 MiB"):
        load(path)


@pytest.mark.parametrize("label", ["PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE"])
def test_damaged_public_key(tmp_path: Path, label: str) -> None:
    data = f"-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n".encode()
    with pytest.raises(KeyFileError, match="is damaged"):
        load_public_key(write(tmp_path / "file", data))


@pytest.mark.parametrize("label", ["PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY"])
def test_damaged_private_key(tmp_path: Path, label: str) -> None:
    data = f"-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n".encode()
    with pytest.raises(KeyFileError, match=r"is damaged|is encrypted"):
        load_private_key(write(tmp_path / "file", data))
