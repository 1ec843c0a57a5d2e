"""Whom the user trusts to have packed a bundle, and where it is said who did."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.digest import Digest
from bundler.disk import start_of
from bundler.documents import MALFORMED
from bundler.errors import RequestError, TrustError
from bundler.members import Member

if TYPE_CHECKING:  # Most bundles are read without asking who signed them.
    from bundler.keys import PublicKey


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose bundles are taken: those that one of `keys` has signed.

    `signature` is the file with the signature; None is for the one beside the bundle.
    """

    keys: tuple[PublicKey, ...]
    signature: Path | None = None

    @classmethod
    def read(cls, keys: Iterable[Path | str], signature: Path | str | None = None) -> Trust:
        """Trust in the public keys in files, and in the files `*.pem` of folders.

        Raises RequestError for a file that is none, and if cryptography is not installed.
        """
        from bundler.keys import read_public_keys

        return cls(read_public_keys(keys), None if signature is None else Path(signature))

    def signer(self, beside: Path | None, manifest: bytes, listed: Sequence[Member]) -> PublicKey:
        """The trusted key that has signed the bundle with this manifest and these members.

        `beside`: where its signature is by default; None for a stream. Raises RequestError if
        nobody says where it is, and TrustError: no signature, none by such a key, that of another
        bundle, or something that is no signature.
        """
        from bundler.signature import RefusedError, max_size, signer_of

        path = self.signature or beside
        if path is None:
            raise RequestError("the bundle comes by a pipe: name its signature with --signature")
        try:
            content = start_of(path, max_size(listed) + 1)
            return signer_of(content, self.keys, manifest, listed)
        except FileNotFoundError:
            raise TrustError(
                f"the bundle is not signed: there is no {path}; "
                "copy it too, or name it with --signature"
            ) from None
        except OSError as error:
            raise TrustError(f"cannot read {path}: {error.strerror}") from None
        except RefusedError as error:
            raise TrustError(f"{path} is refused: {error}") from None
        except MALFORMED:
            raise TrustError(f"{path} is no signature: copy it again") from None


def signature_path(bundle: Path) -> Path:
    """Where the signature of a bundle is: beside it, and named after the whole of it."""
    return Path(f"{bundle}.sig")


def drop_older_signature(bundle: Path, id_: Digest) -> Path | None:
    """Remove the signature that another bundle has left beside `bundle`, which has this id.

    Gives its path; None if there is none, or what is there is of this bundle, or no signature.
    """
    path = signature_path(bundle)
    if os.path.islink(path) or not os.path.isfile(path):
        return None
    from bundler.signature import MAX_SIZE, signed_bundle

    try:
        if signed_bundle(start_of(path, MAX_SIZE + 1)) == id_:
            return None
        os.unlink(path)
    except (OSError, *MALFORMED):
        return None
    return path


def claimed_key(signature: Path, listed: Sequence[Member]) -> str | None:
    """The hint of the key that a signature names, which proves nothing; empty if it names none.

    None if there is no such file. `listed`: the members of the bundle.
    """
    if not os.path.exists(signature):
        return None
    from bundler.signature import claimed_hint, max_size

    try:
        return claimed_hint(start_of(signature, max_size(listed) + 1), listed)
    except (OSError, *MALFORMED):
        return ""
