"""Laws that hold for all values, not only for those that somebody thought of."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory

import pytest
from bundle_builder import Collected, Pipe
from fuzz_targets import check_manifest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import IN_MEMORY
from mutated_manifests import mutated_manifests
from test_archive import manifest_for
from test_env import READERS, SOURCING, sourced, written
from test_manifest import hashes, paths, plain, snapshots

from bundler.archive import open_bundle
from bundler.archive_writer import Levels, write_bundle
from bundler.digest import Blob, Digest
from bundler.environment import find_roots
from bundler.errors import RequestError
from bundler.manifest import Code, Manifest, Snapshot
from bundler.members import LARGE
from bundler.names import MAX_TEXT_LENGTH, UNPRINTABLE, plain_text, relative_path
from bundler.receipt import InstalledFile, InstalledModel, InstalledPointer, Receipt
from bundler.receipt_folder import read_receipts, write_receipt
from bundler.seek_table import FRAME_SIZE
from bundler.shells import EnvFormat, assignments, environment_text, read_variables
from bundler.spec import Naming, Spec, full_spec, spec_of

# Names and paths.

texts = st.text(max_size=8) | st.lists(
    st.sampled_from(
        ["..", ".", "", "a", "C:", "\\", "con", "é", "e\u0301", "\0", " ", "~", "x" * 99]
    )
).map("/".join)


@given(texts)
def test_a_path_that_is_taken_stays_below_any_folder_on_any_system(text: str) -> None:
    try:
        path = relative_path(text)
    except ValueError:
        return
    assert str(path) == text
    assert relative_path(str(path)) == path
    assert Path(os.path.normpath(Path("/root") / path)) == Path("/root") / text
    windows = PureWindowsPath("D:/root", text)
    assert windows.parts == ("D:\\", "root", *path.parts)
    assert UNPRINTABLE.search(text) is None


@given(st.text(max_size=20) | st.just("\x1b" * 5000))
def test_any_text_can_be_made_plain_and_plain_text_is_left_alone(text: str) -> None:
    made = plain_text(text)
    assert plain_text(made) == made
    assert UNPRINTABLE.search(made) is None
    assert len(made) <= MAX_TEXT_LENGTH
    assert made == text or UNPRINTABLE.search(text) or len(text) > MAX_TEXT_LENGTH


# Specs.


@given(st.text(max_size=12) | st.from_regex(r"[a-z]{1,4}:[a-z/@,# ]{0,8}", fullmatch=True))
def test_a_spec_reads_back_what_it_prints(text: str) -> None:
    try:
        spec = Spec.parse(text)
    except RequestError:
        return
    assert Spec.parse(str(spec)) == spec
    assert str(spec) in (text, f"hf:{text}")
    assert spec.told.told == spec.told
    if spec.told.rest:
        assert Spec.parse(str(spec.told)) == spec.told


words = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,5}(/[a-z0-9][a-z0-9._-]{0,5})?", fullmatch=True)


@given(
    st.sampled_from(["hf", "dataset", "space", "torchhub", "insightface", "file"]),
    words, st.none() | words, st.none() | hashes, st.lists(words, max_size=2),
)  # fmt: skip
def test_a_model_is_found_by_every_word_that_means_it(
    source: str, name: str, revision: str | None, commit_hash: str | None, aliases: list[str]
) -> None:
    snapshot = Snapshot(
        source, name, "flat", (), aliases=tuple(aliases), revision=revision,
        commit_hash=commit_hash, specs=("timm:x",),
    )  # fmt: skip
    naming = Naming([replace(snapshot, name="another", aliases=(), specs=()), snapshot])
    asked = ["timm:x", spec_of(source, name, revision)]
    for called in (name, *aliases):
        asked += [full_spec(source, called), f"{full_spec(source, called)}@{commit_hash}"]
        assert 1 in naming.called(called)
    for text in asked:
        assert 1 in naming.asked(text)


# Manifests.

codes = st.lists(st.builds(Code, plain, plain), max_size=2).map(tuple)
several = st.lists(plain, max_size=3).map(tuple)
whole_snapshots = st.builds(
    lambda snapshot, specs, needs, code: replace(snapshot, specs=specs, needs=needs, code=code),
    snapshots.filter(lambda s: len(set(s.names)) == len(s.names)), several, several, codes,
)  # fmt: skip


@settings(max_examples=50)
@given(st.lists(whole_snapshots, min_size=1, max_size=3), st.data())
def test_a_manifest_reads_back_every_field(snapshots: list[Snapshot], data: st.DataObject) -> None:
    whole = Manifest.of(snapshots)
    assert Manifest.of(whole.snapshots) == whole
    left_out = data.draw(st.sets(st.sampled_from([*whole.blobs()])))
    manifest = whole.without(left_out, {blob.digest for blob in left_out})
    assert {entry.blob for _, entry in manifest.lacking()} == left_out
    assert {entry.blob for _, entry in manifest.carried()} == {*whole.blobs()} - left_out
    assert manifest.without(()) == whole
    content = manifest.to_bytes()
    assert Manifest.from_bytes(content) == manifest
    spaced = json.dumps(json.loads(content), indent=1).encode()
    assert Manifest.from_bytes(spaced).to_bytes() == content


@settings(max_examples=200)
@given(mutated_manifests())
def test_a_manifest_that_was_changed_is_refused_or_stays_below_its_roots(content: bytes) -> None:
    check_manifest(content)


# Bundles.

SIZES = (0, 1, 511, 512, 513, LARGE - 1, LARGE, FRAME_SIZE - 1024, FRAME_SIZE - 512, FRAME_SIZE + 1)
contents = st.lists(
    st.binary(max_size=600)
    | st.tuples(st.integers(0, 255), st.sampled_from(SIZES)).map(lambda b: bytes([b[0]]) * b[1]),
    min_size=1, max_size=5, unique=True,
)  # fmt: skip


class Trickle(io.BytesIO):
    """A stream whose reads give as much as it likes."""

    def __init__(self, content: bytes, steps: Sequence[int]) -> None:
        super().__init__(content)
        self._steps = steps
        self._number = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._number += 1
        most = self._steps[self._number % len(self._steps)]
        return super().read(most if size is None or size < 0 else min(size, most))


def bundle_of(contents: Sequence[bytes], steps: Sequence[int] = (1 << 30,)) -> bytes:
    """A bundle of `contents`, each of which comes in such steps."""
    by_digest = {Digest.of(content): content for content in contents}
    out = io.BytesIO()
    write_bundle(
        out,
        manifest_for(contents),
        lambda blob: Trickle(by_digest[blob.digest], steps),
        lambda _: None,
        levels=Levels.all(1),
    )
    return out.getvalue()


@settings(max_examples=15)
@given(contents, st.lists(st.sampled_from([1 << 10, 50_021, 1 << 20, 5 << 20]), min_size=1))
def test_a_bundle_does_not_depend_on_how_its_content_comes(
    contents: list[bytes], steps: list[int]
) -> None:
    assert bundle_of(contents, steps) == bundle_of(contents)


@settings(max_examples=40)
@given(contents, st.data())
def test_what_is_wanted_comes_alike_from_a_file_and_from_a_pipe(
    contents: list[bytes], data: st.DataObject
) -> None:
    bundle = bundle_of(contents)
    wanted = data.draw(st.sets(st.sampled_from(contents)))
    digests = {Digest.of(content) for content in wanted}
    expected = [content for content in in_file_order(contents) if content in wanted]
    for source, straight in (
        (io.BytesIO(bundle), False),
        (io.BytesIO(bundle), True),
        (Pipe(bundle), False),
    ):
        with open_bundle(source) as reader:
            collected = Collected()
            jobs = data.draw(st.integers(1, 3))
            reader.extract(collected, digests, jobs=jobs, straight=straight)
        assert [*collected.contents.values()] == expected
        assert collected.finished == [*collected.contents]


def in_file_order(contents: Sequence[bytes]) -> list[bytes]:
    return sorted(contents, key=lambda content: len(content) >= LARGE)


# Receipts.

roots = st.sampled_from(["hub", "torch", "datasets", "/plain", "/other/è"])
blobs = st.binary(max_size=3).map(Blob.of)
inner_paths = paths.map(relative_path)
said = st.none() | st.text(max_size=3)
pointers = st.builds(InstalledPointer, roots, inner_paths, said, said)
files = st.builds(
    InstalledFile, roots, inner_paths, blobs, st.integers(-(2**63), 2**63), st.booleans()
)
models = st.builds(
    InstalledModel, words, st.text(max_size=5), words, said, several, several, several,
    said, said, st.integers(0, 2**60),
    st.lists(files, max_size=3, unique_by=lambda file: file.place).map(tuple),
    st.lists(pointers, max_size=2, unique_by=lambda link: link.place).map(tuple),
    st.lists(pointers, max_size=2, unique_by=lambda text: text.place).map(tuple),
)  # fmt: skip
receipts = st.builds(
    Receipt,
    st.sampled_from([Digest.of(b"one"), Digest.of(b"two")]),
    st.lists(models, max_size=3, unique_by=lambda model: model.name).map(tuple),
)


@settings(max_examples=30)
@given(st.lists(receipts, unique_by=lambda receipt: receipt.bundle))
def test_receipts_read_back_what_they_note(receipts: list[Receipt]) -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as name:
        for receipt in receipts * 2:
            write_receipt(Path(name), receipt)
        found = {receipt.bundle: receipt for receipt in read_receipts(Path(name))}
    assert found == {receipt.bundle: receipt for receipt in receipts}


# Environment files.

values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8) | (
    st.binary(max_size=4).map(lambda content: os.fsdecode(content.replace(b"\0", b"")))
)
tricky = st.lists(st.sampled_from([*"'\"\\$`!%#=~*?[]{}() \n\r\té😀\u2019;&|<>^-", "x"])).map(
    "".join
)


@pytest.mark.parametrize("form", READERS)
@given(value=values | tricky)
def test_a_value_comes_out_of_every_reader_as_it_was_or_is_refused(
    form: EnvFormat, value: str
) -> None:
    try:
        text = assignments(form, {"NAME": value}, (), "A comment.")
    except RequestError:
        return
    assert READERS[form][-1](text) == {"NAME": value}


@pytest.mark.parametrize("form", [EnvFormat.SH, EnvFormat.CONDA, EnvFormat.DOCKER, EnvFormat.JSON])
@given(value=values | tricky)
def test_an_environment_file_is_read_back(form: EnvFormat, value: str) -> None:
    roots = replace(find_roots({"HOME": "/h"}), hub=Path("/", value), torch_home=Path("/t"))
    try:
        found = read_variables(form, environment_text(form, roots))
    except RequestError:
        return
    modules = {"HF_MODULES_CACHE"} if form is EnvFormat.DOCKER else set()
    for name, said in roots.variables().items():
        assert name in modules or found[name] == said


SHELLS = {name: pair for name, pair in SOURCING.items() if not name.endswith("-eu")}


@pytest.mark.parametrize(("form", "command"), SHELLS.values(), ids=SHELLS)
def test_any_values_come_out_of_every_shell_as_they_were(
    form: EnvFormat, command: list[str], tmp_path: Path
) -> None:
    @settings(max_examples=4)
    @given(st.lists(values | tricky, min_size=60, max_size=90))
    def run(values: list[str]) -> None:
        variables = {f"NAME_{number}": value for number, value in enumerate(values)}
        file = written(tmp_path / "offline.env", assignments(form, variables, ("NOTHING",)))
        process = sourced(command, file, {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"})
        assert (process.returncode, process.stderr) == (0, "")
        found = json.loads(process.stdout)
        assert {name: found.get(name) for name in variables} == variables

    run()
