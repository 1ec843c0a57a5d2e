"""Keys that bundles are signed with: EC keys in PEM files, made, read and used.

The one module that knows the package cryptography, and only when a key is there to be used.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bundler.disk import names_in, start_of
from bundler.errors import RequestError, TargetError
from bundler.permission import told

if TYPE_CHECKING:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

CURVES = (256, 384, 521)
"""Bits of the curves that Model Signing takes, NIST's P-256, P-384 and P-521."""
_MAX_FILE_SIZE = 1 << 16
"""Bytes that are read of a key's file; such a key takes less than a thousand."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What tells whether a signature was made with the private key that belongs to it."""

    hint: str
    """The sha256 of its PEM, 64 hex digits, by which signatures name it."""
    name: str
    """Of the file that it is in."""
    _key: ec.EllipticCurvePublicKey

    @classmethod
    def read(cls, path: Path | str) -> PublicKey:
        """The public key in a PEM file. Raises RequestError if there is none that can be used."""
        content = _content(path)
        if b" PRIVATE KEY-----" in content:
            raise RequestError(
                f"{path} is a private key: name the public one, which keygen wrote beside it"
            )
        _need_cryptography()
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            key = _usable(load_pem_public_key(content), path)
        except (ValueError, UnsupportedAlgorithm):
            raise RequestError(f"{path} is not a public key in PEM form") from None
        return cls(_hint(key), os.path.basename(path), key)

    def __str__(self) -> str:
        return f"key {self.hint} ({self.name})"

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature`, in DER, is that of `message` by the private key."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

        try:
            self._key.verify(signature, message, ECDSA(_hash_for(self._key)))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """What signs. `hint` is that of the public key."""

    hint: str
    _key: ec.EllipticCurvePrivateKey

    @classmethod
    def read(cls, path: Path | str, password: Callable[[], str] | None = None) -> PrivateKey:
        """The private key in a PEM file; `password` is asked if it is protected by one.

        Raises RequestError if there is none that can be used, or the password is wrong.
        """
        content = _content(path)
        if b"-----BEGIN PUBLIC KEY-----" in content:
            raise RequestError(f"{path} is a public key: name the private one")
        _need_cryptography()
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        given = None
        while True:
            try:
                key = load_pem_private_key(content, given)
                break
            except TypeError:  # This is how it says that there is a password.
                if password is None or given is not None:
                    raise RequestError(f"{path} is protected by a password") from None
                given = os.fsencode(password())
            except (ValueError, UnsupportedAlgorithm):
                raise RequestError(
                    f"{path} is no private key in PEM form"
                    if given is None
                    else f"the password of {path} is wrong"
                ) from None
        return cls(_hint(_usable(key.public_key(), path)), cast("ec.EllipticCurvePrivateKey", key))

    def signature_of(self, message: bytes) -> bytes:
        """The signature of `message`, in DER."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

        return self._key.sign(message, ECDSA(_hash_for(self._key)))


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Two files with keys that belong together, and the `hint` that signatures name them by."""

    private: Path
    public: Path
    hint: str

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {"private": str(self.private), "public": str(self.public), "key": self.hint}


def read_public_keys(paths: Iterable[Path | str]) -> tuple[PublicKey, ...]:
    """The keys in PEM files, and in all files `*.pem` of folders. Raises RequestError."""
    keys = []
    for path in paths:
        if os.path.isdir(path):
            try:
                names = sorted(name for name in names_in(Path(path)) if name.endswith(".pem"))
            except OSError as error:
                raise RequestError(f"cannot read {path}: {error.strerror}") from None
            if not names:
                raise RequestError(f"there is no file *.pem with a public key in {path}")
            keys += [PublicKey.read(Path(path, name)) for name in names]
        else:
            keys.append(PublicKey.read(path))
    return tuple(keys)


def write_key_pair(path: Path | str, curve: int = 256, password: str | None = None) -> KeyPair:
    """Make a private key at `path`, for its owner's eyes only, and beside it the public one.

    `path` ends with `.pem` as a rule, and the public key's with `.pub.pem`. `curve`: one of CURVES.
    `password`: what the private key is encrypted with. Raises TargetError if one of the files is
    there already, or cannot be written.
    """
    _need_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    curves = dict(zip(CURVES, (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()), strict=True))
    key = ec.generate_private_key(curves[curve])
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(os.fsencode(password))
    try:
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
    except ValueError as error:
        raise RequestError(f"that password will not do: {error}") from None
    path = Path(path)
    beside = Path(f"{str(path).removesuffix('.pem')}.pub.pem")
    for place in (path, beside):
        if os.path.lexists(place):
            raise TargetError(f"{place} is there already, and is left as it is: name another file")
    _write_new(path, private, 0o600)
    try:
        _write_new(beside, _pem(key.public_key()), 0o666)
    except BaseException:
        os.unlink(path)
        raise
    return KeyPair(path, beside, _hint(key.public_key()))


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """A file that was not there, with all of its content or not at all. Raises TargetError."""
    with told(path, "keygen FILE"):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with open(handle, "wb") as file:
                file.write(content)
        except BaseException:
            os.unlink(path)
            raise


def _content(path: Path | str) -> bytes:
    try:
        return start_of(Path(path), _MAX_FILE_SIZE)
    except OSError as error:
        raise RequestError(f"cannot read the key {path}: {error.strerror}") from None


def _need_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise RequestError(
            "signatures need the package cryptography: pip install 'bundler[sign]'"
        ) from None


def _usable(key: object, path: Path | str) -> ec.EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    names = ("secp256r1", "secp384r1", "secp521r1")
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in names:
        raise RequestError(
            f"{path} is a key of another kind: bundles are signed with EC keys on P-256, P-384 or "
            "P-521, such as bundler keygen makes"
        )
    return key


def _hash_for(key: ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) -> hashes.HashAlgorithm:
    """As long as the curve allows, as Sigstore has it: protobuf-specs, sigstore_common.proto."""
    from cryptography.hazmat.primitives import hashes

    found = dict(zip(CURVES, (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()), strict=True))
    return found[key.key_size]


def _pem(key: ec.EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _hint(key: ec.EllipticCurvePublicKey) -> str:
    return hashlib.sha256(_pem(key)).hexdigest()
