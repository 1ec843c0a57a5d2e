"""One bundle -> caches on disk, a receipt and an environment file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundler.archive import BundleReader, BundleSource, open_bundle
from bundler.catalogues import nearest
from bundler.code import refuse_code
from bundler.digest import Digest
from bundler.env_file import env_path, extended_roots, write_env_file
from bundler.environment import Roots, find_roots
from bundler.errors import Faults, FormatError, RequestError
from bundler.installing import How, check_apart, check_code, install, is_left, survey_all
from bundler.known import Known
from bundler.layouts import layout_of
from bundler.layouts.flat import flattened
from bundler.manifest import Manifest, Snapshot
from bundler.permission import check_sight
from bundler.progress import Progress, Silent
from bundler.read_only import with_own_places
from bundler.sharing import LinkMode
from bundler.shells import ENV_FILE, EnvFormat
from bundler.space import check_space, free_space
from bundler.spec import Naming, spec_of
from bundler.staging import check_lacking, stage, taking_space
from bundler.survey import Survey
from bundler.trust import Trust
from bundler.volumes import Ask

if TYPE_CHECKING:
    from bundler.keys import PublicKey


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What an unpack did or, as a plan, will do. Sizes in bytes, paths absolute."""

    digest: Digest
    snapshots: tuple[Snapshot, ...]
    roots: Roots
    work: Mapping[str, Survey]
    """By the name of the root."""
    env: Path | None
    link_mode: LinkMode = LinkMode.AUTO
    env_replaced: bool = False
    """The environment file was there and led to something that it leads to no more."""
    env_roots: Roots | None = None
    """What the environment file leads to: also roots that an earlier unpack wrote into it."""
    signer: PublicKey | None = None
    """The trusted key that has signed the bundle, if one had to."""

    @property
    def written_size(self) -> int:
        """Of files that were not there, but for those that share the space of others."""
        return sum(
            file.blob.size
            for name in self.work
            for file in taking_space(name, self.work, self.roots, self.link_mode)
        )

    @property
    def present_size(self) -> int:
        """Of files that were there already."""
        return sum(work.present_size for work in self.work.values())

    @property
    def free_size(self) -> int:
        """Free space where the caches are or will be; the least, if they are in several places."""
        return min(free_space(self.roots.path(name)) for name in self.work)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {
            "bundle": str(self.digest),
            "signed_by": None if self.signer is None else self.signer.hint,
            "models": [
                {
                    "source": snapshot.source,
                    "name": snapshot.name,
                    "revision": snapshot.revision,
                    "commit_hash": snapshot.commit_hash,
                    "size": snapshot.size,
                }
                for snapshot in self.snapshots
            ],
            "roots": {name: str(self.roots.path(name)) for name in self.work},
            "written_size": self.written_size,
            "present_size": self.present_size,
            "free_size": self.free_size,
            "env": None if self.env is None else str(self.env),
            "moves": [
                {
                    "name": move.title,
                    "path": str(self.roots.path(name) / move.path),
                    "from": move.before,
                    "to": move.after,
                    "kept": move.is_kept,
                }
                for name, work in self.work.items()
                for move in work.moves
            ],
        }


def plan_unpack(
    bundle: BundleSource,
    *,
    roots: Roots | None = None,
    only: Sequence[str] = (),
    checkpoints: bool = False,
    env: Path | str | None = ENV_FILE,
    env_format: EnvFormat = EnvFormat.SH,
    digest: Digest | None = None,
    trusted: Trust | None = None,
    link_mode: LinkMode = LinkMode.AUTO,
    code: bool = True,
    keep_refs: bool = False,
    digests: bool = False,
    repairs: Sequence[BundleSource] = (),
    ask: Ask | None = None,
    progress: Progress | None = None,
) -> Unpacked:
    """What `unpack` with the same arguments would do: reads manifest and target, writes nothing.

    Raises as `unpack` does, as far as that can be told without the content.
    """
    roots = roots or find_roots()
    env_file = env_path(env, env_format, roots)
    with _opened(bundle, digest, trusted, repairs, ask) as (reader, repairing):
        snapshots = _chosen(reader.manifest, only)
        if not code:
            refuse_code(snapshots)
        placed = [*snapshots, *(flattened(snapshots) if checkpoints else ())]
        written = {layout_of(snapshot).root for snapshot in placed}
        roots, env_roots = extended_roots(env_file, env_format, roots, written)
        check_sight(roots.hf_home, "--root")
        known = Known(roots, digests=digests)
        work = survey_all(reader.digest, placed, roots, known, keep_refs, progress or Silent())
        check_lacking(reader, work, known, repairing)
        check_apart(work, roots, env_file)
        is_left(reader.digest, snapshots, work, roots, known)
        check_space({roots.path(n): taking_space(n, work, roots, link_mode) for n in work})
        if not repairing:
            reader.check_end()
        return Unpacked(
            reader.digest, snapshots, roots, work, env_file, link_mode,
            env_roots=env_roots, signer=reader.signer,
        )  # fmt: skip


def unpack(
    bundle: BundleSource,
    *,
    roots: Roots | None = None,
    only: Sequence[str] = (),
    checkpoints: bool = False,
    env: Path | str | None = ENV_FILE,
    env_format: EnvFormat = EnvFormat.SH,
    digest: Digest | None = None,
    trusted: Trust | None = None,
    link_mode: LinkMode = LinkMode.AUTO,
    code: bool = True,
    keep_refs: bool = False,
    digests: bool = False,
    repairs: Sequence[BundleSource] = (),
    jobs: int | None = None,
    ask: Ask | None = None,
    progress: Progress | None = None,
) -> Unpacked:
    """Install the models of `bundle` in the caches at `roots`, and write the file `env`.

    `bundle`: a path, a stream, or the paths by which all volumes of a split one are found.
    `roots`: by default those that the libraries use here (`find_roots`). `only`: specs of models
    to install, by default all; what they need comes with them. `checkpoints`: also put models and
    single files as plain ones below `roots.checkpoints`, by `link_mode`. `env`: None for no file;
    `env_format`: for what it is written; what it led to before is kept where that can be.
    `digest`: the bundle's id, if known from elsewhere. `trusted`: whose bundles are taken, by
    default anybody's. `code`: False refuses models that hold some.
    `keep_refs`: leave every ref, and branch of torch.hub, that leads to something which is there.
    `digests`: compare every byte of what is there, also where size and time of change are as the
    receipt has them. `repairs`: other bundles, whoever made them, that bring what this one has
    damaged or lost, or what it lacks and the target too: the digests of `bundle` count.
    `jobs`: threads, by default one for each processor. `ask`: asks somebody to insert the stick
    with a volume that is missing, from any thread. Waits while another process unpacks to the same
    place, and tells `progress` so.

    Raises RequestError (no such file; `only` names nothing in it), UnavailableError (a volume is
    missing), DamagedError (cut or altered), FormatError (no bundle, or volumes of several),
    TrustError (another id, nobody `trusted` has signed it, or `code`) and TargetError (space,
    permission, conflict; what the bundle leaves out is not here). Nothing becomes visible to a
    library before all content is verified and on disk.
    """
    roots = roots or find_roots()
    progress = progress or Silent()
    env_file = env_path(env, env_format, roots)
    with _opened(bundle, digest, trusted, repairs, ask) as (reader, repairing):
        snapshots = _chosen(reader.manifest, only)
        if not code:
            refuse_code(snapshots)
        placed = [*snapshots, *(flattened(snapshots) if checkpoints else ())]
        written = {layout_of(snapshot).root for snapshot in placed}
        roots, env_roots = extended_roots(env_file, env_format, roots, written)
        check_sight(roots.hf_home, "--root")
        known = Known(roots, digests=digests)
        work = survey_all(reader.digest, placed, roots, known, keep_refs, progress)
        check_lacking(reader, work, known, repairing)
        check_apart(work, roots, env_file)
        if is_left(reader.digest, snapshots, work, roots, known):
            how = How(checkpoints, link_mode, code, jobs, keep_refs)
            work.clear()  # It is made again, under a lock, and takes memory meanwhile.
            work = install(reader, snapshots, roots, known, how, progress, repairing)
        else:
            # A pipe is read to its end all the same.
            stage(reader, work, {}, jobs, progress, known, repairing)
            if not code:
                check_code(snapshots, work, roots, {})
    replaced = False
    if env_file is not None and env_roots is not None:
        env_roots = with_own_places(env_roots)  # Again: now there is more of them.
        replaced = write_env_file(env_file, env_format, env_roots)
    return Unpacked(
        reader.digest, snapshots, roots, work, env_file, link_mode, replaced, env_roots,
        reader.signer,
    )  # fmt: skip


@contextmanager
def _opened(
    bundle: BundleSource,
    digest: Digest | None,
    trusted: Trust | None,
    repairs: Sequence[BundleSource],
    ask: Ask | None,
) -> Iterator[tuple[BundleReader, Sequence[BundleReader]]]:
    """The bundle, and those that repair it; then it need not be whole."""
    with ExitStack() as stack:
        opened = open_bundle(bundle, digest, trusted, ask=ask, whole=not repairs)
        reader = stack.enter_context(opened)
        yield reader, [stack.enter_context(open_bundle(one, whole=False)) for one in repairs]


def _chosen(manifest: Manifest, only: Sequence[str]) -> tuple[Snapshot, ...]:
    """The snapshots that `only` names, and what they need; all, if it names none."""
    if isinstance(only, str):
        only = [only]
    if not only:
        return manifest.snapshots
    naming = Naming(manifest.snapshots)
    chosen: set[int] = set()
    faults = []
    for text in only:
        named = naming.asked(text) or naming.called(text)
        if not named:
            words = _words(manifest)
            said = f"{text} is not in this bundle ({nearest(text, words)})"
            faults.append(RequestError(f"{said}, which has {_some(words)}"))
        chosen |= named
    if faults:
        raise Faults(faults)
    todo = list(chosen)
    followed: set[str] = set()
    while todo:
        for text in set(manifest.snapshots[todo.pop()].needs) - followed:
            followed.add(text)
            try:
                new = naming.asked(text) - chosen
            except RequestError as error:
                raise FormatError(f"the manifest of this bundle is refused: {error}") from None
            chosen |= new
            todo += new
    return tuple(manifest.snapshots[number] for number in sorted(chosen))


def _words(manifest: Manifest) -> list[str]:
    words = ([spec_of(s.source, s.name, s.revision), *s.specs] for s in manifest.snapshots)
    return list(dict.fromkeys(word for some in words for word in some))


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - 10} more" if len(words) > 10 else ""
    return ", ".join(words[:10]) + more
