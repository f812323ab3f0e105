"""Mixtures of experts in a graph that has steps for each: rows are split among them, each multiplies its own, and what
they make is joined again.

A graph of 48 layers of 128 experts has 25,000 steps, so they are read once, and compared as the bytes that lie there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from edgellm.ort import joining
from edgellm.package.onnx_file import (
    GRAPH_NODE,
    GRAPH_OUTPUT,
    NODE_ATTRIBUTE,
    NODE_DOMAIN,
    NODE_INPUT,
    NODE_OP_TYPE,
    NODE_OUTPUT,
    VALUE_NAME,
    Node,
)
from edgellm.package.protobuf import Bytes, messages, spans

MICROSOFT = b"com.microsoft"
# The kernels' numbers of the activations that a gate may have.
ACTIVATIONS = {(name.encode(), domain.encode()): number for (name, domain), number in joining.ACTIVATIONS.items()}
LINEAR, PRODUCT = (b"MatMulNBits", MICROSOFT), (b"Mul", b"")
LONGEST = 3  # steps from a layer to the product of both
BLOCKS = (16, 32, 64, 128, 256)
WEIGHTS, SCALES, ZEROS, GROUPS, BIAS, INPUTS = 1, 2, 3, 4, 5, 6  # inputs of MatMulNBits


class Unfit(Exception):
    """Steps are not those of a mixture that the kernels compute."""


@dataclass(frozen=True)
class Step:
    """A node as it lies in the file. `attributes`: all of them, one behind the other."""

    index: int
    kind: tuple[bytes, bytes]
    inputs: Sequence[bytes]
    outputs: Sequence[bytes]
    attributes: bytes


@dataclass(frozen=True)
class Steps:
    """A graph's nodes, in order. `users`: those that read a value, each as often as it does. `read`: values that are
    outputs of the graph."""

    all: Sequence[Step]
    users: Mapping[bytes, Sequence[Step]]
    read: frozenset[bytes]

    def only_user(self, value: bytes, kind: tuple[bytes, bytes] | None = None) -> Step:
        """The one step that reads it. Raises Unfit where others do, too, or where it is of another kind."""
        users = self.users.get(value, ())
        if len(users) != 1 or value in self.read or kind not in (None, users[0].kind):
            raise Unfit
        return users[0]


@dataclass(frozen=True)
class Matrix:
    """A MatMulNBits. `stored`: the names of weights, scales, zero points and bias, empty where there are none."""

    depth: int
    columns: int
    bits: int
    block: int
    stored: tuple[bytes, bytes, bytes, bytes]

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Bytes of what is stored."""
        blocks = -(-self.depth // self.block)
        zeros = blocks if self.bits == 8 else (blocks + 1) // 2
        whole = blocks * self.block * self.bits // 8
        return self.columns * whole, self.columns * blocks * 4, self.columns * zeros, self.columns * 4


@dataclass(frozen=True)
class Gate:
    """What is done to what gate and up make: the step of the activation, and, of a clamped gate, the constants: gate at
    most, up at least and at most, added to up."""

    kind: tuple[bytes, bytes]
    attributes: bytes
    clamp: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Expert:
    """`matrices`: gate, up, down. `gone`: the places of its steps."""

    matrices: tuple[Matrix, Matrix, Matrix]
    gate: Gate
    gone: frozenset[int]
    output: bytes


@dataclass(frozen=True)
class Mixture:
    """`rows` are split into as many as `sizes` says, and joined as `output` by the step at `at`, which is one of those
    that are `gone`. All experts have the same sizes and the same gate."""

    rows: bytes
    sizes: bytes
    output: bytes
    at: int
    gone: frozenset[int]
    experts: Sequence[Expert]

    @property
    def gate(self) -> Gate:
        return self.experts[0].gate

    @property
    def weights(self) -> Iterator[bytes]:
        """The names of all that the experts' matrices are made of."""
        return (name for expert in self.experts for matrix in expert.matrices for name in matrix.stored if name)


def steps_of(graph: Bytes) -> Steps:
    steps = [_step(index, message) for index, message in enumerate(messages(graph, GRAPH_NODE))]
    users: dict[bytes, list[Step]] = defaultdict(list)
    for step in steps:
        for value in step.inputs:
            users[value].append(step)
    read = (name for output in messages(graph, GRAPH_OUTPUT) for name in messages(output, VALUE_NAME))
    return Steps(steps, users, frozenset(map(bytes, read)))


def _step(index: int, message: Bytes) -> Step:
    inputs, outputs, attributes = list[bytes](), list[bytes](), list[bytes]()
    operator = domain = b""
    for field, value, whole in spans(message):
        if field == NODE_INPUT:
            inputs.append(bytes(value))
        elif field == NODE_OUTPUT:
            outputs.append(bytes(value))
        elif field == NODE_ATTRIBUTE:
            attributes.append(bytes(whole))
        elif field == NODE_OP_TYPE:
            operator = bytes(value)
        elif field == NODE_DOMAIN:
            domain = bytes(value)
    return Step(index, (operator, domain), inputs, outputs, b"".join(attributes))


def mixtures_of(steps: Steps) -> list[Mixture]:
    """Those that one operator can compute; none of a graph that has others inside, which may read any value."""
    if any(Node(memoryview(attributes)).subgraphs for attributes in {step.attributes for step in steps.all}):
        return []
    splits = (step for step in steps.all if step.kind == (b"Split", b"") and len(step.inputs) == 2)
    return [found for split in splits if (found := _mixture(steps, split)) is not None]


def _mixture(steps: Steps, split: Step) -> Mixture | None:
    try:
        experts = [_expert(steps, rows) for rows in split.outputs]
        concat, *others = (steps.only_user(each.output, (b"Concat", b"")) for each in experts)
    except Unfit:
        return None
    first = experts[0]
    alike = all((_shape(each), each.gate) == (_shape(first), first.gate) for each in experts)
    joined = [*concat.inputs] == [each.output for each in experts] and concat.attributes == split.attributes
    if not (alike and joined and split.inputs[1] and all(each is concat for each in others)):
        return None
    gone = frozenset({split.index, concat.index}).union(*(each.gone for each in experts))
    return Mixture(split.inputs[0], split.inputs[1], concat.outputs[0], concat.index, gone, experts)


def _shape(expert: Expert) -> tuple[tuple[int, int], ...]:
    return tuple((matrix.depth, matrix.columns) for matrix in expert.matrices)


def _expert(steps: Steps, rows: bytes) -> Expert:
    """down(activation(gate(rows)) x up(rows)); with a clamped gate down(activation(min(gate)) x (clip(up) + one))."""
    readers = steps.users.get(rows, ())
    if len(readers) != 2 or rows in steps.read:
        raise Unfit
    (first, product), (second, same) = (_up_to_product(steps, reader) for reader in readers)
    gate, up = (first, second) if len(first) > 1 and first[-1].kind in ACTIVATIONS else (second, first)
    down = steps.only_user(product.outputs[0], LINEAR)
    kinds = [step.kind[0] for step in (*gate[1:-1], *up[1:])]
    if product is not same or gate[-1].kind not in ACTIVATIONS or kinds not in ([], [b"Min", b"Clip", b"Add"]):
        raise Unfit
    clamp = tuple(name for step in (*gate[1:-1], *up[1:]) for name in step.inputs[1:])
    gone = frozenset(step.index for step in (*gate, *up, product, down))
    matrices = _matrix(gate[0], rows), _matrix(up[0], rows), _matrix(down, product.outputs[0])
    opened, other, closing = ((each.depth, each.columns) for each in matrices)
    if opened != other or matrices[0].block != matrices[1].block or closing != opened[::-1]:
        raise Unfit
    return Expert(matrices, Gate(gate[-1].kind, gate[-1].attributes, clamp), gone, down.outputs[0])


def _up_to_product(steps: Steps, linear: Step) -> tuple[list[Step], Step]:
    """The steps from a layer on, each of which reads what the one before makes, and the product behind them."""
    path = [linear]
    while len(path) <= LONGEST:
        user = steps.only_user(path[-1].outputs[0])
        if user.kind == PRODUCT:
            return path, user
        if user.inputs[0] != path[-1].outputs[0] or len(user.outputs) != 1:
            raise Unfit
        path.append(user)
    raise Unfit


def _matrix(step: Step, x: bytes) -> Matrix:
    if step.kind != LINEAR or step.inputs[0] != x or len(step.inputs) > INPUTS:
        raise Unfit
    given = [*step.inputs, *[b""] * (INPUTS - len(step.inputs))]
    numbers = _numbers(step.attributes)
    if numbers is None or given[GROUPS] or not (given[WEIGHTS] and given[SCALES]):
        raise Unfit
    return Matrix(*numbers, (given[WEIGHTS], given[SCALES], given[ZEROS], given[BIAS]))


@lru_cache(maxsize=64)
def _numbers(attributes: bytes) -> tuple[int, int, int, int] | None:
    """Depth, columns, bits and block size; None where the layer is not what BlockLinear computes."""
    found = Node(memoryview(attributes)).numbers
    depth, columns, bits, block = (found.get(name, 0) for name in ("K", "N", "bits", "block_size"))
    fits = bits in (4, 8) and block in BLOCKS and found.get("accuracy_level") == 4
    return (depth, columns, bits, block) if fits and depth > 0 and columns > 0 else None
