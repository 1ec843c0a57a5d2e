"""Paths below a root say of themselves what pathlib says."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.relative import RelativePath

components = st.text(st.sampled_from("ab.-é "), min_size=1, max_size=4).filter(
    lambda name: not name.endswith(".")  # Of which not every version of pathlib says the same.
)
texts = st.lists(components, max_size=4).map("/".join)


@given(texts)
def test_its_members_are_those_of_pathlib(text: str) -> None:
    path, other = RelativePath(text), PurePosixPath(text)
    assert path == text
    assert hash(path) == hash(text)
    assert path.parts == other.parts
    assert path.name == other.name
    assert path.stem == other.stem
    assert path.suffix == other.suffix
    assert [PurePosixPath(parent) for parent in path.parents] == [*other.parents]
    assert PurePosixPath(path.parent) == other.parent


@given(texts, texts)
def test_paths_are_joined_and_taken_apart_as_pathlib_does(start: str, rest: str) -> None:
    joined = RelativePath(start) / rest
    assert PurePosixPath(joined) == PurePosixPath(start) / rest
    assert joined == start / RelativePath(rest)
    assert joined.relative_to(start) == rest
    assert joined.start(len(PurePosixPath(start).parts)) == start


@pytest.mark.parametrize(
    ("link", "text", "place"),
    [
        ("a/b", "c", "a/c"),
        ("a", "b", "b"),
        ("a/b/c", "../../d", "d"),
        ("a/b", "../../c", "../c"),
        ("a/b", "/c", "/c"),
    ],
)
def test_a_link_leads_from_its_folder_on(link: str, text: str, place: str) -> None:
    assert RelativePath(link).led_to(text) == place


@pytest.mark.parametrize(("path", "folder"), [("a/b", "b"), ("ab", "a"), ("a", "a/b"), ("", "a")])
def test_what_is_not_below_a_folder_has_no_way_from_it(path: str, folder: str) -> None:
    with pytest.raises(ValueError, match="not below"):
        RelativePath(path).relative_to(folder)
