"""What a disk may hold after a power cut, by the calls that had changed it until then.

disk = Disk(folder)                     # what is there now was on disk long ago
commands.run(…, decide=disk.note)
for state in disk.states(number):       # the power goes before the call of that number
    state.put(folder)

What was synced is there, a file's content by the file and its name by the folder; of the rest
nothing is promised (fsync(2)). This takes the worst that file systems are known for: names are
there or not, each by itself but for the two of a rename, and a file that was not synced is what it
was when it last was, or empty, or as long as it was and full of zeros.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from random import Random
from stat import S_IMODE

from disk_calls import SKIP, SYNCS, Call, Verdict


@dataclass(eq=False)
class _File:
    mode: int = 0o644
    mtime_ns: int = 0
    size: int = 0


@dataclass(eq=False)
class _Link:
    text: str


@dataclass(eq=False)
class _Folder:
    mode: int = 0o755
    first: dict[str, _Node] = field(default_factory=dict)
    """What was in it at the beginning."""
    now: dict[str, _Node] = field(default_factory=dict)


_Node = _File | _Link | _Folder


@dataclass(eq=False)
class _Named:
    """Names have come and gone, together; a node of None has gone."""

    parts: Sequence[tuple[_Folder, str, _Node | None]]


@dataclass(eq=False)
class _Written:
    file: _File


@dataclass(eq=False)
class _Synced:
    """A folder's names are on disk, or a file's content; of None: everything."""

    node: _Folder | _File | None
    contents: dict[_File, bytes]


@dataclass(frozen=True)
class State:
    """What a disk may hold: path -> what is there. A number tells which names are one file."""

    folders: dict[str, int]
    links: dict[str, str]
    files: dict[str, tuple[int, bytes, int, int]]

    def __hash__(self) -> int:
        return hash((*self.folders, *self.links.items(), *self.files.items()))

    def put(self, root: Path) -> None:
        """Make the folder `root`, anew, what the state is."""
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for name, mode in self.folders.items():
            (root / name).mkdir(mode)
        for name, text in self.links.items():
            (root / name).symlink_to(text)
        made: dict[int, Path] = {}
        for name, (number, content, mode, mtime_ns) in self.files.items():
            if number in made:
                os.link(made[number], root / name)
                continue
            made[number] = root / name
            made[number].write_bytes(content)
            made[number].chmod(mode)
            os.utime(made[number], ns=(mtime_ns, mtime_ns))


class Disk:
    """The folder `root` on a disk, and what happens to it."""

    def __init__(self, root: Path, unsynced: str = "") -> None:
        """`unsynced`: a pattern of paths of files whose content was never on disk."""
        self._root = root
        self._unsynced = unsynced
        self._first: dict[_File, bytes] = {}
        self._top = self._read(root)
        self._events: list[list[_Named | _Written | _Synced]] = []

    @property
    def calls(self) -> int:
        """How many were noted."""
        return len(self._events)

    def note(self, call: Call) -> Verdict:
        """Note a call that is about to be made; `Commands.run` takes it."""
        self._events.append([*self._effects(call)])
        return SKIP if call.name in SYNCS else None

    def states(self, number: int, *, journal: bool) -> Iterator[State]:
        """What may be there when the power goes before the call of that number, from 0.

        With a `journal`, names come to the disk in the order in which they came and went, and all
        of them with whatever is synced: so it is on ext4, XFS and others. Without, they come in any
        order, and only those of a synced folder are sure.
        """
        events = [event for effects in self._events[:number] for event in effects]
        changes = [event for event in events if isinstance(event, _Named)]
        if journal:
            last = max((n for n, e in enumerate(events) if isinstance(e, _Synced)), default=0)
            sure = {event for event in events[:last] if isinstance(event, _Named)}
        else:
            sure = {change for change in changes if _is_sure(change, events)}
        random = Random(number)
        some = {change for change in changes if change in sure or random.random() < 0.5}
        if journal:
            some = {*changes[: random.randint(len(sure), len(changes))]}
        synced = dict(self._first)
        written = set()
        for event in events:
            if isinstance(event, _Written):
                written.add(event.file)
            elif isinstance(event, _Synced):
                synced |= event.contents
                written -= event.contents.keys()

        def old(file: _File) -> bytes:
            return synced.get(file, b"")

        def empty(file: _File) -> bytes:
            return b"" if file in written else synced.get(file, b"")

        def zeros(file: _File) -> bytes:
            return bytes(file.size) if file in written else synced.get(file, b"")

        for happened, content in ((sure, old), (set(changes), empty), (set(changes), zeros),
                                  (some, zeros)):  # fmt: skip
            yield self._state([change for change in changes if change in happened], content)

    def _read(self, path: Path) -> _Folder:
        folder = _Folder(S_IMODE(path.stat().st_mode))
        for entry in sorted(path.iterdir()):
            if entry.is_symlink():
                folder.first[entry.name] = _Link(os.readlink(entry))
            elif entry.is_dir():
                folder.first[entry.name] = self._read(entry)
            else:
                file = _File()
                self._look(file, entry)
                if not fnmatch(str(entry), self._unsynced):
                    self._first[file] = entry.read_bytes()
                folder.first[entry.name] = file
        folder.now |= folder.first
        return folder

    @staticmethod
    def _look(file: _File, path: Path) -> None:
        state = path.stat()
        file.mode, file.size = S_IMODE(state.st_mode), state.st_size
        file.mtime_ns = state.st_mtime_ns

    def _node(self, path: Path) -> _Node | None:
        node: _Node | None = self._top
        for name in path.relative_to(self._root).parts:
            node = node.now.get(name) if isinstance(node, _Folder) else None
        return node

    def _effects(self, call: Call) -> Iterator[_Named | _Written | _Synced]:
        """What a call does, if it does not fail."""
        nodes = [self._node(path) for path in call.paths]
        for node, path in zip(nodes, call.paths, strict=True):
            if isinstance(node, _File):
                self._look(node, path)
        if call.name in ("sync", "syncfs"):
            yield _Synced(None, dict(self._contents(self._top, self._root)))
        elif call.name == "fsync" and isinstance(nodes[0], _Folder):
            yield _Synced(nodes[0], {})
        elif call.name == "fsync" and isinstance(nodes[0], _File):
            yield _Synced(nodes[0], {nodes[0]: call.paths[0].read_bytes()})
        elif call.name in ("write", "truncate", "clone", "fallocate"):
            if isinstance(nodes[0], _File):
                yield _Written(nodes[0])
        elif call.name in ("open", "mkdir", "symlink") and nodes[0] is None:
            kinds: dict[str, _Node]
            kinds = {"open": _File(), "mkdir": _Folder(), "symlink": _Link(call.text)}
            new = kinds[call.name]
            yield from self._named((call.paths[0], new))
            if isinstance(new, _File):
                yield _Written(new)
        elif call.name == "open" and isinstance(nodes[0], _File):
            yield _Written(nodes[0])
        elif call.name == "link" and nodes[0] and not nodes[1]:
            yield from self._named((call.paths[1], nodes[0]))
        elif call.name == "rename" and nodes[0]:
            yield from self._named((call.paths[0], None), (call.paths[1], nodes[0]))
        elif call.name in ("unlink", "rmdir") and nodes[0] and not _is_full(nodes[0]):
            yield from self._named((call.paths[0], None))

    def _named(self, *names: tuple[Path, _Node | None]) -> Iterator[_Named]:
        parts = []
        for path, node in names:
            folder = self._node(path.parent)
            if not isinstance(folder, _Folder):
                return  # There is none, and the call fails.
            parts.append((folder, path.name, node))
        for folder, name, node in parts:
            _set(folder.now, name, node)
        yield _Named(parts)

    def _contents(self, folder: _Folder, path: Path) -> Iterator[tuple[_File, bytes]]:
        for name, node in folder.now.items():
            if isinstance(node, _Folder):
                yield from self._contents(node, path / name)
            elif isinstance(node, _File):
                yield node, (path / name).read_bytes()

    def _state(self, changes: Sequence[_Named], content: Callable[[_File], bytes]) -> State:
        entries: dict[_Folder, dict[str, _Node]] = {}
        for change in changes:
            for folder, name, node in change.parts:
                _set(entries.setdefault(folder, dict(folder.first)), name, node)
        state = State({}, {}, {})
        numbers: dict[_File, int] = {}

        def add(folder: _Folder, path: str) -> None:
            for name, node in sorted(entries.get(folder, folder.first).items()):
                if isinstance(node, _Folder):
                    state.folders[path + name] = node.mode
                    add(node, f"{path}{name}/")
                elif isinstance(node, _Link):
                    state.links[path + name] = node.text
                else:
                    number = numbers.setdefault(node, len(numbers))
                    state.files[path + name] = number, content(node), node.mode, node.mtime_ns

        add(self._top, "")
        return state


def _is_sure(change: _Named, events: Sequence[object]) -> bool:
    """Whether names that have come or gone are on disk, by what was synced after them."""
    later = events[events.index(change) + 1 :]
    folders = [folder for folder, *_ in change.parts]
    return any(isinstance(e, _Synced) and (e.node is None or e.node in folders) for e in later)


def _is_full(node: _Node) -> bool:
    return isinstance(node, _Folder) and bool(node.now)


def _set(entries: dict[str, _Node], name: str, node: _Node | None) -> None:
    if node is None:
        entries.pop(name, None)
    else:
        entries[name] = node
