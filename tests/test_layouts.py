"""What each layout places where: pure functions from a snapshot to placements."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.digest import Blob
from bundler.errors import FormatError
from bundler.layouts import LAYOUTS, Layout, layout_of
from bundler.layouts.flat import Flat, flattened
from bundler.layouts.hf_cache import HuggingFaceCache
from bundler.layouts.hf_datasets import HuggingFaceDatasets
from bundler.layouts.insightface import InsightFace
from bundler.layouts.placement import Absent, File, Link, Placement, Sealed, Text
from bundler.layouts.torch_hub import TorchCheckpoints, TorchHub
from bundler.manifest import FileEntry, Snapshot
from bundler.names import relative_path
from bundler.relative import RelativePath

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GIT_ETAG = "45a2321a7ecfdaaf60a6c1fd7f5463994cc8907d"
CONFIG = Blob.of(b"{}")
WEIGHTS = Blob.of(b"weights")
SNAPSHOT = Snapshot(
    source="hf",
    name="org/tiny",
    layout="hf-cache",
    kind="model",
    revision="main",
    commit_hash=COMMIT,
    files=(
        FileEntry(RelativePath("config.json"), CONFIG, GIT_ETAG),
        FileEntry(RelativePath("deep/er/model.safetensors"), WEIGHTS, WEIGHTS.digest.hex),
    ),
)
LISTING = {
    "config.json": {"size": 2, "blob_id": GIT_ETAG},
    "deep/er/model.safetensors": {
        "size": 7,
        "blob_id": WEIGHTS.digest.hex,
        "lfs_sha256": WEIGHTS.digest.hex,
        "lfs_size": 7,
    },
}


def everywhere(path: RelativePath) -> bool:
    return True


def nowhere(path: RelativePath) -> bool:
    return False


def placed(
    snapshot: Snapshot,
    can_link: Callable[[RelativePath], bool] = everywhere,
    layout: Layout = HuggingFaceCache(),
) -> dict[str, Placement]:
    """The placements by path."""
    placements = list(layout.place(snapshot, can_link))
    return {str(placement.path): placement for placement in placements}


def text(placement: Placement) -> str:
    assert isinstance(placement, Text)
    return placement.content


def of_kind(kind: type, placements: Iterable[Placement]) -> set[str]:
    """The paths of the placements of one kind."""
    return {str(placement.path) for placement in placements if isinstance(placement, kind)}


def test_files_are_blobs_named_by_etag_and_snapshots_are_relative_links_to_them() -> None:
    result = placed(SNAPSHOT)
    content = f"models--org--tiny/snapshots/{COMMIT}"
    assert set(result) == {
        f"models--org--tiny/blobs/{GIT_ETAG}",
        f"models--org--tiny/blobs/{WEIGHTS.digest.hex}",
        f"{content}/config.json",
        f"{content}/deep/er/model.safetensors",
        f"models--org--tiny/.no_exist/{COMMIT}/config.json",
        f"models--org--tiny/.no_exist/{COMMIT}/deep/er/model.safetensors",
        f"models--org--tiny/trees/{COMMIT}.json",
        "models--org--tiny/refs/main",
    }
    blob = result[f"models--org--tiny/blobs/{GIT_ETAG}"]
    assert isinstance(blob, File)
    assert blob.blob == CONFIG
    links = [result[f"{content}/config.json"], result[f"{content}/deep/er/model.safetensors"]]
    assert [link.text for link in links if isinstance(link, Link)] == [
        f"../../blobs/{GIT_ETAG}",
        f"../../../../blobs/{WEIGHTS.digest.hex}",
    ]


def test_a_file_without_an_etag_is_named_by_its_digest() -> None:
    result = placed(replace(SNAPSHOT, files=(FileEntry(RelativePath("x"), CONFIG),)))
    assert f"models--org--tiny/blobs/{CONFIG.digest.hex}" in result


def test_markers_that_hide_placed_files_must_be_absent() -> None:
    assert of_kind(Absent, placed(SNAPSHOT).values()) == {
        f"models--org--tiny/.no_exist/{COMMIT}/config.json",
        f"models--org--tiny/.no_exist/{COMMIT}/deep/er/model.safetensors",
    }


def test_the_listing_names_exactly_the_files() -> None:
    listing = json.loads(text(placed(SNAPSHOT)[f"models--org--tiny/trees/{COMMIT}.json"]))
    assert listing == {"format_version": 1, "files": LISTING}


@pytest.mark.parametrize(
    "revision", ["main", "refs/pr/1", "v1.0", COMMIT[:7], "feature/x-y_z", COMMIT[:39]]
)
def test_a_revision_has_one_ref_that_holds_40_hex_digits_and_no_newline(revision: str) -> None:
    result = placed(replace(SNAPSHOT, revision=revision))
    refs = {path: text(p) for path, p in result.items() if "/refs/" in path}
    assert refs == {f"models--org--tiny/refs/{revision}": COMMIT}


def test_a_whole_commit_hash_as_revision_needs_no_ref() -> None:
    result = placed(replace(SNAPSHOT, revision=COMMIT))
    assert not any("/refs/" in path for path in result)
    assert len(result) == len(placed(SNAPSHOT)) - 1


@pytest.mark.parametrize(
    ("kind", "name", "folder"),
    [
        ("model", "bert-base-uncased", "models--bert-base-uncased"),
        ("model", "org/name", "models--org--name"),
        ("dataset", "org/name", "datasets--org--name"),
        ("space", "Org/Name.v1_x", "spaces--Org--Name.v1_x"),
    ],
)
def test_the_folder_carries_the_name_that_was_asked_for(kind: str, name: str, folder: str) -> None:
    result = placed(replace(SNAPSHOT, kind=kind, name=name))
    assert {path.split("/")[0] for path in result} == {folder}


def test_aliases_are_links_to_the_folder() -> None:
    result = placed(replace(SNAPSHOT, aliases=("tiny", "old/tiny")))
    links = [result["models--tiny"], result["models--old--tiny"]]
    assert [link.text for link in links if isinstance(link, Link)] == ["models--org--tiny"] * 2
    assert len(result) == len(placed(SNAPSHOT)) + 2


def test_without_links_snapshots_hold_the_files_and_there_are_no_blobs() -> None:
    result = placed(SNAPSHOT, nowhere)
    assert of_kind(Link, result.values()) == set()
    assert of_kind(File, result.values()) == {
        f"models--org--tiny/snapshots/{COMMIT}/config.json",
        f"models--org--tiny/snapshots/{COMMIT}/deep/er/model.safetensors",
    }
    with_links = placed(SNAPSHOT)
    assert of_kind(Text, result.values()) == of_kind(Text, with_links.values())
    assert of_kind(Absent, result.values()) == of_kind(Absent, with_links.values())


def test_without_links_an_alias_is_a_second_folder_that_holds_all_of_it() -> None:
    result = placed(replace(SNAPSHOT, aliases=("tiny",)), nowhere)
    below = {
        name: {path.partition("/")[2] for path in result if path.startswith(f"{name}/")}
        for name in ("models--org--tiny", "models--tiny")
    }
    assert below["models--tiny"] == below["models--org--tiny"]
    assert len(result) == 2 * len(placed(SNAPSHOT, nowhere))


def test_a_file_is_real_only_where_no_link_may_stand() -> None:
    result = placed(SNAPSHOT, lambda path: path.name != "config.json")
    content = f"models--org--tiny/snapshots/{COMMIT}"
    assert of_kind(File, result.values()) == {
        f"{content}/config.json",
        f"models--org--tiny/blobs/{WEIGHTS.digest.hex}",
    }
    assert of_kind(Link, result.values()) == {f"{content}/deep/er/model.safetensors"}


GARBAGE = {
    "nothing": "",
    "no JSON": "{",
    "null": "null",
    "a number": "7",
    "a list": "[]",
    "a text": '"text"',
    "no fields": "{}",
    "no version": '{"files": {}}',
    "no files": '{"format_version": 1}',
    "files that are null": '{"format_version": 1, "files": null}',
    "files that are a list": '{"format_version": 1, "files": ["config.json"]}',
    "another version": '{"format_version": 2, "files": {"there": {"size": 1, "blob_id": "a"}}}',
    "an absolute path": '{"format_version": 1, "files": {"/x": {"size": 1, "blob_id": "a"}}}',
    "a path that climbs": '{"format_version": 1, "files": {"../x": {"size": 1, "blob_id": "a"}}}',
    "an empty path": '{"format_version": 1, "files": {"": {"size": 1, "blob_id": "a"}}}',
    "a path with a zero": '{"format_version": 1, "files": {"\\u0000": {"size": 1, "blob_id": ""}}}',
    "an entry that is null": '{"format_version": 1, "files": {"there": null}}',
    "an entry without fields": '{"format_version": 1, "files": {"there": {}}}',
    "deep": "[" * 100_000,
}


class TestMergedListing:
    """What becomes of a listing that stands there already."""

    def merged(self, before: str, exists: Callable[[RelativePath], bool]) -> object:
        placement = placed(SNAPSHOT)[f"models--org--tiny/trees/{COMMIT}.json"]
        assert isinstance(placement, Text)
        assert placement.merge is not None
        return json.loads(placement.merge(before, exists))

    def test_entries_whose_file_is_there_stay_and_the_others_go(self) -> None:
        there = {"size": 1, "blob_id": "a", "xet_hash": "b"}
        gone = {"size": 2, "blob_id": "c"}
        before = json.dumps({"format_version": 1, "files": {"there": there, "x/gone": gone}})
        asked: list[str] = []

        def exists(path: RelativePath) -> bool:
            asked.append(str(path))
            return path.name == "there"

        merged = self.merged(before, exists)
        assert merged == {"format_version": 1, "files": {**LISTING, "there": there}}
        content = f"models--org--tiny/snapshots/{COMMIT}"
        assert {f"{content}/there", f"{content}/x/gone"} <= set(asked)

    def test_entries_for_placed_files_are_replaced(self) -> None:
        files = {"config.json": {"size": 99, "blob_id": "wrong"}}
        before = json.dumps({"format_version": 1, "files": files})
        assert self.merged(before, everywhere) == {"format_version": 1, "files": LISTING}

    @pytest.mark.parametrize("before", GARBAGE.values(), ids=GARBAGE)
    def test_garbage_is_replaced(self, before: str) -> None:
        assert self.merged(before, everywhere) == {"format_version": 1, "files": LISTING}

    def test_merging_twice_changes_nothing(self) -> None:
        files = {"there": {"size": 1, "blob_id": "a"}}
        once = self.merged(json.dumps({"format_version": 1, "files": files}), everywhere)
        assert self.merged(json.dumps(once), everywhere) == once


@pytest.mark.parametrize(
    "snapshot",
    [
        replace(SNAPSHOT, commit_hash=None),
        replace(SNAPSHOT, revision=None),
        replace(SNAPSHOT, kind=None),
        replace(SNAPSHOT, kind="kernel"),
        replace(SNAPSHOT, name="a/b/c"),
        replace(SNAPSHOT, name="../x"),
        replace(SNAPSHOT, name="/x"),
        replace(SNAPSHOT, name=""),
        replace(SNAPSHOT, aliases=("a/../b",)),
        replace(SNAPSHOT, revision="../../x"),
        replace(SNAPSHOT, revision="/etc/x"),
        replace(SNAPSHOT, revision="a//b"),
        replace(SNAPSHOT, revision="a\nb"),
    ],
    ids=[
        "no commit hash",
        "no revision",
        "no kind",
        "an unknown kind",
        "a name of three parts",
        "a name that climbs",
        "an absolute name",
        "no name",
        "an alias that climbs",
        "a revision that climbs",
        "an absolute revision",
        "a revision with an empty part",
        "a revision with a newline",
    ],
)
def test_a_snapshot_that_does_not_fit_the_cache_is_refused(snapshot: Snapshot) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        list(HuggingFaceCache().place(snapshot, everywhere))


def test_an_unknown_layout_is_named_with_what_to_do() -> None:
    with pytest.raises(FormatError, match=r"'org/tiny' .*'of-the-future'.*--only"):
        layout_of(replace(SNAPSHOT, layout="of-the-future"))


CODE = Blob.of(b"dependencies = []")
TORCH_HUB = Snapshot(
    source="torchhub",
    name="Owner/Repo",
    layout="torch-hub",
    revision="main",
    commit_hash=COMMIT,
    files=(
        FileEntry(RelativePath("hubconf.py"), CODE),
        FileEntry(RelativePath("package/config.json"), CONFIG),
    ),
)
TORCH_CHECKPOINT = Snapshot(
    source="https",
    name="https://host.example/some/where/x-0123.pth",
    layout="torch-checkpoints",
    files=(FileEntry(RelativePath("x-0123.pth"), WEIGHTS),),
)
PACK = Snapshot(
    source="insightface",
    name="buffalo_l",
    layout="insightface",
    files=(
        FileEntry(RelativePath("det_10g.onnx"), WEIGHTS),
        FileEntry(RelativePath("genderage.onnx"), CONFIG),
    ),
)
PREPARED = replace(
    SNAPSHOT,
    kind="dataset",
    layout="hf-datasets",
    files=(
        FileEntry(RelativePath("org___tiny/default/0.0.0/abc/dataset_info.json"), CONFIG),
        FileEntry(RelativePath("org___tiny/default/0.0.0/abc/tiny-train.arrow"), WEIGHTS),
    ),
)
FOLDER = Snapshot(
    source="file",
    name="mine",
    layout="flat",
    files=(
        FileEntry(RelativePath("config.json"), CONFIG),
        FileEntry(RelativePath("sub/model.safetensors"), WEIGHTS),
    ),
)
SINGLE_FILE = Snapshot(
    source="file",
    name="mine.pth",
    layout="flat",
    files=(FileEntry(RelativePath("mine.pth"), WEIGHTS),),
)


class TestTorchHub:
    """The code of repositories, as torch.hub looks for it."""

    @pytest.mark.parametrize(
        ("name", "ref", "folder"),
        [
            ("Owner/Repo", "main", "Owner_Repo_main"),
            ("owner/repo", "main", "owner_repo_main"),
            ("owner/repo.v2", "v1.0", "owner_repo.v2_v1.0"),
            ("owner/re_po", "feature/x/y", "owner_re_po_feature_x_y"),
            ("owner/repo", "Release", "owner_repo_Release"),
            ("owner/repo", COMMIT[:7], f"owner_repo_{COMMIT[:7]}"),
        ],
    )
    def test_the_ref_is_a_link_beside_the_folder_of_its_commit(
        self, name: str, ref: str, folder: str
    ) -> None:
        result = placed(replace(TORCH_HUB, name=name, revision=ref), everywhere, TorchHub())
        at_commit = f"{name.replace('/', '_')}_{COMMIT}"
        assert set(result) == {
            f"hub/{at_commit}/hubconf.py",
            f"hub/{at_commit}/package/config.json",
            f"hub/{folder}",
            f"hub/{at_commit}",
            "hub/trusted_list",
        }
        assert isinstance(result[f"hub/{at_commit}"], Sealed)
        link = result[f"hub/{folder}"]
        assert isinstance(link, Link)
        assert link.text == at_commit
        assert re.fullmatch(link.moved_from, at_commit)
        assert not re.fullmatch(link.moved_from, f"my_{at_commit}")
        code = result[f"hub/{at_commit}/hubconf.py"]
        assert isinstance(code, File)
        assert (code.blob, code.by_content) == (CODE, False)

    def test_without_links_the_folder_of_the_ref_holds_the_files(self) -> None:
        result = placed(replace(TORCH_HUB, revision="a/b"), nowhere, TorchHub())
        assert result["hub/Owner_Repo_a_b"] == Sealed(RelativePath("hub/Owner_Repo_a_b"))
        assert set(result) == {
            "hub/Owner_Repo_a_b",
            "hub/Owner_Repo_a_b/hubconf.py",
            "hub/Owner_Repo_a_b/package/config.json",
            "hub/trusted_list",
        }

    @pytest.mark.parametrize(
        "snapshot",
        [
            replace(TORCH_HUB, revision=COMMIT),
            replace(TORCH_HUB, revision=COMMIT, commit_hash=None),
        ],
        ids=["known to be one", "not known to be one"],
    )
    def test_a_commit_as_ref_needs_no_link(self, snapshot: Snapshot) -> None:
        result = placed(snapshot, everywhere, TorchHub())
        assert of_kind(Link, result.values()) == set()
        assert f"hub/Owner_Repo_{COMMIT}/hubconf.py" in result

    @pytest.mark.parametrize("before", ["", "some_one\nother_one\n", "no newline at the end"])
    def test_the_list_of_the_trusted_is_empty_or_what_it_was(self, before: str) -> None:
        trusted = placed(TORCH_HUB, everywhere, TorchHub())["hub/trusted_list"]
        assert isinstance(trusted, Text)
        assert trusted.content == ""
        assert trusted.merge is not None
        assert trusted.merge(before, nowhere) == before


@pytest.mark.parametrize("path", ["x-0123.pth", "a folder/of it/x-0123.pth"])
@pytest.mark.parametrize("can_link", [everywhere, nowhere])
def test_a_checkpoint_stands_under_the_last_part_of_its_name(
    path: str, can_link: Callable[[RelativePath], bool]
) -> None:
    snapshot = replace(TORCH_CHECKPOINT, files=(FileEntry(RelativePath(path), WEIGHTS),))
    place = RelativePath("hub/checkpoints/x-0123.pth")
    assert list(TorchCheckpoints().place(snapshot, can_link)) == [File(place, WEIGHTS)]


@pytest.mark.parametrize("can_link", [everywhere, nowhere])
def test_a_pack_of_insightface_has_a_folder_below_models(
    can_link: Callable[[RelativePath], bool],
) -> None:
    assert list(InsightFace().place(PACK, can_link)) == [
        File(RelativePath("models/buffalo_l/det_10g.onnx"), WEIGHTS),
        File(RelativePath("models/buffalo_l/genderage.onnx"), CONFIG),
    ]


@pytest.mark.parametrize("can_link", [everywhere, nowhere])
def test_prepared_datasets_keep_the_paths_that_the_library_made(
    can_link: Callable[[RelativePath], bool],
) -> None:
    assert list(HuggingFaceDatasets().place(PREPARED, can_link)) == [
        File(entry.path, entry.blob) for entry in PREPARED.files
    ]


class TestFlat:
    """Plain folders and files, and the names that they get."""

    @pytest.mark.parametrize(
        ("snapshot", "paths"),
        [
            (FOLDER, ["mine/config.json", "mine/sub/model.safetensors"]),
            (SINGLE_FILE, ["mine.pth"]),
            (replace(SINGLE_FILE, name="mine"), ["mine/mine.pth"]),
            (
                replace(SINGLE_FILE, files=(*SINGLE_FILE.files, *FOLDER.files)),
                ["mine.pth/config.json", "mine.pth/mine.pth", "mine.pth/sub/model.safetensors"],
            ),
        ],
        ids=["folder", "single file", "folder of one file", "folder called as one of its files"],
    )
    def test_a_folder_has_its_name_and_a_single_file_has_no_folder(
        self, snapshot: Snapshot, paths: list[str]
    ) -> None:
        for can_link in (everywhere, nowhere):
            result = placed(snapshot, can_link, Flat())
            assert sorted(result) == paths
            assert of_kind(File, result.values()) == set(paths)

    @pytest.mark.parametrize(
        ("asked", "names"),
        [
            (["org/tiny"], ["tiny"]),
            (["tiny"], ["tiny"]),
            (["a/x", "b/y"], ["x", "y"]),
            (["a/x", "b/x"], ["a--x", "b--x"]),
            (["a/x", "b/x", "c/y"], ["a--x", "b--x", "y"]),
            (["x", "a/x"], ["x", "a--x"]),
            (["a/x@main"], ["x"]),
            (["a/x@v1.0"], ["x"]),
            (["a/x@main", "a/x@v1.0"], ["x", "x@v1.0"]),
            (["a/x@v1.0", "a/x@v2.0"], ["x@v1.0", "x@v2.0"]),
            (["a/x@main", "a/x@refs/pr/1"], ["x", "x@refs--pr--1"]),
            (["a/x@main", "a/x@v1.0", "b/x"], ["a--x", "a--x@v1.0", "b--x"]),
            (["a/x", "https://host.example/x.pth"], ["x", "x.pth"]),
            (["a/x", "file:x"], ["a--x"]),
            (["x", "file:y"], ["x"]),
            (["dataset:a/x", "b/x"], ["x"]),
        ],
        ids=lambda value: "+".join(value),
    )
    def test_models_are_called_by_the_last_part_of_their_name_if_that_is_theirs_alone(
        self, asked: list[str], names: list[str]
    ) -> None:
        flat = flattened([snapshot_of(spec) for spec in asked])
        assert [snapshot.name for snapshot in flat] == names
        assert {snapshot.layout for snapshot in flat} <= {"flat"}

    @pytest.mark.parametrize(
        "asked",
        [
            ["x", "file:x"],
            ["a/x", "file:x", "file:a--x"],
            ["a/x.pth", "https://host.example/x.pth"],
            ["x.pth", "https://host.example/x.pth"],
            ["a/x@main", "a/x@v1", "file:x@v1"],
            ["a/x@main", "a/x@b/c", "a/x@b--c"],
        ],
        ids="+".join,
    )
    def test_no_two_things_are_called_the_same(self, asked: list[str]) -> None:
        snapshots = [snapshot_of(spec) for spec in asked]
        names = [snapshot.name for snapshot in placed_flat(snapshots)]
        assert len(set(names)) == len(asked)

    def test_the_files_of_a_model_are_all_there_under_the_same_paths(self) -> None:
        (flat,) = flattened([SNAPSHOT])
        assert (flat.name, flat.files) == ("tiny", SNAPSHOT.files)

    def test_code_is_not_put_there_and_neither_is_what_is_plain_already(self) -> None:
        assert flattened([TORCH_HUB, PACK, PREPARED, FOLDER, SINGLE_FILE]) == []


def snapshot_of(spec: str) -> Snapshot:
    """A snapshot for a spec, with content that no other spec has."""
    entry = FileEntry(RelativePath("config.json"), Blob.of(spec.encode()))
    scheme, _, rest = spec.rpartition(":")
    if scheme == "https":
        entry = replace(entry, path=RelativePath(rest).relative_to("//host.example"))
        return replace(TORCH_CHECKPOINT, name=spec, files=(entry,))
    if scheme == "file":
        return replace(FOLDER, name=rest, files=(entry,))
    name, _, revision = rest.partition("@")
    kind = scheme or "model"
    return replace(SNAPSHOT, kind=kind, name=name, revision=revision or "main", files=(entry,))


def placed_flat(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """Everything that stands in plain form when these are unpacked."""
    return [*(s for s in snapshots if s.layout == "flat"), *flattened(snapshots)]


SPECS = st.one_of(
    st.builds(
        "{}{}@{}".format,
        st.sampled_from(["", "a/", "b/"]),
        st.sampled_from(["x", "y", "x-y"]),
        st.sampled_from(["main", "v1", "refs/pr/1", COMMIT]),
    ),
    st.sampled_from(["x.pth", "x-y.pth", "z"]).map("https://host.example/{}".format),
    st.sampled_from(["dataset:a/x@main", "dataset:b/y@main"]),
)


@given(st.lists(SPECS, unique=True))
def test_each_model_and_single_file_is_there_once_under_a_name_of_its_own(asked: list[str]) -> None:
    flat = flattened([snapshot_of(spec) for spec in asked])
    names = [snapshot.name for snapshot in flat]
    assert len(set(names)) == len(names)
    contents = [entry.blob for snapshot in flat for entry in snapshot.files]
    wanted = [Blob.of(spec.encode()) for spec in asked if not spec.startswith("dataset:")]
    assert sorted(contents, key=str) == sorted(wanted, key=str)
    for snapshot in flat:
        assert relative_path(snapshot.name) == RelativePath(snapshot.name)
        assert len(RelativePath(snapshot.name).parts) == 1


@given(st.lists(SPECS, unique=True), st.randoms())
def test_names_do_not_depend_on_the_order_of_asking(asked: list[str], random: Random) -> None:
    shuffled = random.sample(asked, len(asked))
    one, other = (flattened([snapshot_of(spec) for spec in specs]) for specs in (asked, shuffled))
    assert {(s.name, s.files) for s in one} == {(s.name, s.files) for s in other}


MISFITS: dict[str, tuple[Layout, Snapshot]] = {
    "code without a revision": (TorchHub(), replace(TORCH_HUB, revision=None)),
    "code of a name of one part": (TorchHub(), replace(TORCH_HUB, name="repo")),
    "code of a name of three parts": (TorchHub(), replace(TORCH_HUB, name="a/b/c")),
    "code of a name that climbs": (TorchHub(), replace(TORCH_HUB, name="../x")),
    "code of an absolute name": (TorchHub(), replace(TORCH_HUB, name="/x")),
    "code of a hidden name": (TorchHub(), replace(TORCH_HUB, name=".locks/x")),
    "code of a name with a newline": (TorchHub(), replace(TORCH_HUB, name="a/b\nc")),
    "code of a name with a backslash": (TorchHub(), replace(TORCH_HUB, name="a/b\\c")),
    "code of an overlong name": (TorchHub(), replace(TORCH_HUB, name=f"a/{'b' * 250}")),
    "code of an overlong ref": (TorchHub(), replace(TORCH_HUB, revision="r" * 250)),
    "code of a ref with a newline": (TorchHub(), replace(TORCH_HUB, revision="a\nb")),
    "a pack of no name": (InsightFace(), replace(PACK, name="")),
    "a pack of two parts": (InsightFace(), replace(PACK, name="a/b")),
    "a pack that climbs": (InsightFace(), replace(PACK, name="..")),
    "an absolute pack": (InsightFace(), replace(PACK, name="/a")),
    "a pack with a drive": (InsightFace(), replace(PACK, name="C:a")),
    "a pack that is a device": (InsightFace(), replace(PACK, name="aux")),
    "a folder of no name": (Flat(), replace(FOLDER, name="")),
    "a folder that climbs": (Flat(), replace(FOLDER, name="../x")),
    "an absolute folder": (Flat(), replace(FOLDER, name="/x")),
    "a folder with a backslash": (Flat(), replace(FOLDER, name="a\\b")),
    "a folder with a newline": (Flat(), replace(FOLDER, name="a\nb")),
}


@pytest.mark.parametrize(("layout", "snapshot"), MISFITS.values(), ids=MISFITS)
@pytest.mark.parametrize("can_link", [everywhere, nowhere])
def test_a_snapshot_that_does_not_fit_its_layout_is_refused(
    layout: Layout, snapshot: Snapshot, can_link: Callable[[RelativePath], bool]
) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        list(layout.place(snapshot, can_link))


LINKING = {
    "links everywhere": everywhere,
    "links nowhere": nowhere,
    "links here and there": lambda path: len(str(path)) % 2 == 0,
}
EQUAL_FILES = (
    FileEntry(RelativePath("copy.json"), CONFIG, GIT_ETAG),
    FileEntry(RelativePath("other.json"), CONFIG, CONFIG.digest.hex),
)
CASES = {
    "hf-cache, plain": SNAPSHOT,
    "hf-cache, with aliases": replace(SNAPSHOT, aliases=("tiny", "old/tiny")),
    "hf-cache, with equal files": replace(SNAPSHOT, files=(*SNAPSHOT.files, *EQUAL_FILES)),
    "hf-cache, with no files": replace(SNAPSHOT, files=()),
    "hf-datasets, plain": PREPARED,
    "torch-hub, a branch": TORCH_HUB,
    "torch-hub, a branch with slashes": replace(TORCH_HUB, revision="a/b"),
    "torch-hub, a commit": replace(TORCH_HUB, revision=COMMIT),
    "torch-hub, no commit known": replace(TORCH_HUB, commit_hash=None),
    "torch-hub, with equal files": replace(TORCH_HUB, files=(*TORCH_HUB.files, *EQUAL_FILES)),
    "torch-checkpoints, one file": TORCH_CHECKPOINT,
    "torch-checkpoints, more files": replace(
        TORCH_CHECKPOINT, files=(*TORCH_CHECKPOINT.files, *EQUAL_FILES)
    ),
    "insightface, plain": PACK,
    "insightface, with equal files": replace(PACK, files=(*PACK.files, *EQUAL_FILES)),
    "flat, a folder": FOLDER,
    "flat, a single file": SINGLE_FILE,
    "flat, a model": replace(SNAPSHOT, layout="flat", name="tiny"),
    "flat, with equal files": replace(FOLDER, files=(*FOLDER.files, *EQUAL_FILES)),
}


class TestEveryLayout:
    """Laws for all layouts, whatever they place."""

    @pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
    def test_is_found_by_its_name_and_has_a_case_here(self, layout: Layout) -> None:
        assert layout_of(replace(SNAPSHOT, layout=layout.name)) is layout
        assert [other.name for other in LAYOUTS].count(layout.name) == 1
        assert layout.name in {snapshot.layout for snapshot in CASES.values()}

    @pytest.mark.parametrize("can_link", LINKING.values(), ids=LINKING)
    @pytest.mark.parametrize("snapshot", CASES.values(), ids=CASES)
    def test_stays_below_the_root_without_contradictions_texts_last(
        self, snapshot: Snapshot, can_link: Callable[[RelativePath], bool]
    ) -> None:
        placements = list(layout_of(snapshot).place(snapshot, can_link))
        sealed = {p.path for p in placements if isinstance(p, Sealed)}
        placements = [p for p in placements if not isinstance(p, Sealed)]
        assert sealed <= {folder for p in placements for folder in p.path.parents}
        by_path: dict[RelativePath, Placement] = {}
        for placement in placements:
            assert relative_path(str(placement.path)) == placement.path
            assert by_path.setdefault(placement.path, placement) == placement
        assert not any(folder in by_path for path in by_path for folder in path.parents)
        for link in (p for p in placements if isinstance(p, Link)):
            assert can_link(link.path)
            assert relative_path(str(link.target)) == link.target
            assert any(link.target in (path, *path.parents) for path in by_path)
        for folder in {placement.path.parts[0] for placement in placements}:
            kinds = [
                isinstance(placement, Text)
                for placement in placements
                if placement.path.parts[0] == folder
            ]
            assert kinds == sorted(kinds), "texts make files visible, so they come after them"
        blobs = {entry.blob for entry in snapshot.files}
        assert {p.blob for p in placements if isinstance(p, File)} == blobs

    @pytest.mark.parametrize("snapshot", CASES.values(), ids=CASES)
    def test_gives_the_same_for_the_same(self, snapshot: Snapshot) -> None:
        first, second = (
            [
                # Merging functions are equal only to themselves; what they give is tested above.
                replace(placement, merge=None) if isinstance(placement, Text) else placement
                for placement in layout_of(snapshot).place(snapshot, everywhere)
            ]
            for _ in range(2)
        )
        assert first == second
