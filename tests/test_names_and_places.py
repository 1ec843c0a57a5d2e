"""Names that clash or mislead, places that are somebody's own, and servers that change their mind.

Each test is of one way to get other content than was asked for, or to get it into another place.
"""

from __future__ import annotations

import dataclasses
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from bundle_builder import assembled, manifest_of, model_record, parts_of
from command import NOWHERE, Ran, command_environment, run
from loopback import Fault, Request
from loopback_hub import LoopbackHub
from loopback_upstream import LoopbackUpstream, contents, digests, zipped
from loopback_web import LoopbackWeb
from memory_source import Files
from trees import stamps, tree, unpack_below

import bundler
from bundler import Selection, Wanted

Model = tuple[dict[str, Any], Files]

WEIGHTS = random.Random(0).randbytes(50_000)
OTHER = random.Random(1).randbytes(50_000)
MODEL = {"config.json": b"{}", "model.safetensors": WEIGHTS}
CODE = {"hubconf.py": b"dependencies = []\n", "package/__init__.py": b""}
LENDER = {**MODEL, "modeling.py": b"class Model: ...\n", "README.md": b"", "vocab.txt": b""}
CODE_ALONE = {"modeling.py", "config.json"}
OLD, NEW = "a" * 40, "b" * 40
URL = "https://files.example/x.pth"
CUT = 20_000


pytestmark = pytest.mark.usefixtures("no_network")


Change = Callable[[], object]
"""Lets upstream move on."""


class ChangingWeb(LoopbackWeb):
    """One that changes between one answer and the next.

    `then`: pairs of a regex and what happens once a request that it matches is answered, each once.
    `media_types`: what files at paths that end so are called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.then: list[tuple[str, Change]] = []
        self.media_types: dict[str, str] = {}
        self._turn = threading.Lock()

    def answer(self, request: Request) -> Any:
        with self._turn:
            answer = super().answer(request)
            _take_turn(self.then, request)
        for end, media_type in self.media_types.items():
            if request.path.endswith(end):
                headers = {**answer.headers, "Content-Type": media_type}
                answer = dataclasses.replace(answer, headers=headers)
        return answer


class ChangingHub(LoopbackHub):
    """The same for a hub."""

    def __init__(self) -> None:
        super().__init__()
        self.then: list[tuple[str, Change]] = []
        self._turn = threading.Lock()

    def answer(self, request: Request) -> Any:
        with self._turn:
            answer = super().answer(request)
            _take_turn(self.then, request)
        return answer


def _take_turn(then: list[tuple[str, Change]], request: Request) -> None:
    for item in then:
        if re.search(item[0], request.path):
            then.remove(item)
            item[1]()
            return


class Upstream(LoopbackUpstream):
    hub: ChangingHub
    web: ChangingWeb

    def refusal(self, *specs: str | Wanted, **options: Any) -> bundler.BundlerError:
        """The same, in one line."""
        error = super().refusal(*specs, **options)
        assert "\n" not in str(error)
        return error


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    hub, web = ChangingHub(), ChangingWeb()
    with hub, web:
        yield Upstream(hub, web, tmp_path)


def files_of(plan: bundler.PackPlan, name: str) -> set[str]:
    (snapshot,) = (s for s in plan.snapshots if s.name == name)
    return {file.path for file in snapshot.files}


def omitted_of(plan: bundler.PackPlan, name: str) -> dict[str, str]:
    (snapshot,) = (s for s in plan.snapshots if s.name == name)
    return {item.path: item.reason for item in snapshot.omitted}


NOT_OF_A_HUB: Mapping[str, object] = {"kind": None, "revision": None, "commit_hash": None}


def model(name: str = "org/model", files: Files = MODEL, **fields: object) -> Model:
    return model_record(files, name=name, **fields), files


def code(
    name: str = "Owner/Repo", files: Files = CODE, commit: str = OLD, ref: str = "main"
) -> Model:
    fields = {"source": "torchhub", "name": name, "layout": "torch-hub", "kind": None}
    return model_record(files, revision=ref, commit_hash=commit, **fields), files


def faces() -> Model:
    files = {"det_10g.onnx": b"detector"}
    fields = {"source": "insightface", "name": "buffalo_l", "layout": "insightface"}
    return model_record(files, **fields, **NOT_OF_A_HUB), files


def checkpoint() -> Model:
    files = {"x.pth": WEIGHTS}
    fields = {"source": "https", "name": URL, "layout": "torch-checkpoints"}
    return model_record(files, **fields, **NOT_OF_A_HUB), files


def local(name: str, files: Files) -> Model:
    return model_record(files, source="file", name=name, layout="flat", **NOT_OF_A_HUB), files


def written(path: Path, *models: Model) -> Path:
    """A bundle of `models` at `path`."""
    found = list(dict.fromkeys(content for _, files in models for content in files.values()))
    path.write_bytes(assembled(parts_of(manifest_of(*(record for record, _ in models)), found)))
    return path


def refused(home: Path, code: int, *arguments: object, **options: Any) -> str:
    """What `bundler unpack` says that ends with `code` in one line and changes nothing."""
    before, times = tree(home), stamps(home)
    ran = run("unpack", *arguments, home=home, **options)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (code, "", 1), ran.err
    assert tree(home) == before
    assert stamps(home) == times
    return ran.err


# -- downloads -------------------------------------------------------------------------------------


class TestContentThatChangesUnderADownload:
    """The first bytes of one file never precede the rest of another."""

    def breaking_off(self, upstream: Upstream, then: Change) -> Callable[[object], None]:
        """For `on_plan`: the first download of content ends early, and then something happens."""

        def on_plan(_: object) -> None:
            upstream.web.faults.append(Fault(r"x\.pth", cut=CUT))
            upstream.web.then.append((r"x\.pth", then))

        return on_plan

    def ranges(self, upstream: Upstream) -> set[str]:
        """What was asked for in part, but for the byte that shows what there is."""
        asked = {r.headers["range"] for r in upstream.web.requests if "range" in r.headers}
        return asked - {"bytes=0-0"}

    def assert_whole(self, upstream: Upstream, later: bytes, **how: bool) -> None:
        """A change in the middle ends with exit code 4 or all of `later`; the next run has that."""
        upstream.web.add(URL, WEIGHTS, **how)
        on_plan = self.breaking_off(upstream, lambda: upstream.web.add(URL, later, **how))
        said: object = None
        try:
            said = contents(upstream.pack(URL, on_plan=on_plan))
        except bundler.BundlerError as error:
            said = error.exit_code
        assert said in (4, digests({"x.pth": later}))
        assert upstream.bundle.exists() == (said != 4)
        assert (upstream.web.then, [f.times for f in upstream.web.faults]) == ([], [0])
        assert contents(upstream.pack(URL)) == digests({"x.pth": later})

    @pytest.mark.parametrize("later", [OTHER, OTHER + b"more"], ids=["equal size", "longer"])
    @pytest.mark.parametrize("etag", [True, False], ids=["marked", "not marked"])
    @pytest.mark.parametrize("length", [True, False], ids=["of known length", "of any length"])
    def test_is_refused_or_comes_whole(
        self, length: bool, etag: bool, later: bytes, upstream: Upstream
    ) -> None:
        self.assert_whole(upstream, later, etag=etag, length=length)

    @pytest.mark.parametrize("size", [len(OTHER) - 1, CUT, CUT // 2])
    @pytest.mark.parametrize("length", [True, False], ids=["of known length", "of any length"])
    def test_is_refused_or_comes_whole_though_it_is_shorter(
        self, length: bool, size: int, upstream: Upstream
    ) -> None:
        self.assert_whole(upstream, OTHER[:size], length=length)

    @pytest.mark.parametrize("etag", [True, False], ids=["marked", "not marked"])
    def test_is_not_appended_to_what_an_earlier_run_left(
        self, etag: bool, upstream: Upstream
    ) -> None:
        upstream.web.add(URL, WEIGHTS, etag=etag)
        gone = Fault(r"x\.pth", status=404)
        on_plan = self.breaking_off(upstream, lambda: upstream.web.faults.append(gone))
        assert upstream.refusal(URL, on_plan=on_plan, retries=1).exit_code == 3
        upstream.web.requests.clear()
        upstream.web.add(URL, OTHER, etag=etag)
        assert contents(upstream.pack(URL)) == digests({"x.pth": OTHER})
        assert self.ranges(upstream) == set()

    def test_is_gone_on_with_where_it_is_the_same(self, upstream: Upstream) -> None:
        upstream.web.add(URL, WEIGHTS)
        gone = Fault(r"x\.pth", status=404)
        on_plan = self.breaking_off(upstream, lambda: upstream.web.faults.append(gone))
        upstream.refusal(URL, on_plan=on_plan, retries=1)
        upstream.web.requests.clear()
        assert contents(upstream.pack(URL)) == digests({"x.pth": WEIGHTS})
        assert self.ranges(upstream) == {f"bytes={CUT}-"}

    def test_without_any_mark_it_is_begun_anew(self, upstream: Upstream) -> None:
        upstream.web.add(URL, WEIGHTS, etag=False)
        on_plan = self.breaking_off(upstream, lambda: None)
        assert contents(upstream.pack(URL, on_plan=on_plan)) == digests({"x.pth": WEIGHTS})
        assert self.ranges(upstream) == set()

    def test_an_archive_is_refused_and_comes_whole_the_next_time(self, upstream: Upstream) -> None:
        def release(content: bytes) -> None:
            archive = zipped({"a.onnx": content})
            upstream.web.add_release("deepinsight/insightface", "v0.7", "buffalo_s.zip", archive)

        def on_plan(_: object) -> None:
            upstream.web.faults.append(Fault("release-asset", cut=CUT))
            upstream.web.then.append(("release-asset", lambda: release(OTHER)))

        release(WEIGHTS)
        assert upstream.refusal("insightface:buffalo_s", on_plan=on_plan).exit_code == 4
        packed = upstream.pack("insightface:buffalo_s")
        assert contents(packed) == digests({"a.onnx": OTHER})


class TestPages:
    """What a browser shows is not what a model is."""

    def test_a_page_of_github_is_refused_with_advice(self, upstream: Upstream) -> None:
        upstream.web.add_repository("acme/code", CODE)
        error = upstream.refusal("https://github.com/acme/code/tree/main")
        assert error.exit_code == 2
        assert [word for word in ("page", "/raw/", "ORG/NAME") if word not in str(error)] == []

    @pytest.mark.parametrize("media_type", ["text/html", "Text/HTML; charset=utf-8", "text/html;"])
    def test_a_page_under_the_name_of_weights_is_refused(
        self, media_type: str, upstream: Upstream
    ) -> None:
        upstream.web.add(URL, b"<html>log in</html>")
        upstream.web.media_types["x.pth"] = media_type
        error = upstream.refusal(URL)
        assert (error.exit_code, URL in str(error)) == (2, True)
        assert not (upstream.folder / "store").exists()

    def test_a_page_is_refused_when_planning_and_its_key_is_not_told(
        self, upstream: Upstream
    ) -> None:
        upstream.web.add(URL, b"<html>log in</html>")
        upstream.web.media_types["s3cr3t"] = "text/html"
        with pytest.raises(bundler.BundlerError) as caught:
            upstream.plan(f"{URL}?key=s3cr3t")
        assert (caught.value.exit_code, "s3cr3t" in str(caught.value)) == (2, False)

    def test_a_page_that_is_asked_for_as_one_is_packed(self, upstream: Upstream) -> None:
        upstream.web.add("https://files.example/card.html", b"<html>")
        upstream.web.media_types["card.html"] = "text/html"
        packed = upstream.pack("https://files.example/card.html")
        assert contents(packed) == digests({"card.html": b"<html>"})

    @pytest.mark.parametrize("media_type", ["text/plain", "application/octet-stream", ""])
    def test_anything_else_is_packed(self, media_type: str, upstream: Upstream) -> None:
        upstream.web.add(URL, WEIGHTS)
        upstream.web.media_types["x.pth"] = media_type
        assert contents(upstream.pack(URL)) == digests({"x.pth": WEIGHTS})


class TestMirrorsInTrouble:
    """The origin is the last to be asked, and a mirror's own no counts where it cannot be."""

    def mirrors(self, upstream: Upstream, *places: str) -> list[str]:
        return [f"https://files.example={place}" for place in places]

    def test_the_no_of_a_mirror_is_told_where_the_origin_cannot_be_reached(
        self, upstream: Upstream
    ) -> None:
        error = upstream.refusal(URL, mirrors=self.mirrors(upstream, f"{upstream.web.url}/mirror"))
        assert error.exit_code == 3
        assert "404" in str(error)
        assert "cannot be reached" not in str(error)
        assert [r.path for r in upstream.web.requests] == ["/mirror/x.pth"]

    def test_and_also_where_another_mirror_is_down(self, upstream: Upstream) -> None:
        places = ["http://127.0.0.1:9", f"{upstream.web.url}/mirror"]
        for order in (places, places[::-1]):
            error = upstream.refusal(URL, mirrors=self.mirrors(upstream, *order))
            assert (error.exit_code, "404" in str(error)) == (3, True)

    def test_where_nothing_is_up_that_is_told(self, upstream: Upstream) -> None:
        error = upstream.refusal(URL, mirrors=self.mirrors(upstream, "http://127.0.0.1:9"))
        assert error.exit_code == 3
        assert "files.example cannot be reached" in str(error)

    def at_two_places(self, upstream: Upstream) -> tuple[str, list[str]]:
        """A spec for what is at `localhost/origin`, and `127.0.0.1/mirror` as a mirror of it."""
        origin = f"{upstream.web.other_url}/origin"
        return f"{origin}/x.pth", [f"{origin}={upstream.web.url}/mirror"]

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_one_in_trouble_is_passed_over_for_the_origin(
        self, status: int, upstream: Upstream
    ) -> None:
        spec, mirrors = self.at_two_places(upstream)
        for place in ("mirror", "origin"):
            upstream.web.add(f"https://{place}/x.pth", WEIGHTS)
        upstream.web.faults.append(Fault("^/mirror", times=99, status=status))
        assert contents(upstream.pack(spec, mirrors=mirrors)) == digests({"x.pth": WEIGHTS})

    def test_one_that_goes_down_after_planning_is_passed_over_too(self, upstream: Upstream) -> None:
        spec, mirrors = self.at_two_places(upstream)
        for place in ("mirror", "origin"):
            upstream.web.add(f"https://{place}/x.pth", WEIGHTS)
        down = Fault("^/mirror", times=99, status=503)
        packed = upstream.pack(
            spec, mirrors=mirrors, on_plan=lambda _: upstream.web.faults.append(down)
        )
        assert contents(packed) == digests({"x.pth": WEIGHTS})
        assert [r.path for r in upstream.web.requests][-1] == "/origin/x.pth"

    def test_what_differs_between_two_places_is_never_mixed(self, upstream: Upstream) -> None:
        spec, mirrors = self.at_two_places(upstream)
        contents_of = {place: place[:1].encode() * (70 << 20) for place in ("mirror", "origin")}
        for place, content in contents_of.items():
            upstream.web.add(f"https://{place}/x.pth", content)
        busy = Fault("^/mirror", status=503)
        packed = upstream.pack(
            spec, mirrors=mirrors, on_plan=lambda _: upstream.web.faults.append(busy)
        )
        assert contents(packed) == digests({"x.pth": contents_of["mirror"]})

    def test_an_origin_in_trouble_is_asked_again_though_a_mirror_says_no(
        self, upstream: Upstream
    ) -> None:
        spec, mirrors = self.at_two_places(upstream)
        upstream.web.add("https://origin/x.pth", WEIGHTS)
        busy = Fault("^/origin", status=503, headers={"Retry-After": "0"})
        packed = upstream.pack(
            spec, mirrors=mirrors, on_plan=lambda _: upstream.web.faults.append(busy)
        )
        assert contents(packed) == digests({"x.pth": WEIGHTS})


# -- what is asked for -----------------------------------------------------------------------------


class TestABranchThatMovesWhileItIsResolved:
    """Two ways to write one branch are one commit, or the pack is refused."""

    def test_code(self, upstream: Upstream) -> None:
        upstream.web.add_repository("acme/code", CODE)
        later = {**CODE, "hubconf.py": b"later"}
        upstream.web.then.append(
            ("info/refs", lambda: upstream.web.add_repository("acme/code", later))
        )
        specs = ("torchhub:acme/code", "torchhub:acme/code:main")
        error = upstream.refusal(*specs)
        assert error.exit_code == 3
        assert "acme/code has just changed upstream: run the same command again" in str(error)
        assert contents(upstream.pack(*specs)) == digests(later)

    def test_a_model(self, upstream: Upstream) -> None:
        repo = upstream.hub.add("acme/tiny", MODEL)
        later = {**MODEL, "config.json": b'{"later": 1}'}
        upstream.hub.then.append(
            ("^/api/models/acme/tiny/revision/main", lambda: repo.commit_files(later))
        )
        specs = ("acme/tiny", "acme/tiny@main")
        error = upstream.refusal(*specs)
        assert error.exit_code == 3
        assert "acme/tiny has just changed upstream" in str(error)
        assert contents(upstream.pack(*specs)) == digests(later)


class TestTwoRefsOfOneFolder:
    """torch.hub writes `_` for a slash, so `a/b` and `a_b` are one place."""

    SPECS = ("torchhub:acme/code:a/b", "torchhub:acme/code:a_b")

    @pytest.fixture(autouse=True)
    def _two_branches(self, upstream: Upstream) -> None:
        upstream.web.add_repository("acme/code", CODE, branch="a/b")
        upstream.web.add_repository("acme/code", {"hubconf.py": b"other"}, branch="a_b")

    def test_are_refused_and_nothing_is_written(self, upstream: Upstream) -> None:
        error = upstream.refusal(*self.SPECS)
        assert error.exit_code == 2
        assert [word for word in ("acme_code_a_b", "two bundles") if word not in str(error)] == []

    def test_are_refused_and_what_was_at_the_output_stays(self, upstream: Upstream) -> None:
        upstream.bundle.write_bytes(b"of yesterday")
        with pytest.raises(bundler.RequestError):
            upstream.pack(*self.SPECS)
        assert upstream.bundle.read_bytes() == b"of yesterday"
        assert [path.name for path in upstream.folder.glob("bundle*")] == ["bundle.tar.zst"]

    def test_are_packed_one_by_one(self, upstream: Upstream) -> None:
        for spec in self.SPECS:
            assert "hubconf.py" in contents(upstream.pack(spec))

    def test_are_no_matter_where_they_are_one_commit(self, upstream: Upstream) -> None:
        upstream.web.add_repository("acme/same", CODE, tags=["a/b", "a_b"])
        upstream.pack("torchhub:acme/same:a/b", "torchhub:acme/same:a_b")
        unpack_below(upstream.folder / "root", upstream.bundle)
        folder = upstream.folder / "root/torch/hub/acme_same_a_b"
        assert (folder / "hubconf.py").read_bytes() == CODE["hubconf.py"]


class TestOneSpecWithDifferentGlobs:
    """What two items of a request want of one repository comes all of it."""

    def wanted(self, spec: str, *globs: str) -> list[Wanted]:
        return [Wanted(spec, Selection(include=(glob,))) for glob in globs]

    def test_code_of_torch_hub(self, upstream: Upstream) -> None:
        upstream.web.add_repository("acme/code", {**CODE, "docs/page.md": b"words"})
        wanted = self.wanted("torchhub:acme/code", "hubconf.py", "package/*")
        for order in (wanted, wanted[::-1]):
            assert contents(upstream.pack(*order)) == digests(CODE)

    def test_code_of_torch_hub_with_and_without_its_branch(self, upstream: Upstream) -> None:
        upstream.web.add_repository("acme/code", {**CODE, "docs/page.md": b"words"})
        one = Wanted("torchhub:acme/code", Selection(include=("hubconf.py",)))
        other = Wanted("torchhub:acme/code:main", Selection(exclude=("docs/*", "hubconf.py")))
        assert contents(upstream.pack(one, other)) == digests(CODE)

    def test_an_archive(self, upstream: Upstream) -> None:
        archive = zipped({"a.onnx": b"a", "b.onnx": b"b", "c.onnx": b"c"})
        upstream.web.add_release("deepinsight/insightface", "v0.7", "buffalo_s.zip", archive)
        wanted = self.wanted("insightface:buffalo_s", "a.onnx", "b.onnx")
        assert contents(upstream.pack(*wanted)) == digests({"a.onnx": b"a", "b.onnx": b"b"})

    def test_a_model(self, upstream: Upstream) -> None:
        upstream.hub.add("acme/tiny", {**MODEL, "README.md": b""})
        plan = upstream.plan(*self.wanted("acme/tiny", "*.json", "*.safetensors"))
        assert files_of(plan, "acme/tiny") == set(MODEL)
        assert set(omitted_of(plan, "acme/tiny")) == {"README.md"}

    def test_in_a_request_file(self, upstream: Upstream) -> None:
        upstream.web.add_repository("acme/code", {**CODE, "docs/page.md": b"words"})
        request = upstream.folder / "request.toml"
        request.write_text(
            'models = [{ spec = "torchhub:acme/code", include = ["hubconf.py"] },\n'
            '{ spec = "torchhub:acme/code", include = ["package/*"] }]'
        )
        assert contents(upstream.pack(*bundler.read_request(request))) == digests(CODE)


class TestARepositoryOfWhichTheCodeIsNeeded:
    """`auto_map` names classes of another repository, whose weights are no matter then."""

    @pytest.fixture(autouse=True)
    def _models(self, upstream: Upstream) -> None:
        upstream.hub.add("acme/code", LENDER)
        auto_map = b'{"auto_map": {"AutoModel": "acme/code--modeling.Model"}}'
        upstream.hub.add("acme/model", {**MODEL, "config.json": auto_map})
        upstream.hub.add("acme/second", {**MODEL, "config.json": auto_map + b"\n"})
        adapter = b'{"base_model_name_or_path": "acme/code"}'
        upstream.hub.add("acme/adapter", {**MODEL, "adapter_config.json": adapter})
        onto = b'{"base_model_name_or_path": "acme/adapter"}'
        upstream.hub.add("acme/onto", {**MODEL, "adapter_config.json": onto})

    def test_brings_its_code_alone_and_says_so(self, upstream: Upstream) -> None:
        plan = upstream.plan("acme/model")
        assert files_of(plan, "acme/code") == CODE_ALONE
        left_out = omitted_of(plan, "acme/code")
        assert set(left_out) == set(LENDER) - CODE_ALONE
        assert set(left_out.values()) == {"only its code is needed"}

    def test_says_so_in_the_bundle_and_on_the_terminal(self, upstream: Upstream) -> None:
        packed = upstream.pack("acme/model")
        (snapshot,) = (s for s in packed.manifest.snapshots if s.name == "acme/code")
        assert {str(entry.path) for entry in snapshot.files} == CODE_ALONE
        assert {item.reason for item in snapshot.omitted} == {"only its code is needed"}
        inspected = run("inspect", upstream.bundle, home=upstream.folder)
        assert "only its code is needed" in inspected.out

    def test_its_weights_are_not_downloaded(self, upstream: Upstream) -> None:
        upstream.pack("acme/model")
        asked = [r.path for r in upstream.hub.requests if "acme/code" in r.path]
        assert [path for path in asked if "safetensors" in path or "README" in path] == []

    def test_needed_by_two_models_it_is_still_the_code_alone(self, upstream: Upstream) -> None:
        plan = upstream.plan("acme/model", "acme/second")
        assert files_of(plan, "acme/code") == CODE_ALONE

    @pytest.mark.parametrize("name", ["acme/code", "hf:acme/code", "acme/code@main"])
    def test_asked_for_by_name_as_well_it_brings_all(self, name: str, upstream: Upstream) -> None:
        for order in (("acme/model", name), (name, "acme/model")):
            plan = upstream.plan(*order)
            assert files_of(plan, "acme/code") == set(LENDER)
            assert omitted_of(plan, "acme/code") == {}

    @pytest.mark.parametrize("whole", ["acme/adapter", "acme/onto"], ids=["at once", "later on"])
    def test_needed_whole_as_well_it_brings_all(self, whole: str, upstream: Upstream) -> None:
        for order in (("acme/model", whole), (whole, "acme/model")):
            plan = upstream.plan(*order)
            assert files_of(plan, "acme/code") == set(LENDER)
            assert omitted_of(plan, "acme/code") == {}

    def test_needed_whole_and_as_code_by_one_model_it_brings_all(self, upstream: Upstream) -> None:
        both = {
            "config.json": b'{"auto_map": {"AutoModel": "acme/code--modeling.Model"}}',
            "adapter_config.json": b'{"base_model_name_or_path": "acme/code"}',
            "adapter_model.safetensors": WEIGHTS,
        }
        upstream.hub.add("acme/both", both)
        assert files_of(upstream.plan("acme/both"), "acme/code") == set(LENDER)


class TestAManifestThatDoesNotAdmitItsCode:
    """--locked takes a manifest from anywhere: with --no-code it is the content that counts."""

    HARMFUL = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."

    @pytest.fixture
    def emptied(self, upstream: Upstream) -> bundler.Manifest:
        upstream.hub.add("acme/tiny", {**MODEL, "extra.bin": self.HARMFUL})
        packed = upstream.pack("acme/tiny")
        upstream.bundle.unlink()
        (snapshot,) = packed.manifest.snapshots
        assert [item.path for item in snapshot.code] == ["extra.bin"]
        return bundler.Manifest.of([dataclasses.replace(snapshot, code=())])

    @pytest.mark.parametrize("store", ["store", "empty"])
    def test_is_refused(self, store: str, emptied: bundler.Manifest, upstream: Upstream) -> None:
        where = upstream.folder / store
        error = upstream.refusal(locked=emptied, code=False, store=where)
        assert error.exit_code == 7
        assert [w for w in ("extra.bin", "os.system", "--no-code") if w not in str(error)] == []

    def test_is_refused_on_the_command_line(
        self, emptied: bundler.Manifest, upstream: Upstream
    ) -> None:
        (upstream.folder / "lock.json").write_bytes(emptied.to_bytes())
        options = ("--locked", "lock.json", "--no-code", "--store", "empty", "-o", upstream.bundle)
        env = {**NOWHERE, "HF_ENDPOINT": upstream.hub.url}
        ran = run("pack", *options, home=upstream.folder, env=env)
        assert (ran.code, len(ran.err.splitlines())) == (7, 1)
        assert not upstream.bundle.exists()

    def test_is_packed_without_the_option(
        self, emptied: bundler.Manifest, upstream: Upstream
    ) -> None:
        assert upstream.pack(locked=emptied).manifest == emptied


# -- what is on this machine -----------------------------------------------------------------------


class TestFoldersThatCannotBeRead:
    """What is missing of a folder is told, and never left out in silence."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for path, content in MODEL.items():
            (tmp_path / "tiny/deep").mkdir(parents=True, exist_ok=True)
            (tmp_path / "tiny" / path).write_bytes(content)
        (tmp_path / "tiny/deep/more.json").write_bytes(b"{}")
        return tmp_path / "tiny"

    def pack(self, folder: Path, before: Sequence[str] = ()) -> Ran:
        """`bundler pack` of a folder, with the words of a command that drops rights `before` it."""
        home = folder.parent
        process = subprocess.run(
            [*before, sys.executable, "-m", "bundler", "pack", f"file:{folder}"],
            env={**command_environment(home), **NOWHERE},
            cwd=home,
            capture_output=True,
            timeout=60,
            check=False,
        )
        out, err = process.stdout.decode(), process.stderr.decode()
        return Ran(process.returncode, out, err, process.stdout)

    def refusal(self, folder: Path, before: Sequence[str] = ()) -> str:
        ran = self.pack(folder, before)
        assert (ran.code, len(ran.err.splitlines())) == (2, 1), ran.err
        assert not (folder.parent / "bundle.tar.zst").exists()
        return ran.err

    @pytest.fixture
    def as_a_user(self) -> list[str]:
        """A command before which root may read as little as anybody."""
        if os.geteuid() != 0:
            return []
        dropping = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
        if shutil.which("setpriv") is None or subprocess.run([*dropping, "true"]).returncode:
            pytest.skip("root may read everything here")
        return dropping

    @pytest.mark.parametrize("path", ["deep", "model.safetensors"], ids=["folder", "file"])
    @pytest.mark.parametrize("mode", [0o000, 0o100], ids=["closed", "to be passed through"])
    def test_what_may_not_be_read_is_named(
        self, path: str, mode: int, folder: Path, as_a_user: list[str]
    ) -> None:
        os.chmod(folder / path, mode)
        try:
            assert f"cannot read {folder / path}: Permission denied" in self.refusal(
                folder, as_a_user
            )
        finally:
            os.chmod(folder / path, 0o700)
        assert self.pack(folder, as_a_user).code == 0

    def test_the_folder_itself_is_named(self, folder: Path, as_a_user: list[str]) -> None:
        os.chmod(folder, 0)
        try:
            assert f"cannot read {folder}: Permission denied" in self.refusal(folder, as_a_user)
        finally:
            os.chmod(folder, 0o700)

    @pytest.mark.parametrize("links", [{"a": "a"}, {"a": "b", "b": "a"}], ids=["one", "two"])
    @pytest.mark.parametrize("place", ["", "deep"], ids=["at the top", "further down"])
    def test_links_in_a_circle_are_told(
        self, place: str, links: Mapping[str, str], folder: Path
    ) -> None:
        for name, target in links.items():
            (folder / place / name).symlink_to(target)
        assert str(folder) in self.refusal(folder)

    @pytest.mark.parametrize("target", [".", "..", "deep/.."])
    def test_links_to_a_folder_around_them_are_told(self, target: str, folder: Path) -> None:
        (folder / "around").symlink_to(target)
        assert str(folder / "around") in self.refusal(folder)

    @pytest.mark.parametrize("target", ["gone.json", "deep/gone.json", "../gone.json"])
    @pytest.mark.parametrize("name", ["link.json", "deep/link.json"])
    def test_a_link_that_leads_nowhere_is_named(self, name: str, target: str, folder: Path) -> None:
        (folder / name).symlink_to(target)
        assert str(folder / name) in self.refusal(folder)

    def test_a_circle_that_is_hidden_is_no_matter(self, folder: Path) -> None:
        (folder / ".loop").symlink_to(".loop")
        assert self.pack(folder).code == 0


# -- unpacking -------------------------------------------------------------------------------------


class TestWhatIsThereIsListedAsItIsTyped:
    """--only with an unknown name answers with words that --only takes."""

    MODELS: Mapping[str, Model] = {
        "org/model": model(),
        "org/model@v1": model(revision="v1", commit_hash=NEW),
        "dataset:org/model": model(source="dataset", kind="dataset"),
        "space:org/model": model(source="space", kind="space"),
        "torchhub:Owner/Repo": code(),
        "torchhub:Owner/Repo@v1": code(commit=NEW, ref="v1"),
        "insightface:buffalo_l": faces(),
        URL: checkpoint(),
        "file:mine": local("mine", MODEL),
    }

    @pytest.fixture
    def bundle(self, tmp_path: Path) -> Path:
        return written(tmp_path / "bundle", *self.MODELS.values())

    def test_all_of_it_is_listed(self, bundle: Path, tmp_path: Path) -> None:
        said = refused(tmp_path, 2, bundle, "--root", "root", "--only", "org/nix")
        assert "org/nix is not in this bundle" in said
        assert said.strip().partition("which has ")[2].split(", ") == list(self.MODELS)

    @pytest.mark.parametrize("word", MODELS)
    def test_each_word_chooses_what_it_stands_for(
        self, word: str, bundle: Path, tmp_path: Path
    ) -> None:
        plan = bundler.plan_unpack(
            bundle, only=[word], roots=bundler.find_roots({}, root=tmp_path / "root"), env=None
        )
        found = {(s.source, s.name, s.revision) for s in plan.snapshots}
        record = self.MODELS[word][0]
        assert (record["source"], record["name"], record.get("revision")) in found
        # A name without its revision is that of all of them.
        assert {(source, name) for source, name, _ in found} == {(record["source"], record["name"])}

    @pytest.mark.parametrize("word", ["Owner/Repo", "buffalo_l", "mine"])
    def test_a_bare_name_will_do(self, word: str, bundle: Path, tmp_path: Path) -> None:
        roots = bundler.find_roots({}, root=tmp_path / "root")
        plan = bundler.plan_unpack(bundle, only=[word], roots=roots, env=None)
        assert {snapshot.name for snapshot in plan.snapshots} == {word}

    @pytest.mark.parametrize("word", ["hf:buffalo_l", "dataset:mine"])
    def test_another_kind_will_not(self, word: str, bundle: Path, tmp_path: Path) -> None:
        assert word in refused(tmp_path, 2, bundle, "--root", "root", "--only", word)


class TestOneFolderForTwoRoots:
    """torch.hub's folder and insightface's are two, however one of them is written."""

    @pytest.fixture
    def bundle(self, tmp_path: Path) -> Path:
        (tmp_path / "link").symlink_to("D")
        return written(tmp_path / "bundle", code(), faces(), model(), local("mine", MODEL))

    @pytest.mark.parametrize("there", [True, False], ids=["there", "to be made"])
    @pytest.mark.parametrize("other", ["D", "D/", "./D", "D/../D", "link", "{home}/D", "~/D"])
    def test_is_refused(self, other: str, there: bool, bundle: Path, tmp_path: Path) -> None:
        if there:
            (tmp_path / "D").mkdir()
        other = other.replace("{home}", str(tmp_path))
        options = (bundle, "--torch-home", "D", "--insightface-root", other, "--root", "root")
        said = refused(tmp_path, 2, *options)
        assert [word for word in ("torch", "insightface", "name another") if word not in said] == []

    @pytest.mark.parametrize(
        "options",
        [
            ("--torch-home", "D", "--checkpoints", "D"),
            ("--hf-home", "D", "--torch-home", "D/hub"),
            ("--hf-home", "D", "--insightface-root", "link/hub"),
            ("--insightface-root", "link", "--checkpoints", "D"),
            ("--torch-home", "D", "--insightface-root", "D", "--dry-run"),
        ],
        ids=" ".join,
    )
    def test_is_refused_for_any_two(
        self, options: tuple[str, ...], bundle: Path, tmp_path: Path
    ) -> None:
        refused(tmp_path, 2, bundle, "--root", "root", *options)

    @pytest.mark.parametrize("only", ["torchhub:Owner/Repo", "insightface:buffalo_l"])
    def test_is_no_matter_where_one_of_them_is_not_used(
        self, only: str, bundle: Path, tmp_path: Path
    ) -> None:
        options = ("--torch-home", "D", "--insightface-root", "D", "--root", "root")
        ran = run("unpack", bundle, *options, "--only", only, home=tmp_path)
        assert (ran.code, ran.err) == (0, "")


class TestAFolderCalledAsOurOwn:
    """What is below `.locks` is removed after the work."""

    @pytest.mark.parametrize(
        "mine",
        [
            pytest.param(local(".locks", MODEL), id="folder"),
            pytest.param(local(".locks", {".locks": WEIGHTS}), id="single file"),
            pytest.param(local(".locks/bundler", MODEL), id="folder inside"),
            pytest.param(local(".locks", {"bundler/tree/x.json": b"{}"}), id="path inside"),
        ],
    )
    @pytest.mark.parametrize("more", [(), (model(),)], ids=["alone", "beside a model"])
    def test_is_refused(self, more: tuple[Model, ...], mine: Model, tmp_path: Path) -> None:
        bundle = written(tmp_path / "bundle", *more, mine)
        for options in ((), ("--dry-run",)):
            said = refused(tmp_path, 5, bundle, "--root", "root", *options)
            assert ".locks" in said

    def test_is_refused_beside_what_somebody_has_there(self, tmp_path: Path) -> None:
        (tmp_path / "root/checkpoints/.locks").mkdir(parents=True)
        (tmp_path / "root/checkpoints/.locks/mine.json").write_bytes(b"mine")
        bundle = written(tmp_path / "bundle", local(".locks", MODEL))
        refused(tmp_path, 5, bundle, "--root", "root")


class TestSomebodysOwnCode:
    """torch.hub's folder is everybody's: a ref may be a fork, or half a download."""

    @pytest.fixture
    def bundle(self, tmp_path: Path) -> Path:
        return written(tmp_path / "bundle", code())

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "root/torch/hub"
        folder.mkdir(parents=True)
        return folder

    @pytest.mark.parametrize(
        "fork",
        ["myfork", f"my_Owner_Repo_{NEW}", "Owner_Repo_dev", f"Owner_Repo_{NEW[:7]}", "../myfork"],
    )
    @pytest.mark.parametrize("files", [{}, CODE], ids=["empty", "of the same content"])
    def test_a_link_to_a_fork_is_not_turned(
        self, files: Files, fork: str, bundle: Path, tmp_path: Path, folder: Path
    ) -> None:
        for path, content in {"README.md": b"mine", **files}.items():
            (folder / fork / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / fork / path).write_bytes(content)
        (folder / "Owner_Repo_main").symlink_to(fork)
        said = refused(tmp_path, 6, bundle, "--root", "root")
        assert str(folder / "Owner_Repo_main") in said

    def test_a_link_that_bundler_made_for_another_commit_is_turned(
        self, bundle: Path, tmp_path: Path, folder: Path
    ) -> None:
        (folder / f"Owner_Repo_{NEW}").mkdir()
        (folder / "Owner_Repo_main").symlink_to(f"Owner_Repo_{NEW}")
        unpack_below(tmp_path / "root", bundle)
        assert os.readlink(folder / "Owner_Repo_main") == f"Owner_Repo_{OLD}"

    @pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
    @pytest.mark.parametrize("path", CODE)
    def test_a_folder_with_a_part_of_the_code_is_not_filled_up(
        self, path: str, links: bool, bundle: Path, tmp_path: Path, folder: Path
    ) -> None:
        place = folder / "Owner_Repo_main" / path
        place.parent.mkdir(parents=True)
        place.write_bytes(CODE[path])
        env = {} if links else {"HF_HUB_DISABLE_SYMLINKS": "1"}
        said = refused(tmp_path, 6, bundle, "--root", "root", env=env)
        assert str(folder / "Owner_Repo_main") in said

    @pytest.mark.parametrize("value", ["1", "true"])
    def test_links_that_stand_are_kept_where_none_are_to_be_made(
        self, value: str, bundle: Path, tmp_path: Path, folder: Path
    ) -> None:
        options = ("unpack", bundle, "--root", "root")
        assert run(*options, home=tmp_path).code == 0
        before, times = tree(tmp_path / "root"), stamps(tmp_path / "root")
        ran = run(*options, home=tmp_path, env={"HF_HUB_DISABLE_SYMLINKS": value})
        assert (ran.code, ran.err) == (0, "")
        assert tree(tmp_path / "root") == before
        assert stamps(tmp_path / "root") == times
        assert os.readlink(folder / "Owner_Repo_main") == f"Owner_Repo_{OLD}"

    def test_what_stands_without_links_is_kept_where_links_can_be_made(
        self, bundle: Path, tmp_path: Path, folder: Path
    ) -> None:
        options = ("unpack", bundle, "--root", "root")
        assert run(*options, home=tmp_path, env={"HF_HUB_DISABLE_SYMLINKS": "1"}).code == 0
        times = stamps(tmp_path / "root")
        assert run(*options, home=tmp_path).code == 0
        assert stamps(tmp_path / "root") == times
