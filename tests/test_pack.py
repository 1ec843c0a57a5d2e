"""Packing from a hub that behaves as the real one does, through the command line."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import Ran, run, start
from loopback import Fault
from loopback_hub import LoopbackHub

import bundler
from bundler.whole_file import whole_file

CONFIG = b'{"model_type": "bert"}' * 60  # more than 1,000 bytes: the hub compresses it on the way
WEIGHTS = os.urandom(3_000_000)
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "vocab.txt": b"a\nb\n"}


def pack(hub: LoopbackHub, home: Path, *arguments: object, **options: Any) -> Ran:
    """`bundler pack` against the hub, with `-o bundle.tar.zst` unless another is named."""
    named = "-o" in arguments or "--dry-run" in arguments
    output = () if named else ("-o", "bundle.tar.zst")
    env = {"HF_ENDPOINT": hub.url, **options.pop("env", {})}
    return run("pack", *arguments, *output, home=home, env=env, **options)


def content(bundle: Path) -> dict[str, dict[str, bytes]]:
    """name -> path -> bytes of every file in a bundle, read through the public API."""
    root = bundle.parent / "content"
    result = bundler.unpack(bundle, roots=bundler.find_roots({}, root=root), env=None)
    found = {}
    for snapshot in result.snapshots:
        folder = f"{snapshot.kind}s--{snapshot.name.replace('/', '--')}"
        base = root / "huggingface" / "hub" / folder / "snapshots" / str(snapshot.commit_hash)
        found[snapshot.name] = {
            str(entry.path): (base / entry.path).read_bytes() for entry in snapshot.files
        }
    return found


def fetched(hub: LoopbackHub) -> list[str]:
    """The paths of all GET requests for content."""
    return [r.path for r in hub.requests if r.method == "GET" and not r.path.startswith("/api/")]


def downloaded(hub: LoopbackHub) -> list[str]:
    """The same but for the configuration, which is read to learn what else a model needs."""
    return [path for path in fetched(hub) if not path.endswith("/config.json")]


def test_what_the_hub_has_is_in_the_bundle(hub: LoopbackHub, tmp_path: Path) -> None:
    repo = hub.add("acme/tiny", FILES, license="mit")
    done = pack(hub, tmp_path, "acme/tiny")
    assert done.code == 0, done.err
    assert content(tmp_path / "bundle.tar.zst") == {"acme/tiny": FILES}
    (snapshot,) = bundler.inspect(tmp_path / "bundle.tar.zst").manifest.snapshots
    assert (snapshot.commit_hash, snapshot.revision) == (repo.commit, "main")
    assert (snapshot.kind, snapshot.license) == ("model", "mit")


def test_the_end_tells_size_id_and_what_to_do_next(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add("acme/tiny", FILES)
    done = pack(hub, tmp_path, "acme/tiny")
    digest = bundler.inspect(tmp_path / "bundle.tar.zst").digest
    assert f"id {digest}" in done.out
    assert "bundler unpack bundle.tar.zst && source offline.env" in done.out
    assert done.err == ""


def test_the_etags_are_those_of_the_hub(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add("acme/tiny", FILES)
    assert pack(hub, tmp_path, "acme/tiny").code == 0
    (snapshot,) = bundler.inspect(tmp_path / "bundle.tar.zst").manifest.snapshots
    etags = {str(entry.path): entry.etag for entry in snapshot.files}
    assert re.fullmatch("[0-9a-f]{40}", etags["config.json"] or "")
    weights = next(e for e in snapshot.files if str(e.path) == "model.safetensors")
    assert weights.etag == weights.blob.digest.hex


def test_equal_requests_give_equal_bytes(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add("acme/one", FILES)
    hub.add("acme/two", {"config.json": CONFIG, "model.safetensors": WEIGHTS[::-1]})
    homes = [tmp_path / "a", tmp_path / "b"]
    for home, order in zip(
        homes, [("acme/one", "acme/two"), ("acme/two", "acme/one")], strict=True
    ):
        home.mkdir()
        jobs = "1" if home.name == "a" else "4"
        assert pack(hub, home, "--models", *order, "--jobs", jobs).code == 0
    first, second = ((home / "bundle.tar.zst").read_bytes() for home in homes)
    assert first == second


def test_one_model_needs_no_list(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add("acme/tiny", FILES)
    packed = bundler.pack(
        "acme/tiny",
        tmp_path / "b.tar.zst",
        upstream=bundler.Upstream((hub.url,)),
        store=tmp_path / "store",
    )
    assert [snapshot.name for snapshot in packed.manifest.snapshots] == ["acme/tiny"]


def test_models_reads_as_it_looks(hub: LoopbackHub, tmp_path: Path) -> None:
    for name in ("acme/one", "acme/two", "acme/three"):
        hub.add(name, FILES)
    assert pack(hub, tmp_path, "--models", "acme/one", "acme/two", "acme/three").code == 0
    names = {s.name for s in bundler.inspect(tmp_path / "bundle.tar.zst").manifest.snapshots}
    assert names == {"acme/one", "acme/two", "acme/three"}


def test_a_request_file_lists_models(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add("acme/one", FILES)
    hub.add("acme/two", FILES)
    (tmp_path / "request.toml").write_text('models = ["acme/two"]\n')
    assert pack(hub, tmp_path, "acme/one", "--from", "request.toml").code == 0
    names = {s.name for s in bundler.inspect(tmp_path / "bundle.tar.zst").manifest.snapshots}
    assert names == {"acme/one", "acme/two"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("models = [", "is not a list of models", id="broken"),
        pytest.param('modles = ["a/b"]', "modles is not known", id="misspelt"),
        pytest.param("models = [1]", "a list of specs", id="no list of specs"),
        pytest.param(None, "cannot read", id="missing"),
    ],
)
def test_a_bad_request_file_is_told(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "request.toml").write_text(text)
    done = run("pack", "--from", "request.toml", home=tmp_path)
    assert (done.code, said in done.err, done.err.count("\n")) == (2, True, 1)


class TestRevisions:
    @pytest.mark.parametrize("revision", ["dev", "v1.0", "refs/pr/1", "feature/x y"])
    def test_a_branch_a_tag_or_a_pull_request(
        self, hub: LoopbackHub, tmp_path: Path, revision: str
    ) -> None:
        repo = hub.add("acme/tiny", FILES)
        commit = repo.commit_files({"config.json": b"other"}, branch="refs/pr/1")
        repo.branch("dev", commit)
        repo.branch("feature/x y", commit)
        repo.tag("v1.0", commit)
        assert pack(hub, tmp_path, f"acme/tiny@{revision}").code == 0
        (snapshot,) = bundler.inspect(tmp_path / "bundle.tar.zst").manifest.snapshots
        assert (snapshot.revision, snapshot.commit_hash) == (revision, commit)
        assert content(tmp_path / "bundle.tar.zst")["acme/tiny"]["config.json"] == b"other"

    def test_a_commit(self, hub: LoopbackHub, tmp_path: Path) -> None:
        repo = hub.add("acme/tiny", FILES)
        first = repo.commit
        repo.commit_files({"config.json": b"later"})
        assert pack(hub, tmp_path, f"acme/tiny@{first}").code == 0
        assert content(tmp_path / "bundle.tar.zst") == {"acme/tiny": FILES}

    def test_a_short_hash_as_pipelines_pin_it(self, hub: LoopbackHub, tmp_path: Path) -> None:
        repo = hub.add("acme/tiny", FILES)
        first = repo.commit
        repo.commit_files({"config.json": b"later"})
        assert pack(hub, tmp_path, f"acme/tiny@{first[:7]}").code == 0
        (snapshot,) = bundler.inspect(tmp_path / "bundle.tar.zst").manifest.snapshots
        assert (snapshot.revision, snapshot.commit_hash) == (first[:7], first)

    def test_two_revisions_of_one_model(self, hub: LoopbackHub, tmp_path: Path) -> None:
        repo = hub.add("acme/tiny", FILES)
        repo.tag("v1.0")
        repo.commit_files({"config.json": b"later"})
        assert pack(hub, tmp_path, "acme/tiny", "acme/tiny@v1.0").code == 0
        manifest = bundler.inspect(tmp_path / "bundle.tar.zst").manifest
        assert [s.revision for s in manifest.snapshots] == ["main", "v1.0"]
        weights = [e.blob for s in manifest.snapshots for e in s.files if e.path.suffix]
        assert len(set(weights)) == 4  # config.json twice, the other two shared


class TestRenamedRepositories:
    def test_the_name_asked_for_comes_first(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.add("google-bert/bert-base-uncased", FILES, aliases=["bert-base-uncased"])
        assert pack(hub, tmp_path, "bert-base-uncased").code == 0
        (snapshot,) = bundler.inspect(tmp_path / "bundle.tar.zst").manifest.snapshots
        assert snapshot.names == ("bert-base-uncased", "google-bert/bert-base-uncased")

    def test_both_names_in_any_order_are_one_model(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.add("google-bert/bert-base-uncased", FILES, aliases=["bert-base-uncased"])
        both = ("google-bert/bert-base-uncased", "bert-base-uncased")
        digests = set()
        for order in (both, both[::-1]):
            assert pack(hub, tmp_path, *order).code == 0
            inspection = bundler.inspect(tmp_path / "bundle.tar.zst")
            digests.add(inspection.digest)
            (snapshot,) = inspection.manifest.snapshots
            assert set(snapshot.names) == set(both)
        assert len(digests) == 1

    def test_the_wrong_letter_case_is_an_alias(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.add("Acme/Tiny", FILES)
        assert pack(hub, tmp_path, "acme/tiny").code == 0
        (snapshot,) = bundler.inspect(tmp_path / "bundle.tar.zst").manifest.snapshots
        assert snapshot.names == ("acme/tiny", "Acme/Tiny")


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_datasets_and_spaces_come_whole(hub: LoopbackHub, tmp_path: Path, kind: str) -> None:
    files = {"data/train.parquet": b"PAR1" * 9, "app.py": b"print()", "onnx/model.onnx": b"o"}
    hub.add("acme/data", files, kind=kind)
    assert pack(hub, tmp_path, f"{kind}:acme/data").code == 0
    assert content(tmp_path / "bundle.tar.zst") == {"acme/data": files}


def test_odd_but_legal_names_survive(hub: LoopbackHub, tmp_path: Path) -> None:
    odd = {
        "with space.json": b"1",
        "hash#tag?.txt": b"2",
        "per%20cent.txt": b"3",
        "ünïcode-模型.txt": b"4",
        "n" * 200 + ".txt": b"5",
        "a/deep/er/folder/file.txt": b"6",
        "Case.txt": b"7",
        "case.txt": b"8",
        "empty": b"",
        ".hidden": b"9",
        "same-1.bin": b"equal",
        "same-2.bin": b"equal",
        **{f"many/{number:04}.json": b"%d" % number for number in range(1100)},
    }
    hub.add("acme/odd", odd)
    assert pack(hub, tmp_path, "acme/odd").code == 0
    assert content(tmp_path / "bundle.tar.zst") == {"acme/odd": odd}


class TestAccess:
    def test_a_private_model_comes_with_the_token(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.add("acme/secret", FILES, private=True)
        done = pack(hub, tmp_path, "acme/secret", env={"HF_TOKEN": hub.token})
        assert done.code == 0, done.err
        assert content(tmp_path / "bundle.tar.zst") == {"acme/secret": FILES}

    def test_the_token_file_of_huggingface_hub_is_read(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/gated", FILES, gated=True)
        folder = tmp_path / ".cache" / "huggingface"
        folder.mkdir(parents=True)
        (folder / "token").write_text(hub.token)
        assert pack(hub, tmp_path, "acme/gated").code == 0

    def test_a_gated_model_without_access_is_told_before_any_download(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/gated", FILES, gated=True)
        hub.add("acme/tiny", FILES)
        done = pack(hub, tmp_path, "acme/tiny", "acme/gated")
        assert (done.code, downloaded(hub)) == (3, [])
        assert "acme/gated is gated" in done.err
        assert "hf auth login" in done.err

    def test_the_token_goes_to_the_hub_alone(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.add("acme/secret", FILES, private=True)
        assert pack(hub, tmp_path, "acme/secret", env={"HF_TOKEN": hub.token}).code == 0
        for request in hub.requests:
            assert ("authorization" in request.headers) == (request.server == "hub")

    def test_the_token_stays_home_when_the_endpoint_is_another_host(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/secret", FILES, private=True)
        done = run(
            "pack", "acme/secret", "--endpoint", hub.url,
            home=tmp_path, env={"HF_TOKEN": hub.token},
        )  # fmt: skip
        assert done.code == 3
        assert "your token is not sent to" in done.err
        assert not [r for r in hub.requests if "authorization" in r.headers]


class TestBadRequests:
    def test_all_faults_are_told_at_once_and_nothing_is_downloaded(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/tiny", FILES)
        done = pack(hub, tmp_path, "acme/tiny", "acme/nix", "acme/tiny@v9", "ftp:x", "a/b/c")
        assert (done.code, downloaded(hub)) == (2, [])
        assert [line for line in done.err.splitlines() if not line.startswith("bundler: ")] == []
        for said in ("no model acme/nix", "'v9'", "ftp:", "'a/b/c'"):
            assert said in done.err
        assert not (tmp_path / "bundle.tar.zst").exists()

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            pytest.param(["acme/nix"], 3, "has no model acme/nix", id="unknown model"),
            pytest.param(["dataset:acme/tiny"], 3, "has no dataset acme/tiny", id="other kind"),
            pytest.param(["acme/tiny@v9"], 3, "no branch, tag or commit 'v9'", id="revision"),
            pytest.param(["acme/tiny@abcdef0"], 3, "'abcdef0'", id="short hash of nothing"),
            pytest.param(["acme/off"], 3, "the repository is disabled", id="disabled"),
            pytest.param(["what:acme/tiny"], 2, "no kind of model", id="unknown scheme"),
            pytest.param(["acme/tiny@"], 2, "org/name@revision", id="no revision"),
            pytest.param([""], 2, "is not a model", id="empty spec"),
            pytest.param([], 2, "no models named", id="no spec"),
            pytest.param(["acme/tiny", "--exclude", "*"], 2, "nothing is left", id="all excluded"),
            pytest.param(["acme/tiny", "--include", "*.x"], 2, "nothing is left", id="no match"),
            pytest.param(["acme/empty"], 2, "has no files", id="empty repository"),
            pytest.param(["acme/device"], 2, "leave it out with --exclude", id="device name"),
            pytest.param(["acme/tiny", "-o", "no/b.tar.zst"], 6, "does not exist", id="no folder"),
            pytest.param(["acme/tiny", "-o", "no/"], 6, "does not exist", id="no stick"),
            pytest.param(["acme/tiny", "--level", "99"], 2, "'--level'", id="level"),
            pytest.param(["acme/tiny", "--bogus"], 2, "--bogus", id="unknown option"),
            pytest.param(["acme/tiny", "-o", "-", "--json"], 2, "name a file", id="two stdouts"),
        ],
    )
    def test_one_clear_line(
        self, hub: LoopbackHub, tmp_path: Path, arguments: list[str], code: int, said: str
    ) -> None:
        hub.add("acme/tiny", FILES)
        hub.add("acme/empty", {})
        hub.add("acme/device", {"aux.txt": b"", "model.safetensors": b"w"})
        hub.add("acme/off", FILES, disabled=True)
        done = pack(hub, tmp_path, *arguments)
        assert (done.code, done.err.count("\n")) == (code, 1), done.err
        assert said in done.err
        assert fetched(hub) == []
        assert [p.name for p in tmp_path.iterdir() if "bundle.tar" in p.name] == []

    def test_a_hub_that_cannot_be_reached(self, tmp_path: Path) -> None:
        with LoopbackHub() as gone:
            url = gone.url
        done = run("pack", "acme/tiny", "--endpoint", url, home=tmp_path)
        assert (done.code, done.err.count("\n")) == (3, 1)
        assert "cannot be reached" in done.err

    def test_an_endpoint_that_is_no_address(self, tmp_path: Path) -> None:
        done = run("pack", "acme/tiny", "--endpoint", "hub.example", home=tmp_path)
        assert (done.code, "no http or https address" in done.err) == (2, True)

    @pytest.mark.parametrize("status", [200, 204, 403, 418, 500])
    def test_what_does_not_answer_as_a_hub_is_told(
        self, hub: LoopbackHub, tmp_path: Path, status: int
    ) -> None:
        hub.add("acme/tiny", FILES)
        hub.faults.append(Fault("/api/models", times=99, status=status))
        done = pack(hub, tmp_path, "acme/tiny", "--retries", 1)
        assert (done.code, done.err.count("\n")) == (3, 1), done.err

    def test_a_token_that_cannot_be_one_is_told(self, hub: LoopbackHub, tmp_path: Path) -> None:
        done = pack(hub, tmp_path, "acme/tiny", env={"HF_TOKEN": "hf_\u200bpasted"})
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "copy it again" in done.err

    @pytest.mark.parametrize("url", ["http://[", "http://", "x"])
    def test_an_address_that_is_none_is_told(self, tmp_path: Path, url: str) -> None:
        done = run("pack", "acme/tiny", "--endpoint", url, home=tmp_path)
        assert (done.code, "no http or https address" in done.err) == (2, True)

    def test_an_offline_shell_is_told(self, hub: LoopbackHub, tmp_path: Path) -> None:
        done = pack(hub, tmp_path, "acme/tiny", env={"HF_HUB_OFFLINE": "1"})
        assert (done.code, done.err.count("\n")) == (3, 1)
        assert "HF_HUB_OFFLINE" in done.err


class TestDryRun:
    def test_it_tells_everything_and_does_nothing(self, hub: LoopbackHub, tmp_path: Path) -> None:
        repo = hub.add("acme/tiny", {**FILES, "pytorch_model.bin": b"x" * 2_000_000})
        done = pack(hub, tmp_path, "acme/tiny", "--dry-run")
        assert (done.code, done.err, downloaded(hub)) == (0, "", [])
        for said in ("acme/tiny", repo.commit[:12], "3 files, 3 MB", "pytorch_model.bin",
                     "the same weights as safetensors, 2 MB", "3 MB to download"):  # fmt: skip
            assert said in done.out
        assert list(tmp_path.iterdir()) == []

    def test_it_knows_what_is_downloaded_already(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.add("acme/tiny", FILES)
        assert pack(hub, tmp_path, "acme/tiny").code == 0
        assert "0 B to download" in pack(hub, tmp_path, "acme/tiny", "--dry-run").out

    def test_json_is_one_document(self, hub: LoopbackHub, tmp_path: Path) -> None:
        repo = hub.add("acme/tiny", {**FILES, "tf_model.h5": b"x"})
        document = json.loads(pack(hub, tmp_path, "acme/tiny", "--dry-run", "--json").out)
        (model,) = document["models"]
        assert model["commit_hash"] == repo.commit
        assert {file["path"] for file in model["files"]} == set(FILES)
        assert [item["path"] for item in model["omitted"]] == ["tf_model.h5"]
        assert document["size"] == document["download_size"] == sum(map(len, FILES.values()))


class TestOutput:
    def test_json_is_one_document(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.add("acme/tiny", FILES)
        document = json.loads(pack(hub, tmp_path, "acme/tiny", "--json").out)
        assert document["bundle"] == str(bundler.inspect(tmp_path / "bundle.tar.zst").digest)
        assert document["size"] == (tmp_path / "bundle.tar.zst").stat().st_size

    def test_standard_output_takes_the_bundle_alone(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.add("acme/tiny", FILES)
        assert pack(hub, tmp_path, "acme/tiny").code == 0
        done = pack(hub, tmp_path, "acme/tiny", "-o", "-")
        assert done.raw == (tmp_path / "bundle.tar.zst").read_bytes()
        assert "id sha256:" in done.err

    def test_a_bundle_is_replaced_only_by_a_whole_one(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/tiny", FILES)
        assert pack(hub, tmp_path, "acme/tiny").code == 0
        before = (tmp_path / "bundle.tar.zst").read_bytes()
        assert pack(hub, tmp_path, "acme/tiny", "acme/nix").code == 3
        assert (tmp_path / "bundle.tar.zst").read_bytes() == before
        assert sorted(p.name for p in tmp_path.iterdir()) == [".cache", "bundle.tar.zst"]


class TestSpace:
    def test_a_full_store_is_told_before_any_download(
        self, hub: LoopbackHub, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        hub.add("acme/tiny", FILES)
        disk = small_disk("size=2m")
        done = pack(hub, tmp_path, "acme/tiny", "--store", disk / "store")
        assert (done.code, done.err.count("\n"), downloaded(hub)) == (6, 1, [])
        assert re.search(r"has 2[\d.]* MB free, and 3 MB are to be downloaded", done.err)
        assert "--store" in done.err

    def test_a_full_output_is_told_and_nothing_stays(
        self, hub: LoopbackHub, tmp_path: Path, small_disk: Callable[[str], Path]
    ) -> None:
        hub.add("acme/tiny", FILES)
        disk = small_disk("size=2m")
        done = pack(hub, tmp_path, "acme/tiny", "-o", disk / "b.tar.zst")
        assert (done.code, done.err.count("\n")) == (6, 1)
        assert "no space left for" in done.err
        assert "--output" in done.err
        assert list(disk.iterdir()) == []

    def test_an_output_that_is_being_written_is_left_to_whoever_does(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/tiny", FILES)
        with whole_file(tmp_path / "bundle.tar.zst") as file:
            file.write(b"theirs")
            done = pack(hub, tmp_path, "acme/tiny")
        assert (done.code, "another bundler is writing" in done.err) == (6, True)
        assert (tmp_path / "bundle.tar.zst").read_bytes() == b"theirs"

    def test_a_draft_is_no_way_to_another_file(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.add("acme/tiny", FILES)
        (tmp_path / "precious").write_bytes(b"precious")
        (tmp_path / ".bundle.tar.zst.bundler-part").symlink_to("precious")
        done = pack(hub, tmp_path, "acme/tiny")
        assert (done.code, done.err.count("\n")) == (6, 1)
        assert (tmp_path / "precious").read_bytes() == b"precious"

    def test_a_device_is_written_to_and_not_replaced(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/tiny", FILES)
        assert pack(hub, tmp_path, "acme/tiny", "-o", "/dev/null").code == 0
        assert Path("/dev/null").is_char_device()
        done = pack(hub, tmp_path, "acme/tiny", "-o", "/dev/full")
        assert (done.code, "no space left" in done.err) == (6, True)

    def test_a_link_is_followed_to_the_file_it_names(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/tiny", FILES)
        (tmp_path / "link").symlink_to("bundle.tar.zst")
        assert pack(hub, tmp_path, "acme/tiny", "-o", "link").code == 0
        assert (tmp_path / "link").is_symlink()
        assert content(tmp_path / "bundle.tar.zst") == {"acme/tiny": FILES}


class TestDownloads:
    def test_nothing_is_fetched_twice(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.add("acme/tiny", FILES)
        assert pack(hub, tmp_path, "acme/tiny").code == 0
        hub.requests.clear()
        assert pack(hub, tmp_path, "acme/tiny").code == 0
        assert fetched(hub) == []

    def test_a_body_that_breaks_off_is_continued(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.add("acme/tiny", FILES)
        hub.faults.append(Fault(r"model\.safetensors", cut=1_000_000))
        assert pack(hub, tmp_path, "acme/tiny").code == 0
        assert content(tmp_path / "bundle.tar.zst") == {"acme/tiny": FILES}
        ranges = [r.headers["range"] for r in hub.requests if "range" in r.headers]
        assert "bytes=1000000-" in ranges

    def test_a_server_without_ranges_is_read_from_the_start(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.cdn_honours_range = False
        hub.add("acme/tiny", FILES)
        hub.faults.append(Fault(r"model\.safetensors", cut=1_000_000))
        assert pack(hub, tmp_path, "acme/tiny").code == 0
        assert content(tmp_path / "bundle.tar.zst") == {"acme/tiny": FILES}

    def test_after_a_kill_the_next_run_goes_on_from_the_bytes_on_disk(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/tiny", {"model.safetensors": WEIGHTS})
        hub.faults.append(Fault(r"model\.safetensors", cut=2_000_000, stall=True))
        store = tmp_path / ".cache" / "bundler" / "partial"
        with start("pack", "acme/tiny", home=tmp_path, env={"HF_ENDPOINT": hub.url}) as process:
            while sum(path.stat().st_size for path in store.glob("*")) < 2_000_000:
                assert process.poll() is None
            process.kill()
        hub.requests.clear()
        assert pack(hub, tmp_path, "acme/tiny").code == 0
        assert content(tmp_path / "bundle.tar.zst")["acme/tiny"] == {"model.safetensors": WEIGHTS}
        ranges = [r.headers.get("range") for r in hub.requests if r.server == "cdn"]
        assert ranges == ["bytes=2000000-"]

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
    def test_a_corrupted_file_is_fetched_anew_once(
        self, hub: LoopbackHub, tmp_path: Path, name: str
    ) -> None:
        hub.add("acme/tiny", FILES)
        hub.faults.append(Fault(re.escape(name), flip=10))
        assert pack(hub, tmp_path, "acme/tiny").code == 0
        assert content(tmp_path / "bundle.tar.zst") == {"acme/tiny": FILES}

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
    def test_a_file_that_stays_corrupted_is_refused(
        self, hub: LoopbackHub, tmp_path: Path, name: str
    ) -> None:
        hub.add("acme/tiny", FILES)
        hub.faults.append(Fault(re.escape(name), times=99, flip=10))
        done = pack(hub, tmp_path, "acme/tiny")
        assert done.code == 4
        assert done.err.startswith(f"bundler: {name} of acme/tiny")
        assert not (tmp_path / "bundle.tar.zst").exists()

    def test_a_server_in_trouble_is_asked_again(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.add("acme/tiny", FILES)
        hub.faults.append(Fault(r"resolve.*config", status=503, headers={"Retry-After": "0"}))
        hub.faults.append(Fault(r"resolve.*model", status=429, headers={"Retry-After": "0"}))
        assert pack(hub, tmp_path, "acme/tiny").code == 0

    def test_one_failing_file_does_not_lose_the_others(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/good", {"model.safetensors": WEIGHTS})
        hub.add("acme/bad", {"model.safetensors": WEIGHTS[::-1]})
        hub.faults.append(Fault("acme/bad/resolve", times=99, status=404))
        assert pack(hub, tmp_path, "acme/good", "acme/bad").code == 3
        hub.faults.clear()
        hub.requests.clear()
        assert pack(hub, tmp_path, "acme/good", "acme/bad").code == 0
        assert [path for path in fetched(hub) if "good" in path] == []

    @pytest.fixture
    def damaged(self, hub: LoopbackHub, tmp_path: Path) -> dict[str, dict[str, bytes]]:
        """Models that were packed; of nothing in the store there is more than the size."""
        models = {
            "acme/adapter": {
                "adapter_config.json": b'{"base_model_name_or_path": "acme/tiny"}',
                "adapter_model.safetensors": b"adapter",
            },
            "acme/tiny": FILES,
        }
        for name, files in models.items():
            hub.add(name, files)
        assert pack(hub, tmp_path, "acme/adapter").code == 0
        for blob in (tmp_path / ".cache/bundler/blobs/sha256").iterdir():
            blob.chmod(stat.S_IRUSR | stat.S_IWUSR)
            blob.write_bytes(bytes(blob.stat().st_size))
        return models

    def test_what_changed_in_the_store_is_fetched_anew(
        self, damaged: dict[str, dict[str, bytes]], hub: LoopbackHub, tmp_path: Path
    ) -> None:
        done = pack(hub, tmp_path, "acme/adapter", "-o", "second.tar.zst")
        assert (done.code, done.err.count("they are brought anew")) == (0, 1)
        assert content(tmp_path / "second.tar.zst") == damaged

    def test_so_it_is_for_volumes(
        self, damaged: dict[str, dict[str, bytes]], hub: LoopbackHub, tmp_path: Path
    ) -> None:
        (tmp_path / "stick").mkdir()
        done = pack(hub, tmp_path, "acme/adapter", "-o", "stick/b.zst", "--split-size", "1MB")
        assert (done.code, done.err.count("they are brought anew")) == (0, 1)
        assert content(tmp_path / "stick") == damaged
        names = {path.name for path in (tmp_path / "stick").iterdir() if path.is_file()}
        assert names == {*(f"b.zst.00{number}" for number in range(4)), "b.zst.volumes"}

    def test_what_changed_in_the_store_ends_what_is_written_to_a_pipe(
        self, damaged: dict[str, dict[str, bytes]], hub: LoopbackHub, tmp_path: Path
    ) -> None:
        done = pack(hub, tmp_path, "acme/adapter", "-o", "-")
        assert (done.code, done.err.count("run the same command again")) == (4, 1)
        done = pack(hub, tmp_path, "acme/adapter", "-o", "second.tar.zst")
        assert (done.code, "had changed" in done.err) == (0, False)
        assert content(tmp_path / "second.tar.zst") == damaged

    def test_a_store_in_use_is_told(self, hub: LoopbackHub, tmp_path: Path) -> None:
        from bundler.store import BlobStore

        hub.add("acme/tiny", FILES)
        with BlobStore(tmp_path / "store"):
            done = pack(hub, tmp_path, "acme/tiny", "--store", "store")
        assert (done.code, "another bundler uses the store" in done.err) == (6, True)
