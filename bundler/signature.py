"""The signature of a bundle, as OpenSSF Model Signing has them: made and read, never from a disk.

The format is a Sigstore bundle 0.3 with a DSSE envelope around an in-toto statement, which lists
every member of the tar: FORMAT.md, "Signatures".
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundler.digest import Digest
from bundler.documents import strict_json
from bundler.errors import shown
from bundler.keys import PrivateKey, PublicKey
from bundler.manifest import Manifest
from bundler.manifest_rules import MAX_NAMED_FILES
from bundler.members import MANIFEST_NAME, Member, members

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_SPARE_SIZE = 1 << 16
_MEMBER_SIZE = 512
"""Bytes of a signature for each member, which takes 250 as written here and 360 with indents."""
MAX_SIZE = _SPARE_SIZE + _MEMBER_SIZE * MAX_NAMED_FILES
"""Bytes that the signature of any bundle may take."""
_MAX_COMMAS = 1000
"""In the envelope, which has less than ten; values cost many times their text."""


class RefusedError(ValueError):
    """A signature that is none for us, and why."""


def max_size(listed: Sequence[Member]) -> int:
    """Bytes that the signature of a bundle with these members may take; more is not read."""
    return _SPARE_SIZE + _MEMBER_SIZE * len(listed)


def signature_of(manifest: Manifest, key: PrivateKey) -> bytes:
    """The content of the signature file of the bundle that has this manifest."""
    content = manifest.to_bytes()
    resources = _resources(content, members(manifest, len(content)))
    # The subject's name is for people; the bundle's file may get another at any time.
    subject = {"name": str(Digest.of(content)), "digest": {"sha256": _root(resources.values())}}
    statement = {
        "_type": _STATEMENT,
        "subject": [subject],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": [
                {"name": name, "algorithm": "sha256", "digest": digest}
                for name, digest in resources.items()
            ],
        },
    }
    payload = _json(statement)
    signature = key.signature_of(_signed_bytes(payload))
    return _json(
        {
            "mediaType": _MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": key.hint}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": b64encode(payload).decode(),
                "payloadType": _PAYLOAD_TYPE,
                "signatures": [{"sig": b64encode(signature).decode(), "keyid": ""}],
            },
        }
    )


def signer_of(
    content: bytes, keys: Sequence[PublicKey], manifest: bytes, listed: Sequence[Member]
) -> PublicKey:
    """The one of `keys` that has signed the bundle with this manifest and these members.

    `content` is that of the signature file. Raises RefusedError, or another one of MALFORMED.
    """
    envelope = _Envelope.parse(content, max_size(listed))
    key = envelope.signer(keys)
    stated, true = _stated(envelope.payload), _resources(manifest, listed)
    if stated.get(MANIFEST_NAME) != true[MANIFEST_NAME]:
        raise RefusedError("it is the signature of another bundle")
    if stated != true:
        raise RefusedError("it lists other members than the bundle has")
    return key


def claimed_hint(content: bytes, listed: Sequence[Member]) -> str:
    """By which hint a signature file names its key, if it does; 64 characters at most.

    Raises one of MALFORMED.
    """
    return _Envelope.parse(content, max_size(listed)).hint[:64]


def signed_bundle(content: bytes) -> Digest:
    """The id of the bundle that a signature file is of, as it states that. Raises MALFORMED's."""
    return Digest(_stated(_Envelope.parse(content, MAX_SIZE).payload)[MANIFEST_NAME])


@dataclass(frozen=True, slots=True)
class _Envelope:
    """What is signed, before anybody looked who did it."""

    payload: bytes
    signature: bytes
    hint: str

    @classmethod
    def parse(cls, content: bytes, limit: int) -> _Envelope:
        """What is in a signature file of `limit` bytes at most. Raises one of MALFORMED."""
        if len(content) > limit:
            raise RefusedError(f"it takes more than {limit:,} bytes, as no signature of this does")
        if content.count(b",") > _MAX_COMMAS:
            raise RefusedError("it holds more than a signature has")
        document = strict_json(content.decode("ascii"))
        if document["mediaType"] != _MEDIA_TYPE:
            raise RefusedError("it is no Sigstore bundle of version 0.3")
        material, envelope = document["verificationMaterial"], document["dsseEnvelope"]
        if "publicKey" not in material:
            raise RefusedError("it is not made with a key")
        hint = material["publicKey"].get("hint") or ""
        if not isinstance(hint, str):
            raise TypeError
        if envelope["payloadType"] != _PAYLOAD_TYPE:
            raise RefusedError("what it signs is no in-toto statement")
        if len(envelope["signatures"]) != 1:
            raise RefusedError("it has not one signature")
        signature = b64decode(envelope["signatures"][0]["sig"], validate=True)
        return cls(b64decode(envelope["payload"], validate=True), signature, hint)

    def signer(self, keys: Sequence[PublicKey]) -> PublicKey:
        """The one of `keys` that has signed this. Raises RefusedError if none has."""
        named = [key for key in keys if self.hint in ("", key.hint)]
        if not named:
            raise RefusedError(f"it is by a key that is not trusted here, {shown(self.hint)}")
        for key in named:
            if key.has_signed(_signed_bytes(self.payload), self.signature):
                return key
        raise RefusedError("it was altered, or is by another key")


def _stated(payload: bytes) -> dict[str, str]:
    """The sha256 of each resource in a statement, by its name. Raises one of MALFORMED."""
    statement = strict_json(payload.decode())
    if (statement["_type"], statement["predicateType"]) != (_STATEMENT, _PREDICATE):
        raise RefusedError("it states something else than Model Signing 1.0 does")
    if len(statement["subject"]) != 1:
        raise RefusedError("it has not one subject")
    subject, predicate = statement["subject"][0], statement["predicate"]
    way = predicate["serialization"]
    if (way["method"], way["hash_type"]) != ("files", "sha256"):
        raise RefusedError("it is not over the sha256 of whole files")
    resources = predicate["resources"]
    if any(resource["algorithm"] != "sha256" for resource in resources):
        raise RefusedError("it has other digests than sha256")
    stated: dict[str, str] = {resource["name"]: resource["digest"] for resource in resources}
    if len(stated) != len(resources):
        raise RefusedError("it names a member twice")
    if subject["digest"]["sha256"] != _root(stated.values()):
        raise RefusedError("it does not agree with itself")
    return stated


def _resources(manifest: bytes, listed: Iterable[Member]) -> dict[str, str]:
    """What a signature of the bundle lists: the sha256 of each member by its name, sorted."""
    found = {member.name: member.blob.digest.hex for member in listed}
    found[MANIFEST_NAME] = Digest.of(manifest).hex
    return dict(sorted(found.items()))


def _root(digests: Iterable[str]) -> str:
    """The digest that Model Signing has for all resources: over the digests of each, in order."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def _signed_bytes(payload: bytes) -> bytes:
    """What the key signs: DSSE 1.0, "PAE"."""
    kind = _PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
