"""Every byte of what was found, against what is known of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bundler.checks import AGAIN, Found, again_without
from bundler.content import Promise, differs
from bundler.parallel import Count, each_in_threads
from bundler.progress import Progress


def compare(models: Sequence[Found], jobs: int | None, progress: Progress) -> None:
    """Read all files whose hash is known, each content once, and note those that differ.

    `jobs`: how many threads do it, as in `each_in_threads`.
    """
    work: dict[tuple[str, Promise], list[tuple[Found, str]]] = {}
    for found in models:
        for inner, promise in found.promises.items():
            place = os.path.realpath(found.files[inner])
            work.setdefault((place, promise), []).append((found, inner))
        unknown = len(found.files) - len(found.promises)
        if unknown:
            found.notes.append(
                f"{found.names[0]}: nothing here tells what {unknown} of its "
                f"{len(found.files)} files should be, so they were not compared"
            )
    total = sum(found.sizes[inner] for (found, inner), *_ in work.values())
    with progress.start("comparing", total) as meter:

        def compare_one(item: tuple[str, Promise], count: Count) -> None:
            place, promise = item
            try:
                wrong = differs(Path(place), promise, count)
            except OSError as error:
                for found, inner in work[item]:
                    found.damaged(
                        f"{inner} of {found.names[0]} cannot be read ({error.strerror})", AGAIN
                    )
                return
            for found, inner in work[item] if wrong else ():
                found.damaged(
                    f"{inner} of {found.names[0]} holds other bytes than it should",
                    again_without(place),
                )

        each_in_threads(work, compare_one, jobs, meter.add)
