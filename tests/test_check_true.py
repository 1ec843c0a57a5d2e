"""What `bundler check` says is true: what it calls fine loads, and what it faults does not.

The judges are the libraries themselves, each in a process of its own and without a network.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import pytest
from command import command_environment
from healthy_caches import checked, tensors
from models import files_of
from trees import write_cache

NAME = "acme/tiny-bert"
GPT2 = "acme/tiny-gpt2"
SENTENCES = "sentence-transformers/mini"
SNAPSHOT = "huggingface/hub/models--acme--tiny-bert/snapshots/*"
FOLDER = "huggingface/hub/models--acme--tiny-bert"
ONE = f"import huggingface_hub as h; h.hf_hub_download('{NAME}', 'config.json')"
ALL = f"import huggingface_hub as h; h.snapshot_download('{NAME}')"
LISTED = "assert h.try_to_load_from_cache('acme/tiny-bert', 'config.json').__class__ is str"
KNOWN = f"import huggingface_hub as h; {LISTED}"
MODEL = f"from transformers import AutoModel as M; M.from_pretrained('{NAME}')"
WORDS = (
    f"from transformers import AutoTokenizer as T; t = T.from_pretrained('{NAME}'); "
    f"assert t.unk_token_id not in t({models.SENTENCE!r}).input_ids"
)
GPT2_WORDS = (
    f"from transformers import AutoTokenizer as T; t = T.from_pretrained('{GPT2}'); "
    f"assert t.decode(t({models.SENTENCE!r}).input_ids) == {models.SENTENCE!r}"
)
VECTOR = (
    "from sentence_transformers import SentenceTransformer as S; m = S('mini'); "
    "assert [type(part).__name__ for part in m] == ['Transformer', 'Pooling', 'Normalize']"
)
TIMM = (
    "import huggingface_hub as h; h.hf_hub_download('timm/test_vit.r160_in1k','model.safetensors')"
)


@dataclass(frozen=True)
class Judged:
    """A script that is run on healthy caches, and the programs that fail after it, or do not."""

    script: str
    fails: Sequence[str] = ()
    loads: Sequence[str] = ()
    spec: str = NAME


CASES = {
    "healthy": Judged("", loads=(ONE, ALL, KNOWN, MODEL, WORDS)),
    "healthy, without links": Judged(
        f"cp -rL {FOLDER} x; rm -r {FOLDER} x/blobs; mv x {FOLDER}", loads=(ONE, ALL, MODEL)
    ),
    "healthy, without tokenizer": Judged(
        f"rm {SNAPSHOT}/*token* {SNAPSHOT}/vocab*", loads=(MODEL,)
    ),
    "vocab.txt alone": Judged(f"rm {SNAPSHOT}/tokenizer.json", loads=(WORDS,)),
    "tokenizer.json alone": Judged(f"rm {SNAPSHOT}/vocab.txt", loads=(WORDS,)),
    "snapshot of another name": Judged(
        f"cd {FOLDER}; mv snapshots/* snapshots/x; printf x >refs/main", loads=(ONE, ALL, MODEL)
    ),
    "another name by a link": Judged(
        f"mv {FOLDER} x; mv x huggingface/hub/models--other; ln -s models--other {FOLDER}",
        loads=(ONE, ALL, MODEL),
    ),
    "healthy sentences": Judged("", loads=(VECTOR,), spec="sentence-transformers:mini"),
    "healthy gpt2": Judged("", loads=(GPT2_WORDS,), spec=GPT2),
    "healthy timm": Judged("", loads=(TIMM,), spec="timm:test_vit.r160_in1k"),
    "no refs": Judged(f"rm -r {FOLDER}/refs", fails=(ONE, ALL, MODEL)),
    "ref with a newline": Judged(f"echo >>{FOLDER}/refs/main", fails=(ONE, ALL)),
    "empty ref": Judged(f": >{FOLDER}/refs/main", fails=(ONE, MODEL)),
    "ref to a short hash": Judged(
        f"printf %.7s $(ls {FOLDER}/snapshots) >{FOLDER}/refs/main", fails=(ONE, ALL)
    ),
    "moved ref": Judged(f"printf {'f' * 40} >{FOLDER}/refs/main", fails=(ONE, ALL, MODEL)),
    "folder of a revision": Judged(
        f"cd {FOLDER}; mv snapshots/* snapshots/main; rm -r refs", fails=(ONE, ALL)
    ),
    "other capitals": Judged(f"mv {FOLDER} {FOLDER.replace('acme', 'Acme')}", fails=(ONE, ALL)),
    "dangling link": Judged(f"rm {FOLDER}/blobs/*", fails=(ONE, MODEL)),
    "marker": Judged(
        f"cd {FOLDER}; mkdir -p .no_exist/$(ls snapshots); "
        "touch .no_exist/$(ls snapshots)/config.json",
        fails=(KNOWN,),
    ),
    "configuration missing": Judged(f"rm {SNAPSHOT}/config.json", fails=(ONE, MODEL)),
    "weights missing": Judged(f"rm {SNAPSHOT}/model.safetensors", fails=(MODEL,)),
    "weights cut short": Judged(
        f"truncate -s -9 $(realpath {SNAPSHOT}/model.safetensors)", fails=(MODEL,)
    ),
    "weights with something behind": Judged(
        f"echo more >>$(realpath {SNAPSHOT}/model.safetensors)", fails=(MODEL,)
    ),
    "weights empty": Judged(f": >$(realpath {SNAPSHOT}/model.safetensors)", fails=(MODEL,)),
    "no vocabulary": Judged(f"rm {SNAPSHOT}/tokenizer.json {SNAPSHOT}/vocab.txt", fails=(WORDS,)),
    "no vocabulary for gpt2": Judged(
        f"cd {SNAPSHOT.replace('bert', 'gpt2')}; rm -f tokenizer.json vocab.json merges.txt",
        fails=(GPT2_WORDS,), spec=GPT2,
    ),
    "a folder of that name in the way": Judged(f"mkdir -p ../home/{NAME}", fails=(MODEL,)),
    "modules.json missing": Judged(
        "rm huggingface/hub/models--sentence-*/snapshots/*/modules.json",
        fails=(VECTOR,), spec="sentence-transformers:mini",
    ),
    "1_Pooling/config.json missing": Judged(
        "rm huggingface/hub/models--sentence-*/snapshots/*/1_Pooling/config.json",
        fails=(VECTOR,), spec="sentence-transformers:mini",
    ),
    "timm's weights missing": Judged(
        "rm huggingface/hub/models--timm--*/snapshots/*/model.safetensors",
        fails=(TIMM,), spec="timm:test_vit.r160_in1k",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of real models."""
    pytest.importorskip("sentence_transformers")
    folder = tmp_path_factory.mktemp("healthy")
    models.make(folder / "made", ["tiny-bert", "plain-bert", "tiny-gpt2"])
    hub = folder / "caches" / "huggingface" / "hub"
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(parts)
    ]
    pooling = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}
    more: dict[str, dict[str, Any]] = {
        "plain-bert": {"modules.json": modules, "1_Pooling/config.json": pooling}
    }
    names = {"tiny-bert": NAME, "plain-bert": SENTENCES, "tiny-gpt2": GPT2}
    for made, name in names.items():
        files = {p: Path(str(c)).read_bytes() for p, c in files_of(folder / "made" / made).items()}
        files |= {path: json.dumps(value).encode() for path, value in more.get(made, {}).items()}
        write_cache(hub, name, files)
    write_cache(hub, "timm/test_vit.r160_in1k", {"model.safetensors": tensors()})
    return folder / "caches"


JUDGE = """
import json, os, sys
import torch, transformers, sentence_transformers
torch.set_num_threads(1)
told = []
for root, programs in json.loads(sys.argv[1]):
    told.append([])
    for program in programs:
        os.symlink(root, "new")
        os.replace("new", "current")
        reader, writer = os.pipe()
        if not os.fork():  # Libraries keep in mind what they have found.
            os.chdir(root + "/../home")
            try:
                exec(program, {})
                said = ""
            except Exception as error:
                said = repr(error)[:300]
            os.write(writer, said.encode() or b"loads")
            os._exit(0)
        os.close(writer)
        with open(reader, "rb") as answer:
            told[-1].append(answer.read().decode())
        os.wait()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def verdicts(
    healthy: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, list[str]]]:
    """Of each case the caches as they are then, and what the programs say."""
    folder = tmp_path_factory.mktemp("judged")
    work = []
    for number, case in enumerate(CASES.values()):
        home = folder / str(number) / "home"
        home.mkdir(parents=True)
        root = shutil.copytree(healthy, home.parent / "caches", symlinks=True)
        subprocess.run(["bash", "-ec", case.script], cwd=root, check=True)
        work.append((str(root), [*case.loads, *case.fails]))
    process = subprocess.run(
        [sys.executable, "-c", JUDGE, json.dumps(work)],
        cwd=folder,
        env={
            **command_environment(folder),
            "HF_HOME": str(folder / "current" / "huggingface"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONWARNINGS": "ignore",
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    told = json.loads(process.stdout.splitlines()[-1])
    return {
        name: (Path(root), answers)
        for name, (root, _), answers in zip(CASES, work, told, strict=True)
    }


@pytest.mark.parametrize("name", CASES)
def test_the_libraries_agree(verdicts: dict[str, tuple[Path, list[str]]], name: str) -> None:
    case = CASES[name]
    root, answers = verdicts[name]
    done = checked(root, case.spec)
    assert (done.code == 0) == bool(case.loads), done.err or done.out
    assert [answer == "loads" for answer in answers] == [bool(case.loads)] * len(answers), answers
