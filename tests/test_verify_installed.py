"""What `bundler verify` without a bundle finds: missing, changed and foreign files."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_builder import COMMIT_HASH
from command import run
from memory_source import Files, commit_hash, make_bundle
from test_checkpoints import (
    LARGE,
    NEWER_CODE,
    TINY,
    checkpoint,
    code,
    faces,
    model,
    unpack_plain,
    written,
)
from test_checkpoints import (
    NEW as NEW_COMMIT,
)
from test_remove import tables
from trees import found_offline, stamps, tree, unpack_below, write_cache

import bundler
from bundler.digest import Digest
from bundler.errors import UnavailableError
from bundler.progress import Meter, Silent
from bundler.sharing import LinkMode

HUB = "huggingface/hub/models--org--tiny"
SNAPSHOT = f"{HUB}/snapshots/{COMMIT_HASH}"
CODE = f"torch/hub/Owner_Repo_{'a' * 40}"
DATASET = "huggingface/datasets/org___table/default/0.0.0/abc"
VOCAB = f"{HUB}/blobs/{Digest.of(TINY['sub/vocab.txt']).hex}"
PACK = "insightface/models/buffalo_l"
MODES = [LinkMode.AUTO, LinkMode.HARDLINK, LinkMode.SYMLINK, LinkMode.COPY]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of all kinds of models."""
    path = tmp_path_factory.mktemp("bundle") / "bundle.tar.zst"
    tiny = model(aliases=["tiny"])
    return written(path, tiny, checkpoint(), code(), faces(), tables())


def verified(root: Path, jobs: int | None = None) -> bundler.InstalledVerification:
    """What verifying finds below `root`."""
    return bundler.verify_installed(bundler.find_roots({}, root=root), jobs=jobs)


def faults(root: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The problem and the models of each faulty path below `root`."""
    return {
        str(fault.path.relative_to(root)): (fault.problem, fault.models)
        for fault in verified(root).faults
    }


def flipped(path: Path) -> None:
    """Change one bit of a file, and none of its times."""
    state, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Put something else where a file or a link is."""

    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


class TestWhole:
    """What is as it was installed."""

    @pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
    def test_is_right_by_every_link_mode(
        self, mode: LinkMode, bundle: Path, tmp_path: Path
    ) -> None:
        unpack_plain(tmp_path, bundle, mode)
        before = stamps(tmp_path)
        ran = run("verify", "--root", tmp_path, home=tmp_path)
        assert (ran.code, ran.err) == (0, "")
        assert "installed files" in ran.out
        assert stamps(tmp_path) == before
        result = verified(tmp_path)
        assert (result.faults, result.foreign, result.notes) == ((), (), ())
        installed = bundler.installed(bundler.find_roots({}, root=tmp_path))
        assert result.size == installed.size
        paths = {place for s in installed.standings for place in s.model.files}
        assert result.checked == len({(file.root, file.path) for file in paths})

    def test_is_right_without_links(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
        unpack_plain(tmp_path, bundle)
        result = verified(tmp_path)
        assert (result.faults, result.foreign, result.notes) == ((), (), ())

    def test_is_right_where_content_was_copied_into_the_place_of_links(
        self, bundle: Path, tmp_path: Path
    ) -> None:
        unpack_below(tmp_path / "links", bundle, only=["org/tiny"])
        shutil.copytree(tmp_path / "links", tmp_path / "root", symlinks=False)
        result = verified(tmp_path / "root")
        assert (result.faults, result.foreign) == ((), ())

    def test_is_right_when_another_bundle_moved_branches(self, tmp_path: Path) -> None:
        other = {"config.json": b"[]"}
        written(tmp_path / "old", model(), code())
        newer = model(other, commit_hash=NEW_COMMIT)
        written(tmp_path / "new", newer, code(NEWER_CODE, NEW_COMMIT))
        for name in ("old", "new"):
            unpack_below(tmp_path / "root", tmp_path / name)
        result = verified(tmp_path / "root")
        assert (result.faults, result.foreign, result.notes) == ((), (), ())

    def test_is_right_with_any_number_of_threads(self, bundle: Path, tmp_path: Path) -> None:
        unpack_below(tmp_path, bundle)
        flipped(tmp_path / VOCAB)
        results = [verified(tmp_path, jobs) for jobs in (1, 2, 7)]
        assert len({result.faults for result in results}) == 1
        assert len({result.checked for result in results}) == 1


FAULTS: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "a flipped bit in a blob": (VOCAB, flipped, "changed", "org/tiny"),
    "a blob that was cut": (VOCAB, lambda path: path.write_bytes(b""), "changed", "org/tiny"),
    "a blob that is gone": (VOCAB, Path.unlink, "missing", "org/tiny"),
    "a folder in the place of a blob": (
        VOCAB,
        instead(Path.mkdir),
        "changed",
        "org/tiny",
    ),
    "a pipe in the place of a blob": (
        VOCAB,
        instead(os.mkfifo),
        "changed",
        "org/tiny",
    ),
    "a link that is gone": (f"{SNAPSHOT}/config.json", Path.unlink, "missing", "org/tiny"),
    "a link to nothing": (
        f"{SNAPSHOT}/config.json",
        instead(lambda path: path.symlink_to("nothing")),
        "missing",
        "org/tiny",
    ),
    "a link to something else": (
        f"{SNAPSHOT}/config.json",
        instead(lambda path: path.symlink_to("model.safetensors")),
        "changed",
        "org/tiny",
    ),
    "an alias that is gone": (
        "huggingface/hub/models--tiny",
        Path.unlink,
        "missing",
        "org/tiny",
    ),
    "a ref that is gone": (f"{HUB}/refs/main", Path.unlink, "missing", "org/tiny"),
    "a ref to nothing": (
        f"{HUB}/refs/main",
        lambda path: path.write_text("0" * 40),
        "changed",
        "org/tiny",
    ),
    "a ref with a newline": (
        f"{HUB}/refs/main",
        lambda path: path.write_text(f"{COMMIT_HASH}\n"),
        "changed",
        "org/tiny",
    ),
    "a listing of more than there is": (
        f"{HUB}/trees/{COMMIT_HASH}.json",
        lambda path: path.write_text(path.read_text().replace("config.json", "more.json")),
        "changed",
        "org/tiny",
    ),
    "a listing that is none": (
        f"{HUB}/trees/{COMMIT_HASH}.json",
        lambda path: path.write_text("{"),
        "changed",
        "org/tiny",
    ),
    "a listing that is gone": (
        f"{HUB}/trees/{COMMIT_HASH}.json",
        Path.unlink,
        "missing",
        "org/tiny",
    ),
    "a checkpoint of torch": (
        "torch/hub/checkpoints/x-0123.pth",
        flipped,
        "changed",
        "https://host.example/x-0123.pth",
    ),
    "code of torch.hub": (f"{CODE}/hubconf.py", flipped, "changed", "torchhub:Owner/Repo"),
    "code of torch.hub that is gone": (
        f"{CODE}/hubconf.py",
        Path.unlink,
        "missing",
        "torchhub:Owner/Repo",
    ),
    "the list of what torch.hub trusts": (
        "torch/hub/trusted_list",
        Path.unlink,
        "missing",
        "torchhub:Owner/Repo",
    ),
    "a model of insightface": (
        f"{PACK}/det_10g.onnx",
        flipped,
        "changed",
        "insightface:buffalo_l",
    ),
    "a table of a dataset": (
        f"{DATASET}/dataset_info.json",
        flipped,
        "changed",
        "dataset:org/table",
    ),
    "a large plain file": (
        "checkpoints/tiny/model.safetensors",
        flipped,
        "changed",
        "org/tiny",
    ),
    "a small plain file that is gone": (
        "checkpoints/tiny/config.json",
        Path.unlink,
        "missing",
        "org/tiny",
    ),
}


class TestFaults:
    """What is missing or changed is named, with its model and what mends it: exit code 4."""

    @pytest.mark.parametrize(("path", "damage", "problem", "spec"), FAULTS.values(), ids=FAULTS)
    def test_is_found_named_and_mended_as_told(
        self,
        path: str,
        damage: Callable[[Path], object],
        problem: str,
        spec: str,
        bundle: Path,
        tmp_path: Path,
    ) -> None:
        root = tmp_path / "root"
        digest = unpack_plain(root, bundle, LinkMode.COPY).digest
        damage(root / path)
        ran = run("verify", "--root", root, "--json", home=tmp_path)
        assert ran.code == 4
        (fault,) = json.loads(ran.out)["faults"]
        assert {key: fault[key] for key in ("path", "problem", "models")} == {
            "path": str(root / path),
            "problem": problem,
            "models": [spec],
        }
        told, last = ran.err.splitlines()
        assert f"{root / path} of {spec} is {problem}: " in told
        assert "1 fault" in last
        mend = fault["mend"]
        assert mend in told
        assert f"--only {spec}" in mend
        assert str(digest) in mend
        plain = f"--checkpoints {root / 'checkpoints'}"
        assert (plain in mend) == path.startswith("checkpoints/")
        if mend.startswith("rm -r "):
            in_the_way = Path(shlex.split(mend.partition(", then ")[0])[-1])
            assert in_the_way in (root / path, *(root / path).parents)
            if in_the_way.is_dir() and not in_the_way.is_symlink():
                shutil.rmtree(in_the_way)
            else:
                in_the_way.unlink()
        unpack_plain(root, bundle, LinkMode.COPY, only=[spec])
        assert verified(root).faults == ()

    def test_of_a_file_that_two_models_have_both_are_named(self, tmp_path: Path) -> None:
        files = {"config.json": b"{}"}
        make_bundle(tmp_path / "b", {"org/tiny": files}, asked=("org/tiny", "org/tiny@v1.0"))
        root = tmp_path / "root"
        unpack_below(root, tmp_path / "b")
        (blob,) = (root / HUB / "blobs").iterdir()
        flipped(blob)
        ((problem, models),) = faults(root).values()
        assert (problem, set(models)) == ("changed", {"org/tiny", "org/tiny@v1.0"})

    def test_all_that_is_gone_is_told_at_once(self, bundle: Path, tmp_path: Path) -> None:
        unpack_below(tmp_path, bundle)
        shutil.rmtree(tmp_path / "torch")
        shutil.rmtree(tmp_path / PACK)
        found = faults(tmp_path)
        assert {problem for problem, _ in found.values()} == {"missing"}
        assert {path.split("/")[0] for path in found} == {"torch", "insightface"}
        ran = run("verify", "--root", tmp_path, home=tmp_path)
        assert (ran.code, ran.out) == (4, "")
        assert len(ran.err.splitlines()) == len(found) + 1

    def test_a_file_that_cannot_be_read_is_told(self, bundle: Path, tmp_path: Path) -> None:
        unpack_below(tmp_path, bundle)
        (tmp_path / VOCAB).unlink()
        (tmp_path / VOCAB).symlink_to(VOCAB.rpartition("/")[2])  # A link to itself.
        assert faults(tmp_path)[VOCAB][0] == "unreadable"


FOREIGN = {
    "in a snapshot": f"{SNAPSHOT}/extra.txt",
    "in a folder of a snapshot": f"{SNAPSHOT}/sub/extra.txt",
    "in a pack of insightface": f"{PACK}/extra.onnx",
    "in code of torch.hub": f"{CODE}/package/extra.py",
    "in a prepared dataset": f"{DATASET}/cache-1.arrow",
}


class TestForeign:
    """Files among bundler's that are not its own are told, and no fault."""

    @pytest.mark.parametrize("path", FOREIGN.values(), ids=FOREIGN)
    @pytest.mark.parametrize("is_link", [False, True], ids=["file", "link"])
    def test_is_told_and_no_fault(
        self, path: str, is_link: bool, bundle: Path, tmp_path: Path
    ) -> None:
        unpack_below(tmp_path, bundle)
        if is_link:
            (tmp_path / path).symlink_to("/dev/null")
        else:
            (tmp_path / path).write_bytes(b"extra")
        ran = run("verify", "--root", tmp_path, home=tmp_path)
        assert (ran.code, ran.err) == (0, "")
        assert f"{tmp_path / path} is not of bundler" in ran.out
        assert verified(tmp_path).foreign == (tmp_path / path,)

    def test_what_is_elsewhere_is_not_looked_at(self, bundle: Path, tmp_path: Path) -> None:
        unpack_plain(tmp_path, bundle)
        others: Files = {"config.json": b"other", "vocab.txt": b"one\n"}
        write_cache(tmp_path / "huggingface/hub", "org/tiny", others, revision="v1.0")
        for path in (
            f"{CODE}/__pycache__/hubconf.cpython-312.pyc",
            "torch/hub/checkpoints/mine.pth",
            "insightface/models/mine/mine.onnx",
            "checkpoints/tiny/mine.txt",
            "huggingface/datasets/mine/x.arrow",
        ):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_bytes(b"mine")
        assert verified(tmp_path).foreign == ()

    def test_what_was_found_there_is_not_foreign(self, tmp_path: Path) -> None:
        files = {"config.json": b"{}", "model.safetensors": b"weights"}
        make_bundle(tmp_path / "b", {"org/tiny": files})
        write_cache(tmp_path / "root/huggingface/hub", "org/tiny", files)
        unpack_below(tmp_path / "root", tmp_path / "b")
        assert verified(tmp_path / "root").foreign == ()


class TestNotes:
    """What somebody changed on purpose is told, and no fault."""

    def test_small_plain_files_may_be_edited(self, bundle: Path, tmp_path: Path) -> None:
        unpack_plain(tmp_path, bundle)
        for content in (b"edited", b"x" * len(TINY["config.json"])):
            (tmp_path / "checkpoints/tiny/config.json").write_bytes(content)
            ran = run("verify", "--root", tmp_path, home=tmp_path)
            assert (ran.code, ran.err) == (0, "")
            assert f"note: {tmp_path / 'checkpoints/tiny/config.json'} was edited" in ran.out

    def test_a_ref_may_be_moved_to_another_snapshot(self, bundle: Path, tmp_path: Path) -> None:
        unpack_below(tmp_path, bundle)
        files = {"config.json": b"newer"}
        write_cache(tmp_path / "huggingface/hub", "org/tiny", files)
        result = verified(tmp_path)
        assert result.faults == ()
        (note,) = result.notes
        assert str(tmp_path / HUB / "refs/main") in note
        assert commit_hash(files)[:12] in note

    def test_an_alias_may_lead_elsewhere(self, bundle: Path, tmp_path: Path) -> None:
        unpack_below(tmp_path, bundle)
        hub = tmp_path / "huggingface/hub"
        write_cache(hub, "org/other", {"config.json": b"{}"})
        (hub / "models--tiny").unlink()
        (hub / "models--tiny").symlink_to("models--org--other")
        result = verified(tmp_path)
        assert result.faults == ()
        assert str(hub / "models--tiny") in result.notes[0]


def test_where_nothing_is_installed_it_says_what_to_do(tmp_path: Path) -> None:
    ran = run("verify", "--root", tmp_path / "root", home=tmp_path)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (3, "", 1)
    assert "--root" in ran.err
    assert tree(tmp_path) == {}
    with pytest.raises(UnavailableError):
        verified(tmp_path / "root")


def test_a_digest_without_a_bundle_is_a_wrong_request(tmp_path: Path) -> None:
    ran = run("verify", "--digest", f"sha256:{'0' * 64}", home=tmp_path)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)


def test_what_was_verified_loads(bundle: Path, tmp_path: Path) -> None:
    unpack_below(tmp_path, bundle)
    assert verified(tmp_path).faults == ()
    found = found_offline(tmp_path / "huggingface", ("org/tiny", "main"), ("tiny", "main"))
    assert found.snapshots == [TINY, TINY]


def test_a_file_of_two_names_is_read_once(tmp_path: Path) -> None:
    written(tmp_path / "b", model({"model.safetensors": LARGE}))
    root = tmp_path / "root"
    unpack_plain(root, tmp_path / "b", LinkMode.HARDLINK)
    totals = []

    class Counted:
        """Progress that notes how much there is to do."""

        def start(self, what: str, total: int, done: int = 0) -> Meter:
            totals.append(total)
            return Silent().start(what, total)

        def say(self, text: str) -> None:
            pass

    result = bundler.verify_installed(bundler.find_roots({}, root=root), progress=Counted())
    assert (result.checked, totals) == (2, [len(LARGE)])


IN_RECEIPTS = {
    "code": ("torchhub:Owner/Repo:main", f"{CODE}/more.py"),
    "models of insightface": ("insightface:buffalo_l", f"{PACK}/det_10g.onnx"),
    "checkpoints": ("https://host.example/x-0123.pth", "torch/hub/checkpoints/x-0123.pth"),
}


@pytest.mark.parametrize("linked", ["nothing", "the caches", "the file"])
@pytest.mark.parametrize("kind", IN_RECEIPTS)
def test_check_knows_from_receipts_what_nothing_else_tells(
    kind: str, linked: str, tmp_path: Path
) -> None:
    spec, path = IN_RECEIPTS[kind]
    bundle = written(tmp_path / "b.tar.zst", checkpoint(), code(NEWER_CODE), faces())
    root = tmp_path / "root"
    unpack_below(root, bundle)
    if linked != "nothing":
        place = root if linked == "the caches" else root / path
        place.rename(tmp_path / "elsewhere")
        place.symlink_to(tmp_path / "elsewhere")
    roots = bundler.find_roots({}, root=root)
    assert not bundler.check([spec], roots=roots, digests=True).faults
    flipped(root / path)
    assert not bundler.check([spec], roots=roots).faults
    (fault,) = bundler.check([spec], roots=roots, digests=True).faults
    assert "other bytes" in str(fault)
    (root / path).unlink()
    (fault,) = bundler.check([spec], roots=roots).faults
    assert Path(path).name in str(fault)
