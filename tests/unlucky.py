"""Commands that something goes wrong with, in folders that are there anew each time.

A `Scene` knows what its folder holds before the command and after a run that nothing disturbs.
Whatever happens to a run, `assert_sound` says that all that can be found in the folder is one or
the other, and whole, and `finish` that the same command makes the second of it. Scenes know what a
cache looks like to its libraries, and which files are drafts, but nothing of how bundler works.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from command import NOWHERE, Ran
from disk_calls import At, Call, Commands, Decide
from loopback_hub import LoopbackHub
from memory_source import Files, commit_hash, make_bundle
from trees import Tree, etag, tree, write_cache

import bundler

HUB = "huggingface/hub"
ALL_KINDS = Path(__file__).parent / "data/format-1-kinds.tar.zst"
CONFIG = b'{"model_type": "tiny"}'
WEIGHTS = bytes(range(256)) * 8
OLD = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "old/only.txt": b"of the old commit"}
NEW = {"config.json": CONFIG, "model.safetensors": WEIGHTS[::-1], "new/only.txt": b"of the new"}
OTHER = {"config.json": b"{}", "model.safetensors": b"another repository"}
ONLINE = {
    "config.json": CONFIG * 60,
    "model.safetensors": bytes(range(251)) * 5_000,
    "vocab.txt": b"a\nb\n",
}

_WHOLE_FOLDERS = (
    f"{HUB}/*--*/snapshots/*",
    "huggingface/datasets/*/*/*/*",
    "torch/hub/*_*_*",
    "insightface/models/*",
    "plain/*",
)
"""What a library, or a user, takes for one model: there as a whole, or not at all."""
_DRAFTS = ("*.locks/*", "*.locks", "*.bundler-part", "*/partial/*", "*.draft", "*/prepared-*")
"""What no library looks at, and a run that was killed may leave."""
_NOTES = "*/.bundler/receipts/*.json"
"""bundler's own, of which there may be several in turn."""
_REMOVED = "is not installed|has installed nothing"


@dataclass
class Scene:
    """A command, given in `folder` as `prepare` leaves it. Made by a run that nothing disturbs."""

    commands: Commands
    folder: Path
    arguments: tuple[object, ...]
    prepare: Callable[[Path], None]
    wanted: Sequence[tuple[str, str]] = ()
    """Name and revision of the models of the Hub's cache that programs ask for."""
    over: str = "(?!)"
    """A regex of what is said by a command that has nothing left to do, and so is refused."""
    env: Mapping[str, str] = field(default_factory=dict)
    before: Tree = field(init=False)
    after: Tree = field(init=False)
    calls: int = field(init=False, default=0)
    """By which an undisturbed run changes the disk."""

    def __post_init__(self) -> None:
        # At the same path as ever, which is in environment files and receipts.
        self.folder.mkdir(parents=True)
        self.prepare(self.folder)
        self._kept = self.folder.with_name(f"{self.folder.name}-before")
        self._copy(self.folder, self._kept)
        self.before, self._found_before = tree(self.folder), self._found()
        self._models_before = self._models()

        at = At()
        ran = self.run(at)
        assert ran.code == 0, ran.err
        self.calls = len(at.calls)
        self.after, self._found_after = tree(self.folder), self._found()
        self._models_after = self._models()
        assert self.after != self.before

    def run(self, decide: Decide | None = None, *, reads: bool = False) -> Ran:
        """Run the command in the folder as it was before."""
        self.reset()
        return self.again(decide, reads=reads)

    def reset(self) -> None:
        """Make the folder what it was before."""
        shutil.rmtree(self.folder)
        self._copy(self._kept, self.folder)

    def again(self, decide: Decide | None = None, *, reads: bool = False) -> Ran:
        """Run the command in the folder as it is."""
        return self.commands.run(
            *self.arguments, cwd=self.folder, env=self.env, decide=decide or At(), reads=reads
        )

    def finish(self) -> None:
        """Run the command in the folder as it is, which then is as if nothing had happened."""
        ran = self.again()
        assert ran.code == 0 or re.search(self.over, ran.err), ran.err
        self.assert_finished()

    def assert_finished(self) -> None:
        """All is there, and nothing else."""
        self._assert_is(tree(self.folder), self.after)
        assert self._found() == self._found_after

    def assert_visible(self) -> None:
        """All that is to be found in the end is there, whatever drafts there are."""
        found, after = (
            {path: entry for path, entry in all_of_it.items() if not is_draft(path)}
            for all_of_it in (tree(self.folder), self.after)
        )
        self._assert_is(found, after)

    def assert_untouched(self) -> None:
        """All is as it was before, and nothing else is there."""
        self._assert_is(tree(self.folder), self.before)

    def assert_tidy(self) -> None:
        """No draft is left, but what goes on from where it was."""
        drafts = [path for path in tree(self.folder) if is_draft(path) and "/partial/" not in path]
        assert drafts == []

    def only_drafted(self, calls: Sequence[Call]) -> bool:
        """Whether these calls, but for the last, concern nothing but drafts."""
        paths = (str(path.relative_to(self.folder)) for call in calls[:-1] for path in call.paths)
        return all(is_draft(path) for path in paths)

    def assert_sound(self) -> None:
        """What could be found before can be still, and nothing that can be found is half done."""
        now = tree(self.folder)
        for path in {*self.before, *self.after, *now}:
            if fnmatch(path, _NOTES) and path in now:
                json.loads(now[path][1])
            elif not is_draft(path):
                allowed = (self.before.get(path), self.after.get(path))
                assert now.get(path) in allowed, f"{path} is {now.get(path)}"
        models = self._models()
        for folder, files in models.items():
            whole = (self._models_before.get(folder), self._models_after.get(folder))
            assert files in whole, f"{folder} is half there"
        for wanted, found, *known in zip(
            self.wanted, self._found(), self._found_before, self._found_after, strict=True
        ):
            assert found in known, f"{wanted} is {found}"

    def _models(self) -> dict[str, Files]:
        """path -> content of what each folder holds that is a model, links followed."""
        found: dict[str, Files] = {}
        for pattern in _WHOLE_FOLDERS:
            for folder in self.folder.glob(pattern):
                if is_draft(str(folder.relative_to(self.folder))):
                    continue
                paths = [path for path in folder.rglob("*") if not path.is_dir()]
                files = {str(p.relative_to(folder)): _content(p) for p in paths}
                found[str(folder.relative_to(self.folder))] = files
        return found

    def _found(self) -> list[Files | None]:
        return [found_in(self.folder / HUB, *wanted) for wanted in self.wanted]

    @staticmethod
    def _assert_is(found: Tree, expected: Tree) -> None:
        paths = sorted(p for p in found.keys() | expected if found.get(p) != expected.get(p))
        assert not paths, [f"{p}: {found.get(p)}, not {expected.get(p)}" for p in paths]

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        """A copy with hard links and times."""
        subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def found_in(hub: Path, name: str, revision: str) -> Files | None:
    """What huggingface_hub finds in the cache `hub`, in this process, and without a network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(name, revision=revision, cache_dir=hub, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    paths = [path for path in Path(folder).rglob("*") if not path.is_dir()]
    return {str(path.relative_to(folder)): _content(path) for path in paths}


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b"a link that leads nowhere"


def is_draft(path: str) -> bool:
    """Whether no library looks at what is at a path below a scene's folder."""
    return any(fnmatch(path, draft) for draft in _DRAFTS)


def bundle_of(folder: Path, name: str, models: dict[str, Files]) -> Path:
    """A bundle of models in memory, kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    make_bundle(folder / name, models)
    return folder / name


def old_cache(folder: Path) -> None:
    """Another commit, another repository, a damaged blob of the new commit and a stray marker."""
    hub = folder / HUB
    repository = write_cache(hub, "org/tiny", OLD)
    write_cache(hub, "org/other", OTHER)
    damaged = repository / "blobs" / etag("model.safetensors", NEW["model.safetensors"])
    damaged.write_bytes(bytes(len(NEW["model.safetensors"])))
    marker = repository / ".no_exist" / commit_hash(NEW) / "config.json"
    marker.parent.mkdir(parents=True)
    marker.touch()


def merging(commands: Commands, folder: Path, hub: LoopbackHub) -> Scene:
    """A new commit comes to a cache that has an older one, and to which its ref leads."""
    bundle = bundle_of(folder / "bundles", "new", {"org/tiny": NEW})
    return Scene(
        commands,
        folder / "case",
        ("unpack", bundle, "--root", "."),
        old_cache,
        [("org/tiny", "main"), ("org/tiny", commit_hash(OLD)), ("org/tiny", commit_hash(NEW)),
         ("org/other", "main")],
    )  # fmt: skip


def unpacking(
    commands: Commands,
    folder: Path,
    hub: LoopbackHub,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Scene:
    """All kinds of models come to a place where nothing is, caches and plain folders."""
    wanted = [("timm/hrnet_w18.ms_aug_in1k", "main"), ("acme/code", "main")]
    arguments = ("unpack", ALL_KINDS, "--root", ".", "--checkpoints", "plain", *options)
    return Scene(commands, folder / "case", arguments, lambda _: None, wanted, env=env or {})


def removing(commands: Commands, folder: Path, hub: LoopbackHub) -> Scene:
    """A commit goes from a cache and from plain folders, and an older one becomes main again."""
    bundles = folder / "bundles"
    old = bundle_of(bundles, "old", {"org/tiny": OLD, "org/other": OTHER})
    new = bundle_of(bundles, "new", {"org/tiny": NEW, "org/other": OTHER})

    def prepare(case: Path) -> None:
        unpacked(commands, case, old)
        unpacked(commands, case, new, "--checkpoints", "plain", "--only", "org/tiny")

    return Scene(
        commands,
        folder / "case",
        ("remove", bundler.inspect(new).digest, "--root", "."),
        prepare,
        [("org/tiny", "main"), ("org/tiny", commit_hash(OLD)), ("org/tiny", commit_hash(NEW)),
         ("org/other", "main")],
        _REMOVED,
    )  # fmt: skip


def removing_all(commands: Commands, folder: Path, hub: LoopbackHub) -> Scene:
    """All kinds of models go, and nothing is left."""
    return Scene(
        commands,
        folder / "case",
        ("remove", bundler.inspect(ALL_KINDS).digest, "--root", "."),
        lambda case: unpacked(commands, case, ALL_KINDS, "--checkpoints", "plain"),
        [("timm/hrnet_w18.ms_aug_in1k", "main"), ("acme/code", "main")],
        _REMOVED,
    )


def packing(commands: Commands, folder: Path, hub: LoopbackHub) -> Scene:
    """A model of the hub takes the place of an older bundle."""
    hub.add("acme/tiny", ONLINE)

    def prepare(case: Path) -> None:
        (case / "bundle.tar.zst").write_bytes(b"an older bundle")

    arguments = ("pack", "acme/tiny", "-o", "bundle.tar.zst", "--store", "store")
    env = {**NOWHERE, "HF_ENDPOINT": hub.url}
    return Scene(
        commands,
        folder / "case",
        arguments,
        prepare,
        env=env,
    )


SCENES = {
    "merging": merging,
    "unpacking": unpacking,
    "removing": removing,
    "removing all": removing_all,
    "packing": packing,
}


def unpacked(commands: Commands, case: Path, bundle: Path, *options: object) -> None:
    """Unpack a bundle in a scene's folder."""
    ran = commands.run("unpack", bundle, "--root", ".", *options, cwd=case)
    assert ran.code == 0, ran.err
