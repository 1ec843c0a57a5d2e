"""What is found in pickled files, without loading any of them."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler import pickled
from bundler.pickled import foreign_imports
from bundler.relative import RelativePath

ALLOWED = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch.FloatStorage",
    "builtins.set",
    "_codecs.encode",
}
DAMAGED = "a pickle that cannot be read to its end"
NO_ZIP = "a zip archive that cannot be read for sure"
TOO_MUCH = "more pickled data than is searched"

MARKER = "executed"
"""A file that every hostile pickle would make in the current folder."""
TOUCH = f"Vtouch {MARKER}\n".encode()
HARMLESS = b"\x80\x02}q\x00."
EVIL = b"\x80\x02cos\nsystem\n" + TOUCH + b"\x85R."
LEGACY_HEAD = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + HARMLESS


def found(content: bytes) -> list[str]:
    return foreign_imports(io.BytesIO(content), ALLOWED)


def text(string: str) -> bytes:
    """Push `string`, as protocol 4 does."""
    return b"\x8c" + bytes([len(string)]) + string.encode()


def frame(size: int) -> bytes:
    return b"\x95" + struct.pack("<Q", size)


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED, **central: int) -> bytes:
    """A zip archive; `central` are fields of its directory that differ from the truth."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as writer:
        for name, content in members.items():
            writer.writestr(name, content)
        for member in writer.filelist:
            for field, value in central.items():
                setattr(member, field, value)
    return file.getvalue()


def tar(*names: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as writer:
        for name in names:
            writer.addfile(tarfile.TarInfo(name))
    return file.getvalue()


def two_directories() -> bytes:
    """An archive whose directory is announced at one place and stands at another as well."""
    evil, harmless = archive({"a/data.pkl": EVIL}), archive({"a/data.pkl": HARMLESS})
    joined = evil[:-22] + harmless[:-22] + evil[-22:]
    with zipfile.ZipFile(io.BytesIO(joined)) as opened:
        assert opened.infolist()[0].file_size == len(HARMLESS)  # zipfile sees only the other one
    return joined


# What torch makes, and what it takes.

MAKE = """
import json, warnings
from collections import Counter, OrderedDict
import torch
warnings.simplefilter("ignore")

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)
    def forward(self, x):
        return self.layer(x)

net = Net()
optimizer = torch.optim.Adam(net.parameters())
net(torch.ones(1, 2)).sum().backward()
optimizer.step()
objects = {
    "state dict": net.state_dict(),
    "optimizer": optimizer.state_dict(),
    "nested": {"a": [1, 2.5, None, True, "é", b"x", (1,), {2}, Counter("aa")], "b": -(2 ** 70)},
    "dtypes": [torch.zeros(2, dtype=d) for d in (torch.bfloat16, torch.int8, torch.bool)],
    "parameter": net.layer.weight,
    "sparse": torch.eye(2).to_sparse(),
    "module": net,
    "function": torch.relu,
    "slice": slice(1, 2),
}
for name, value in objects.items():
    torch.save(value, name + ", zip")
    torch.save(value, name + ", legacy", _use_new_zipfile_serialization=False)
torch.jit.save(torch.jit.script(net), "TorchScript")

def taken(name):
    try:
        torch.load(name, weights_only=True)
    except Exception:
        return False
    return True

names = [kind + form for kind in objects for form in (", zip", ", legacy")] + ["TorchScript"]
allowed = list(torch._weights_only_unpickler._get_allowed_globals())
print(json.dumps({"allowed": allowed, "taken": {name: taken(name) for name in names}}))
"""


@dataclass(frozen=True)
class Made:
    """Files that torch made: whether it takes each with weights_only=True, and what that allows."""

    folder: Path
    taken: dict[str, bool]
    allowed: frozenset[str]

    def found(self, name: str) -> list[str]:
        with (self.folder / name).open("rb") as file:
            return foreign_imports(file, self.allowed)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    folder = tmp_path_factory.mktemp("made")
    (folder / "make.py").write_text(MAKE)  # a file, as TorchScript looks at the source
    process = subprocess.run(
        [sys.executable, "make.py"], cwd=folder, check=True, stdout=subprocess.PIPE
    )
    result = json.loads(process.stdout)
    return Made(folder, result["taken"], frozenset(result["allowed"]))


def test_nothing_is_found_exactly_where_torch_loads_the_weights_only(made: Made) -> None:
    assert {name: not made.found(name) for name in made.taken} == made.taken
    assert 0 < sum(made.taken.values()) < len(made.taken)


def test_a_module_is_told_by_the_classes_that_it_is_made_of(made: Made) -> None:
    for form in ("zip", "legacy"):
        assert {"__main__.Net", "torch.nn.modules.linear.Linear"} <= set(
            made.found(f"module, {form}")
        )


def test_torchscript_is_told_as_code(made: Made) -> None:
    assert "TorchScript code" in made.found("TorchScript")


def test_a_file_of_torch_that_ends_early_is_never_harmless(made: Made) -> None:
    for name in ("state dict, zip", "state dict, legacy"):
        whole = (made.folder / name).read_bytes()
        pickles = whole if name.endswith("zip") else whole[: whole.rindex(b"]q") + 1]
        for length in range(15, len(pickles)):
            assert foreign_imports(io.BytesIO(pickles[:length]), made.allowed), (name, length)


# What a pickle would look up.


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_what_is_found_is_what_an_unpickler_asks_for(protocol: int) -> None:
    asked = set()

    class Asked(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            asked.add(f"{module}.{name}")
            return super().find_class(module, name)

    values = [Fraction(1, 3), date(2000, 1, 1), RelativePath("a"), defaultdict(list, a=[3j])]
    content = pickle.dumps([*values, OrderedDict(a=Counter("b")), *values], protocol)
    Asked(io.BytesIO(content)).load()
    assert foreign_imports(io.BytesIO(content), ()) == sorted(asked)
    assert foreign_imports(io.BytesIO(content), asked) == []


def plain_values() -> st.SearchStrategy[object]:
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.just({1})
    )
    return st.recursive(
        leaves, lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner)
    )


@given(plain_values(), st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_nothing_is_found_in_plain_values(value: object, protocol: int) -> None:
    allowed = {*ALLOWED, "builtins.bytes", "builtins.bytearray"}
    assert foreign_imports(io.BytesIO(pickle.dumps(value, protocol)), allowed) == []


def test_names_of_python_2_are_those_of_python_3() -> None:
    assert found(b"\x80\x02c__builtin__\nset\nc__builtin__\neval\n0c copy_reg\n_x\n0.") == [
        " copy_reg._x",
        "builtins.eval",
    ]
    assert found(b"\x80\x02ccopy_reg\n_reconstructor\n.") == ["copyreg._reconstructor"]


def test_a_pickle_within_long_data_is_found_without_reading_the_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pickled, "MAX_READ", 1000)
    data = b"B" + struct.pack("<I", 1 << 20) + bytes(1 << 20)
    assert found(b"\x80\x03" + data * 3 + b"cos\nsystem\n.") == ["os.system"]
    assert found(data + b"0" + EVIL) == ["os.system"]
    assert found(b"\x80\x03N" + data[:-1]) == [DAMAGED]


TWICE = text("system") + b"\x94" + text("os") + b"\x94"
HOSTILE = {
    "GLOBAL": (EVIL, ["os.system"]),
    "STACK_GLOBAL": (
        b"\x80\x04" + text("os") + text("system") + b"\x93" + TOUCH + b"\x85R.",
        ["os.system"],
    ),
    "STACK_GLOBAL with a frame and memo in between": (
        b"\x80\x04" + text("os") + b"\x94" + frame(9) + text("system") + b"\x94" + b"\x93.",
        ["os.system"],
    ),
    "names from the memo": (
        b"\x80\x04" + TWICE + b"00h\x01h\x00\x93" + TOUCH + b"\x85R.",
        ["os.system"],
    ),
    "names from the memo, stored and fetched otherwise": (
        b"\x80\x04" + text("os") + b"p300\n0" + text("system") + b"r\7\0\0\00j\x2c\1\0\0g7\n\x93.",
        ["os.system"],
    ),
    "a memo that is written over": (
        b"\x80\x04"
        + text("collections")
        + b"q\0"
        + text("OrderedDict")
        + b"q\1"
        + text("os")
        # by something that is no string any more
        + b"\x85q\0000"
        + b"h\0h\1\x93.",
        ["a name made at run time"],
    ),
    "allowed names on top that are taken away": (
        b"\x80\x04" + TWICE + b"h\1h\0" + text("collections") + text("OrderedDict") + b"00\x93.",
        ["a name made at run time"],
    ),
    "names that are byte strings": (
        b"\x80\x04U\2osU\6system\x93.",
        ["a name made at run time"],
    ),
    "names that are there twice": (
        b"\x80\x04" + text("os") + b"2\x93.",
        ["a name made at run time"],
    ),
    "INST": (b"(" + TOUCH + b"ios\nsystem\n.", ["os.system"]),
    "INST in a pickle with a protocol": (b"\x80\x02(" + TOUCH + b"ios\nsystem\n.", ["os.system"]),
    "OBJ": (b"(cos\nsystem\n" + TOUCH + b"o.", ["os.system"]),
    "protocol 0": (b"cos\nsystem\n(" + TOUCH + b"tR.", ["os.system"]),
    "protocol 0 that breaks off after the call": (
        b"cos\nsystem\n(" + TOUCH + b"tRand then text",
        [DAMAGED, "os.system"],
    ),
    "protocol 0 with something after it": (b"cos\nsystem\n(" + TOUCH + b"tR.\0\0", ["os.system"]),
    "an item of a global": (b"cos\nenviron\nVA\nVb\ns", [DAMAGED, "os.environ"]),
    "numbers that only C reads": (
        b"I1\0x\n0I0x10\n0I\n0L7\0\n0F1\0\np1\0\n0" + EVIL[2:],
        ["os.system"],
    ),
    "a byte string": (b"S'\xff\\xff'\n0" + EVIL[2:], ["os.system"]),
    "INST whose line only Python reads": (b"(" + TOUCH + b"ios\nsystem!", [DAMAGED, "os.system"]),
    "a name in Unicode": ("\x80\x02cö\nü\n.".encode()[1:], ["ö.ü"]),
    "EXT1": (b"\x80\x02\x82\x01.", ["an extension code"]),
    "EXT4": (b"\x80\x02\x84\1\0\0\0.", ["an extension code"]),
    "an allowed name with escapes": (
        b"\x80\x02ccollections\nOrdered\\x44ict\n.",
        ["collections.Ordered\\x44ict"],
    ),
    "an allowed name with a space": (
        b"\x80\x02ctorch\n_utils _rebuild_tensor_v2\n.",
        ["torch._utils _rebuild_tensor_v2"],
    ),
    "names that a terminal would obey": (b"\x80\x02cos\n\x1b[2J\n.", ["os.\\x1b[2J"]),
    "an endless name": (b"\x80\x02cos\n" + b"x" * 9999 + b"\n.", ["os." + "x" * 197]),
    "a truncated pickle": (EVIL[:-1], [DAMAGED, "os.system"]),
    "a truncated pickle of allowed names": (b"\x80\x02ccollections\nOrderedDict\n", [DAMAGED]),
    "an unknown opcode": (b"\x80\x02N\xff.", [DAMAGED]),
    "a string of petabytes": (b"\x80\x04N\x8e" + struct.pack("<Q", 10**15) + b"a.", [DAMAGED]),
    "a frame that ends within an opcode": (
        # pickle's C code goes on after it with `em`, and has forgotten `syst`.
        b"\x80\x04" + frame(8) + b"cos\nsystem\n.",
        [DAMAGED],
    ),
    "a frame that ends within an opcode, in a pickle without a protocol": (
        frame(2) + b"Vos\n.",
        [DAMAGED],
    ),
    "a frame within a frame": (b"\x80\x04" + frame(12) + b"N0" + frame(1) + b".", [DAMAGED]),
    "a frame that goes on after the end": (b"\x80\x04" + frame(3) + b"N.N" + EVIL, [DAMAGED]),
    "an object of a legacy file": (LEGACY_HEAD + EVIL + HARMLESS + b"\0\0", ["os.system"]),
    "system information of a legacy file": (
        LEGACY_HEAD[: -len(HARMLESS)] + EVIL + HARMLESS * 2,
        ["os.system"],
    ),
    "the keys of a legacy file": (LEGACY_HEAD + HARMLESS + EVIL, ["os.system"]),
    "a legacy file whose magic number is written otherwise": (
        b"L119547037146038801333356L\n." + HARMLESS * 2 + EVIL,
        ["os.system"],
    ),
    "a legacy file that ends early": (LEGACY_HEAD + HARMLESS, [DAMAGED]),
    "a second pickle after a harmless one": (HARMLESS + EVIL, ["os.system"]),
    "data.pkl": (archive({"a/data.pkl": EVIL}), ["os.system"]),
    "data.pkl in a compressed archive": (
        archive({"a/data.pkl": EVIL}, zipfile.ZIP_DEFLATED),
        ["os.system"],
    ),
    "DATA.PKL, which torch takes for the same": (archive({"a/DATA.PKL": EVIL}), ["os.system"]),
    "constants.pkl": (
        archive({"a/data.pkl": HARMLESS, "a/constants.pkl": EVIL}),
        ["os.system"],
    ),
    "TorchScript": (
        archive({"a/data.pkl": HARMLESS, "a/code/__torch__.py": b""}),
        ["TorchScript code"],
    ),
    "a damaged data.pkl": (archive({"a/data.pkl": EVIL[:-1]}), [DAMAGED, "os.system"]),
    "an empty data.pkl": (archive({"a/data.pkl": b""}), [DAMAGED]),
    "a member of petabytes": (
        archive({"a/data.pkl": HARMLESS}, file_size=10**15, compress_size=10**15),
        [TOO_MUCH],
    ),
    "a member that shrank a lot": (
        archive({"a/data.pkl": b"\x80\x02" + bytes(65 << 20)}, zipfile.ZIP_DEFLATED),
        [TOO_MUCH],
    ),
    "an encrypted member": (archive({"a/data.pkl": HARMLESS}, flag_bits=1), [NO_ZIP]),
    "a member compressed otherwise": (
        archive({"a/data.pkl": HARMLESS}, zipfile.ZIP_LZMA),
        [NO_ZIP],
    ),
    "a member compressed in an unknown way": (
        archive({"a/data.pkl": HARMLESS}, compress_type=77),
        [NO_ZIP],
    ),
    "a member that is not where it should be": (
        archive({"a/data.pkl": HARMLESS}, header_offset=9999),
        [NO_ZIP],
    ),
    "two directories": (two_directories(), [NO_ZIP]),
    "an archive that ends early": (archive({"a/data.pkl": HARMLESS})[:-1], [NO_ZIP]),
    "a tar archive of torch": (
        tar("sys_info", "pickle", "tensors", "storages"),
        ["an old tar archive"],
    ),
    "a tar archive whose checksum ends as Python strips text": (
        (TAR := tar("sys_info", "pickle"))[:154] + b"\x1f\x1c" + TAR[156:],
        ["an old tar archive"],
    ),
}


@pytest.mark.parametrize(("content", "expected"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_hidden_is_found_and_not_executed(
    content: bytes, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert found(content) == expected
    assert not list(tmp_path.iterdir())


def test_members_that_overlap_are_no_way_around() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as writer:
        writer.writestr("a/data.pkl", EVIL)
        writer.filelist.append(writer.filelist[0])
    assert found(file.getvalue()) in (["os.system"], [NO_ZIP])  # newer versions of zipfile refuse


ENDLESS = {
    "memo": b"\x80\x04N" + b"\x94" * 2000,
    "marks": b"\x80\x04" + b"(" * 2000,
    "pickles": b"N." * 1000,
    "tar members": tarfile.TarInfo("x").tobuf() * 1000,
}


@pytest.mark.parametrize("content", ENDLESS.values(), ids=ENDLESS)
def test_the_search_ends(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "MAX_READS", 1000)
    assert found(content) in ([TOO_MUCH], ["an old tar archive"])


def test_no_more_is_read_than_the_limit() -> None:
    string = b"X" + struct.pack("<I", 1 << 16) + bytes(1 << 16)
    assert found(b"\x80\x02" + string * 1025) == [TOO_MUCH]
    assert found(b"V" + b"a" * (65 << 20)) == [TOO_MUCH]


def test_not_all_of_too_many_names_are_told() -> None:
    result = found(b"\x80\x02" + b"".join(b"ca\nn%d\n0" % number for number in range(5000)))
    assert TOO_MUCH in result
    assert len(result) < 2000


# What is no pickle.


def safetensors(header_size: int) -> bytes:
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(header_size)
    return struct.pack("<Q", header_size) + header + bytes(4)


OTHERS = {
    "empty": b"",
    "one byte": b"\x80",
    "safetensors": safetensors(64),
    "safetensors that starts as a pickle": safetensors(0x0280),
    "fastText": struct.pack("<iiiiii", 793712314, 12, 100, 5, 5, 1) + bytes(999),
    "word2vec": b"3000000 300\nin " + bytes(range(256)),
    "GGUF": b"GGUF\3\0\0\0" + bytes(99),
    "NumPy": b"\x93NUMPY\1\0v\0{'descr': '<f4'}",
    "ONNX": b"\x08\x07\x12\x07pytorch",
    "PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "JSON": b'{"model_type": "bert"}',
    "words": b"cat\ndog\nbird\nRat\nbat\n",
    "prose": b"N.B. This is text.\nc\n",
    "a dot": b".gitignore\n",
    "source": b"import os\nos.system('true')\n",
    "class": b"class A:\n    pass\n\nbuild = 1\n",
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "zeros": bytes(5000),
    "tar": tar("model_config.yaml", "pickle.txt", "a/pickle"),
    "tar named as an end": tar("N."),
    "zip": archive({"code/data.json": b"{}", "a/code/b.py": b""}),
    "zip of arrays": archive({"a.npy": b"\x93NUMPY"}),
    "floats": struct.pack("<999f", *map(float, range(999))),
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_other_files_are_no_pickles(content: bytes) -> None:
    assert found(content) == []


def test_random_bytes_are_no_pickles() -> None:
    chance = random.Random(1)
    assert [found(chance.randbytes(200)) for _ in range(2000)] == [[]] * 2000


def mutations() -> Iterator[bytes]:
    """One of each format, to be damaged."""
    yield archive({"a/data.pkl": EVIL, "a/version": b"3"}, zipfile.ZIP_DEFLATED)
    yield LEGACY_HEAD + EVIL + HARMLESS
    yield pickle.dumps([Fraction(1, 3), "text", 1.5, {"a": b"b"}], 4)
    yield pickle.dumps([Fraction(1, 3), "text", 1.5, {"a": b"b"}], 0)
    yield tar("pickle", "x" * 200)


@given(
    st.sampled_from([b"", b"\x80\x02", b"\x80\x04", b"PK\x03\x04", LEGACY_HEAD, *mutations()]),
    st.lists(st.tuples(st.integers(0, 9999), st.integers(0, 255))),
    st.binary(),
)
def test_any_bytes_give_a_list(start: bytes, changes: list[tuple[int, int]], rest: bytes) -> None:
    content = bytearray(start + rest)
    for place, byte in changes:
        if content:
            content[place % len(content)] = byte
    result = found(bytes(content))
    assert result == sorted(set(result))
    assert not os.path.exists(MARKER)
