"""Find repositories in the cache with huggingface_hub, of any version, and print what was found.

The argument is a JSON list of [case, kind, id on the hub, revision]. What fails has its traceback
for files, so that one failure hides no other.
"""

from __future__ import annotations

import hashlib
import json
import sys
import traceback
from pathlib import Path

import huggingface_hub
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download


def files(kind: str, name: str, revision: str | None) -> dict[str, str]:
    """The sha256 of every file of a repository, found as a whole and then one by one."""
    folder = Path(snapshot_download(name, repo_type=kind, revision=revision))
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        inner = path.relative_to(folder).as_posix()
        alone = hf_hub_download(
            name, inner, repo_type=kind, revision=revision, local_files_only=True
        )
        assert alone == str(path)
        found[inner] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


report: dict[str, object] = {
    "version": huggingface_hub.__version__,
    "warnings": [str(warning) for warning in scan_cache_dir().warnings],
}
for case, kind, name, revision in json.loads(sys.argv[1]):
    try:
        report[case] = files(kind, name, revision)
    except Exception:
        report[case] = {"error": traceback.format_exc()}
print(json.dumps(report))
