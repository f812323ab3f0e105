"""Pickles are programs. None of these runs."""

from __future__ import annotations

import copyreg
import os
import pickle
import struct
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edgellm.errors import CheckpointError
from edgellm_export.weights.pytorch import read_pytorch
from weights.torch_files import named, several, state, storage, tensor, text, whole, zip_of

EXTENSION = 0xF0  # a code that copyreg gives to os.system below
DEEP = 50_000


class Evil:
    """What pickle makes of it calls os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


class State:
    """What pickle makes of it calls __setstate__."""

    def __setstate__(self, made: dict[str, str]) -> None:
        os.system(made["command"])


def by_state(command: str) -> bytes:
    made = State()
    made.__dict__["command"] = command
    return pickle.dumps({"w": made}, 2)


def command_text(command: str) -> bytes:
    return f"S'{command}'\n".encode()


PROGRAMS = {
    "REDUCE": lambda c: pickle.dumps({"w": Evil(c)}, 2),
    "REDUCE at the top": lambda c: pickle.dumps(Evil(c), 2),
    "REDUCE beside a tensor": lambda c: b"\x80\x02}(" + text("a") + tensor() + text("b") + evil(c) + b"u.",
    "REDUCE as an argument of a tensor": lambda c: state(tensor(storage(), whole(0), evil(c), several(whole(1)))),
    "REDUCE as a hook": lambda c: state(
        named("torch._utils._rebuild_parameter") + several(tensor(), b"\x89", evil(c)) + b"R"
    ),
    "REDUCE in the attributes of a dictionary": lambda c: b"\x80\x02}" + evil(c) + b"b.",
    "REDUCE as the state of a parameter": lambda c: state(
        named("torch._utils._rebuild_parameter_with_state") + several(tensor(), b"\x89", b"}", evil(c)) + b"R"
    ),
    "REDUCE behind a tensor with attributes": lambda c: state(
        named("torch._tensor._rebuild_from_type_v2")
        + several(named("posix.system"), named("torch.Tensor"), several(text(c)), b"}")
        + b"R"
    ),
    "REDUCE as a storage": lambda c: state(tensor(evil(c), whole(0), several(whole(1)), several(whole(1)))),
    "REDUCE in an unused value": lambda c: b"\x80\x02" + evil(c) + b"0}.",
    "BUILD": by_state,
    "BUILD of a module's dictionary": lambda c: b"\x80\x02" + named("os") + b"}" + text("x") + text(c) + b"sb.",
    "GLOBAL of builtins": lambda c: b"c__builtin__\neval\n" + several(text(f"__import__('os').system({c!r})")) + b"R.",
    "GLOBAL with a dotted name": lambda c: b"ccollections\nOrderedDict.__class__\n" + several(text(c)) + b"R.",
    "GLOBAL of a module of that name": lambda c: b"ccollections.OrderedDict\nos.system\n" + several(text(c)) + b"R.",
    "GLOBAL in torch": lambda c: b"ctorch.hub\nload\n" + several(text(c)) + b"R.",
    "GLOBAL of codecs": lambda c: named("_codecs.encode") + several(text(c), text("latin1")) + b"R.",
    "GLOBAL that imports": lambda c: b"cantigravity\nfly\n.",
    "STACK_GLOBAL": lambda c: pickle.dumps({"w": Evil(c)}, 4),
    "protocol 5": lambda c: pickle.dumps({"w": Evil(c)}, 5),
    "protocol 0": lambda c: pickle.dumps({"w": Evil(c)}, 0),
    "STACK_GLOBAL without a protocol": lambda c: text("os") + text("system") + b"\x93" + several(text(c)) + b"R.",
    "INST": lambda c: b"(" + command_text(c) + b"ios\nsystem\n.",
    "OBJ": lambda c: b"(cos\nsystem\n" + command_text(c) + b"o.",
    "OBJ with text": lambda c: b"(cos\nsystem\n" + text(c) + b"o.",
    "NEWOBJ": lambda c: b"\x80\x02cos\nsystem\n" + several(text(c)) + b"\x81.",
    "NEWOBJ of a parameter": lambda c: (
        b"\x80\x02" + named("torch.nn.parameter.Parameter") + several(text(c)) + b"\x81."
    ),
    "NEWOBJ_EX": lambda c: b"\x80\x04cos\nsystem\n" + several(text(c)) + b"}\x92.",
    "EXT1": lambda c: b"\x80\x02\x82" + bytes([EXTENSION]) + several(text(c)) + b"R.",
    "EXT2": lambda c: b"\x80\x02\x83" + struct.pack("<H", EXTENSION) + several(text(c)) + b"R.",
    "EXT4": lambda c: b"\x80\x02\x84" + struct.pack("<I", EXTENSION) + several(text(c)) + b"R.",
    "PERSID": lambda c: b"P" + c.encode() + b"\n.",
    "persistent module": lambda c: several(text("module"), named("torch.Tensor"), text("a.py"), text(c)) + b"Q.",
    "persistent text": lambda c: text(c) + b"Q.",
    "persistent call": lambda c: b"\x80\x02" + evil(c) + b"Q.",
    "persistent class": lambda c: (
        several(text("storage"), named("os.system"), text("0"), text("cpu"), whole(1)) + b"Q."
    ),
}


def evil(command: str) -> bytes:
    return b"cposix\nsystem\n" + several(text(command)) + b"R"


@pytest.fixture
def command(tmp_path: Path) -> Iterator[str]:
    """A command that leaves a file, which no program may do; one of pickle's extension codes stands for os.system."""
    left = tmp_path / "left"
    copyreg.add_extension("os", "system", EXTENSION)
    yield f"touch {left}"
    copyreg.remove_extension("os", "system", EXTENSION)
    assert not left.exists()


def refused(tmp_path: Path, data: bytes) -> str:
    """What is said of a pickle in a torch file, and of the same pickle in a file of the old format."""
    path = tmp_path / "pytorch_model.bin"
    messages = []
    old = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    for content in (zip_of(data, {"0": bytes(16)}), old + data + pickle.dumps([], 2), data):
        path.write_bytes(content)
        with pytest.raises(CheckpointError) as error:
            read_pytorch(path)
        messages.append(str(error.value))
    return messages[0]


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_program_runs(name: str, tmp_path: Path, command: str) -> None:
    assert "pytorch_model.bin" in refused(tmp_path, PROGRAMS[name](command))
    assert "antigravity" not in sys.modules


def test_the_programs_would_run_elsewhere(tmp_path: Path) -> None:
    """Those that pickle itself takes do leave the file."""
    ran = set()
    for name in ("REDUCE", "BUILD", "GLOBAL of builtins", "STACK_GLOBAL", "INST", "OBJ", "REDUCE at the top"):
        left = tmp_path / name.replace(" ", "-")
        pickle.loads(PROGRAMS[name](f"touch {left}"))
        ran |= {name} if left.exists() else set()
    assert ran == {"REDUCE", "BUILD", "GLOBAL of builtins", "STACK_GLOBAL", "INST", "OBJ", "REDUCE at the top"}


def test_it_is_said_what_a_program_asks_for(tmp_path: Path, command: str) -> None:
    message = refused(tmp_path, PROGRAMS["REDUCE"](command))
    assert "posix.system" in message
    assert "Nothing of it was executed" in message


TENSOR = (storage(), whole(0), several(whole(2), whole(2)), several(whole(2), whole(1)))


def with_argument(at: int, value: bytes) -> bytes:
    return state(tensor(*TENSOR[:at], value, *TENSOR[at + 1 :]))


DAMAGED = {
    "nothing": b"",
    "no stop": b"\x80\x02}",
    "an empty stack": b"\x80\x02.",
    "more taken than there is": b"\x80\x02R.",
    "taken from below a mark": b"\x80\x02}(" + text("a") + b"s.",
    "a mark missing": b"\x80\x02}u.",
    "a key without a value": b"\x80\x02}(" + text("a") + b"u.",
    "a value that is not there": b"\x80\x02h\x07.",
    "items in a tensor": b"\x80\x02" + tensor() + text("a") + text("b") + b"s.",
    "items in a list": b"\x80\x02]" + text("a") + text("b") + b"s.",
    "an element of a dictionary": b"\x80\x02}" + text("a") + b"a.",
    "text cut off": b"\x80\x02X\xff\x00\x00\x00abc.",
    "text of 4 GB": b"\x80\x02X\xff\xff\xff\xff.",
    "text that is none": b"\x80\x02X\x01\x00\x00\x00\xff.",
    "a number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a frame of 2^63 bytes": b"\x80\x04\x95" + struct.pack("<Q", 1 << 63) + b"}.",
    "bytes of 2^63 bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 63) + b".",
    "a global without an end": b"\x80\x02ctorch",
    "a call without arguments": b"\x80\x02" + named("torch.Size") + b"NR.",
    "a call of text": b"\x80\x02" + text("torch.Size") + b")R.",
    "a call of a dictionary": b"\x80\x02})R.",
    "a call of a storage's type": b"\x80\x02" + named("torch.FloatStorage") + b")R.",
    "attributes of a number": b"\x80\x02K\x01}b.",
    "no dictionary": b"\x80\x02" + tensor() + b".",
    "a number among the tensors": state(whole(3)),
    "a dictionary among the tensors": state(b"}"),
    "a name that is a number": state(tensor(), name=whole(3)),
    "a name that is a tuple": state(tensor(), name=several(whole(3))),
    "a name that is a list": state(tensor(), name=b"]"),
    "a dictionary in itself": b"\x80\x02}q\x00" + text("w") + b"h\x00s.",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "deep tuples": state(b"N" + b"\x85" * DEEP),
    "deep tuples as a name": state(tensor(), name=b"N" + b"\x85" * DEEP),
    "deep lists": state(b"]" * DEEP + b"a" * (DEEP - 1)),
    "deep dictionaries": state((b"}" + text("a")) * DEEP + b"N" + b"s" * DEEP),
    "marks in marks": b"\x80\x02" + b"(" * DEEP + b"t" * DEEP + b".",
    "a tensor with attributes in itself": state(
        (named("torch._tensor._rebuild_from_type_v2") + b"(") * 500 + b"N" + b"tR" * 500
    ),
    "pairs that are none": named("collections.OrderedDict") + several(b"]" + whole(1) + b"a") + b"R.",
    "no storage": with_argument(0, text("0")),
    "a storage of another key": with_argument(0, storage(key="1")),
    "a key outside": with_argument(0, storage(key="../data.pkl")),
    "a storage larger than its entry": with_argument(0, storage(items=5)),
    "a negative storage": with_argument(0, storage(items=-4)),
    "a storage of 2^100 items": with_argument(0, storage(items=1 << 100)),
    "a storage of two sizes": b"\x80\x02}(" + text("a") + tensor() + text("b") + storage(items=3) + b"u.",
    "a storage of two types": b"\x80\x02}(" + text("a") + tensor() + text("b") + storage("torch.IntStorage") + b"u.",
    "a view outside of its storage": with_argument(
        0,
        several(text("storage"), named("torch.FloatStorage"), text("0"), text("cpu"), whole(4),
                several(text("1"), whole(3), whole(2))) + b"Q",
    ),
    "a negative offset": with_argument(1, whole(-1)),
    "an offset beyond the storage": with_argument(1, whole(1)),
    "an offset that is no number": with_argument(1, b"N"),
    "a size that is no number": with_argument(2, several(text("2"), whole(2))),
    "a size that is a flag": with_argument(2, several(b"\x88", whole(2))),
    "a negative size": with_argument(2, several(whole(-2), whole(2))),
    "sizes beyond the storage": with_argument(2, several(whole(3), whole(2))),
    "sizes of 2^62": with_argument(2, several(whole(1 << 62), whole(1 << 62))),
    "an empty tensor of 2^60 columns": with_argument(2, several(whole(0), whole(1 << 60))),
    "sizes in a list": with_argument(2, b"]"),
    "a hundred axes": state(tensor(storage(), whole(0), several(*[whole(1)] * 100), several(*[whole(1)] * 100))),
    "negative strides": with_argument(3, several(whole(-2), whole(1))),
    "strides beyond the storage": with_argument(3, several(whole(2), whole(3))),
    "fewer strides than sizes": with_argument(3, several(whole(1))),
    "conjugated": state(
        named("torch._utils._rebuild_tensor_v2")
        + several(*TENSOR, b"\x89", b"}", b"}" + text("conj") + b"\x88s")
        + b"R"
    ),
    "sparse": state(named("torch._utils._rebuild_sparse_tensor") + several(b"N", b"N") + b"R"),
    "of numpy": state(named("numpy._core.multiarray.scalar") + several(b"N", b"N") + b"R"),
    "a trainer's": b"\x80\x02}(" + text("epoch") + whole(3) + text("state_dict") + b"}u.",
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_pickles_are_refused(case: str, tmp_path: Path) -> None:
    refused(tmp_path, DAMAGED[case])


def test_what_is_beside_the_tensors_is_named(tmp_path: Path) -> None:
    message = refused(tmp_path, DAMAGED["a trainer's"])
    assert "epoch, state_dict" in message
    assert "save_pretrained" in message


def test_the_tensors_of_these_pickles_are_read(tmp_path: Path) -> None:
    """What the cases above damage is in order, and torch reads it too."""
    data = torch.arange(4.0).numpy().tobytes()
    for made in (
        state(tensor()),
        named("collections.OrderedDict") + several(b"]" + several(text("w"), tensor()) + b"a") + b"R.",
        state(named("torch._utils._rebuild_parameter") + several(tensor(), b"\x89", b"}") + b"R"),
        state(
            named("torch._tensor._rebuild_from_type_v2")
            + several(named("torch._utils._rebuild_tensor_v2"), named("torch.Tensor"),
                      several(*TENSOR, b"\x89", b"}"), b"}")
            + b"R"
        ),
        b"\x80\x02}U\x01w" + tensor() + b"s.",
    ):  # fmt: skip
        (tmp_path / "w").write_bytes(zip_of(made, {"0": data}))
        assert read_pytorch(tmp_path / "w")["w"].rows(0, 2).tolist() == [[0, 1], [2, 3]]
        assert torch.load(tmp_path / "w", weights_only=True)["w"].tolist() == [[0, 1], [2, 3]]


def test_endless_pickles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgellm_export.weights.pickled.MAX_INSTRUCTIONS", 100)
    for content in (b"]" * 100 + b".", b"](" + b"N" * 96 + b"e.", b"(" * 100):
        assert "more than 100 instructions" in refused(tmp_path, b"\x80\x02" + content)


BOMBS = {
    "references": b"\x80\x02]q\x00(" + b"h\x00" * 20_000 + b"e.",
    "doubled tuples": b"\x80\x02N" + b"q\x00h\x00\x86" * 20_000 + b".",
    "dictionaries of pairs": b"\x80\x02](" + b"N" * 5000 + b"eq\x00"
    + (named("collections.OrderedDict") + b"h\x00\x85R") * 3000,
    "sizes": b"\x80\x02(" + b"K\x01" * 5000 + b"tq\x00" + (named("torch.Size") + b"h\x00\x85R") * 3000,
    "a long name": b"\x80\x02c" + b"a" * 20_000 + b"\n" + b"b" * 20_000 + b"\n.",
    "the memo": b"\x80\x02N" + b"".join(b"r" + struct.pack("<I", 200_000 * i) for i in range(20_000)) + b".",
}  # fmt: skip


@pytest.mark.parametrize("case", BOMBS)
def test_small_pickles_take_little_memory(case: str, tmp_path: Path) -> None:
    tracemalloc.start()
    refused(tmp_path, BOMBS[case])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (4 << 20) + 100 * len(BOMBS[case])
