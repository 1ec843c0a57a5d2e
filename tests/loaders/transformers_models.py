"""Load models by name with transformers, and print the facts about them as JSON.

The argument is a JSON list of [case, name in models.MODELS, id on the hub, revision]. What fails
has its traceback for facts, so that one failure hides no other.
"""

from __future__ import annotations

import json
import sys
import traceback

import transformers
from models import MODELS, Facts, answer, facts


def load(model: str, name: str, revision: str | None) -> Facts:
    """The facts about what `name` gives at `revision`, loaded by the classes that users take."""
    kind = MODELS[model]
    where = {} if revision is None else {"revision": revision}
    code = {"trust_remote_code": True} if kind.remote_code else {}
    loaded = getattr(transformers, kind.model).from_pretrained(name, **where, **code)
    processor = said = None
    if kind.processor is not None:
        processor = getattr(transformers, kind.processor).from_pretrained(name, **where)
    if kind.task is not None:
        said = answer(transformers.pipeline(kind.task, model=name, **where))
    return facts(loaded.eval(), processor, said)


if __name__ == "__main__":
    found: dict[str, object] = {"version": transformers.__version__}
    for case, *arguments in json.loads(sys.argv[1]):
        try:
            found[case] = load(*arguments)
        except Exception:
            found[case] = {"error": traceback.format_exc()}
    print(json.dumps(found))
