"""What an unpack makes is what huggingface_hub finds, and nothing but what was asked for."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_builder import assembled, manifest_of, model_record, parts_of
from command import command_environment, run
from loopback_hub import LoopbackHub
from memory_source import commit_hash, make_bundle
from trees import dangling_links, etag, found_offline, stamps, tree, unpack_below, write_cache

import bundler
from bundler.errors import DamagedError, FormatError
from bundler.shells import MARK

TINY = {
    "config.json": b'{"model_type": "tiny"}',
    "copy/config.json": b'{"model_type": "tiny"}',
    "empty.txt": b"",
    "model.safetensors": bytes(range(256)) * 40,
    "same.bin": b"shared by two repositories",
    "vocab, with spaces & #.txt": b"one\ntwo\n",
}
LARGE = {"config.json": b"{}", "model.safetensors": os.urandom(64) * 40_000}
OTHER = {"config.json": b"{}", "notes.txt": b"shared by two repositories"}
MODELS = {"org/tiny": TINY, "org/large": LARGE, "other": OTHER}
SHORT = commit_hash(TINY)[:7]
ASKED = ("tiny", "tiny@v1.0", f"tiny@{SHORT}", "tiny@refs/pr/1", "org/large", "other")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bundler.Packed:
    """A bundle of three models, one of them by an alias and at four revisions."""
    path = tmp_path_factory.mktemp("bundle") / "bundle.tar.zst"
    return make_bundle(path, MODELS, asked=ASKED, aliases={"tiny": "org/tiny"})


@pytest.fixture(scope="module")
def bundle(packed: bundler.Packed) -> Path:
    assert packed.path is not None
    return packed.path


@pytest.fixture(scope="module")
def unpacked(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Hugging Face home made from the bundle by the command line; only to be read."""
    home = tmp_path_factory.mktemp("home")
    ran = run("unpack", bundle, "--root", home / "root", home=home, umask=0o022)
    assert (ran.code, ran.err) == (0, "")
    return home / "root" / "huggingface"


class TestFreshCache:
    """What stands below a root that was empty."""

    def test_huggingface_hub_finds_every_file_by_every_name_and_revision(
        self, unpacked: Path
    ) -> None:
        revisions = ["main", "v1.0", SHORT, "refs/pr/1", commit_hash(TINY)]
        wanted = [(name, revision) for name in ("tiny", "org/tiny") for revision in revisions]
        found = found_offline(
            unpacked,
            *wanted,
            ("org/large", "main"),
            ("org/large", commit_hash(LARGE)),
            ("other", "main"),
        )
        assert found.snapshots == [TINY] * 10 + [LARGE] * 2 + [OTHER]

    def test_huggingface_hub_has_nothing_to_warn_about(self, unpacked: Path) -> None:
        found = found_offline(unpacked)
        assert found.warnings == []
        assert found.repos == {
            "tiny": [commit_hash(TINY)],
            "org/tiny": [commit_hash(TINY)],
            "org/large": [commit_hash(LARGE)],
            "other": [commit_hash(OTHER)],
        }

    def test_what_was_not_asked_for_is_not_found(self, unpacked: Path) -> None:
        found = found_offline(unpacked, ("other", "v1.0"), ("large", "main"))
        for answer in found.snapshots:
            assert isinstance(answer, str)
            assert answer.startswith("LocalEntryNotFoundError")

    def test_no_link_dangles_and_every_link_is_relative(self, unpacked: Path) -> None:
        links = [target for kind, target, _ in tree(unpacked).values() if kind == "link"]
        assert len(links) >= len(TINY) + len(LARGE) + len(OTHER) + 1
        assert not [target for target in links if target.startswith(b"/")]
        assert dangling_links(unpacked) == []

    def test_refs_hold_the_commit_and_no_newline(self, unpacked: Path) -> None:
        refs = {
            path.partition("/refs/")[2]: content
            for path, (kind, content, _) in tree(unpacked / "hub").items()
            if path.startswith("models--tiny/refs/") and kind == "file"
        }
        commit = commit_hash(TINY).encode()
        assert refs == dict.fromkeys(["main", "v1.0", SHORT, "refs/pr/1"], commit)

    def test_everybody_may_read_all_of_it(self, unpacked: Path) -> None:
        modes = {(kind, mode) for kind, _, mode in tree(unpacked).values()}
        assert modes == {("folder", 0o755), ("file", 0o644), ("link", 0)}

    def test_nothing_but_repositories_is_left_in_the_hub(self, unpacked: Path) -> None:
        names = {path.name for path in (unpacked / "hub").iterdir()}
        assert names == {"models--tiny", "models--org--tiny", "models--org--large", "models--other"}
        assert {path.name for path in unpacked.iterdir()} == {"hub", ".bundler"}

    def test_one_name_of_a_repository_is_a_link_to_the_other(self, unpacked: Path) -> None:
        names = ("models--tiny", "models--org--tiny")
        targets = [
            os.readlink(unpacked / "hub" / n) for n in names if (unpacked / "hub" / n).is_symlink()
        ]
        assert targets == ["models--tiny"]


def test_the_cache_is_the_one_that_huggingface_hub_itself_makes(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = hub.add("org/tiny", TINY, license="mit")
    repo.tag("v1.0")
    env = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    theirs = tmp_path / "theirs"
    program = "import huggingface_hub as h; [h.snapshot_download('org/tiny', revision=r) for r in "
    subprocess.run(
        [sys.executable, "-c", f"{program}['main', 'v1.0']]"],
        env=command_environment(tmp_path) | env | {"HF_HOME": str(theirs)},
        stderr=subprocess.DEVNULL,
        check=True,
    )
    bundle = tmp_path / "bundle.tar.zst"
    specs = ("org/tiny", "org/tiny@v1.0")
    packed = run("pack", *specs, "--all-files", "-o", bundle, home=tmp_path, env=env)
    assert packed.code == 0, packed.err
    ours = tmp_path / "ours"
    unpack_below(ours, bundle)

    def listing(content: bytes) -> dict[str, dict[str, object]]:
        """A listing without the git ids of large files' pointers, which no reader asks for."""
        document = json.loads(content)
        assert document.pop("format_version") == 1
        files: dict[str, dict[str, object]] = document.pop("files")
        assert document == {}
        return {
            path: {
                key: entry[key] for key in entry if key != "blob_id" or "lfs_sha256" not in entry
            }
            for path, entry in files.items()
        }

    def comparable(hub_folder: Path) -> dict[str, object]:
        return {
            path: listing(content)
            if path.endswith(".json") and "/trees/" in path
            else (kind, content)
            for path, (kind, content, _) in tree(hub_folder).items()
            if path.startswith("models--")
        }

    assert comparable(ours / "huggingface/hub") == comparable(theirs / "hub")


def test_sourcing_the_file_it_writes_is_all_that_is_needed(bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / 'my "caches" aren\'t \\ here #é'
    ran = run("unpack", bundle, "--root", root, home=tmp_path)
    assert ran.code == 0, ran.err
    assert "source" in ran.out
    program = "import huggingface_hub as h; print(h.snapshot_download('tiny', revision='v1.0'))"
    process = subprocess.run(
        [
            "bash",
            "-euc",
            f". ./offline.env; {shlex.quote(sys.executable)} -c {shlex.quote(program)}",
        ],
        env=command_environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    folder = root / "huggingface/hub/models--tiny/snapshots" / commit_hash(TINY)
    assert process.stdout == f"{folder}\n"


@pytest.mark.parametrize("option", ["--hf-home", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"])
def test_caches_go_where_the_libraries_look(option: str, bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    options = [option, place] if option.startswith("--") else []
    env = {} if options else {option: str(place)}
    assert run("unpack", bundle, *options, home=tmp_path, env=env).code == 0
    hub = {"HF_HUB_CACHE": place, "XDG_CACHE_HOME": place / "huggingface/hub"}.get(
        option, place / "hub"
    )
    assert (hub / "models--tiny/refs/main").read_text() == commit_hash(TINY)


def test_the_second_unpack_writes_nothing_into_the_hub(bundle: Path, tmp_path: Path) -> None:
    unpack_below(tmp_path, bundle)
    before = stamps(tmp_path / "huggingface/hub")
    result = unpack_below(tmp_path, bundle)
    assert stamps(tmp_path / "huggingface/hub") == before
    assert (result.written_size, result.present_size > 0) == (0, True)


def test_a_pipe_is_as_good_as_a_file(bundle: Path, unpacked: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(["cat", str(bundle)], stdout=subprocess.PIPE)
    with process:
        ran = run("unpack", "-", "--root", tmp_path / "root", home=tmp_path, stdin=process.stdout)
    assert (ran.code, ran.err) == (0, "")
    assert tree(tmp_path / "root/huggingface") == tree(unpacked)


class TestOnly:
    """`--only` chooses by what `inspect` shows, and by every other name."""

    @pytest.mark.parametrize(
        ("only", "folders", "refs"),
        [
            (["other"], {"models--other"}, {"main"}),
            (["hf:other"], {"models--other"}, {"main"}),
            (["other@main"], {"models--other"}, {"main"}),
            ([f"other@{commit_hash(OTHER)}"], {"models--other"}, {"main"}),
            (
                ["tiny"],
                {"models--tiny", "models--org--tiny"},
                {"main", "v1.0", SHORT, "refs/pr/1"},
            ),
            (["tiny@v1.0"], {"models--tiny", "models--org--tiny"}, {"v1.0"}),
            (["org/tiny@v1.0"], {"models--tiny", "models--org--tiny"}, {"v1.0"}),
            (["org/tiny@refs/pr/1"], {"models--tiny", "models--org--tiny"}, {"refs/pr/1"}),
            (["other", "org/large"], {"models--other", "models--org--large"}, {"main"}),
            (["other", "hf:other@main"], {"models--other"}, {"main"}),
        ],
        ids=lambda words: " ".join(sorted(words)),
    )
    def test_installs_these_and_no_other(
        self,
        only: list[str],
        folders: set[str],
        refs: set[str],
        bundle: Path,
        tmp_path: Path,
    ) -> None:
        unpack_below(tmp_path, bundle, only=only)
        hub = tmp_path / "huggingface/hub"
        assert {path.name for path in hub.iterdir()} == folders
        found = {
            path.partition("/refs/")[2] for path, (kind, *_) in tree(hub).items() if kind == "file"
        }
        assert found - {""} == refs

    def test_one_after_the_other_equals_all_at_once(
        self, bundle: Path, unpacked: Path, tmp_path: Path
    ) -> None:
        for only in ("other", "tiny@v1.0", "org/large", "org/tiny"):
            unpack_below(tmp_path, bundle, only=[only])
        assert tree(tmp_path / "huggingface/hub") == tree(unpacked / "hub")

    def test_names_everything_unknown_at_once_and_writes_nothing(
        self, bundle: Path, tmp_path: Path
    ) -> None:
        unknown = ["nope", "tiny@v2", "timm:other", "Other"]
        options = [word for spec in ("other", *unknown) for word in ("--only", spec)]
        ran = run("unpack", bundle, "--root", tmp_path / "root", *options, home=tmp_path)
        assert (ran.code, ran.out) == (2, "")
        assert len(ran.err.splitlines()) == len(unknown)
        assert [spec for spec in unknown if f"{spec} " not in ran.err] == []
        assert tree(tmp_path) == {}


class TestDryRun:
    """`--dry-run` tells and writes nothing."""

    def test_does_not_even_make_the_root(self, bundle: Path, tmp_path: Path) -> None:
        ran = run("unpack", bundle, "--root", tmp_path / "root", "--dry-run", home=tmp_path)
        assert (ran.code, ran.err) == (0, "")
        assert tree(tmp_path) == {}
        for word in ("needed", "free", "there already", "org/large", "v1.0"):
            assert word in ran.out
        assert "source" not in ran.out

    def test_changes_nothing_in_a_cache_and_counts_what_is_there(
        self, bundle: Path, tmp_path: Path
    ) -> None:
        write_cache(tmp_path / "root/huggingface/hub", "org/large", LARGE)
        (tmp_path / "offline.env").write_text(f"{MARK}\n")
        before = tree(tmp_path), stamps(tmp_path)
        options = ["--root", tmp_path / "root", "--only", "org/large", "--only", "other"]
        ran = run("unpack", bundle, *options, "--dry-run", "--json", home=tmp_path)
        assert (tree(tmp_path), stamps(tmp_path)) == before
        plan = json.loads(ran.out)
        present, needed = (sum(map(len, files.values())) for files in (LARGE, OTHER))
        assert (plan["present_size"], plan["written_size"]) == (present, needed)
        assert plan["free_size"] > 0

    def test_tells_what_the_unpack_then_does(self, bundle: Path, tmp_path: Path) -> None:
        command = ["unpack", bundle, "--root", tmp_path / "root", "--json"]
        plan = json.loads(run(*command, "--dry-run", home=tmp_path).out)
        done = json.loads(run(*command, home=tmp_path).out)
        assert plan.pop("free_size") > 0
        assert done.pop("free_size") > 0
        assert plan == done

    def test_refuses_what_the_unpack_would_refuse(self, bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "offline.env").write_text("export MINE=1\n")
        ran = run("unpack", bundle, "--root", tmp_path / "root", "--dry-run", home=tmp_path)
        assert ran.code == 6


def test_json_is_one_document_on_stdout(bundle: Path, tmp_path: Path) -> None:
    ran = run("unpack", bundle, "--root", tmp_path / "root", "--json", home=tmp_path)
    document = json.loads(ran.out)
    assert ran.err == ""
    assert document["roots"] == {"hub": str(tmp_path / "root/huggingface/hub")}
    assert document["env"] == str(tmp_path / "offline.env")
    assert {model["name"] for model in document["models"]} == {"tiny", "org/large", "other"}


class TestDigest:
    """`--digest` is the id that `pack` told."""

    def test_the_right_one_unpacks(self, packed: bundler.Packed, tmp_path: Path) -> None:
        options = ["--root", tmp_path / "root", "--digest", packed.digest]
        assert run("unpack", packed.path, *options, home=tmp_path).code == 0
        assert (tmp_path / "offline.env").exists()

    @pytest.mark.parametrize("piped", [False, True], ids=["from a file", "from a pipe"])
    def test_another_one_is_not_trusted_and_nothing_is_written(
        self, piped: bool, bundle: Path, tmp_path: Path
    ) -> None:
        options = ["--root", tmp_path / "root", "--digest", f"sha256:{'0' * 64}"]
        with open(bundle, "rb") as file:
            ran = run("unpack", "-" if piped else bundle, *options, home=tmp_path, stdin=file)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (7, "", 1)
        assert tree(tmp_path) == {}

    def test_what_is_no_digest_is_a_wrong_request(self, bundle: Path, tmp_path: Path) -> None:
        ran = run("unpack", bundle, "--digest", "0" * 63, home=tmp_path)
        assert (ran.code, len(ran.err.splitlines())) == (2, 1)
        assert tree(tmp_path) == {}


def test_a_complete_cache_that_is_read_only_needs_nothing(
    bundle: Path, tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=64m")
    assert run("unpack", bundle, "--root", disk, home=tmp_path).code == 0
    before = tree(disk)
    small_disk("ro")
    ran = run("unpack", bundle, "--root", disk, home=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert "everything is there already" in ran.out
    assert tree(disk) == before


class TestEtags:
    """A cache finds content by its etag, so nothing may take the name of something else."""

    OURS = b"of a revision that the bundle does not mention"

    @pytest.mark.parametrize("hash_", ["sha256", "git"])
    def test_content_under_the_name_of_other_content_is_refused(
        self, tmp_path: Path, hash_: str
    ) -> None:
        path = "model.safetensors" if hash_ == "sha256" else "config.json"
        hub = tmp_path / "huggingface/hub"
        write_cache(hub, "org/tiny", {path: self.OURS})
        before = tree(tmp_path)
        model = model_record({"x": b"evil"}, name="org/tiny", revision="dev")
        model["files"][0]["etag"] = etag(path, self.OURS)
        bundle = tmp_path.parent / f"{tmp_path.name}.tar.zst"
        bundle.write_bytes(assembled(parts_of(manifest_of(model), [b"evil"])))
        with pytest.raises((FormatError, DamagedError), match="etag"):
            unpack_below(tmp_path, bundle)
        assert tree(tmp_path) == before


class TestEnvironmentFile:
    """`offline.env`, or what `--env` names."""

    @pytest.mark.parametrize("text", ["", "export MINE=1\n", "\nfoo"], ids=["empty", "mine", "odd"])
    def test_a_file_of_somebody_else_is_left_alone_and_nothing_is_written(
        self, text: str, bundle: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "offline.env").write_text(text)
        before = tree(tmp_path)
        ran = run("unpack", bundle, "--root", tmp_path / "root", home=tmp_path)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (6, "", 1)
        assert "--env" in ran.err
        assert tree(tmp_path) == before

    def test_bundlers_own_is_replaced(self, bundle: Path, tmp_path: Path) -> None:
        for root in ("first", "second"):
            assert run("unpack", bundle, "--root", tmp_path / root, home=tmp_path).code == 0
        text = (tmp_path / "offline.env").read_text()
        assert str(tmp_path / "second") in text
        assert str(tmp_path / "first") not in text

    def test_goes_where_it_is_wanted(self, bundle: Path, tmp_path: Path) -> None:
        place = tmp_path / "a folder" / "x.env"
        place.parent.mkdir()
        options = ["--root", tmp_path / "root", "--env", place]
        assert run("unpack", bundle, *options, home=tmp_path).code == 0
        assert "HF_HUB_OFFLINE" in place.read_text()
        assert not (tmp_path / "offline.env").exists()

    def test_a_missing_folder_is_told_before_anything_is_written(
        self, bundle: Path, tmp_path: Path
    ) -> None:
        options = ["--root", tmp_path / "root", "--env", "missing/x.env"]
        ran = run("unpack", bundle, *options, home=tmp_path)
        assert (ran.code, len(ran.err.splitlines())) == (6, 1)
        assert tree(tmp_path) == {}

    def test_other_places_than_before_are_noted(self, bundle: Path, tmp_path: Path) -> None:
        for name, noted in (("one", False), ("one", False), ("two", True)):
            ran = run("unpack", bundle, "--root", tmp_path / name, home=tmp_path)
            assert ("offline.env led to other places before" in ran.out) == noted

    def test_a_folder_in_its_place_is_told_before_anything_is_written(
        self, bundle: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "offline.env").mkdir()
        ran = run("unpack", bundle, "--root", tmp_path / "root", home=tmp_path)
        assert (ran.code, len(ran.err.splitlines())) == (6, 1)
        assert set(tree(tmp_path)) == {"offline.env"}

    def test_a_place_where_it_cannot_go_is_told_before_anything_is_written(
        self, bundle: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        options = ["--root", tmp_path / "root", "--env", tmp_path / "file/x.env"]
        ran = run("unpack", bundle, *options, home=tmp_path)
        assert (ran.code, len(ran.err.splitlines())) == (6, 1)
        assert set(tree(tmp_path)) == {"file"}


class TestWithoutLinks:
    """Where links are not to be had, or not wanted."""

    DISABLED = pytest.mark.parametrize("value", ["1", "true", "YES", "on"])

    @DISABLED
    def test_snapshots_hold_the_files_themselves_and_load(
        self, value: str, bundle: Path, tmp_path: Path
    ) -> None:
        env = {"HF_HUB_DISABLE_SYMLINKS": value}
        ran = run("unpack", bundle, "--root", tmp_path, home=tmp_path, env=env)
        assert (ran.code, ran.err) == (0, "")
        home = tmp_path / "huggingface"
        kinds = {kind for kind, *_ in tree(home).values()}
        assert kinds == {"file", "folder"}
        assert not list(home.glob("hub/*/blobs/*"))
        wanted = [("tiny", "v1.0"), ("org/tiny", "main"), ("org/large", "main"), ("other", "main")]
        found = found_offline(home, *wanted)
        assert found.snapshots == [TINY, TINY, LARGE, OTHER]
        assert found.warnings == []

    def test_the_second_unpack_writes_nothing_with_links_or_without(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
        unpack_below(tmp_path, bundle)
        before = stamps(tmp_path / "huggingface/hub")
        unpack_below(tmp_path, bundle)
        assert stamps(tmp_path / "huggingface/hub") == before
        monkeypatch.delenv("HF_HUB_DISABLE_SYMLINKS")
        unpack_below(tmp_path, bundle)
        assert stamps(tmp_path / "huggingface/hub") == before

    def test_links_that_stand_already_are_as_good(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unpack_below(tmp_path, bundle)
        before = stamps(tmp_path / "huggingface/hub")
        monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
        unpack_below(tmp_path, bundle)
        assert stamps(tmp_path / "huggingface/hub") == before

    def test_the_plan_counts_every_copy(self, bundle: Path, tmp_path: Path) -> None:
        env = {"HF_HUB_DISABLE_SYMLINKS": "1"}
        command = ["unpack", bundle, "--root", tmp_path / "root", "--only", "tiny", "--json"]
        plan = json.loads(run(*command, "--dry-run", home=tmp_path, env=env).out)
        done = json.loads(run(*command, home=tmp_path, env=env).out)
        assert plan["written_size"] == done["written_size"]


def test_a_repository_packed_under_both_its_names_is_found_under_both(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.tar.zst"
    asked = ("tiny", "org/tiny")
    make_bundle(bundle, {"org/tiny": OTHER}, asked=asked, aliases={"tiny": "org/tiny"})
    unpack_below(tmp_path / "root", bundle)
    found = found_offline(tmp_path / "root/huggingface", ("tiny", "main"), ("org/tiny", "main"))
    assert found.snapshots == [OTHER, OTHER]
    assert found.warnings == []


def test_a_damaged_bundle_leaves_nothing_behind(bundle: Path, tmp_path: Path) -> None:
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "damaged.tar.zst"
    damaged.write_bytes(content)
    ran = run("unpack", damaged, "--root", tmp_path / "root", home=tmp_path)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (4, "", 1)
    assert set(tree(tmp_path)) == {"damaged.tar.zst"}


@pytest.mark.parametrize("command", ["unpack", "plan_unpack"])
def test_what_is_no_bundle_is_told_before_anything_is_written(command: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no bundle at all\n" * 100)
    function = {"unpack": bundler.unpack, "plan_unpack": bundler.plan_unpack}[command]
    with pytest.raises(FormatError):
        function(file, roots=bundler.find_roots({}, root=tmp_path / "root"), env=None)
    assert set(tree(tmp_path)) == {"notes.txt"}
