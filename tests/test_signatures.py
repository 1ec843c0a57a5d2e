"""Bundles that are signed, and those who take no others. The format: FORMAT.md, "Signatures"."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import random
import stat
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bundle_builder import Pipe
from command import command_environment, run
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from limits import little_memory
from memory_source import make_bundle
from trees import tree

import bundler
from bundler.errors import RequestError, TargetError, TrustError

MODELS = {
    "acme/tiny": {
        "config.json": b"{}",
        "empty.txt": b"",
        "model.safetensors": random.Random(1).randbytes(1_200_000),
    },
    "acme/other": {"config.json": b"[]"},
}
PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True)
class Place:
    """A folder with a signed bundle, the keys, and what a stranger has."""

    folder: Path
    key: bundler.PrivateKey

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle.tar.zst"

    @property
    def signature(self) -> Path:
        return self.folder / "bundle.tar.zst.sig"

    @property
    def public(self) -> Path:
        return self.folder / "packer.pub.pem"

    @property
    def strangers(self) -> Path:
        """The public key of somebody else."""
        return self.folder / "stranger.pub.pem"

    def document(self) -> dict[str, Any]:
        """What the signature file holds."""
        document: dict[str, Any] = json.loads(self.signature.read_text())
        return document

    def statement(self) -> dict[str, Any]:
        """What is signed in it."""
        payload = b64decode(self.document()["dsseEnvelope"]["payload"])
        statement: dict[str, Any] = json.loads(payload)
        return statement

    def signing(self, payload: bytes, kind: str = PAYLOAD_TYPE) -> dict[str, Any]:
        """A signature file that the true key has made for another payload."""
        signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
        document = self.document()
        document["dsseEnvelope"] = {
            "payload": b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": [{"sig": b64encode(self.key.signature_of(signed)).decode()}],
        }
        return document

    def refusal(
        self, content: bytes | bytearray, folder: Path, *, key: Path | None = None
    ) -> TrustError:
        """What is said of the bundle with this signature; unpacking it leaves nothing behind."""
        signature = folder / "some.sig"
        signature.write_bytes(content)
        trusted = bundler.Trust.read([key or self.public], signature)
        before = tree(folder)
        roots = bundler.find_roots(root=folder / "t")
        with pytest.raises(TrustError) as refused:
            bundler.unpack(self.bundle, roots=roots, env=folder / "offline.env", trusted=trusted)
        assert tree(folder) == before
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 500
        return refused.value


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("signed")
    for name in ("packer", "stranger"):
        bundler.write_key_pair(folder / f"{name}.pem")
    key = bundler.PrivateKey.read(folder / "packer.pem")
    place = Place(folder, key)
    make_bundle(place.bundle, MODELS, sign=key)
    make_bundle(folder / "unsigned.tar.zst", MODELS)
    make_bundle(folder / "other.tar.zst", {"acme/else": {"config.json": b"{}"}}, sign=key)
    return place


class TestKeygen:
    @pytest.mark.parametrize(("curve", "size"), [("256", 64), ("384", 96), ("521", 132)])
    def test_it_writes_two_keys_that_belong_together(
        self, tmp_path: Path, curve: str, size: int
    ) -> None:
        done = run("keygen", "a.pem", "--curve", curve, "--json", home=tmp_path, umask=0)
        found = json.loads(done.out)
        public = (tmp_path / "a.pub.pem").read_bytes()
        assert (done.code, done.err) == (0, "")
        assert found == {
            "private": "a.pem",
            "public": "a.pub.pem",
            "key": hashlib.sha256(public).hexdigest(),
        }
        assert {path.name for path in tmp_path.iterdir()} == {"a.pem", "a.pub.pem"}
        assert stat.S_IMODE((tmp_path / "a.pem").stat().st_mode) == 0o600
        assert bundler.PrivateKey.read(tmp_path / "a.pem").hint == found["key"]
        key = bundler.PublicKey.read(tmp_path / "a.pub.pem")
        signature = bundler.PrivateKey.read(tmp_path / "a.pem").signature_of(b"words")
        assert size < len(signature) < size + 16
        assert key.has_signed(b"words", signature)
        assert not key.has_signed(b"wordz", signature)
        assert not key.has_signed(b"words", signature[:-1])

    @pytest.mark.parametrize("name", ["bundler.pem", "bundler.pub.pem"])
    def test_it_overwrites_nothing(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).symlink_to("nowhere")
        done = run("keygen", home=tmp_path)
        assert (done.code, done.out, done.err.count("\n")) == (6, "", 1)
        assert f"{name} is there already" in done.err
        assert [path.name for path in tmp_path.iterdir()] == [name]

    @pytest.mark.parametrize("name", ["no/such/key.pem", ".", ""])
    def test_where_no_file_can_be_is_told(self, tmp_path: Path, name: str) -> None:
        done = run("keygen", name, home=tmp_path)
        assert (done.code, done.out, done.err.count("\n")) == (6, "", 1)

    def test_a_password_may_protect_it(self, tmp_path: Path) -> None:
        done = run("keygen", home=tmp_path, env={"BUNDLER_KEY_PASSWORD": "sesame"})
        assert "bundler.pem is for pack --sign, protected by its password" in done.out
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in (tmp_path / "bundler.pem").read_bytes()
        key = bundler.PrivateKey.read(tmp_path / "bundler.pem", lambda: "sesame")
        assert f"key {key.hint}\n" in done.out

    def test_a_password_that_is_too_long_is_told(self, tmp_path: Path) -> None:
        done = run("keygen", home=tmp_path, env={"BUNDLER_KEY_PASSWORD": "x" * 2000})
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert list(tmp_path.iterdir()) == []


class TestSigned:
    def test_every_command_takes_it_and_tells_by_whom(self, place: Place, tmp_path: Path) -> None:
        told = f"signed by key {place.key.hint} (packer.pub.pem)"
        for command in ("inspect", "verify", "unpack"):
            done = run(command, place.bundle, "--verify-key", place.public, home=tmp_path)
            assert (done.code, done.err) == (0, "")
            assert told in done.out.splitlines()
        trusted = bundler.Trust.read([place.public])
        for result in (
            bundler.verify(place.bundle, trusted=trusted),
            bundler.plan_unpack(
                place.bundle, trusted=trusted, roots=bundler.find_roots(root=tmp_path)
            ),
        ):
            assert result.to_json()["signed_by"] == place.key.hint

    def test_pack_signs(self, tmp_path: Path) -> None:
        run("keygen", "key.pem", home=tmp_path)
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("{}")
        pack = ("pack", "file:model", "--sign", "key.pem", "-o", "b.tar.zst")
        done = run(*pack, home=tmp_path)
        key = bundler.PublicKey.read(tmp_path / "key.pub.pem")
        assert (done.code, done.err) == (0, "")
        assert f"signed in b.tar.zst.sig, by key {key.hint}" in done.out.splitlines()
        assert "next: carry the bundle with b.tar.zst.sig over" in done.out
        trusted = bundler.Trust((key,))
        assert bundler.verify(tmp_path / "b.tar.zst", trusted=trusted).signer == key
        document = json.loads(run(*pack, "--json", home=tmp_path).out)
        assert document["signature"] == "b.tar.zst.sig"

    def test_it_is_of_the_content_however_that_is_cut_and_called(
        self, place: Place, tmp_path: Path
    ) -> None:
        again = tmp_path / "renamed"
        make_bundle(again, MODELS, level=9)
        assert again.read_bytes() != place.bundle.read_bytes()
        trusted = bundler.Trust.read([place.public], place.signature)
        assert bundler.verify(again, trusted=trusted).signer == trusted.keys[0]

    def test_a_bundle_that_takes_the_place_of_itself_keeps_its_signature(
        self, tmp_path: Path
    ) -> None:
        pair = bundler.write_key_pair(tmp_path / "k.pem")
        bundle = tmp_path / "b.tar.zst"
        make_bundle(bundle, MODELS, sign=bundler.PrivateKey.read(pair.private))
        assert make_bundle(bundle, MODELS).signature is None
        assert bundler.inspect(bundle, trusted=bundler.Trust.read([pair.public])).signer

    def test_one_of_an_older_bundle_goes_with_that(self, tmp_path: Path) -> None:
        """It would only have the new bundle refused."""
        pair = bundler.write_key_pair(tmp_path / "k.pem")
        bundle, signature = tmp_path / "b.tar.zst", tmp_path / "b.tar.zst.sig"
        make_bundle(bundle, MODELS, sign=bundler.PrivateKey.read(pair.private))
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("{}")
        done = run("pack", "file:model", "-o", "b.tar.zst", home=tmp_path)
        said = "note: b.tar.zst.sig was the signature of an older bundle, and is removed"
        assert (done.code, said in done.out.splitlines(), signature.exists()) == (0, True, False)

    @pytest.mark.parametrize("kind", ["text", "json", "link", "folder"])
    def test_what_is_no_signature_is_left_alone(
        self, place: Place, tmp_path: Path, kind: str
    ) -> None:
        theirs = tmp_path / "b.tar.zst.sig"
        if kind == "folder":
            theirs.mkdir()
        elif kind == "link":
            theirs.symlink_to(place.signature)
        else:
            theirs.write_text("{}" if kind == "json" else "-----BEGIN PGP SIGNATURE-----\n")
        before = theirs.lstat()
        assert make_bundle(tmp_path / "b.tar.zst", {"acme/other": MODELS["acme/tiny"]}).notes == ()
        assert theirs.lstat()[:8] == before[:8]

    def test_damage_shows_all_the_same(self, place: Place, tmp_path: Path) -> None:
        content = bytearray(place.bundle.read_bytes())
        content[len(content) // 2] ^= 1
        bad = tmp_path / "bad.tar.zst"
        bad.write_bytes(content)
        trusted = bundler.Trust.read([place.public], place.signature)
        assert bundler.verify(bad, trusted=trusted).faults

    def test_a_pipe_has_its_signature_named(self, place: Place, tmp_path: Path) -> None:
        content = place.bundle.read_bytes()
        keys = ("--verify-key", place.public)
        done = run("unpack", "-", *keys, "--signature", place.signature, home=tmp_path,
                   input=content)  # fmt: skip
        assert (done.code, done.err) == (0, "")
        done = run("unpack", "-", *keys, home=tmp_path, input=content)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "name its signature with --signature" in done.err
        trusted = bundler.Trust.read([place.public], place.folder / "other.tar.zst.sig")
        with pytest.raises(TrustError, match="the signature of another bundle"):
            bundler.verify(Pipe(content), trusted=trusted)

    def test_an_older_signature_without_a_hint_will_do(self, place: Place, tmp_path: Path) -> None:
        document = place.document()
        document["verificationMaterial"]["publicKey"] = {}
        (tmp_path / "s").write_text(json.dumps(document))
        trusted = bundler.Trust.read([place.strangers, place.public], tmp_path / "s")
        assert bundler.inspect(place.bundle, trusted=trusted).signer == trusted.keys[1]


class TestSplit:
    """Its signature is beside the volumes, and called as if there were none."""

    @pytest.fixture
    def split(self, tmp_path: Path, place: Place) -> Path:
        (tmp_path / "packed").mkdir()
        packed = make_bundle(
            tmp_path / "packed" / "bundle.tar.zst", MODELS, sign=place.key, split_size=500_000
        )
        assert packed.volumes == 3
        assert packed.signature == tmp_path / "packed" / "bundle.tar.zst.sig"
        return tmp_path / "packed"

    def test_it_is_found_beside_them(self, place: Place, split: Path, tmp_path: Path) -> None:
        trusted = bundler.Trust.read([place.public])
        for named in (split, split / "bundle.tar.zst", split / "bundle.tar.zst.001"):
            signer = bundler.verify(named, trusted=trusted).signer
            assert signer == trusted.keys[0]
            assert bundler.inspect(named).claimed_key == place.key.hint
        other = bundler.Trust.read([place.strangers])
        with pytest.raises(TrustError, match="is refused"):
            bundler.verify(split, trusted=other)
        (split / "bundle.tar.zst.sig").unlink()
        with pytest.raises(TrustError, match=r"there is no .*packed/bundle\.tar\.zst\.sig;"):
            bundler.verify(split, trusted=trusted)

    @pytest.mark.parametrize("signed", [0, 1])
    def test_it_is_found_in_any_of_their_folders(
        self, place: Place, split: Path, tmp_path: Path, signed: int
    ) -> None:
        sticks = [tmp_path / "stick1", tmp_path / "stick2"]
        for number, stick in enumerate(sticks):
            stick.mkdir()
            (split / f"bundle.tar.zst.00{number}").rename(stick / f"bundle.tar.zst.00{number}")
        (split / "bundle.tar.zst.002").rename(sticks[1] / "bundle.tar.zst.002")
        (split / "bundle.tar.zst.volumes").rename(sticks[0] / "bundle.tar.zst.volumes")
        (split / "bundle.tar.zst.sig").rename(sticks[signed] / "bundle.tar.zst.sig")
        done = run("unpack", *sticks, "--verify-key", place.public, "--root", "t", home=tmp_path)
        assert (done.code, done.err) == (0, "")
        assert (tmp_path / "t" / "huggingface").is_dir()


def test_it_goes_onto_a_stick_as_well(place: Place, tmp_path: Path) -> None:
    (tmp_path / "stick").mkdir()
    packed = make_bundle(tmp_path / "stick", MODELS, sign=place.key)
    assert packed.signature == tmp_path / "stick" / "tiny-and-1-more.tar.zst.sig"
    trusted = bundler.Trust.read([place.public])
    assert bundler.verify(packed.path or "", trusted=trusted).signer == trusted.keys[0]


class TestUnchecked:
    def test_without_keys_a_signature_is_in_nobodys_way(self, place: Place, tmp_path: Path) -> None:
        roots = bundler.find_roots(root=tmp_path)
        assert bundler.verify(place.bundle).to_json()["signed_by"] is None
        assert bundler.unpack(place.bundle, roots=roots, env=None).to_json()["signed_by"] is None

    def test_inspect_says_that_it_was_not_checked(self, place: Place, tmp_path: Path) -> None:
        told = f"signature not checked: it names key {place.key.hint} (--verify-key PUB.pem)\n"
        assert told in run("inspect", place.bundle, home=tmp_path).out
        unsigned = place.folder / "unsigned.tar.zst"
        assert "signature" not in run("inspect", unsigned, home=tmp_path).out
        named = ("inspect", unsigned, "--signature", place.signature)
        assert told in run(*named, home=tmp_path).out

    @pytest.mark.parametrize(
        "content", [b"", b"{}", b"[" * 50_000, b"\xff", b'{"mediaType": NaN}'],
        ids=["empty", "nothing", "deep", "no text", "no JSON"],
    )  # fmt: skip
    def test_a_file_that_is_none_is_no_fault(
        self, place: Place, tmp_path: Path, content: bytes
    ) -> None:
        (tmp_path / "s").write_bytes(content)
        assert bundler.inspect(place.bundle, signature=tmp_path / "s").claimed_key == ""

    def test_a_hint_cannot_speak_to_the_terminal(self, place: Place, tmp_path: Path) -> None:
        document = place.document()
        document["verificationMaterial"]["publicKey"]["hint"] = "\x1b[2J\n\ud800" * 2000
        (tmp_path / "s").write_text(json.dumps(document))
        done = run("inspect", place.bundle, "--signature", "s", home=tmp_path)
        assert (done.code, done.err) == (0, "")
        (line,) = [line for line in done.out.splitlines() if "not checked" in line]
        assert line.isprintable()
        assert len(line) < 300


class TestRefused:
    """Exit code 7, one line, and nothing is written."""

    def refused(self, folder: Path, *arguments: object, **env: str) -> str:
        before = tree(folder)
        done = run(*arguments, home=folder, env=env)
        assert (done.code, done.out, done.err.count("\n")) == (7, "", 1), done.err
        assert tree(folder) == before
        return done.err

    @pytest.mark.parametrize("command", [["inspect"], ["verify"], ["unpack"],
                                         ["unpack", "--dry-run"]], ids=" ".join)  # fmt: skip
    def test_a_bundle_without_a_signature(
        self, place: Place, tmp_path: Path, command: list[str]
    ) -> None:
        said = self.refused(
            tmp_path, *command, place.folder / "unsigned.tar.zst", "--verify-key", place.public
        )
        assert "the bundle is not signed" in said
        assert f"{place.folder}/unsigned.tar.zst.sig" in said

    def test_another_key(self, place: Place, tmp_path: Path) -> None:
        said = self.refused(tmp_path, "unpack", place.bundle, "--verify-key", place.strangers)
        assert f"is by a key that is not trusted here, '{place.key.hint}'" in said

    def test_another_key_that_bears_the_hint_of_the_right_one(
        self, place: Place, tmp_path: Path
    ) -> None:
        document = place.document()
        hint = bundler.PublicKey.read(place.strangers).hint
        document["verificationMaterial"]["publicKey"]["hint"] = hint
        content = json.dumps(document).encode()
        said = place.refusal(content, tmp_path, key=place.strangers)
        assert "was altered, or is by another key" in str(said)

    def test_a_signature_of_another_bundle(self, place: Place, tmp_path: Path) -> None:
        content = (place.folder / "other.tar.zst.sig").read_bytes()
        assert "is the signature of another bundle" in str(place.refusal(content, tmp_path))

    def test_by_a_variable_for_all(self, place: Place, tmp_path: Path) -> None:
        keys = tmp_path / "keys"
        keys.mkdir()
        trusting = {"BUNDLER_TRUSTED_KEYS": str(keys)}
        (keys / "README").write_text("no key")
        (keys / "a.pem").write_bytes(place.strangers.read_bytes())
        self.refused(tmp_path, "unpack", place.folder / "unsigned.tar.zst", **trusting)
        assert "not trusted here" in self.refused(tmp_path, "inspect", place.bundle, **trusting)
        (keys / "b.pem").write_bytes(place.public.read_bytes())
        done = run("unpack", place.bundle, home=tmp_path, env=trusting)
        assert (done.code, done.err) == (0, "")
        assert f"signed by key {place.key.hint} (b.pem)" in done.out
        # What is installed has no signature, and is looked at all the same.
        assert run("verify", home=tmp_path, env=trusting).code == 0

    @pytest.mark.parametrize("kind", ["folder", "pipe", "link to nowhere"])
    def test_something_else_in_its_place(self, place: Place, tmp_path: Path, kind: str) -> None:
        bundle = tmp_path / "b.tar.zst"
        os.link(place.bundle, bundle)
        signature = tmp_path / "b.tar.zst.sig"
        {"folder": os.mkdir, "pipe": os.mkfifo, "link to nowhere": lambda p: p.symlink_to("x")}[
            kind
        ](signature)
        with pytest.raises(TrustError, match=r"b\.tar\.zst\.sig"):
            bundler.inspect(bundle, trusted=bundler.Trust.read([place.public]))

    @pytest.mark.parametrize(
        ("field", "said"),
        [("mediaType", "no Sigstore bundle"), ("hint", "not trusted here"),
         ("payload", "was altered"), ("payloadType", "no in-toto"), ("sig", "was altered")],
    )  # fmt: skip
    def test_a_flipped_bit(self, place: Place, tmp_path: Path, field: str, said: str) -> None:
        whole = bytearray(place.signature.read_bytes())
        start = f'"{field}":"'.encode()
        whole[whole.index(start) + len(start)] ^= 1
        assert said in str(place.refusal(whole, tmp_path))

    @pytest.mark.parametrize("size", [0, 1, 100, -200, -1])
    def test_a_cut(self, place: Place, tmp_path: Path, size: int) -> None:
        said = place.refusal(place.signature.read_bytes()[:size], tmp_path)
        assert "is no signature: copy it again" in str(said)


Change = Callable[[dict[str, Any]], object]
"""Alters a document in place."""


def put(value: object, *path: str | int) -> Change:
    """Puts something at a path."""

    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return change


def drop(*path: str | int) -> Change:
    """Takes something out of a path."""

    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        del document[path[-1]]

    return change


ENVELOPES: Mapping[str, tuple[Change, str]] = {
    "another version": (
        put("application/vnd.dev.sigstore.bundle+json;version=0.1", "mediaType"),
        "no Sigstore bundle of version 0.3",
    ),
    "a certificate": (
        put({"certificate": {"rawBytes": ""}}, "verificationMaterial"), "not made with a key"
    ),
    "a hint that is a number": (put(7, "verificationMaterial", "publicKey", "hint"), "copy it"),
    "a key that is none": (put(7, "verificationMaterial", "publicKey"), "copy it"),
    "no envelope": (drop("dsseEnvelope"), "copy it"),
    "an envelope that is a list": (put([], "dsseEnvelope"), "copy it"),
    "no signatures": (put([], "dsseEnvelope", "signatures"), "not one signature"),
    "two signatures": (
        put([{"sig": ""}, {"sig": ""}], "dsseEnvelope", "signatures"), "not one signature"
    ),
    "signatures that are a text": (put("a", "dsseEnvelope", "signatures"), "copy it"),
    "a signature without bytes": (put("", "dsseEnvelope", "signatures", 0, "sig"), "altered"),
    "a signature that is no base64": (
        put("a*b", "dsseEnvelope", "signatures", 0, "sig"), "copy it"
    ),
    "a payload that is a number": (put(1e400, "dsseEnvelope", "payload"), "copy it"),
    "a payload that is not ASCII": (put("\ud800", "dsseEnvelope", "payload"), "copy it"),
    "an empty payload": (put("", "dsseEnvelope", "payload"), "altered"),
    "another payload type": (put("text/plain", "dsseEnvelope", "payloadType"), "no in-toto"),
    "many values": (put([0] * 2000, "more"), "more than a signature has"),
}  # fmt: skip
"""Envelopes that anybody can make, and what is said of them."""


@pytest.mark.parametrize("name", ENVELOPES)
def test_a_bad_envelope_is_refused(place: Place, tmp_path: Path, name: str) -> None:
    change, said = ENVELOPES[name]
    document = place.document()
    change(document)
    assert said in str(place.refusal(json.dumps(document).encode(), tmp_path))


STATEMENTS: Mapping[str, tuple[Change, str]] = {
    "another type": (put("https://in-toto.io/Statement/v0.1", "_type"), "something else"),
    "another predicate": (
        put("https://model_signing/Digests/v0.1", "predicateType"), "something else"
    ),
    "no predicate": (drop("predicate"), "copy it"),
    "no subject": (put([], "subject"), "not one subject"),
    "two subjects": (lambda s: s["subject"].append(s["subject"][0]), "not one subject"),
    "a root digest of something else": (
        put("0" * 64, "subject", 0, "digest", "sha256"), "agree with itself"
    ),
    "shards": (put("shards", "predicate", "serialization", "method"), "sha256 of whole files"),
    "another hash": (put("blake3", "predicate", "serialization", "hash_type"), "sha256 of whole"),
    "other digests": (
        put("blake2b", "predicate", "resources", 0, "algorithm"), "other digests than sha256"
    ),
    "resources that are a text": (put("abc", "predicate", "resources"), "copy it"),
    "no resources": (put([], "predicate", "resources"), "agree with itself"),
    "a digest that is none": (put("x", "predicate", "resources", 0, "digest"), "copy it"),
    "a digest that is a number": (put(1, "predicate", "resources", 0, "digest"), "copy it"),
    "a name that is a list": (put([], "predicate", "resources", 0, "name"), "copy it"),
    "a member twice": (
        lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0]),
        "names a member twice",
    ),
}  # fmt: skip
"""What the true key could sign and would be refused, and what is said of it."""


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_of_something_else_is_refused(place: Place, tmp_path: Path, name: str) -> None:
    change, said = STATEMENTS[name]
    statement = place.statement()
    change(statement)
    document = place.signing(json.dumps(statement).encode())
    assert said in str(place.refusal(json.dumps(document).encode(), tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda found: found.pop(0), "other members", id="a blob missing"),
        pytest.param(lambda found: found.pop(), "another bundle", id="the manifest missing"),
        pytest.param(
            lambda found: found.append({**found[0], "name": "more.txt"}), "other members",
            id="one more",
        ),
        pytest.param(
            lambda found: found[0].update(name="blobs/sha256/../x"), "other members",
            id="another name",
        ),
        pytest.param(
            lambda found: found[0].update(digest=found[1]["digest"]), "other members",
            id="another digest",
        ),
    ],
)  # fmt: skip
def test_a_statement_of_other_members_is_refused(
    place: Place, tmp_path: Path, change: Callable[[list[dict[str, str]]], object], said: str
) -> None:
    """It agrees with itself, and is signed."""
    statement = place.statement()
    resources = statement["predicate"]["resources"]
    change(resources)
    digests = b"".join(bytes.fromhex(resource["digest"]) for resource in resources)
    statement["subject"][0]["digest"]["sha256"] = hashlib.sha256(digests).hexdigest()
    document = place.signing(json.dumps(statement).encode())
    assert said in str(place.refusal(json.dumps(document).encode(), tmp_path))


@pytest.mark.parametrize("text", ["[" * 30_000, "NaN", "", '{"_type": 1, "_type": 1}', "\x00"])
def test_a_payload_that_is_no_statement_is_refused(place: Place, tmp_path: Path, text: str) -> None:
    document = place.signing(text.encode())
    assert "copy it again" in str(place.refusal(json.dumps(document).encode(), tmp_path))


def test_a_payload_of_another_type_is_refused_though_signed(place: Place, tmp_path: Path) -> None:
    document = place.signing(json.dumps(place.statement()).encode(), "text/plain")
    document["dsseEnvelope"]["payloadType"] = PAYLOAD_TYPE
    assert "was altered" in str(place.refusal(json.dumps(document).encode(), tmp_path))


@pytest.mark.parametrize(
    "content", [b"[" * 60_000, b'{"a":' * 12_000, b"1" * 60_000, b'{"mediaType":1,"mediaType":2}'],
    ids=["deep lists", "deep objects", "a long number", "a key twice"],
)  # fmt: skip
def test_bad_json_is_refused(place: Place, tmp_path: Path, content: bytes) -> None:
    assert "copy it again" in str(place.refusal(content, tmp_path))


@pytest.mark.parametrize("size", [100_000, 10 << 30])
def test_a_file_that_is_too_large_is_not_read(place: Place, tmp_path: Path, size: int) -> None:
    signature = tmp_path / "large.sig"
    signature.touch()
    os.truncate(signature, size)
    trusted = bundler.Trust.read([place.public], signature)
    with little_memory(64 << 20), pytest.raises(TrustError, match="takes more than"):
        bundler.inspect(place.bundle, trusted=trusted)


def pem(key: Any) -> bytes:
    """The public key in PEM form."""
    content: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return content


def private_pem(key: Any, password: bytes = b"") -> bytes:
    """The private key in PEM form."""
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    content: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return content


RSA = rsa.generate_private_key(65537, 2048)
KOBLITZ = ec.generate_private_key(ec.SECP256K1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()
EC = ec.generate_private_key(ec.SECP256R1())
PUBLIC_FAULTS: Mapping[str, tuple[bytes, str]] = {
    "an RSA key": (pem(RSA), "a key of another kind"),
    "an EC key on another curve": (pem(KOBLITZ), "a key of another kind"),
    "an Edwards key": (pem(EDWARDS), "a key of another kind"),
    "a private key": (private_pem(EC), "is a private key: name the public one"),
    "a private key with a password": (private_pem(EC, b"x"), "is a private key"),
    "text": (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a public key"),
    "an empty file": (b"", "not a public key"),
    "zeros without end": (bytes(1 << 20), "not a public key"),
}  # fmt: skip
PRIVATE_FAULTS: Mapping[str, tuple[bytes, str]] = {
    "an RSA key": (private_pem(RSA), "a key of another kind"),
    "an EC key on another curve": (private_pem(KOBLITZ), "a key of another kind"),
    "an Edwards key": (private_pem(EDWARDS), "a key of another kind"),
    "a public key": (pem(EC), "is a public key: name the private one"),
    "text": (b"words", "no private key in PEM form"),
    "a password": (private_pem(EC, b"sesame"), "is protected by a password"),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC_FAULTS)
def test_a_public_key_that_is_none_is_refused(place: Place, tmp_path: Path, name: str) -> None:
    content, said = PUBLIC_FAULTS[name]
    (tmp_path / "k.pem").write_bytes(content)
    for where in (tmp_path / "k.pem", tmp_path):
        with pytest.raises(RequestError, match=said) as refused:
            bundler.Trust.read([where])
        assert "k.pem" in str(refused.value)


@pytest.mark.parametrize("name", PRIVATE_FAULTS)
def test_a_private_key_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    content, said = PRIVATE_FAULTS[name]
    (tmp_path / "k.pem").write_bytes(content)
    with pytest.raises(RequestError, match=said):
        bundler.PrivateKey.read(tmp_path / "k.pem")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["unpack", "b", "--verify-key", "no.pem"], "cannot read the key no.pem"),
        (["unpack", "b", "--verify-key", ""], "--verify-key is empty"),
        (["unpack", "b", "--verify-key", "empty"], "there is no file *.pem"),
        (["inspect", "."], ". is a folder"),
        (["inspect", "/"], "/ is a folder"),
        (["inspect", ""], "the name of the bundle is empty"),
        (["unpack", "b", "--signature", "b.sig"], "--signature needs the key"),
        (["verify", "b", "--signature", "b.sig"], "--signature needs the key"),
        (["verify", "--verify-key", "no.pem"], "are for a bundle: name the bundle"),
        (["pack", "file:empty", "--sign", "no.pem"], "cannot read the key no.pem"),
        (["pack", "file:empty", "--sign", "no.pem", "-o", "-"], "name a file for that with -o"),
        (["keygen", "--curve", "255"], "'255' is not one of '256', '384', '521'"),
    ],
)
def test_a_wrong_request_is_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "empty").mkdir()
    done = run(*arguments, home=tmp_path)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err


def test_a_signature_needs_a_file_to_be_beside(place: Place, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "stream", "wb") as stream:
        for output in (tmp_path / "pipe", stream):
            with pytest.raises(RequestError, match="name one for the bundle"):
                bundler.pack(["file:x"], output, sign=place.key)
    (tmp_path / "b.sig").mkdir()
    with pytest.raises(TargetError, match=r"b\.sig is a folder"):
        bundler.pack(["file:x"], tmp_path / "b", sign=place.key)


class TestPassword:
    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        (tmp_path / "key.pem").write_bytes(private_pem(EC, b"open sesame"))
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("{}")
        return tmp_path

    def pack(self, home: Path, password: str) -> tuple[int, str]:
        env = {"BUNDLER_KEY_PASSWORD": password}
        done = run("pack", "file:model", "--sign", "key.pem", home=home, env=env,
                   stdin=subprocess.DEVNULL)  # fmt: skip
        return done.code, done.err

    def test_it_comes_from_a_variable(self, home: Path) -> None:
        assert self.pack(home, "open sesame") == (0, "")
        assert (home / "bundle.tar.zst.sig").exists()

    @pytest.mark.parametrize(
        ("password", "said"),
        [("guess", "the password of key.pem is wrong"),
         ("", "key.pem is protected by a password: set BUNDLER_KEY_PASSWORD, or run this in a "
          "terminal")],
    )  # fmt: skip
    def test_without_it_nothing_is_packed(self, home: Path, password: str, said: str) -> None:
        assert self.pack(home, password) == (2, f"bundler: {said}\n")
        assert not (home / ".cache").exists()

    def test_a_terminal_is_asked_and_does_not_show_it(self, home: Path) -> None:
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "bundler", "pack", "file:model", "--sign", "key.pem", "--json"],
            cwd=home, env=command_environment(home), stdin=theirs, stdout=subprocess.PIPE,
            stderr=theirs, start_new_session=True,
        ) as process:  # fmt: skip
            os.close(theirs)
            shown = b""
            while b"password of key.pem: " not in shown:
                shown += os.read(ours, 4096)
            os.write(ours, b"open sesame\n")
            assert process.stdout
            packed = json.loads(process.stdout.read())
        os.close(ours)
        assert process.returncode == 0
        assert packed["signature"] == "bundle.tar.zst.sig"
        assert b"sesame" not in shown


@pytest.mark.parametrize(
    "arguments",
    [["keygen", "new.pem"], ["pack", "file:model", "--sign", "packer.pem"],
     ["inspect", "bundle.tar.zst", "--verify-key", "packer.pub.pem"]],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_a_package_that_is_not_installed_is_named(
    place: Place, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "cryptography.py").write_text("raise ImportError")
    env = {"PYTHONPATH": str(tmp_path)}
    done = run(*arguments, home=tmp_path, env=env, cwd=place.folder)
    said = "bundler: signatures need the package cryptography: pip install 'bundler[sign]'\n"
    assert (done.code, done.out, done.err) == (2, "", said)
    # And who needs no signatures does not miss it.
    assert run("inspect", place.bundle, home=tmp_path, env=env).code == 0
