"""What an APK is signed with: a key and its certificate, in a PKCS#12 file.

An app is only replaced by one with the same key. The debug key is made once for a user and stays; an app for others
takes a key of one's own.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from edgebert.errors import InputError, MissingDependency
from edgebert.files import read

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate

PASSWORD = "EDGEBERT_KEY_PASSWORD"  # the variable that holds the password of one's own key
DEBUG_PASSWORD = b"android"  # as that of every debug key of Android's tools; the file's mode is what keeps it
LARGEST = 1 << 20  # bytes of a file that holds one key
YEARS = 30
# The scheme's numbers: RSA (PKCS #1 v1.5) and ECDSA, each with SHA-256 and SHA-512.
RSA, ECDSA = {"sha256": 0x0103, "sha512": 0x0104}, {"sha256": 0x0201, "sha512": 0x0202}
CURVES = ("secp256r1", "secp384r1", "secp521r1")


@dataclass(frozen=True, slots=True)
class Key:
    """A key that signs.

    Attributes:
        algorithm: the scheme's number; digest: name of the hash that goes with it.
        certificate, public: in DER.
        sign: a signature of these bytes.
        subject: whose it is.
    """

    algorithm: int
    digest: str
    certificate: bytes
    public: bytes
    sign: Callable[[bytes], bytes]
    subject: str


def missing() -> str | None:
    """The command that installs what signs; None where it is there."""
    from importlib.util import find_spec

    return 'pip install "edgebert[app]"' if find_spec("cryptography") is None else None


def check() -> None:
    """Raise MissingDependency where nothing can be signed."""
    if command := missing():
        raise MissingDependency(f"signing an app needs cryptography: run {command}")


def load(path: Path) -> Key:
    """A key of one's own; its password is in the environment's EDGEBERT_KEY_PASSWORD.

    Raises:
        InputError: the file holds no key, one of a kind that Android does not take, or has another password.
        MissingDependency: cryptography is not installed.
    """
    check()
    password = os.environ.get(PASSWORD)
    return _read(path, password.encode() if password else None, f"set {PASSWORD} to its password")


def debug() -> tuple[Key, Path | None]:
    """The user's debug key, which is made where there is none.

    Returns:
        The key, and where it was written, if it is new.

    Raises:
        InputError: it is damaged, or its folder cannot be written to.
        MissingDependency: cryptography is not installed.
    """
    check()
    path = folder() / "debug.p12"
    made = None if path.exists() else _make(path)
    return _read(path, DEBUG_PASSWORD, "remove it, and a new one is made"), made


def folder() -> Path:
    """Where the debug key is kept: below $XDG_CONFIG_HOME, or ~/.config."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgebert"


def _make(path: Path) -> Path | None:
    """Make the debug key, readable for its user alone; None where another process was quicker."""
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

    key, certificate = _fresh()
    data = pkcs12.serialize_key_and_certificates(
        b"debug", key, certificate, None, BestAvailableEncryption(DEBUG_PASSWORD)
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(prefix=".debug.", dir=path.parent)  # of mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            with suppress(FileExistsError):
                os.link(name, path)  # whole or not at all, and never in place of another
                return path
        finally:
            os.unlink(name)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}; give a key with --key.") from None
    return None


def _fresh() -> "tuple[RSAPrivateKey, Certificate]":
    """A new key that vouches for itself; an RSA's signatures are the same each time, and so is a signed APK."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "edgebert debug")])
    begin = datetime.now(UTC) - timedelta(days=1)  # a clock may be behind
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(begin).not_valid_after(begin + timedelta(days=365 * YEARS))
    return key, builder.sign(key, hashes.SHA256())


def _read(path: Path, password: bytes | None, advice: str) -> Key:
    """The key in a file."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import pkcs12

    try:
        key, certificate, _ = pkcs12.load_key_and_certificates(read(path, LARGEST), password)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is no PKCS#12 file, or has another password ({error}): {advice}.") from None
    if key is None or certificate is None or key.public_key() != certificate.public_key():
        raise InputError(f"{path} does not hold one key and its certificate: {advice}.")
    if isinstance(key, rsa.RSAPrivateKey) or (isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES):
        return _of(key, certificate)
    kind = key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey) else type(key).__name__
    raise InputError(f"{path} holds a key of {kind}; Android takes RSA and {', '.join(CURVES)}: give such a key.")


def _of(key: "RSAPrivateKey | EllipticCurvePrivateKey", certificate: "Certificate") -> Key:
    """A key with the hash that its size asks for, as apksigner chooses it."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    elliptic = isinstance(key, ec.EllipticCurvePrivateKey)
    digest = "sha512" if key.key_size > (256 if elliptic else 3072) else "sha256"
    hashed = hashes.SHA512() if digest == "sha512" else hashes.SHA256()

    def sign(data: bytes) -> bytes:
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key.sign(data, ec.ECDSA(hashed))
        return key.sign(data, padding.PKCS1v15(), hashed)

    return Key(
        algorithm=(ECDSA if elliptic else RSA)[digest],
        digest=digest,
        certificate=certificate.public_bytes(Encoding.DER),
        public=key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        sign=sign,
        subject=certificate.subject.rfc4514_string(),
    )
