"""A pack of insightface, where `FaceAnalysis` looks (insightface/app/face_analysis.py).

A folder that is there is never downloaded again, though it be empty; and one in the working
directory of the same name is taken instead.
"""

from __future__ import annotations

from shlex import quote

from bundler.checks import AGAIN, Found
from bundler.content import flaw
from bundler.environment import Roots
from bundler.lookups import FacePack


def find_pack(wanted: FacePack, spec: str, roots: Roots) -> Found:
    """The models of the pack that is there."""
    found = Found(spec, (wanted.name,))
    folder = roots.insightface / "models" / wanted.name
    if not folder.is_dir():
        found.missing(
            f"{wanted.name} is not in {folder.parent}",
            f"bundler pack insightface:{quote(wanted.name)} where there is a network, and unpack "
            "that here",
        )
        return found
    for path in sorted(folder.glob("*.onnx")):
        found.files[path.name] = path
        plainly = flaw(path, path.name)
        if plainly is not None:
            found.damaged(f"{path} {plainly}", f"rm {quote(str(path))}, and {AGAIN}")
    if not found.files:
        nested = sorted({path.parent for path in folder.rglob("*.onnx")})
        if nested:
            found.missing(
                f"{folder} has its models one folder too deep",
                f"mv {quote(str(nested[0]))}/*.onnx {quote(str(folder))}",
            )
        else:
            found.missing(
                f"{folder} is empty, and insightface fails on it with a bare AssertionError",
                f"rmdir {quote(str(folder))}, and {AGAIN}",
            )
    return found
