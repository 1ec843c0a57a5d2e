"""bundler, and what users would do without it, as shell commands."""

from __future__ import annotations

from benchmarks.rounds import Contestant

_FILES = 'cd "$DATA" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0'
_UNPACKED = _FILES.replace("$DATA", "$HERE/out")

_PACK = 'bundler pack "file:$DATA" -o "$HERE/bundle.tar.zst" --store "$HERE/store"'
_UNPACK = 'bundler unpack "$HERE/bundle.tar.zst" --root "$HERE/out" --env "$HERE/offline.env"'

BUNDLER = Contestant(
    "bundler",
    ("bundler",),
    {
        "pack": _PACK,
        "pack again": _PACK,
        "unpack": _UNPACK,
        "unpack again": _UNPACK,
        "verify": 'bundler verify "$HERE/bundle.tar.zst"',
        "sha256sum of the content": f"{_FILES} sha256sum",
        "sha256sum of the bundle": 'sha256sum "$HERE/bundle.tar.zst"',
    },
    archive="bundle.tar.zst",
)
BUNDLER_ONCE = Contestant(
    "bundler",
    BUNDLER.tools,
    {step: BUNDLER.steps[step] for step in ("pack", "unpack")},
    BUNDLER.archive,
)
BUNDLER_SPARSE = Contestant(
    "bundler",
    (*BUNDLER.tools, "fallocate"),
    BUNDLER_ONCE.steps,
    BUNDLER.archive,
)
UNSYNCED = Contestant(
    "bundler without syncs",
    ("bundler", "eatmydata"),
    {"unpack": f"eatmydata {_UNPACK}"},
    archive="bundle.tar.zst",
    before=_PACK,
)
UNPACK_TO_HUB = "unpack to the hub cache"
BUNDLER_SMALL = Contestant(
    "bundler",
    BUNDLER.tools,
    {
        **BUNDLER_ONCE.steps,
        UNPACK_TO_HUB: _UNPACK.replace("$HERE/bundle.tar.zst", "$HUB").replace(
            "$HERE/out", "$HERE/hub"
        ),
    },
    BUNDLER.archive,
)

_TAR = 'tar -cf - -C "$DATA" . | zstd -q -T0 -3 -o "$HERE/archive.tar.zst"'
_UNTAR = 'tar --zstd -xf "$HERE/archive.tar.zst" -C "$HERE/out"'

TAR_SHA256SUM = Contestant(
    "tar, zstd -T0 -3, sha256sum",
    ("tar", "zstd", "sha256sum"),
    {
        "pack": f'{_TAR}; {_FILES} sha256sum > "$HERE/sums"',
        "unpack": f'{_UNTAR}; cd "$HERE/out"; sha256sum --quiet -c "$HERE/sums"',
    },
    archive="archive.tar.zst",
)
TAR_OPENSSL = Contestant(
    "tar, zstd -T0 -3, openssl dgst",
    ("tar", "zstd", "openssl"),
    {
        "pack": f'{_TAR}; {_FILES} openssl dgst -sha256 -r > "$HERE/sums"',
        "unpack": f'{_UNTAR}; {_UNPACKED} openssl dgst -sha256 -r | cmp - "$HERE/sums"',
    },
    archive="archive.tar.zst",
)
RESTIC = Contestant(
    "restic",
    ("restic",),
    {
        "pack": 'cd "$DATA"; restic -q -r "$HERE/repository" backup .',
        "unpack": 'restic -q -r "$HERE/repository" restore latest --target "$HERE/out"',
    },
    archive="repository",
    before='restic -q -r "$HERE/repository" init',
)
BORG = Contestant(
    "borg, zstd,3",
    ("borg",),
    {
        "pack": 'cd "$DATA"; borg create --compression zstd,3 "$HERE/repository::it" .',
        "unpack": 'cd "$HERE/out"; borg extract "$HERE/repository::it"',
    },
    archive="repository",
    before='borg init --encryption none "$HERE/repository"',
)
CASYNC = Contestant(
    "casync",
    ("casync",),
    {
        "pack": 'casync make --store "$HERE/archive/it.castr" "$HERE/archive/it.caidx" "$DATA"',
        "unpack": 'casync extract --store "$HERE/archive/it.castr" "$HERE/archive/it.caidx" '
        '"$HERE/out"',
    },
    archive="archive",
    before='mkdir "$HERE/archive"',
)
