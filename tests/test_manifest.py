"""The manifest as a value: its laws, and which paths it may name."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.digest import Blob, Digest
from bundler.errors import FormatError
from bundler.manifest import Code, FileEntry, Manifest, Omission, Snapshot
from bundler.names import relative_path
from bundler.relative import RelativePath

plain = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=12)
components = plain.filter(lambda text: "/" not in text and "\\" not in text).map("file{}".format)
folders = st.sampled_from(["", "sub/", "sub/deep/", "другая/"])
paths = st.tuples(folders, components).map("".join)
hashes = st.integers(0, 16**40 - 1).map("{:040x}".format)
contents = st.binary(max_size=3).map(Blob.of)
omissions = st.builds(Omission, plain, st.none() | st.integers(0, 2**53 - 1), plain)


@st.composite
def file_lists(draw: st.DrawFn) -> tuple[FileEntry, ...]:
    chosen = draw(st.lists(paths, unique=True, min_size=1, max_size=4))
    etags = st.none() | st.from_regex(r"[0-9a-f]{39}", fullmatch=True)
    return tuple(FileEntry(relative_path(path), draw(contents), draw(etags)) for path in chosen)


snapshots = st.builds(
    Snapshot,
    source=st.sampled_from(["hf", "timm"]),
    name=plain,
    layout=st.sampled_from(["hf-cache", "flat"]),
    files=file_lists(),
    kind=st.none() | st.sampled_from(["model", "dataset"]),
    aliases=st.lists(plain, max_size=2).map(tuple),
    revision=st.none() | plain,
    commit_hash=st.none() | hashes,
    license=st.none() | plain,
    omitted=st.lists(omissions, max_size=2).map(tuple),
)
several = st.lists(
    snapshots.filter(lambda s: len(set(s.names)) == len(s.names)),
    min_size=1,
    max_size=3,
    unique_by=lambda s: (s.source, s.kind or "", s.name, s.revision or ""),
)


odd = st.sampled_from([*["plain"] * 9, "", "two\nlines", "x" * 4097, "\u2028"])
odd_entries = st.builds(
    FileEntry,
    st.sampled_from([*"abcdefghi", "a/b", "../a", "aux", "/a", ""]).map(RelativePath),
    st.builds(Blob, contents.map(lambda blob: blob.digest), st.sampled_from([1, 1, 1, -1, 2**53])),
    st.sampled_from([None, None, "e1", "../e", "f" * 40, "0" * 40, "f" * 64]),
)
odd_snapshots = st.builds(
    Snapshot,
    source=st.just("hf") | odd,
    name=st.just("org/model") | odd,
    layout=st.just("flat"),
    files=st.lists(odd_entries, max_size=2).map(tuple),
    kind=st.none() | odd,
    aliases=st.lists(odd, max_size=1).map(tuple),
    commit_hash=st.sampled_from([None, None, "f" * 40, "F" * 40]),
    omitted=st.lists(st.builds(Omission, odd, st.sampled_from([None, 0, -1]), odd), max_size=1).map(
        tuple
    ),
    needs=st.lists(odd, max_size=1).map(tuple),
    code=st.lists(st.builds(Code, odd, odd), max_size=1).map(tuple),
)


MODEL = Snapshot(
    source="hf",
    name="org/model",
    layout="hf-cache",
    files=(
        FileEntry(RelativePath("config.json"), Blob.of(b"{}"), "e1"),
        FileEntry(RelativePath("sub/weights.bin"), Blob.of(b"weights")),
    ),
    kind="model",
    revision="main",
)


@given(several)
def test_a_manifest_reads_back_what_it_writes(snapshots: list[Snapshot]) -> None:
    manifest = Manifest.of(snapshots)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@given(
    st.lists(odd_snapshots, max_size=2).map(tuple), st.sampled_from([(), (Blob.of(b"").digest,)])
)
def test_a_manifest_that_is_taken_can_be_read_again_and_no_other_can(
    snapshots: tuple[Snapshot, ...], absent: tuple[Digest, ...]
) -> None:
    manifest = Manifest(snapshots, absent)
    try:
        manifest.check()
    except FormatError as error:
        with pytest.raises(FormatError, match=f"^{re.escape(str(error))}$"):
            Manifest.from_bytes(manifest.to_bytes())
    else:
        assert Manifest.from_bytes(manifest.to_bytes()) == manifest


ONE, TWO = sorted((Blob.of(b"{}").digest, Blob.of(b"weights").digest), key=str)


@pytest.mark.parametrize(
    "manifest",
    [
        Manifest((MODEL,) * 8193),
        Manifest((MODEL,), absent=(TWO, ONE)),
        Manifest((MODEL,), absent=(ONE, ONE)),
        Manifest((MODEL,), absent=(ONE,), builds_on=(TWO, ONE)),
    ],
    ids=["very many models", "no order of what it lacks", "the same twice", "no order of bundles"],
)
def test_what_cannot_be_read_again_is_not_taken(manifest: Manifest) -> None:
    with pytest.raises(FormatError) as read:
        Manifest.from_bytes(manifest.to_bytes())
    with pytest.raises(FormatError, match=f"^{re.escape(str(read.value))}$"):
        manifest.check()


@given(st.data())
def test_the_order_of_asking_does_not_change_the_bytes(data: st.DataObject) -> None:
    asked = data.draw(several)
    otherwise = data.draw(st.permutations(asked))
    assert Manifest.of(otherwise).to_bytes() == Manifest.of(asked).to_bytes()


def test_the_order_of_files_does_not_change_the_bytes() -> None:
    backwards = replace(MODEL, files=MODEL.files[::-1])
    assert Manifest.of([backwards]).to_bytes() == Manifest.of([MODEL]).to_bytes()


def test_the_bytes_are_json_with_sorted_keys_no_white_space_and_nothing_absent() -> None:
    content = Manifest.of([replace(MODEL, name="org/модель")]).to_bytes()
    document = json.loads(content)
    assert content.decode() == json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert document == {
        "format_version": 1,
        "snapshots": [
            {
                "source": "hf",
                "kind": "model",
                "name": "org/модель",
                "revision": "main",
                "layout": "hf-cache",
                "files": [
                    {
                        "path": "config.json",
                        "size": 2,
                        "digest": str(Blob.of(b"{}").digest),
                        "etag": "e1",
                    },
                    {
                        "path": "sub/weights.bin",
                        "size": 7,
                        "digest": str(Blob.of(b"weights").digest),
                    },
                ],
            }
        ],
    }


def test_a_manifest_names_each_blob_once_in_the_order_of_first_mention() -> None:
    other = replace(MODEL, name="org/other", files=(FileEntry(RelativePath("z"), Blob.of(b"z")),))
    manifest = Manifest.of([other, MODEL, replace(MODEL, revision="dev")])
    assert list(manifest.blobs()) == [Blob.of(b"{}"), Blob.of(b"weights"), Blob.of(b"z")]


def test_a_snapshot_answers_to_its_name_first_and_counts_equal_files_each_time() -> None:
    twice = tuple(FileEntry(RelativePath(name), Blob.of(b"same")) for name in ("a", "b"))
    snapshot = replace(MODEL, aliases=("older/name", "name"), files=twice)
    assert snapshot.names == ("org/model", "older/name", "name")
    assert snapshot.size == 8


LONG = "é" * 127 + "x"
"""255 bytes of UTF-8 in 128 characters: the longest name."""


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("config.json", id="plain"),
        pytest.param("1_Pooling/config.json", id="in_a_folder"),
        pytest.param("my model/the file.bin", id="spaces"),
        pytest.param(" leading and trailing ", id="spaces_at_the_ends"),
        pytest.param("C# notes.md", id="number_sign"),
        pytest.param("100%/a%2Fb", id="percent_signs"),
        pytest.param("模型/Überblick/модель.txt", id="unicode"),
        pytest.param("e\u0301.txt", id="a_combining_accent"),
        pytest.param("🤗.json", id="an_emoji"),
        pytest.param(".gitattributes", id="a_dotfile"),
        pytest.param("...", id="three_dots"),
        pytest.param("..hidden/a..b", id="dots_in_a_name"),
        pytest.param("events.12:30:00.log", id="a_colon_later_in_the_name"),
        pytest.param("-rf", id="a_leading_dash"),
        pytest.param("~/x", id="a_tilde"),
        pytest.param("$HOME/x;y|z&'\"*?", id="what_a_shell_would_expand"),
        pytest.param("console.log", id="begins_like_a_device"),
        pytest.param("my.aux", id="ends_like_a_device"),
        pytest.param("com10", id="beyond_the_numbers_of_devices"),
        pytest.param(LONG, id="a_component_of_255_bytes"),
        pytest.param("/".join(["x" * 255] * 16), id="a_path_of_4095_bytes"),
    ],
)
def test_a_path_may_be(text: str) -> None:
    path = relative_path(text)
    assert str(path) == text
    assert not path.startswith("/")


def test_two_names_may_differ_in_case_alone() -> None:
    files = tuple(FileEntry(relative_path(name), Blob.of(b"")) for name in ("README", "readme"))
    manifest = Manifest.of([replace(MODEL, files=files)])
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("//server/share", id="two_slashes"),
        pytest.param("../evil", id="dotdot"),
        pytest.param("a/../../evil", id="dotdot_inside"),
        pytest.param("a/..", id="dotdot_at_the_end"),
        pytest.param(".", id="dot"),
        pytest.param("./a", id="dot_first"),
        pytest.param("a//b", id="an_empty_component"),
        pytest.param("a/", id="a_slash_at_the_end"),
        pytest.param("..\\evil", id="backslash"),
        pytest.param("\\\\server\\share\\x", id="unc"),
        pytest.param("\\\\?\\C:\\x", id="long_unc"),
        pytest.param("C:\\x", id="drive_and_backslash"),
        pytest.param("C:/x", id="drive"),
        pytest.param("c:x", id="drive_without_a_slash"),
        pytest.param("a/C:/x", id="drive_in_a_later_component"),
        pytest.param("AUX", id="device"),
        pytest.param("con", id="device_in_small_letters"),
        pytest.param("sub/NuL.tar.gz", id="device_with_extensions_in_a_folder"),
        pytest.param("aux.txt/x", id="device_as_a_folder"),
        pytest.param("com1", id="device_with_a_number"),
        pytest.param("LPT\u00b9.bin", id="device_with_a_superscript_number"),
        pytest.param("CONOUT$", id="device_of_the_console"),
        pytest.param("prn .txt", id="device_with_a_space"),
        pytest.param("a\x00b", id="nul"),
        pytest.param("a\nb", id="newline"),
        pytest.param("a\x7f", id="delete"),
        pytest.param("a\x85b", id="control_character_of_latin_1"),
        pytest.param("a\u2028b", id="line_separator"),
        pytest.param("\x1b]0;title\x07", id="escape_sequence"),
        pytest.param("a\x9b31mb", id="escape_sequence_in_one_character"),
        pytest.param("a\ud800b", id="lone_surrogate"),
        pytest.param("é" * 128, id="a_component_of_256_bytes"),
        pytest.param("/".join(["x" * 255] * 15 + ["y" * 255, "z"]), id="a_path_of_4097_bytes"),
    ],
)
def test_a_path_may_not_be(text: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n\x1b]+$"):
        relative_path(text)
