"""A request: a TOML file that lists specs, so that a bundle can be made again.

models = ["bert-base-uncased", "dataset:org/name"]
"""

from __future__ import annotations

import sys
from pathlib import Path

from bundler.errors import RequestError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_request(path: Path | str) -> list[str]:
    """The specs that the file lists. Raises RequestError."""
    try:
        document = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f'{path} is not a list of models: write models = ["org/name", …] ({error})'
        ) from None
    models = document.pop("models", None)
    if document:
        raise RequestError(f"{path}: {', '.join(document)} is not known; only models = […] is")
    if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
        raise RequestError(f'{path} needs a list of specs: models = ["org/name", …]')
    return models
