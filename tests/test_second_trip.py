"""A bundle that builds on what the target has: it brings the rest, and all of it is whole."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zstandard
from bundle_builder import assembled, blob_name, file_record, manifest_of, model_record, parts_of
from command import Ran, run
from limits import little_memory
from loopback_hub import LoopbackHub, Repo
from trees import dangling_links, found_offline, stamps, tree

import bundler
from bundler.errors import DamagedError, FormatError
from bundler.manifest import Manifest

RANDOM = random.Random(0)
SHARDS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
FIRST, SECOND, THIRD, CHANGED = (RANDOM.randbytes(1_200_000) for _ in range(4))
INDEX = json.dumps(
    {"weight_map": {f"w{number}": shard for number, shard in enumerate(SHARDS)}}
).encode()
MODEL = {
    "config.json": b'{"model_type": "made-up"}',
    "model.safetensors.index.json": INDEX,
    **dict(zip(SHARDS, (FIRST, SECOND, THIRD), strict=True)),
}
LATER = {SHARDS[1]: CHANGED}


@dataclass
class Trips:
    """A hub with one sharded model, a machine beside it, and one that is carried to."""

    hub: LoopbackHub
    repo: Repo
    online: Path
    target: Path

    def pack(self, name: str, *arguments: object, code: int = 0) -> Ran:
        """Pack by the command line into `name` on the target."""
        done = run(
            *("pack", *arguments, "-o", self.target / name),
            home=self.online,
            env={"HF_ENDPOINT": self.hub.url},
        )
        assert done.code == code, done.err
        return done

    def do(self, *arguments: object, code: int = 0) -> Ran:
        """A command on the target, below its root."""
        rooted = arguments[0] in ("unpack", "verify", "inventory", "installed", "remove")
        root = ("--root", "root") if rooted else ()
        done = run(*arguments, *root, home=self.target)
        assert done.code == code, (done.out, done.err)
        return done

    def found(self, *revisions: str, name: str = "acme/big") -> list[Any]:
        """What huggingface_hub finds offline at each revision."""
        wanted = [(name, revision) for revision in revisions]
        return found_offline(self.target / "root/huggingface", *wanted).snapshots

    def requested(self) -> list[str]:
        """The content that was asked of the hub and its CDN since this was asked last."""
        asked = [r.path for r in self.hub.requests if r.method == "GET"]
        self.hub.requests.clear()
        return [path for path in asked if "/resolve" in path or not path.startswith("/api")]


@pytest.fixture
def trips(hub: LoopbackHub, tmp_path: Path) -> Trips:
    for name in ("online", "target"):
        (tmp_path / name).mkdir()
    repo = hub.add("acme/big", MODEL)
    return Trips(hub, repo, tmp_path / "online", tmp_path / "target")


def first_bundle(trips: Trips, path: Path, sign: bundler.PrivateKey | None = None) -> None:
    """A bundle of what the hub has, packed with a store that nobody uses afterwards."""
    upstream = bundler.Upstream((trips.hub.url,))
    store = trips.online / "first"
    bundler.pack(["acme/big"], path, upstream=upstream, store=store, sign=sign)


@pytest.fixture
def second(trips: Trips, no_network: None) -> Trips:
    """The first bundle was unpacked, and one shard has changed."""
    bundle = trips.target / "first.tar.zst"
    first_bundle(trips, bundle)
    bundler.unpack(bundle, roots=bundler.find_roots(root=trips.target / "root"), env=None)
    trips.repo.tag("v1")
    trips.repo.commit_files(LATER)
    trips.requested()
    return trips


def members(path: Path) -> list[str]:
    """The names in a bundle, as tar shows them."""
    with open(path, "rb") as file, zstandard.ZstdDecompressor().stream_reader(
        file, read_across_frames=True
    ) as content, tarfile.open(fileobj=content, mode="r|") as archive:  # fmt: skip
        return [member.name for member in archive]


def with_later() -> dict[str, bytes]:
    return {**MODEL, **LATER}


class TestInventory:
    def test_it_names_content_alone(self, second: Trips) -> None:
        done = second.do("inventory", "-o", "have.json")
        assert done.out.startswith("wrote have.json: 5 blobs, 3.6 MB")
        text = (second.target / "have.json").read_text()
        sizes = {hashlib.sha256(content).hexdigest(): len(content) for content in MODEL.values()}
        assert json.loads(text) == {"inventory_version": 1, "blobs": sizes}
        assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) + "\n"
        assert second.do("inventory").out == text

    def test_what_was_changed_is_not_vouched_for(self, second: Trips) -> None:
        blobs = second.target / "root/huggingface/hub/models--acme--big/blobs"
        names = {len(path.read_bytes()): path for path in blobs.iterdir()}
        config = names[len(MODEL["config.json"])]
        config.write_bytes(b'{"model_type": "changed"}')
        os.truncate(names[len(FIRST)], 5)
        found = bundler.holdings(bundler.find_roots(root=second.target / "root"))
        digests = {blob.digest.hex for blob in found if blob.size > 5}
        assert hashlib.sha256(MODEL["config.json"]).hexdigest() not in digests
        # Three shards have this size: it is the first by chance that was cut.
        assert len(digests) == 3

    def test_a_cache_that_huggingface_hub_filled_counts_too(self, tmp_path: Path) -> None:
        blobs = tmp_path / "huggingface/hub/models--acme--other/blobs"
        blobs.mkdir(parents=True)
        digest = hashlib.sha256(FIRST).hexdigest()
        (blobs / digest).write_bytes(FIRST)
        (blobs / f"{digest}.incomplete").write_bytes(b"x")
        (blobs / ("0" * 40)).write_bytes(b"{}")
        found = bundler.holdings(bundler.find_roots(root=tmp_path))
        assert [str(blob.digest) for blob in found] == [f"sha256:{digest}"]

    def test_nothing_is_here(self, tmp_path: Path) -> None:
        done = run("inventory", "--root", tmp_path / "none", home=tmp_path)
        assert (done.code, json.loads(done.out)) == (0, {"inventory_version": 1, "blobs": {}})


def since_bundle(trips: Trips) -> str:
    return "first.tar.zst"


def since_stick(trips: Trips) -> str:
    """The folder of the same bundle in volumes."""
    (trips.target / "stick").mkdir()
    locked = ["--locked", trips.target / "first.tar.zst"]
    trips.pack("stick/first.tar.zst", *locked, "--split-size", "1MB", "--store", "first")
    return "stick"


def since_manifest(trips: Trips) -> str:
    content = bundler.inspect(trips.target / "first.tar.zst").manifest_bytes
    (trips.target / "first.json").write_bytes(content)
    return "first.json"


def since_inventory(trips: Trips) -> str:
    trips.do("inventory", "-o", "have.json")
    return "have.json"


class TestSince:
    @pytest.mark.parametrize("since", [since_bundle, since_stick, since_manifest, since_inventory])
    def test_only_what_changed_is_downloaded_and_carried(self, second: Trips, since: Any) -> None:
        earlier = second.target / since(second)
        done = second.pack("second.tar.zst", "acme/big", "--since", earlier)
        assert "left out, since it is there already: 4 blobs, 2.4 MB" in done.out
        asked = " ".join(second.requested())
        assert [shard in asked for shard in SHARDS] == [False, True, False]
        bundle = second.target / "second.tar.zst"
        assert members(bundle) == ["manifest.json", blob_name(CHANGED)]
        manifest = json.loads(bundler.inspect(bundle).manifest_bytes)
        kept = sorted(
            f"sha256:{hashlib.sha256(c).hexdigest()}" for p, c in MODEL.items() if p != SHARDS[1]
        )
        assert (manifest["format_version"], manifest["absent"]) == (2, kept)
        first = str(bundler.inspect(second.target / "first.tar.zst").digest)
        expected = None if since is since_inventory else [first]
        assert manifest.get("builds_on") == expected
        assert bundler.verify(bundle).size == len(CHANGED)

    def test_a_plan_tells_what_is_saved(self, second: Trips) -> None:
        since = ["--since", second.target / "first.tar.zst"]
        done = second.pack("second.tar.zst", "acme/big", *since, "--dry-run")
        assert "saved by what is there already: 2.4 MB" in done.out
        assert "1.2 MB to download, 1.2 MB in the bundle before compression" in done.out

    def test_both_revisions_load(self, second: Trips) -> None:
        second.pack("second.tar.zst", "acme/big", "--since", second.target / "first.tar.zst")
        shutil.rmtree(second.online / ".cache")
        assert "to write" in second.do("unpack", "second.tar.zst", "--dry-run").out
        before = stamps(second.target / "root/huggingface/hub/models--acme--big/blobs")
        second.do("unpack", "second.tar.zst")
        first = next(c for c in second.repo.history("main") if c != second.repo.commit)
        assert second.found("main", second.repo.commit, first) == [with_later()] * 2 + [MODEL]
        after = stamps(second.target / "root/huggingface/hub/models--acme--big/blobs")
        assert before.items() <= after.items()
        assert dangling_links(second.target / "root") == []
        assert second.do("verify").err == ""
        assert "everything is there already" in second.do("unpack", "second.tar.zst").out
        second.do("remove", "acme/big")
        assert not [*second.target.glob("root/huggingface/hub/models--*")]

    def test_a_chain_of_three(self, second: Trips) -> None:
        second.pack("second.tar.zst", "acme/big", "--since", second.target / "first.tar.zst")
        second.do("unpack", "second.tar.zst")
        second.repo.commit_files({"notes.txt": b"more"})
        # What the second lacks is where the second was unpacked.
        second.pack("third.tar.zst", "acme/big", "--since", second.target / "second.tar.zst")
        assert members(second.target / "third.tar.zst") == ["manifest.json", blob_name(b"more")]
        second.do("unpack", "third.tar.zst")
        assert second.found("main") == [{**with_later(), "notes.txt": b"more"}]

    def test_a_bundle_that_brings_nothing_moves_a_ref(self, second: Trips) -> None:
        second.repo.commit_files(MODEL)
        second.pack("second.tar.zst", "acme/big", "--since", second.target / "first.tar.zst")
        assert members(second.target / "second.tar.zst") == ["manifest.json"]
        assert bundler.verify(second.target / "second.tar.zst").faults == ()
        second.do("unpack", "second.tar.zst")
        ref = second.target / "root/huggingface/hub/models--acme--big/refs/main"
        assert ref.read_text() == second.repo.commit
        assert second.found("main") == [MODEL]

    def test_without_anything_in_common_it_is_an_ordinary_bundle(self, second: Trips) -> None:
        second.hub.add("acme/else", {"config.json": b'{"else": 1}', "a.safetensors": b"else"})
        second.pack("plain.tar.zst", "acme/else")
        second.pack("since.tar.zst", "acme/else", "--since", second.target / "first.tar.zst")
        one, other = (second.target / f"{name}.tar.zst" for name in ("plain", "since"))
        assert one.read_bytes() == other.read_bytes()
        assert bundler.inspect(one).manifest.format_version == 1

    def test_the_store_and_the_order_make_no_difference(self, second: Trips) -> None:
        since = ["--since", second.target / "first.tar.zst"]
        second.do("inventory", "-o", "have.json")
        also = ["--since", second.target / "have.json"]
        second.pack("one.tar.zst", "acme/big", *since, *also)
        second.pack("other.tar.zst", "acme/big", "--store", "other", *also, *since)
        one, other = (second.target / f"{name}.tar.zst" for name in ("one", "other"))
        assert one.read_bytes() == other.read_bytes()

    def test_a_locked_manifest_makes_the_whole_or_the_same_part_again(self, second: Trips) -> None:
        since = ["--since", second.target / "first.tar.zst"]
        second.pack("whole.tar.zst", "acme/big")
        second.pack("part.tar.zst", "acme/big", *since)
        locked = ["--locked", second.target / "part.tar.zst"]
        second.pack("whole-again.tar.zst", *locked)
        second.pack("part-again.tar.zst", *locked, *since)
        for name in ("whole", "part"):
            one, other = (second.target / f"{name}{end}.tar.zst" for end in ("", "-again"))
            assert one.read_bytes() == other.read_bytes()

    def test_it_is_signed_as_any_other(self, second: Trips) -> None:
        run("keygen", "key.pem", home=second.online)
        since = ["--since", second.target / "first.tar.zst"]
        second.pack("second.tar.zst", "acme/big", *since, "--sign", "key.pem")
        key = second.online / "key.pub.pem"
        assert "signed by" in second.do("unpack", "second.tar.zst", "--verify-key", key).out

    def test_code_in_what_stays_out_is_named_as_it_was(self, second: Trips) -> None:
        harmful = pickle.dumps(os.getcwd)
        files = {"config.json": b"{}", "x.bin": harmful}
        second.hub.add("acme/pickled", files).commit_files({"config.json": b'{"later": 1}'})
        second.pack("one.tar.zst", "acme/pickled")
        since = ["--since", second.target / "one.tar.zst"]
        second.hub._repos["model", "acme/pickled"].commit_files({"config.json": b"[]"})
        shutil.rmtree(second.online / ".cache")
        second.pack("other.tar.zst", "acme/pickled", *since)
        one, other = (
            bundler.inspect(second.target / f"{name}.tar.zst").manifest.snapshots[0].code
            for name in ("one", "other")
        )
        assert [code.path for code in one] == ["x.bin"]
        assert one == other
        done = second.pack("x.tar.zst", "acme/pickled", *since, "--no-code", code=7)
        assert "holds code: x.bin" in done.err

    def test_a_dataset_and_its_prepared_form_stay_out_too(self, second: Trips) -> None:
        second.hub.add("acme/rows", {"data.csv": b"a,b\n1,2\n"}, kind="dataset")
        second.pack("rows.tar.zst", "dataset:acme/rows")
        since = ["--since", second.target / "rows.tar.zst"]
        shutil.rmtree(second.online / ".cache")
        done = second.pack("again.tar.zst", "dataset:acme/rows", *since)
        assert members(second.target / "again.tar.zst") == ["manifest.json"], done.err
        locked = ["--locked", second.target / "again.tar.zst"]
        second.pack("locked.tar.zst", *locked, *since, "--store", "empty")
        again, same = (second.target / f"{name}.tar.zst" for name in ("again", "locked"))
        assert again.read_bytes() == same.read_bytes()

    def test_a_pipe_will_do(self, second: Trips) -> None:
        since = ["--since", second.target / "first.tar.zst"]
        second.pack("second.tar.zst", "acme/big", *since)
        content = (second.target / "second.tar.zst").read_bytes()
        done = run("unpack", "-", "--root", "root", home=second.target, input=content)
        assert (done.code, second.found("main")) == (0, [with_later()])

    def test_a_trial_needs_all_of_it(self, second: Trips) -> None:
        since = ["--since", second.target / "first.tar.zst"]
        done = second.pack("x.tar.zst", "acme/big", *since, "--check-load", code=2)
        assert "--check-load needs all of a model" in done.err

    @pytest.mark.parametrize(
        ("content", "word"),
        [
            (b"", "not valid JSON"),
            (b"[]", "an object with 'format_version' belongs"),
            (b'{"inventory_version": 2, "blobs": {}}', "use a newer bundler"),
            (b'{"inventory_version": true, "blobs": {}}', "use a newer bundler"),
            (b'{"inventory_version": 1}', "'blobs' is no object"),
            (b'{"inventory_version": 1, "blobs": {"x": 1}}', "not 64 lower-case hex digits"),
            (b'{"inventory_version": 1, "blobs": {"%b": -1}}' % (b"0" * 64), "a size of"),
            (b'{"inventory_version": 1, "blobs": {"%b": 1.5}}' % (b"0" * 64), "a size of"),
            (b'{"inventory_version": 1, "blobs": {}, "blobs": {}}', "the same key twice"),
            (b'{"inventory_version": 1, "x": [%b]}' % b",".join([b"1"] * 1_100_000), "values"),
        ],
    )
    def test_what_is_no_inventory_is_refused(
        self, tmp_path: Path, content: bytes, word: str
    ) -> None:
        (tmp_path / "have.json").write_bytes(content)
        done = run("pack", "file:x", "--since", "have.json", home=tmp_path)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert word in done.err


class TestElsewhere:
    """What a bundle lacks is taken from whatever has it."""

    @pytest.fixture
    def tuned(self, second: Trips) -> Trips:
        """Another repository with two of the shards, packed without them."""
        files = {"config.json": MODEL["config.json"], "a.safetensors": FIRST, "b.bin": b"new"}
        second.hub.add("acme/tuned", files)
        options = ["--all-files", "--since", second.target / "first.tar.zst"]
        second.pack("tuned.tar.zst", "acme/tuned", *options)
        assert members(second.target / "tuned.tar.zst") == ["manifest.json", blob_name(b"new")]
        return second

    def test_another_repository(self, tuned: Trips) -> None:
        tuned.do("unpack", "tuned.tar.zst")
        files = {"config.json": MODEL["config.json"], "a.safetensors": FIRST, "b.bin": b"new"}
        assert tuned.found("main", name="acme/tuned") == [files]
        hub = tuned.target / "root/huggingface/hub"
        one, other = (
            (hub / f"models--acme--{name}/blobs" / hashlib.sha256(FIRST).hexdigest()).stat()
            for name in ("big", "tuned")
        )
        # Cloned where the disk can, else one file with two names: no space twice.
        assert one.st_ino == other.st_ino or one.st_nlink == 1
        configs = [p for p in hub.glob("*/snapshots/*/config.json") if p.is_file()]
        assert len({path.stat().st_ino for path in configs}) == 2
        assert bundler.verify_installed(bundler.find_roots(root=tuned.target / "root")).faults == ()
        tuned.do("remove", "acme/big")
        assert tuned.found("main", name="acme/tuned") == [files]

    def test_a_file_that_others_may_write_to_is_copied(self, tuned: Trips) -> None:
        hub = tuned.target / "root/huggingface/hub"
        (blob,) = hub.glob(f"*/blobs/{hashlib.sha256(FIRST).hexdigest()}")
        blob.chmod(0o666)
        tuned.do("unpack", "tuned.tar.zst")
        assert {path.stat().st_nlink for path in hub.glob(f"*/blobs/{blob.name}")} == {1}

    def test_checkpoints_of_it(self, tuned: Trips) -> None:
        tuned.do("unpack", "tuned.tar.zst", "--checkpoints", "plain")
        assert (tuned.target / "plain/tuned/a.safetensors").read_bytes() == FIRST
        assert (tuned.target / "plain/tuned/config.json").read_bytes() == MODEL["config.json"]

    @pytest.mark.parametrize("how", ["gone", "cut", "flipped"])
    def test_what_is_missing_or_damaged_is_named_and_nothing_is_written(
        self, tuned: Trips, how: str
    ) -> None:
        (blob,) = tuned.target.glob(
            f"root/huggingface/hub/*/blobs/{hashlib.sha256(FIRST).hexdigest()}"
        )
        if how == "gone":
            blob.unlink()
        elif how == "cut":
            os.truncate(blob, 5)
        else:
            state = blob.stat()
            with open(blob, "r+b") as file:
                file.write(b"other")
            os.utime(blob, ns=(state.st_atime_ns, state.st_mtime_ns))
        before = tree(tuned.target)
        done = tuned.do("unpack", "tuned.tar.zst", code=6)
        assert done.err.count("\n") == 1
        assert "1 file (1.2 MB)" in done.err
        assert "a.safetensors of acme/tuned" in done.err
        first = bundler.inspect(tuned.target / "first.tar.zst").digest
        assert f"unpack the bundle {first} to the same place before it" in done.err
        assert tree(tuned.target) == before
        code = 0 if how == "flipped" else 6
        tuned.do("unpack", "tuned.tar.zst", "--dry-run", code=code)
        tuned.do("unpack", "first.tar.zst", *["--hash"] * (how == "flipped"))
        tuned.do("unpack", "tuned.tar.zst")

    def test_an_empty_target_is_told_all(self, second: Trips) -> None:
        second.do("inventory", "-o", "have.json")
        second.pack("second.tar.zst", "acme/big", "--since", second.target / "have.json")
        shutil.rmtree(second.target / "root")
        before = tree(second.target)
        done = second.do("unpack", "second.tar.zst", code=6)
        assert "4 files (2.4 MB)" in done.err
        assert "and 1 more; unpack the bundles that brought it to the same place" in done.err
        assert tree(second.target) == before

    def test_the_whole_bundle_can_stand_in(self, tuned: Trips) -> None:
        shutil.rmtree(tuned.target / "root")
        tuned.do("unpack", "tuned.tar.zst", "--repair", "first.tar.zst")
        assert tuned.found("main", name="acme/tuned") == [
            {"config.json": MODEL["config.json"], "a.safetensors": FIRST, "b.bin": b"new"}
        ]

    def test_checkpoints_of_torch_are_taken_too(self, tmp_path: Path) -> None:
        """From one root into another; and git's name of the content is compared."""
        bundles = [tmp_path / name for name in ("first.tar.zst", "second.tar.zst")]
        checkpoint = model_record(
            source="https", name="https://host/x.pth", layout="torch-checkpoints", kind=None,
            revision=None, commit_hash=None, files=[file_record("x.pth", FIRST)],
        )  # fmt: skip
        bundles[0].write_bytes(assembled(parts_of(manifest_of(checkpoint), [FIRST])))
        git = hashlib.sha1(b"blob %d\0" % len(FIRST) + FIRST).hexdigest()
        for etag, code in ((None, 0), (git, 0), ("0" * 40, 6)):
            root = tmp_path / str(etag)
            record = file_record("x.pth", FIRST, etag=etag)
            model = model_record(files=[record])
            bundles[1].write_bytes(
                assembled(
                    parts_of(manifest_of(model, format_version=2, absent=[record["digest"]]), [])
                )
            )
            codes = [run("unpack", b, "--root", root, home=tmp_path).code for b in bundles]
            assert codes == [0, code]


DIGESTS = {path: file_record(path, content)["digest"] for path, content in MODEL.items()}
SMALL = {"a": b"a", "b": b"b"}
A, B = (file_record(path, content)["digest"] for path, content in SMALL.items())
UPWARD = sorted([A, B])

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing is absent": ({}, "it lacks nothing"),
    "an empty list": ({"absent": []}, "it lacks nothing"),
    "null": ({"absent": None}, "it lacks nothing"),
    "no list": ({"absent": A}, "'absent' is a str"),
    "an object": ({"absent": {A: 1}}, "'absent' is a dict"),
    "no text": ({"absent": [1]}, "something else than texts"),
    "no digest": ({"absent": ["x"]}, "not of the form"),
    "twice": ({"absent": [A, A]}, "ascending order, each once"),
    "in another order": ({"absent": UPWARD[::-1]}, "ascending order, each once"),
    "in no file": ({"absent": ["sha256:" + "0" * 64]}, "it lacks what no file has"),
    "built on no digest": ({"absent": [A], "builds_on": ["x"]}, "not of the form"),
    "built on one twice": ({"absent": [A], "builds_on": [A, A]}, "each once"),
    "built on a crowd": (
        {"absent": [A], "builds_on": [f"sha256:{number:064x}" for number in range(257)]},
        "more than 256 bundles",
    ),
}


class TestHostile:
    @pytest.mark.parametrize("what", REFUSED)
    def test_fields_that_say_nothing_sensible(self, what: str) -> None:
        fields, word = REFUSED[what]
        content = manifest_of(model_record(SMALL), format_version=2, **fields)
        with pytest.raises(FormatError, match=word) as caught:
            Manifest.from_bytes(content)
        assert str(caught.value).isprintable()

    def test_huge_lists_do_not_fill_the_memory(self) -> None:
        digests = [f"sha256:{number:064x}" for number in range(100_000)]
        content = manifest_of(model_record(SMALL), format_version=2, absent=digests)
        with little_memory(700 << 20), pytest.raises(FormatError, match="what no file has"):
            Manifest.from_bytes(content)

    @pytest.mark.parametrize("version", [0, 3, 2.0, "2", True])
    def test_other_versions(self, version: object) -> None:
        with pytest.raises(FormatError):
            Manifest.from_bytes(
                manifest_of(model_record(SMALL), format_version=version, absent=[A])
            )

    def test_in_the_first_version_the_field_is_none(self) -> None:
        """As readers of that time take it: all content must be there."""
        content = manifest_of(model_record(SMALL), absent=[A], builds_on=[B])
        manifest = Manifest.from_bytes(content)
        assert (manifest.absent, manifest.builds_on, manifest.format_version) == ((), (), 1)

    @pytest.mark.parametrize(
        ("absent", "contents"),
        [
            pytest.param([A], [b"a", b"b"], id="declared absent, but present"),
            pytest.param([A], [], id="neither declared nor present"),
            pytest.param([A], [b"a"], id="the wrong one"),
            pytest.param(UPWARD, [b"a"], id="all absent, one present"),
        ],
    )
    def test_members_are_those_that_are_not_absent(
        self, tmp_path: Path, absent: list[str], contents: list[bytes]
    ) -> None:
        manifest = manifest_of(model_record(SMALL), format_version=2, absent=absent)
        whole, bundle = tmp_path / "whole.tar.zst", tmp_path / "b.tar.zst"
        whole.write_bytes(assembled(parts_of(manifest_of(model_record(SMALL)), [b"a", b"b"])))
        bundle.write_bytes(assembled(parts_of(manifest, contents)))
        roots = bundler.find_roots(root=tmp_path / "root")
        bundler.unpack(whole, roots=roots, env=None)
        shutil.rmtree(roots.hub)  # What is there of it is in the receipt alone.
        before = tree(tmp_path)
        assert bundler.verify(bundle).faults
        with pytest.raises((DamagedError, bundler.TargetError)):
            bundler.unpack(bundle, roots=roots, env=None)
        assert tree(tmp_path) == before

    def test_a_receipt_cannot_make_a_pipe_or_a_folder_into_content(self, tmp_path: Path) -> None:
        whole, bundle = tmp_path / "whole.tar.zst", tmp_path / "b.tar.zst"
        whole.write_bytes(assembled(parts_of(manifest_of(model_record(SMALL)), [b"a", b"b"])))
        other = manifest_of(model_record(SMALL, name="o"), format_version=2, absent=UPWARD)
        bundle.write_bytes(assembled(parts_of(other, [])))
        roots = bundler.find_roots(root=tmp_path / "root")
        bundler.unpack(whole, roots=roots, env=None)
        blobs = roots.hub / "models--org--model/blobs"
        for number, path in enumerate(sorted(blobs.iterdir())):
            path.unlink()
            os.mkfifo(path) if number else path.mkdir()
        with pytest.raises(bundler.TargetError, match="2 files"):
            bundler.unpack(bundle, roots=roots, env=None)


class TestDiff:
    def test_two_bundles(self, second: Trips) -> None:
        second.hub.add("acme/else", {"config.json": b'{"else": 1}'})
        second.repo.commit_files({"new.txt": b"new", "config.json": None})
        second.pack("second.tar.zst", "acme/big", "acme/else", "--all-files")
        done = second.do("diff", "first.tar.zst", "second.tar.zst")
        before = second.repo.tree("v1")[0][:12]
        assert done.out.splitlines() == [
            f"acme/big: {before} -> {second.repo.commit[:12]}",
            "    gone: config.json (25 B)",
            f"    changed: {SHARDS[1]} (1.2 MB -> 1.2 MB)",
            "    added: new.txt (3 B)",
            f"acme/else ({second.hub._repos['model', 'acme/else'].commit[:12]}) "
            "only in second.tar.zst: 1 file, 11 B",
            "only in first.tar.zst: 2 blobs, 1.2 MB",
            "only in second.tar.zst: 3 blobs, 1.2 MB",
            "in both: 3 blobs, 2.4 MB",
        ]
        found = json.loads(second.do("diff", "first.tar.zst", "second.tar.zst", "--json").out)
        assert [model["name"] for model in found["models"]] == ["acme/big", "acme/else"]
        changed = found["models"][0]["files"][1]
        assert (changed["path"], changed["before"]["digest"]) == (SHARDS[1], DIGESTS[SHARDS[1]])
        assert found["models"][1]["before"] is None
        assert found["after"] == {"blobs": 3, "size": len(CHANGED) + 3 + 11}

    def test_the_same(self, second: Trips) -> None:
        manifest = since_manifest(second)
        done = second.do("diff", "first.tar.zst", manifest)
        assert done.out.startswith("no difference\n")

    def test_a_bundle_and_what_is_here(self, second: Trips) -> None:
        second.pack("second.tar.zst", "acme/big")
        inventory = since_inventory(second)
        done = second.do("diff", inventory, "second.tar.zst")
        assert done.out.splitlines() == [
            "only in have.json: 1 blob, 1.2 MB",
            "only in second.tar.zst: 1 blob, 1.2 MB",
            "in both: 4 blobs, 2.4 MB",
        ]
        found = json.loads(second.do("diff", inventory, "second.tar.zst", "--json").out)
        assert found["models"] is None

    @pytest.mark.parametrize("other", ["missing.json", "root", "nonsense"])
    def test_what_cannot_be_compared(self, trips: Trips, other: str) -> None:
        (trips.target / "root").mkdir()
        (trips.target / "nonsense").write_bytes(b"\x1b]0;x\x07")
        done = trips.do("diff", other, other, code=2)
        assert (done.out, done.err.count("\n"), "\x1b" in done.err) == ("", 1, False)
