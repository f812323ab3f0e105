"""Pickles as torch writes them, read into plain values: no class is looked up and no function is called.

A pickle is a program for a small stack machine. This is the machine with the instructions that torch's own safe reader
(`weights_only=True`) knows, and with values of our own in the place of everything that a program may name: a global is
its name, a tensor is where its numbers lie. What the program wants to call is matched against the few forms in which
torch writes containers and tensors; anything else is an error that names it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgellm_export.weights.strided import span
from edgellm_export.weights.values import ITEM_BITS, MAX_RANK, are_sizes, is_size

MAX_INSTRUCTION_ARGUMENT = 1 << 24  # bytes; names are some dozen
MAX_INSTRUCTIONS = 1 << 21  # of a pickle; a thousand tensors take some forty thousand
PROTOCOL = 2

STORAGES = {
    "FloatStorage": "F32", "DoubleStorage": "F64", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64",
}  # fmt: skip
DTYPES = {
    "float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0", "complex64": "C64",
}  # fmt: skip
UNTYPED = "torch.storage.UntypedStorage"
STORAGE_TYPES = {f"torch.{name}": dtype for name, dtype in STORAGES.items()} | {UNTYPED: "U8"}
TENSOR_TYPES = {f"torch.{name}": dtype for name, dtype in DTYPES.items()}
ORDERED_DICT, SIZE, FROM_TYPE = "collections.OrderedDict", "torch.Size", "torch._tensor._rebuild_from_type_v2"
CALLED = {
    ORDERED_DICT, SIZE, FROM_TYPE, *(f"torch._utils._rebuild_{name}" for name in (
        "tensor", "tensor_v2", "tensor_v3", "parameter", "parameter_with_state"))
}  # fmt: skip
MENTIONED = {"torch.Tensor", "torch.nn.parameter.Parameter", *STORAGE_TYPES, *TENSOR_TYPES}


class PickleError(Exception):
    """What is wrong with a pickle, as a clause."""


class ForeignError(PickleError):
    """A pickle in order, of something else than tensors and containers."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name that stands for what Python would import."""

    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers in the file, found by `key`. `start` is where a view of it begins, in items."""

    key: str
    dtype: str
    items: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a view of a storage. `offset` and `strides` are in items of its dtype."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pairs:
    """A dictionary that is written as a list of pairs, as Python 2 does."""

    items: list[Any]


@dataclass
class Pickles:
    """The pickles that stand one behind the other in `data`. `at` is where the next one begins. `storages` are those
    that were mentioned so far, by key."""

    data: bytes
    at: int = 0
    storages: dict[str, Storage] = field(default_factory=dict)

    def load(self) -> Any:
        """The value of the next pickle. Raises PickleError."""
        machine = Machine(self)
        for _ in range(MAX_INSTRUCTIONS):
            code = self.take(1)[0]
            if code == STOP:
                return machine.pop()
            run = INSTRUCTIONS.get(code)
            if run is None:
                raise PickleError(
                    f"it has the instruction {code:#04x} at byte {self.at - 1}, which torch does not write"
                )
            run(machine)
        raise PickleError(f"it has more than {MAX_INSTRUCTIONS} instructions")

    def take(self, count: int) -> bytes:
        if count > min(len(self.data) - self.at, MAX_INSTRUCTION_ARGUMENT):
            raise PickleError(f"it ends early, or was changed, at byte {self.at}")
        self.at += count
        return self.data[self.at - count : self.at]

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + MAX_INSTRUCTION_ARGUMENT)
        if end < 0:
            raise PickleError(f"it ends early, or was changed, at byte {self.at}")
        raw = self.take(end + 1 - self.at)[:-1]
        return _decoded(raw)


class Machine:
    """The stack of one pickle, and the memo of what is referred to again."""

    def __init__(self, source: Pickles) -> None:
        self.source = source
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise PickleError(f"it takes more from its stack than there is, at byte {self.source.at}")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        """What lies above the last mark."""
        if not self.marks:
            raise PickleError(f"it misses a mark at byte {self.source.at}")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kind: type[Any]) -> Any:
        value = self.pop()
        self.push(value)
        if type(value) is not kind:
            raise PickleError(f"it fills a {type(value).__name__} as if it were a {kind.__name__}")
        return value

    def number(self, form: str) -> int:
        value: int = struct.unpack(form, self.source.take(struct.calcsize(form)))[0]
        return value


def _protocol(machine: Machine) -> None:
    if (protocol := machine.number("<B")) > PROTOCOL:
        raise ForeignError(f"it is written in pickle protocol {protocol}, and torch writes weights in {PROTOCOL}")


def _global(machine: Machine) -> None:
    name = f"{machine.source.line()}.{machine.source.line()}"
    if name not in CALLED and name not in MENTIONED:
        raise ForeignError(f"it asks for {name[:200]}, which weights are not made of")
    machine.push(Global(name))


def _reduce(machine: Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.push(called(function, arguments))


def called(function: Any, arguments: Any) -> Any:
    """What torch's function would make of its arguments, as one of our values. Raises PickleError."""
    if not isinstance(function, Global) or function.name not in CALLED or type(arguments) is not tuple:
        raise PickleError("it calls what is no function, or without arguments")
    if function.name == FROM_TYPE:  # a tensor with attributes, which weights have no use for
        match arguments:
            case (Global() as inner, Global(), tuple() as inner_arguments, _) if inner.name != FROM_TYPE:
                return called(inner, inner_arguments)
    match function.name.rpartition(".")[2], arguments:
        case "OrderedDict", ():
            return {}
        case "OrderedDict", (list() as items,):
            return Pairs(items)
        case "Size", (tuple() as sizes,) if len(sizes) <= MAX_RANK:
            return sizes
        case "_rebuild_tensor", (Storage() as storage, offset, shape, strides):
            return _tensor(storage, storage.dtype, offset, shape, strides)
        case "_rebuild_tensor_v2", (Storage() as storage, offset, shape, strides, _, _, *metadata) if len(metadata) < 2:
            return _tensor(storage, storage.dtype, offset, shape, strides, *metadata)
        case "_rebuild_tensor_v3", (Storage() as storage, offset, shape, strides, _, _, Global(dtype), *metadata):
            if dtype in TENSOR_TYPES and len(metadata) < 2:
                return _tensor(storage, TENSOR_TYPES[dtype], offset, shape, strides, *metadata)
        case "_rebuild_parameter", (StoredTensor() as tensor, _, _):
            return tensor
        case "_rebuild_parameter_with_state", (StoredTensor() as tensor, _, _, _):
            return tensor
    raise PickleError(f"it calls {function.name} in a way in which torch does not")


def _tensor(storage: Storage, dtype: str, offset: Any, shape: Any, strides: Any, metadata: Any = None) -> StoredTensor:
    if metadata is not None and metadata != {}:
        raise ForeignError("it has a tensor whose numbers are conjugated or negated when they are read")
    if not is_size(offset) or not _are_sizes(shape) or not _are_sizes(strides) or len(shape) != len(strides):
        raise PickleError("it has a tensor whose shape or strides are none")
    items = span(shape, strides)
    bits = ITEM_BITS[storage.dtype] * storage.items
    if items and (offset + items) * ITEM_BITS[dtype] > bits:
        raise PickleError(f"it has a tensor of {list(shape)} that reaches beyond its storage")
    first = storage.start * ITEM_BITS[storage.dtype] // ITEM_BITS[dtype]
    return StoredTensor(storage, dtype, first + offset if items else 0, shape, strides)


def _are_sizes(value: Any) -> bool:
    return type(value) is tuple and are_sizes(value)


def _build(machine: Machine) -> None:
    """Attributes of a container or a tensor, such as the versions of the modules whose weights it has: not needed."""
    machine.pop()
    if not isinstance(target := machine.pop(), dict | Pairs | StoredTensor):
        raise PickleError(f"it gives attributes to a {type(target).__name__}")
    machine.push(target)


def _persistent(machine: Machine) -> None:
    match machine.pop():
        case ("storage", Global(name), str() as key, str(), int() as items, *view) if name in STORAGE_TYPES:
            storage = Storage(key, STORAGE_TYPES[name], items)
        case identity:
            kind = identity[0] if type(identity) is tuple and identity else identity
            what = kind[:40] if isinstance(kind, str) else type(kind).__name__
            raise ForeignError(f"it refers to a {what} outside of it")
    if not is_size(items) or machine.source.storages.setdefault(key, storage) != storage:
        raise PickleError(f"it gives the storage {key[:40]!r} two sizes or types")
    match view:
        case [] | [None]:
            machine.push(storage)
        case [(str(), int() as start, int() as count)] if min(start, count) >= 0 and start + count <= items:
            machine.push(Storage(key, storage.dtype, count, start))
        case _:
            raise PickleError(f"it has a view of the storage {key[:40]!r} that is none")


def _set_items(target: dict[Any, Any], items: list[Any]) -> None:
    """Keys are text or numbers only: the hash of a tuple may take for ever, or overflow the stack."""
    keys = items[::2]
    if len(items) % 2 or not all(type(key) in (str, int) for key in keys):
        raise ForeignError("it has a dictionary whose keys are neither names nor numbers")
    target.update(zip(keys, items[1::2], strict=True))


def _set_item(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _set_items(machine.top(dict), [key, value])


def _set_marked(machine: Machine) -> None:
    items = machine.pop_mark()
    _set_items(machine.top(dict), items)


def _append(machine: Machine) -> None:
    value = machine.pop()
    machine.top(list).append(value)


def _extend(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.top(list).extend(items)


def _remember(form: str) -> Callable[[Machine], None]:
    def run(machine: Machine) -> None:
        value = machine.pop()
        machine.push(value)
        machine.memo[machine.number(form)] = value

    return run


def _recall(form: str) -> Callable[[Machine], None]:
    def run(machine: Machine) -> None:
        number = machine.number(form)
        if number not in machine.memo:
            raise PickleError(f"it refers to a value that is not there, at byte {machine.source.at}")
        machine.push(machine.memo[number])

    return run


def _tuple_of(count: int) -> Callable[[Machine], None]:
    def run(machine: Machine) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(items)))

    return run


def _text(form: str) -> Callable[[Machine], None]:
    return lambda machine: machine.push(_decoded(machine.source.take(machine.number(form))))


def _number(form: str) -> Callable[[Machine], None]:
    return lambda machine: machine.push(machine.number(form))


def _constant(value: Any) -> Callable[[Machine], None]:
    return lambda machine: machine.push(value)


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise PickleError(f"it has text that is not UTF-8 ({error.reason})") from error


def _integer(machine: Machine) -> None:
    raw = machine.source.take(machine.number("<B"))
    machine.push(int.from_bytes(raw, "little", signed=True))


# By their names in Python's pickletools; what is not here, torch does not write.
STOP = ord(".")
INSTRUCTIONS: Mapping[int, Callable[[Machine], None]] = {
    ord(code): run
    for code, run in {
        "\x80": _protocol,
        "c": _global,
        "R": _reduce,
        "b": _build,
        "Q": _persistent,  # BINPERSID
        "(": lambda machine: machine.marks.append(len(machine.stack)),  # MARK
        "a": _append,
        "e": _extend,  # APPENDS
        "s": _set_item,
        "u": _set_marked,  # SETITEMS
        "q": _remember("<B"),  # BINPUT
        "r": _remember("<I"),
        "h": _recall("<B"),  # BINGET
        "j": _recall("<I"),
        ")": _constant(()),
        "t": lambda machine: machine.push(tuple(machine.pop_mark())),
        "\x85": _tuple_of(1),
        "\x86": _tuple_of(2),
        "\x87": _tuple_of(3),
        "]": lambda machine: machine.push([]),
        "}": lambda machine: machine.push({}),
        "N": _constant(None),
        "\x88": _constant(True),
        "\x89": _constant(False),
        "J": _number("<i"),
        "K": _number("<B"),
        "M": _number("<H"),
        "G": _number(">d"),
        "\x8a": _integer,  # LONG1
        "X": _text("<I"),  # BINUNICODE
        "U": _text("<B"),  # SHORT_BINSTRING
    }.items()
}
