"""Caches that several users have: what the umask says, who may write, and where links are not."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import Ran, command_environment, run
from memory_source import commit_hash, make_bundle
from trees import found_offline, stamps, tree, write_cache

TINY = {"config.json": b'{"v": 1}', "model.safetensors": bytes(range(256)) * 8}
LATER = {**TINY, "config.json": b'{"v": 2}'}
OTHER = {"config.json": b"{}", "pytorch_model.bin": b"other weights"}
ALL_LAYOUTS = Path(__file__).parent / "data/format-1-kinds.tar.zst"
GROUP = 4000
NO_LINKS = {"HF_HUB_DISABLE_SYMLINKS": "1"}
PROGRAM = """
import contextlib, io, json, os, sys
from bundler.cli import run
user, groups, umask, bundle, *arguments = json.loads(sys.argv[1])
with contextlib.redirect_stdout(io.StringIO()):
    # The libraries may be where only root can read them, so all is imported before.
    warm = os.path.join(os.environ["HOME"], "warm")
    run(["unpack", bundle, "--root", warm, "--env", warm + ".env"])
os.setgroups(groups)
os.setgid(groups[0])
os.setuid(user)
os.umask(umask)
sys.exit(run(arguments))
"""
READING = """
import os, sys
from pathlib import Path
import huggingface_hub
huggingface_hub.snapshot_download
os.setgroups([])
os.setgid(4009)
os.setuid(4009)
for name, revision in (text.split("@") for text in sys.argv[1:]):
    folder = Path(huggingface_hub.snapshot_download(name, revision=revision))
    for path in sorted(folder.rglob("*")):
        print(path.relative_to(folder), len(path.read_bytes()))
"""


@dataclass(frozen=True)
class User:
    """One who runs commands on a machine."""

    number: int
    groups: Sequence[int]
    machine: Machine
    umask: int = 0o002

    @property
    def home(self) -> Path:
        """A folder of his own, where commands run."""
        home = self.machine.folder / f"home-{self.number}"
        if not home.exists():
            home.mkdir()
            os.chown(home, self.number, self.groups[0])
        return home

    def run(self, *arguments: object) -> Ran:
        """`bundler` with these arguments."""
        words = json.dumps(
            [self.number, self.groups, self.umask, str(self.machine.bundles["tiny"])]
            + [str(argument) for argument in arguments]
        )
        with tempfile.TemporaryDirectory() as warm:
            environment = command_environment(self.home) | {"HOME": warm}
            process = subprocess.run(
                [sys.executable, "-c", PROGRAM, words],
                env=environment, cwd=self.home, capture_output=True, timeout=120, check=False,
            )  # fmt: skip
        return Ran(
            process.returncode, process.stdout.decode(), process.stderr.decode(), process.stdout
        )

    def unpack(self, name: str, *options: object, root: Path | None = None) -> Ran:
        """Unpack a bundle of the machine, by default into the root that all share."""
        place = root or self.machine.root
        return self.run("unpack", self.machine.bundles[name], "--root", place, *options)


@dataclass(frozen=True)
class Machine:
    """A folder that all users can reach, with bundles, and a root that is theirs in common."""

    folder: Path
    bundles: dict[str, Path]

    @property
    def root(self) -> Path:
        return self.folder / "data/models"

    @property
    def hub(self) -> Path:
        return self.root / "huggingface/hub"

    def user(self, number: int, *, member: bool = True, umask: int = 0o002) -> User:
        """A user, of the group that shares the root or not."""
        return User(number, [number, *([GROUP] if member else [])], self, umask)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    found = {}
    for name, models in {
        "tiny": {"org/tiny": TINY},
        "later": {"org/tiny": LATER},
        "other": {"org/other": OTHER},
    }.items():
        found[name] = folder / f"{name}.tar.zst"
        make_bundle(found[name], models)
    return found


@pytest.fixture
def machine(bundles: dict[str, Path]) -> Iterator[Machine]:
    """A machine whose root belongs to a group: setgid, and writable for it."""
    if os.geteuid():
        pytest.skip("only root can be other users")
    folder = Path(tempfile.mkdtemp(prefix="bundler-machine-"))
    try:
        folder.chmod(0o755)
        readable = {name: folder / path.name for name, path in bundles.items()}
        for name, path in bundles.items():
            shutil.copy(path, readable[name])
        found = Machine(folder, readable)
        found.root.mkdir(parents=True)
        os.chown(found.root, 0, GROUP)
        found.root.chmod(0o2775)
        yield found
    finally:
        shutil.rmtree(folder)


def modes(root: Path) -> set[tuple[str, int]]:
    """Which modes there are below `root`, by kind."""
    return {(kind, mode) for kind, _, mode in tree(root).values() if kind != "link"}


def groups(root: Path) -> set[int]:
    """Which groups things below `root` belong to."""
    return {(root / path).lstat().st_gid for path in tree(root)}


@pytest.mark.parametrize(
    ("umask", "expected"),
    [
        (0o002, {("folder", 0o775), ("file", 0o664)}),
        (0o022, {("folder", 0o755), ("file", 0o644)}),
        (0o027, {("folder", 0o750), ("file", 0o640)}),
        (0o077, {("folder", 0o700), ("file", 0o600)}),
    ],
    ids=lambda value: f"{value:03o}" if isinstance(value, int) else "",
)
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_modes_are_what_the_umask_leaves(
    umask: int, expected: set[tuple[str, int]], links: bool, bundles: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    env = {} if links else NO_LINKS
    options = ("--root", tmp_path / "root", "--checkpoints", tmp_path / "root/plain")
    ran = run("unpack", bundles["tiny"], *options, home=tmp_path, umask=umask, env=env)
    assert ran.code == 0, ran.err
    assert modes(tmp_path / "root") == expected
    assert stat.S_IMODE((tmp_path / "root").stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((tmp_path / "offline.env").stat().st_mode) == 0o666 & ~umask


class TestAGroup:
    """Users of one group unpack into one root."""

    def test_the_second_adds_to_what_the_first_made(self, machine: Machine) -> None:
        for number, name in ((4001, "tiny"), (4002, "other"), (4003, "later")):
            ran = machine.user(number).unpack(name)
            assert (ran.code, ran.err) == (0, "")
        found = found_offline(
            machine.root / "huggingface",
            ("org/tiny", "main"),
            ("org/tiny", commit_hash(TINY)),
            ("org/other", "main"),
        )
        assert (found.snapshots, found.warnings) == ([LATER, TINY, OTHER], [])
        assert groups(machine.root) == {GROUP}
        assert modes(machine.root) == {("folder", 0o2775), ("file", 0o664)}
        owners = {path.stat().st_uid for path in machine.root.rglob("receipts/*.json")}
        assert owners == {4001, 4002, 4003}

    def test_the_second_heals_and_notes_what_the_first_made(self, machine: Machine) -> None:
        machine.user(4001).unpack("tiny")
        (blob,) = (path for path in machine.hub.rglob("blobs/*") if path.stat().st_size > 100)
        blob.write_bytes(b"damaged")
        ran = machine.user(4002).unpack("tiny")
        assert (ran.code, ran.err) == (0, "")
        assert blob.read_bytes() == TINY["model.safetensors"]
        before = stamps(machine.root)
        for number in (4001, 4002, 4003):
            assert machine.user(number).unpack("tiny").code == 0
        assert stamps(machine.root) == before

    def test_the_second_goes_on_where_the_first_was_killed(self, machine: Machine) -> None:
        first = machine.user(4001)
        assert first.unpack("tiny").code == 0
        # What a kill leaves: blobs that are staged, and a folder that is half built.
        (repository,) = machine.hub.iterdir()
        staging = machine.hub / ".locks/bundler"
        (staging / "tree/x").mkdir(parents=True)
        (staging / "blobs").mkdir()
        shutil.rmtree(repository)
        (staging / "blobs" / "0.part").write_bytes(b"half")
        for path in (staging.parent, *staging.parent.rglob("*")):
            os.chown(path, 4001, GROUP)
            path.chmod(0o2775 if path.is_dir() else 0o664)
        ran = machine.user(4002).unpack("tiny")
        assert (ran.code, ran.err) == (0, "")
        assert [path.name for path in machine.hub.iterdir()] == [repository.name]
        assert groups(machine.root) == {GROUP}

    def test_plain_folders_may_share_what_another_has_unpacked(self, machine: Machine) -> None:
        machine.user(4001).unpack("tiny")
        ran = machine.user(4002).unpack("tiny", "--checkpoints", machine.root / "checkpoints")
        assert (ran.code, ran.err) == (0, "")
        folder = machine.root / "checkpoints/tiny"
        assert {path: (folder / path).read_bytes() for path in TINY} == TINY

    def test_with_a_umask_of_077_it_is_private(self, machine: Machine) -> None:
        assert machine.user(4001, umask=0o077).unpack("tiny").code == 0
        ran = machine.user(4002).unpack("other")
        assert (ran.code, len(ran.err.splitlines())) == (6, 1)
        assert "sudo -u '#4001'" in ran.err

    def test_a_private_receipt_of_another_is_in_the_way_of_removals_alone(
        self, machine: Machine
    ) -> None:
        assert machine.user(4001).unpack("tiny").code == 0
        (receipt,) = machine.root.rglob("receipts/*.json")
        receipt.chmod(0o600)
        second = machine.user(4002)
        assert second.unpack("other").code == 0
        # What the first one needs is not known.
        ran = second.run("remove", "org/other", "--root", machine.root)
        assert (ran.code, len(ran.err.splitlines())) == (6, 1)
        assert f"cannot read {receipt}" in ran.err
        assert "chmod a+r" in ran.err

    def test_an_environment_file_stays_readable_to_those_who_could_read_it(
        self, machine: Machine
    ) -> None:
        user, env = machine.user(4001), machine.root / "offline.env"
        assert user.unpack("tiny", "--env", env).code == 0
        private = machine.user(4001, umask=0o077)
        elsewhere = ("--torch-home", machine.root / "other")
        assert private.unpack("other", "--env", env, *elsewhere).code == 0
        assert str(machine.root / "other") in env.read_text()
        assert env.stat().st_mode & 0o777 == 0o664


class TestThoseWhoMayNotWrite:
    """They read everything, and are told in one line who can write, before anything is written."""

    @pytest.fixture
    def reader(self, machine: Machine) -> User:
        """One who is not of the group, on a machine where org/tiny is unpacked."""
        assert machine.user(4001).unpack("tiny").code == 0
        return machine.user(4009, member=False)

    def refused(self, user: User, name: str, *options: object, root: Path | None = None) -> str:
        """What is said where a bundle cannot be unpacked; nothing changes."""
        machine = user.machine
        user.home  # noqa: B018  # Made on first use.
        before = stamps(machine.folder), tree(machine.folder)
        ran = user.unpack(name, *options, root=root)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (6, "", 1)
        assert (stamps(machine.folder), tree(machine.folder)) == before
        assert "--root" in ran.err
        return ran.err

    def test_load_what_is_there(self, reader: User, machine: Machine) -> None:
        process = subprocess.run(
            [sys.executable, "-c", READING, "org/tiny@main", f"org/tiny@{commit_hash(TINY)}"],
            env=command_environment(reader.home)
            | {"HF_HOME": str(machine.root / "huggingface"), "HF_HUB_OFFLINE": "1"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        expected = [f"{path} {len(content)}" for path, content in sorted(TINY.items())]
        assert process.stdout.splitlines() == expected * 2, process.stderr

    def test_have_nothing_to_do_where_all_is_there(self, reader: User, machine: Machine) -> None:
        before = stamps(machine.root)
        for _ in range(2):
            ran = reader.unpack("tiny")
            assert (ran.code, ran.err) == (0, "")
            assert "everything is there already" in ran.out
        assert stamps(machine.root) == before
        assert "HF_HUB_OFFLINE" in (reader.home / "offline.env").read_text()

    @pytest.mark.parametrize("kept", ["receipts", "staging"])
    def test_have_nothing_to_do_where_all_is_there_though_it_is_not_noted(
        self, kept: str, reader: User, machine: Machine
    ) -> None:
        if kept == "receipts":
            (machine.hub / ".locks/bundler").mkdir(parents=True)
        else:
            shutil.rmtree(machine.root / "huggingface/.bundler")
        before = stamps(machine.root)
        ran = reader.unpack("tiny")
        assert (ran.code, ran.err) == (0, "")
        assert stamps(machine.root) == before

    @pytest.mark.parametrize("name", ["later", "other"])
    @pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["unpack", "dry run"])
    def test_are_told_whose_it_is(
        self, name: str, options: tuple[str, ...], reader: User, machine: Machine
    ) -> None:
        said = self.refused(reader, name, *options)
        assert "which belongs to '#4001'" in said
        assert "sudo -u '#4001'" in said
        assert str(machine.hub) in said

    def test_are_told_the_name_of_root_where_it_is_his(
        self, reader: User, machine: Machine
    ) -> None:
        (machine.folder / "opt").mkdir(mode=0o755)
        said = self.refused(reader, "tiny", root=machine.folder / "opt/new/root")
        assert f"not allowed to write {machine.folder / 'opt'}, which belongs to root" in said
        assert "sudo -u root" in said

    @pytest.mark.parametrize(
        "place",
        [
            "huggingface/hub/models--org--tiny/blobs",
            "huggingface/hub/models--org--tiny/snapshots",
            "huggingface/hub/models--org--tiny/refs",
            "huggingface/hub/models--org--tiny/trees",
            "huggingface/hub",
            "huggingface/.bundler/receipts",
        ],
    )
    def test_are_told_so_if_a_single_folder_is_not_theirs(
        self, place: str, machine: Machine
    ) -> None:
        assert machine.user(4001).unpack("tiny").code == 0
        (machine.root / place).chmod(0o2755)
        said = self.refused(machine.user(4002), "later")
        assert str(machine.root / place) in said

    def test_are_told_so_if_the_locks_of_huggingface_hub_are_not_theirs(
        self, machine: Machine
    ) -> None:
        (machine.hub / ".locks/models--org--mine").mkdir(parents=True)
        for folder in (machine.hub.parent, machine.hub):
            os.chown(folder, 4001, GROUP)
            folder.chmod(0o2775)
        assert str(machine.hub / ".locks") in self.refused(machine.user(4002), "tiny")

    def test_are_told_so_of_a_cache_that_they_cannot_even_see(self, machine: Machine) -> None:
        private = machine.user(4001, umask=0o077)
        assert private.unpack("tiny", root=private.home / "private").code == 0
        root = private.home / "private"
        said = self.refused(machine.user(4002), "tiny", root=root)
        assert f"{root}, which belongs to '#4001'" in said

    def test_are_told_how_to_open_what_is_their_own(self, machine: Machine) -> None:
        user = machine.user(4001)
        (user.home / "root").mkdir()
        os.chown(user.home / "root", 4001, 4001)
        (user.home / "root").chmod(0o555)
        said = self.refused(user, "tiny", root=user.home / "root")
        assert f"not allowed to write {user.home / 'root'}: make it writable" in said
        assert "sudo" not in said


def test_a_read_only_disk_is_told_and_a_complete_cache_on_it_is_enough(
    bundles: dict[str, Path], tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=64m")
    write_cache(disk / "huggingface/hub", "org/other", OTHER)
    assert run("unpack", bundles["tiny"], "--root", disk, home=tmp_path).code == 0
    small_disk("ro")
    before = tree(disk)
    for _ in range(2):
        assert run("unpack", bundles["tiny"], "--root", disk, home=tmp_path).code == 0
    for options in ((), ("--dry-run",)):
        ran = run("unpack", bundles["later"], "--root", disk, *options, home=tmp_path)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (6, "", 1)
        assert "is on a read-only file system: choose another place with --root" in ran.err
    assert tree(disk) == before


def test_what_may_not_be_read_is_told_like_any_other_fault(machine: Machine) -> None:
    assert machine.user(4001).unpack("tiny").code == 0
    (link,) = machine.hub.rglob("snapshots/*/config.json")
    content = link.read_bytes()
    link.unlink()
    link.write_bytes(content)
    link.chmod(0o600)
    ran = machine.user(4009, member=False).run("verify", "--root", machine.root)
    assert ran.code == 4
    fault, summary = ran.err.splitlines()
    assert f"{link} of org/tiny is unreadable: " in fault
    assert "1 fault in what is installed" in summary


class TestWithoutLinks:
    """File systems that hold none: FAT, exFAT, some on a network."""

    def test_revisions_are_real_files_beside_each_other(
        self, bundles: dict[str, Path], tmp_path: Path
    ) -> None:
        for name in ("tiny", "later", "other"):
            ran = run("unpack", bundles[name], "--root", tmp_path, home=tmp_path, env=NO_LINKS)
            assert (ran.code, ran.err) == (0, "")
        home = tmp_path / "huggingface"
        assert "link" not in {kind for kind, *_ in tree(home).values()}
        wanted = [("org/tiny", "main"), ("org/tiny", commit_hash(TINY)), ("org/other", "main")]
        found = found_offline(home, *wanted)
        assert (found.snapshots, found.warnings) == ([LATER, TINY, OTHER], [])

    @pytest.mark.parametrize("refused", ["EPERM", "EOPNOTSUPP", "ENOSYS"])
    def test_a_disk_that_refuses_every_link_has_all_of_it_in_real_files(
        self, refused: str, tmp_path: Path
    ) -> None:
        if not shutil.which("strace"):
            pytest.skip("strace is not installed")
        links = "symlink,symlinkat,link,linkat"
        command = [
            "strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={links}",
            "-e", f"inject={links}:error={refused}", sys.executable, "-m", "bundler", "unpack",
            str(ALL_LAYOUTS), "--root", "root", "--checkpoints", "root/plain",
        ]  # fmt: skip
        times = []
        for _ in range(2):
            process = subprocess.run(
                command, cwd=tmp_path, env=command_environment(tmp_path), capture_output=True,
                timeout=60, check=False,
            )  # fmt: skip
            assert (process.returncode, process.stderr) == (0, b"")
            times.append(stamps(tmp_path / "root"))
        assert times[0] == times[1]
        root, expected = tmp_path / "root", tmp_path / "expected"
        options = ("--root", expected, "--checkpoints", expected / "plain")
        assert run("unpack", ALL_LAYOUTS, *options, home=tmp_path, env=NO_LINKS).code == 0
        assert "link" not in {kind for kind, *_ in tree(root).values()}
        receipt = "huggingface/.bundler/"  # Names the plain folders, which are elsewhere.
        for path, entry in tree(expected).items():
            assert path.startswith(receipt) or tree(root)[path] == entry
        assert tree(root).keys() == tree(expected).keys()
        assert all(path.stat().st_nlink == 1 for path in root.rglob("*") if path.is_file())
