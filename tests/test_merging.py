"""Unpacking over caches in use: what is complete stays, refs go forward, two may come at once."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from bundle_builder import assembled, manifest_of, model_record, parts_of
from command import run, start
from memory_source import Files, commit_hash, make_bundle
from trees import etag, found_offline, stamps, tree, unpack_below, write_cache

import bundler
from bundler.progress import Meter, Silent
from bundler.sharing import LinkMode

WEIGHTS = bytes(range(256)) * 8
OLD = {"config.json": b'{"v": 1}', "model.safetensors": WEIGHTS}
NEW = {"config.json": b'{"v": 2}', "model.safetensors": WEIGHTS}
NEWEST = {"config.json": b'{"v": 3}', "model.safetensors": WEIGHTS}
MINE = {"config.json": b"fine-tuned"}
REPOSITORY = "models--org--tiny"
ALL_LAYOUTS = Path(__file__).parent / "data/format-1-kinds.tar.zst"
CODE_COMMITS = ("a" * 40, "b" * 40)


def short(files: Files) -> str:
    """The commit of these files as it is shown."""
    return commit_hash(files)[:12]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One bundle for each of three commits of the same branch."""
    folder = tmp_path_factory.mktemp("bundles")
    found = {}
    for name, files in {"old": OLD, "new": NEW, "newest": NEWEST}.items():
        found[name] = folder / f"{name}.tar.zst"
        make_bundle(found[name], {"org/tiny": files})
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The Hugging Face home below `tmp_path`, the root of all unpacks."""
    return tmp_path / "huggingface"


@pytest.fixture
def hub_folder(home: Path) -> Path:
    (home / "hub").mkdir(parents=True)
    return home / "hub"


@pytest.fixture
def ref(home: Path) -> Path:
    """Where the ref `main` is, or will be."""
    return home / "hub" / REPOSITORY / "refs/main"


class TestTheSharedBlobStore:
    """Of huggingface_hub 2: blobs that are links to `hub/blobs`, which several repositories have.

    The layout is that of huggingface_hub/utils/_shared_blobs.py.
    """

    @pytest.fixture
    def shared(self, hub_folder: Path) -> Path:
        """A cache of `OLD` whose weights are in the store; the path there."""
        repository = write_cache(hub_folder, "org/tiny", OLD)
        write_cache(hub_folder, "org/mine", MINE)
        shared = hub_folder / "blobs" / "ab" / ("ab" * 32)
        shared.parent.mkdir(parents=True)
        (hub_folder / "blobs/.huggingface-shared-blobs").write_text("1\n")
        name = etag("model.safetensors", WEIGHTS)
        (repository / "blobs" / name).rename(shared)
        (repository / "blobs" / name).symlink_to(f"../../blobs/ab/{shared.name}")
        shared.with_name(f"{shared.name}.refs").write_text(f"{REPOSITORY}/blobs/{name}\n")
        shared.chmod(0o444)
        return shared

    @pytest.fixture
    def link(self, shared: Path, hub_folder: Path) -> Path:
        """The blob of the repository that is a link to it."""
        return hub_folder / REPOSITORY / "blobs" / etag("model.safetensors", WEIGHTS)

    def test_a_link_to_it_serves_the_next_commit_too(
        self,
        bundles: dict[str, Path],
        tmp_path: Path,
        home: Path,
        hub_folder: Path,
        shared: Path,
        link: Path,
    ) -> None:
        before = stamps(hub_folder / "blobs"), os.lstat(link)
        result = unpack_below(tmp_path, bundles["new"])
        assert result.written_size == len(NEW["config.json"])
        assert (stamps(hub_folder / "blobs"), os.lstat(link)) == before
        wanted = [("org/tiny", "main"), ("org/tiny", commit_hash(OLD)), ("org/mine", "main")]
        found = found_offline(home, *wanted)
        assert (found.snapshots, found.warnings) == ([NEW, OLD, MINE], [])

    @pytest.mark.parametrize(
        "content", [None, b"", b"\0" * len(WEIGHTS)], ids=["gone", "empty", "other bytes"]
    )
    def test_a_link_to_nothing_good_is_replaced_and_never_written_through(
        self,
        content: bytes | None,
        bundles: dict[str, Path],
        tmp_path: Path,
        home: Path,
        hub_folder: Path,
        shared: Path,
        link: Path,
    ) -> None:
        shared.chmod(0o644)
        shared.unlink()
        if content is not None:
            shared.write_bytes(content)
        before = stamps(hub_folder / "blobs"), tree(hub_folder / "blobs")
        unpack_below(tmp_path, bundles["new"])
        assert (stamps(hub_folder / "blobs"), tree(hub_folder / "blobs")) == before
        assert (link.is_symlink(), link.read_bytes()) == (False, WEIGHTS)
        found = found_offline(home, ("org/tiny", "main"), ("org/tiny", commit_hash(OLD)))
        assert found.snapshots == [NEW, OLD]


class TestRefs:
    """A ref leads to what came last, and unpacking a bundle again is no step back."""

    @pytest.mark.parametrize(
        "content",
        {
            "absent": None,
            "of a commit that is not there": "c" * 40,
            "empty": "",
            "with a newline, which no library finds": commit_hash(OLD) + "\n",
            "of a folder elsewhere": "../snapshots",
            "of the folder itself": ".",
            "of more than a name can be": "c" * 300,
            "of no text": b"\xff\xfe",
        }.values(),
        ids=lambda content: repr(content)[:20],
    )
    @pytest.mark.parametrize("options", [{}, {"keep_refs": True}], ids=["", "keep_refs"])
    def test_one_that_leads_nowhere_is_set_and_nothing_is_told(
        self,
        content: str | bytes | None,
        options: dict[str, Any],
        bundles: dict[str, Path],
        tmp_path: Path,
        hub_folder: Path,
        ref: Path,
    ) -> None:
        write_cache(hub_folder, "org/tiny", OLD)
        ref.unlink()
        if content is not None:
            ref.write_bytes(content.encode() if isinstance(content, str) else content)
        result = unpack_below(tmp_path, bundles["new"], **options)
        assert ref.read_text() == commit_hash(NEW)
        assert result.work["hub"].moves == ()

    def test_one_of_another_commit_moves_and_that_is_told(
        self, bundles: dict[str, Path], tmp_path: Path, home: Path, hub_folder: Path, ref: Path
    ) -> None:
        write_cache(hub_folder, "org/tiny", OLD)
        ran = run("unpack", bundles["new"], "--root", tmp_path, home=tmp_path)
        assert ref.read_text() == commit_hash(NEW)
        assert [line for line in ran.out.splitlines() if "main of" in line] == [
            f"note: main of org/tiny moved from {short(OLD)} to {short(NEW)}; "
            "the old snapshot still loads by its commit hash"
        ]
        found = found_offline(home, ("org/tiny", "main"), ("org/tiny", commit_hash(OLD)))
        assert found.snapshots == [NEW, OLD]

    @pytest.mark.parametrize("order", list(permutations(("old", "new", "newest"))))
    def test_bundles_that_are_unpacked_again_in_any_order_move_none_back(
        self, order: Sequence[str], bundles: dict[str, Path], tmp_path: Path, ref: Path
    ) -> None:
        for name in ("old", "new", "newest"):
            unpack_below(tmp_path, bundles[name])
        assert ref.read_text() == commit_hash(NEWEST)
        before = stamps(tmp_path)
        for name in order:
            unpack_below(tmp_path, bundles[name])
        assert stamps(tmp_path) == before

    def test_one_that_a_library_moved_on_stays_and_that_is_told(
        self, bundles: dict[str, Path], tmp_path: Path, home: Path, ref: Path
    ) -> None:
        unpack_below(tmp_path, bundles["old"])
        write_cache(home / "hub", "org/tiny", NEWEST)
        ran = run("unpack", bundles["old"], "--root", tmp_path, home=tmp_path)
        assert ref.read_text() == commit_hash(NEWEST)
        assert [line for line in ran.out.splitlines() if "main of" in line] == [
            f"note: main of org/tiny stays at {short(NEWEST)}; "
            f"the bundle's {short(OLD)} loads by its commit hash"
        ]

    def test_one_that_was_moved_on_stays_while_damage_is_healed(
        self, bundles: dict[str, Path], tmp_path: Path, home: Path, ref: Path
    ) -> None:
        unpack_below(tmp_path, bundles["old"])
        write_cache(home / "hub", "org/tiny", NEWEST)
        blob = home / "hub" / REPOSITORY / "blobs" / etag("config.json", OLD["config.json"])
        blob.unlink()
        unpack_below(tmp_path, bundles["old"])
        assert (blob.read_bytes(), ref.read_text()) == (OLD["config.json"], commit_hash(NEWEST))

    def test_one_that_was_moved_on_to_what_is_gone_since_moves_back(
        self, bundles: dict[str, Path], tmp_path: Path, ref: Path
    ) -> None:
        unpack_below(tmp_path, bundles["old"])
        ref.write_text("c" * 40)
        result = unpack_below(tmp_path, bundles["old"])
        assert (ref.read_text(), result.work["hub"].moves) == (commit_hash(OLD), ())

    def test_one_that_other_models_of_the_bundle_came_without_moves_when_it_is_its_turn(
        self, tmp_path: Path, hub_folder: Path, ref: Path
    ) -> None:
        write_cache(hub_folder, "org/tiny", OLD)
        make_bundle(tmp_path / "b.tar.zst", {"org/tiny": NEW, "org/mine": MINE})
        unpack_below(tmp_path, tmp_path / "b.tar.zst", only=["org/mine"])
        assert ref.read_text() == commit_hash(OLD)
        unpack_below(tmp_path, tmp_path / "b.tar.zst", only=["org/tiny"])
        assert ref.read_text() == commit_hash(NEW)

    @pytest.mark.parametrize(
        ("options", "env"),
        [(["--keep-refs"], {}), ([], {"BUNDLER_KEEP_REFS": "1"})],
        ids=["option", "variable"],
    )
    def test_all_stay_if_the_user_wants_it_until_he_does_not(
        self,
        options: list[str],
        env: dict[str, str],
        bundles: dict[str, Path],
        tmp_path: Path,
        home: Path,
        hub_folder: Path,
        ref: Path,
    ) -> None:
        write_cache(hub_folder, "org/tiny", OLD)
        command = ("unpack", bundles["new"], "--root", tmp_path)
        ran = run(*command, *options, home=tmp_path, env=env)
        assert ref.read_text() == commit_hash(OLD)
        assert f"note: main of org/tiny stays at {short(OLD)}; the bundle's {short(NEW)}" in ran.out
        found = found_offline(home, ("org/tiny", "main"), ("org/tiny", commit_hash(NEW)))
        assert found.snapshots == [OLD, NEW]
        before = stamps(home)
        assert run(*command, *options, home=tmp_path, env=env).code == 0
        assert stamps(home) == before
        assert run(*command, home=tmp_path).code == 0
        assert ref.read_text() == commit_hash(NEW)

    @pytest.mark.parametrize("options", [[], ["--keep-refs"]], ids=["moves", "stays"])
    def test_a_dry_run_and_json_tell_it_too(
        self,
        options: list[str],
        bundles: dict[str, Path],
        tmp_path: Path,
        hub_folder: Path,
        ref: Path,
    ) -> None:
        write_cache(hub_folder, "org/tiny", OLD)
        command = ("unpack", bundles["new"], "--root", tmp_path, *options)
        before = stamps(hub_folder)
        text = run(*command, "--dry-run", home=tmp_path).out
        verb = "stays at" if options else "moves from"
        assert f"note: main of org/tiny {verb} {short(OLD)}" in text
        plan = json.loads(run(*command, "--dry-run", "--json", home=tmp_path).out)
        assert stamps(hub_folder) == before
        done = json.loads(run(*command, "--json", home=tmp_path).out)
        for document in (plan, done):
            assert document["moves"] == [
                {
                    "name": "main of org/tiny",
                    "path": str(ref),
                    "from": commit_hash(OLD),
                    "to": commit_hash(NEW),
                    "kept": bool(options),
                }
            ]

    def test_what_has_two_names_is_told_once(self, tmp_path: Path, hub_folder: Path) -> None:
        for name in ("tiny", "org/tiny"):
            write_cache(hub_folder, name, OLD)
        bundle = tmp_path / "b.tar.zst"
        make_bundle(bundle, {"org/tiny": NEW}, asked=("tiny",), aliases={"tiny": "org/tiny"})
        ran = run("unpack", bundle, "--root", tmp_path, home=tmp_path)
        assert ran.out.count(f"main of tiny moved from {short(OLD)}") == 1
        for folder in ("models--tiny", REPOSITORY):
            assert (hub_folder / folder / "refs/main").read_text() == commit_hash(NEW)

    def test_one_behind_an_alias_is_as_good(
        self, bundles: dict[str, Path], tmp_path: Path, hub_folder: Path, ref: Path
    ) -> None:
        write_cache(hub_folder, "tiny", OLD)
        (hub_folder / REPOSITORY).symlink_to("models--tiny")
        result = unpack_below(tmp_path, bundles["new"])
        assert [(m.before, m.after) for m in result.work["hub"].moves] == [
            (commit_hash(OLD), commit_hash(NEW))
        ]
        write_cache(hub_folder, "tiny", NEWEST)
        assert unpack_below(tmp_path, bundles["new"]).work["hub"].moves[0].is_kept
        assert ref.read_text() == commit_hash(NEWEST)


class TestBranchesOfTorchHub:
    """The link `owner_repo_main` goes by the same rules as a ref."""

    @pytest.fixture
    def code(self, tmp_path: Path) -> list[Path]:
        """Two bundles of one branch."""
        paths = []
        for commit in CODE_COMMITS:
            files = {"hubconf.py": f"# {commit}\n".encode()}
            record = model_record(
                files, source="torchhub", name="Owner/Repo", layout="torch-hub", kind=None,
                commit_hash=commit,
            )  # fmt: skip
            paths.append(tmp_path / f"{commit[0]}.tar.zst")
            paths[-1].write_bytes(assembled(parts_of(manifest_of(record), list(files.values()))))
        return paths

    def unpacked(self, root: Path, bundle: Path, *options: str) -> tuple[str, list[str]]:
        """Where the branch leads afterwards, and what is told of it."""
        ran = run("unpack", bundle, "--root", root, *options, home=root.parent)
        assert ran.code == 0, ran.err
        link = os.readlink(root / "torch/hub/Owner_Repo_main").removeprefix("Owner_Repo_")
        return link, [line for line in ran.out.splitlines() if "main of" in line]

    def test_move_forward_and_not_back(self, code: list[Path], tmp_path: Path) -> None:
        root = tmp_path / "root"
        old, new = CODE_COMMITS
        assert self.unpacked(root, code[0]) == (old, [])
        moved = [
            f"note: main of Owner/Repo moved from {old[:12]} to {new[:12]}; "
            "the old snapshot still loads by its commit hash"
        ]
        assert self.unpacked(root, code[1]) == (new, moved)
        before = stamps(root)
        stays = [
            f"note: main of Owner/Repo stays at {new[:12]}; "
            f"the bundle's {old[:12]} loads by its commit hash"
        ]
        assert self.unpacked(root, code[0]) == (new, stays)
        assert self.unpacked(root, code[1]) == (new, [])
        assert stamps(root) == before

    def test_stay_if_the_user_wants_it(self, code: list[Path], tmp_path: Path) -> None:
        root = tmp_path / "root"
        self.unpacked(root, code[0])
        link, (note,) = self.unpacked(root, code[1], "--keep-refs")
        assert link == CODE_COMMITS[0]
        assert "stays at" in note
        assert (root / f"torch/hub/Owner_Repo_{CODE_COMMITS[1]}/hubconf.py").exists()
        assert self.unpacked(root, code[1])[0] == CODE_COMMITS[1]


class TestUnpackingTwice:
    """Nothing at all is written the second time, times and numbers of folders included."""

    @pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
    @pytest.mark.parametrize("mode", [None, *LinkMode], ids=lambda m: m.value if m else "caches")
    def test_every_layout(
        self, mode: LinkMode | None, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not links:
            monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
        options = {} if mode is None else {"checkpoints": True, "link_mode": mode}
        try:
            unpack_below(tmp_path, ALL_LAYOUTS, **options)
        except bundler.TargetError as error:
            pytest.skip(str(error))  # Not every file system can clone.
        before = stamps(tmp_path)
        result = unpack_below(tmp_path, ALL_LAYOUTS, **options)
        assert stamps(tmp_path) == before
        assert all(work.is_done for work in result.work.values())

    def test_with_what_a_library_had_there(
        self, bundles: dict[str, Path], tmp_path: Path, hub_folder: Path
    ) -> None:
        write_cache(hub_folder, "org/tiny", OLD, revision="v1.0")
        write_cache(hub_folder, "org/tiny", NEW)
        files = {path for path, (kind, *_) in tree(hub_folder).items() if kind != "folder"}
        before = stamps(hub_folder)
        unpack_below(tmp_path, bundles["new"])
        after = stamps(tmp_path)
        assert {p: after[f"huggingface/hub/{p}"] for p in files} == {p: before[p] for p in files}
        unpack_below(tmp_path, bundles["new"])
        assert stamps(tmp_path) == after


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The lock of a folder, as a process has that writes there."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def is_waited_for(path: Path) -> bool:
    """Whether a process waits for the lock of a file: /proc/locks marks those with an arrow."""
    locks = Path("/proc/locks").read_text().splitlines()
    return any("-> FLOCK" in line and f":{path.stat().st_ino} " in line for line in locks)


def waiting(*command: object, home: Path) -> subprocess.Popen[bytes]:
    """A command that has said that it waits for the hub below `home`."""
    process = start("unpack", *command, home=home)
    assert process.stderr
    line = process.stderr.readline().decode()
    hub = home / "huggingface/hub"
    assert line == f"bundler: waiting for another bundler, which is writing to {hub}\n"
    return process


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """The exit code, and what else was said on stderr; one that never ends is killed."""
    with process:
        try:
            _, err = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, err


class TestTwoAtOnce:
    """The second waits for the first, and then finds what is there."""

    @pytest.mark.parametrize(
        "names",
        [("old", "old"), ("old", "new"), ("old", "new", "newest", "new")],
        ids=lambda names: " ".join(names),
    )
    def test_all_succeed_and_all_is_there(
        self, names: Sequence[str], bundles: dict[str, Path], tmp_path: Path, hub_folder: Path
    ) -> None:
        with held(hub_folder):
            processes = [
                waiting(bundles[n], "--root", tmp_path, "--env", f"{i}.env", home=tmp_path)
                for i, n in enumerate(names)
            ]
        assert {ended(process)[0] for process in processes} == {0}
        models = {"old": OLD, "new": NEW, "newest": NEWEST}
        wanted = [("org/tiny", commit_hash(models[name])) for name in names]
        found = found_offline(tmp_path / "huggingface", *wanted, ("org/tiny", "main"))
        assert found.snapshots[:-1] == [models[name] for name in names]
        assert found.snapshots[-1] in found.snapshots[:-1]
        assert found.warnings == []
        assert not (hub_folder / ".locks").exists()

    @pytest.mark.parametrize("command", ["unpack", "remove"])
    def test_whoever_waits_for_receipts_alone_says_so(
        self, command: str, bundles: dict[str, Path], tmp_path: Path, hub_folder: Path
    ) -> None:
        unpack_below(tmp_path, bundles["old"])
        receipts = tmp_path / "huggingface/.bundler/receipts"
        what = ("org/tiny",) if command == "remove" else (bundles["new"], "--env", "e.env")
        with held(receipts):
            process = start(command, *what, "--root", tmp_path, home=tmp_path)
            assert process.stderr
            line = process.stderr.readline().decode()
        said = f"bundler: waiting for another bundler, which is writing to {receipts}\n"
        assert (line, ended(process)) == (said, (0, b""))

    def test_the_second_writes_nothing_of_what_the_first_did(
        self, bundles: dict[str, Path], tmp_path: Path, hub_folder: Path
    ) -> None:
        command = (bundles["new"], "--root", tmp_path)
        with held(hub_folder):
            process = waiting(*command, home=tmp_path)
            elsewhere = tmp_path / "elsewhere"
            unpack_below(elsewhere, bundles["new"])
            (elsewhere / "huggingface/hub" / REPOSITORY).rename(hub_folder / REPOSITORY)
            before = stamps(hub_folder / REPOSITORY)
        assert ended(process) == (0, b"")
        assert stamps(hub_folder / REPOSITORY) == before

    def test_what_the_first_noted_is_not_read_again(
        self, bundles: dict[str, Path], tmp_path: Path, hub_folder: Path
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        unpack_below(elsewhere, bundles["new"])
        handle = os.open(hub_folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        read: list[int] = []

        class FirstEnds(Silent):
            """Lets the first one come to its end as soon as the second says that it waits."""

            def start(self, what: str, total: int, done: int = 0) -> Meter:
                read.append(total if what == "checking what is there" else 0)
                return super().start(what, total, done)

            def say(self, text: str) -> None:
                for path in (f"hub/{REPOSITORY}", ".bundler"):
                    (elsewhere / "huggingface" / path).rename(tmp_path / "huggingface" / path)
                os.close(handle)

        unpack_below(tmp_path, bundles["new"], progress=FirstEnds())
        assert hub_folder.joinpath(REPOSITORY).is_dir()
        assert sum(read) == 0

    def test_several_roots_in_any_order_do_not_wait_for_each_other(
        self, tmp_path: Path, hub_folder: Path
    ) -> None:
        records = [
            (model_record({"config.json": b"{}"}, name="org/tiny"), b"{}"),
            (
                model_record(
                    {"hubconf.py": b"#\n"}, source="torchhub", name="Owner/Repo",
                    layout="torch-hub", kind=None,
                ),
                b"#\n",
            ),
        ]  # fmt: skip
        bundles = []
        for number, order in enumerate((records, records[::-1])):
            bundles.append(tmp_path / f"{number}.tar.zst")
            manifest = manifest_of(*(record for record, _ in order))
            contents = [content for _, content in order]
            bundles[-1].write_bytes(assembled(parts_of(manifest, contents)))
        (tmp_path / "torch").mkdir()
        with held(tmp_path / "torch"), held(hub_folder):
            processes = [
                waiting(path, "--root", tmp_path, "--env", f"{path.name}.env", home=tmp_path)
                for path in bundles
            ]
        assert [ended(process)[0] for process in processes] == [0, 0]

    def test_a_root_that_the_first_made_and_removed_is_made_again(
        self, bundles: dict[str, Path], tmp_path: Path, hub_folder: Path, ref: Path
    ) -> None:
        with held(hub_folder):
            process = waiting(bundles["new"], "--root", tmp_path, home=tmp_path)
            hub_folder.rmdir()
        assert ended(process)[0] == 0
        assert ref.read_text() == commit_hash(NEW)

    def test_who_waits_can_be_interrupted_and_has_done_nothing(
        self, bundles: dict[str, Path], tmp_path: Path, hub_folder: Path
    ) -> None:
        before = tree(tmp_path)
        with held(hub_folder):
            process = waiting(bundles["new"], "--root", tmp_path, home=tmp_path)
            process.send_signal(signal.SIGINT)
            assert ended(process)[0] == 130
        assert tree(tmp_path) == before

    def test_who_has_nothing_to_do_does_not_wait(
        self, bundles: dict[str, Path], tmp_path: Path, hub_folder: Path
    ) -> None:
        command = ("unpack", bundles["new"], "--root", tmp_path)
        assert run(*command, home=tmp_path).code == 0
        (hub_folder / ".locks/bundler/blobs").mkdir(parents=True)
        with held(hub_folder):
            assert ended(start(*command, home=tmp_path)) == (0, b"")
        assert (hub_folder / ".locks/bundler/blobs").is_dir()

    def test_one_environment_file_for_two_is_written_by_one_after_the_other(
        self, bundles: dict[str, Path], tmp_path: Path
    ) -> None:
        draft = tmp_path / ".offline.env.bundler-part"
        draft.touch()
        with held(draft):
            process = start("unpack", bundles["new"], "--root", tmp_path / "r", home=tmp_path)
            while process.poll() is None and not is_waited_for(draft):
                os.sched_yield()
            assert process.poll() is None
        assert ended(process) == (0, b"")
        assert "HF_HUB_OFFLINE" in (tmp_path / "offline.env").read_text()
