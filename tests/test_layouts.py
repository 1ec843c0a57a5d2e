"""What each layout places where: pure functions from a snapshot to placements."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import PurePosixPath

import pytest

from bundler.digest import Blob
from bundler.errors import FormatError
from bundler.layouts import LAYOUTS, Layout, layout_of
from bundler.layouts.hf_cache import HuggingFaceCache
from bundler.layouts.placement import Absent, File, Link, Placement, Text
from bundler.manifest import FileEntry, Snapshot
from bundler.names import relative_path

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
        FileEntry(PurePosixPath("config.json"), CONFIG, GIT_ETAG),
        FileEntry(PurePosixPath("deep/er/model.safetensors"), WEIGHTS, WEIGHTS.digest.hex),
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


def everywhere(path: PurePosixPath) -> bool:
    return True


def nowhere(path: PurePosixPath) -> bool:
    return False


def placed(
    snapshot: Snapshot, can_link: Callable[[PurePosixPath], bool] = everywhere
) -> dict[str, Placement]:
    """The placements by path."""
    placements = list(HuggingFaceCache().place(snapshot, can_link))
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
    result = placed(replace(SNAPSHOT, files=(FileEntry(PurePosixPath("x"), CONFIG),)))
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

    def merged(self, before: str, exists: Callable[[PurePosixPath], bool]) -> object:
        placement = placed(SNAPSHOT)[f"models--org--tiny/trees/{COMMIT}.json"]
        assert isinstance(placement, Text)
        assert placement.merge is not None
        return json.loads(placement.merge(before, exists))

    def test_entries_whose_file_is_there_stay_and_the_others_go(self) -> None:
        there = {"size": 1, "blob_id": "a", "xet_hash": "b"}
        gone = {"size": 2, "blob_id": "c"}
        before = json.dumps({"format_version": 1, "files": {"there": there, "x/gone": gone}})
        asked: list[str] = []

        def exists(path: PurePosixPath) -> bool:
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


LINKING = {
    "links everywhere": everywhere,
    "links nowhere": nowhere,
    "links here and there": lambda path: len(str(path)) % 2 == 0,
}
CASES = {
    "plain": SNAPSHOT,
    "with aliases": replace(SNAPSHOT, aliases=("tiny", "old/tiny")),
    "with equal files": replace(
        SNAPSHOT,
        files=(
            *SNAPSHOT.files,
            FileEntry(PurePosixPath("copy.json"), CONFIG, GIT_ETAG),
            FileEntry(PurePosixPath("other.json"), CONFIG, CONFIG.digest.hex),
        ),
    ),
    "with no files": replace(SNAPSHOT, files=()),
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
class TestEveryLayout:
    """Laws for all layouts, whatever they place."""

    def test_is_found_by_its_name(self, layout: Layout) -> None:
        assert layout_of(replace(SNAPSHOT, layout=layout.name)) is layout
        assert [other.name for other in LAYOUTS].count(layout.name) == 1

    @pytest.mark.parametrize("can_link", LINKING.values(), ids=LINKING)
    @pytest.mark.parametrize("snapshot", CASES.values(), ids=CASES)
    def test_stays_below_the_root_without_contradictions_texts_last(
        self, layout: Layout, snapshot: Snapshot, can_link: Callable[[PurePosixPath], bool]
    ) -> None:
        placements = list(layout.place(replace(snapshot, layout=layout.name), can_link))
        by_path: dict[PurePosixPath, Placement] = {}
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
    def test_gives_the_same_for_the_same(self, layout: Layout, snapshot: Snapshot) -> None:
        first, second = (
            [
                # Merging functions are equal only to themselves; what they give is tested above.
                replace(placement, merge=None) if isinstance(placement, Text) else placement
                for placement in layout.place(replace(snapshot, layout=layout.name), everywhere)
            ]
            for _ in range(2)
        )
        assert first == second
