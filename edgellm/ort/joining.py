"""Operators of edgellm's own kernels that do several steps of a graph at once: a layer with its activation, gate or
residual, a norm with what its channels are multiplied by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgellm.package.onnx_file import (
    ATTRIBUTE_FLOAT,
    ATTRIBUTE_INT,
    ATTRIBUTE_KIND,
    ATTRIBUTE_NAME,
    GRAPH_NODE,
    GRAPH_OUTPUT,
    MODEL_GRAPH,
    MODEL_PRODUCER,
    NODE_ATTRIBUTE,
    NODE_INPUT,
    NODE_OUTPUT,
    Node,
    all_nodes,
    initializers_of,
    nodes_of,
    ports_of,
    read_tensor,
)
from edgellm.package.protobuf import Bytes, encoded, encoded_float, messages, rewritten, spans, texts

BLOCK_LINEAR = "BlockLinear"
# The kernels' numbers of the activations, by operator and domain.
ACTIVATIONS = {
    ("QuickGelu", "com.microsoft"): 1, ("Gelu", "com.microsoft"): 2, ("FastGelu", "com.microsoft"): 3, ("Relu", ""): 4,
}  # fmt: skip
QUICK_GELU_ALPHA = 1.702  # where the node does not say
RESIDUAL, SECOND = 6, 7  # inputs of BlockLinear; those before are MatMulNBits' own
NORMS, WEIGHT, SCALE = ("LayerNorm", "RMSNorm"), 1, 3  # and inputs of theirs
OURS = "edgellm"
KIND_FLOAT, KIND_INT = 1, 2


@dataclass(frozen=True)
class Step:
    """A node, decoded. `index`: its place in the graph."""

    index: int
    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    node: Node

    @property
    def is_linear(self) -> bool:
        return self.operator == BLOCK_LINEAR


@dataclass(frozen=True)
class Join:
    """What takes the place `at` of one of several steps. `gone`: the places of all of them. `message`: the new node."""

    at: int
    gone: frozenset[int]
    message: bytes


@dataclass(frozen=True)
class Steps:
    """A graph's nodes, in order. `users`: who reads a value. `makers`: who makes it. `kept`: values that are read
    from outside. `constants`: the graph's, by name."""

    all: Sequence[Step]
    users: Mapping[str, Sequence[Step]]
    makers: Mapping[str, Step]
    kept: frozenset[str]
    constants: Mapping[str, Bytes]

    def only_user(self, step: Step) -> Step | None:
        """The one step that reads what `step` makes, where nothing else does."""
        (value, *others), users = step.outputs, self.users.get(step.outputs[0], ())
        return users[0] if len(users) == 1 and not others and value not in self.kept else None


def joined(model: bytes) -> bytes:
    """The ONNX model with fewer steps: those behind a BlockLinear that it can do itself. Its numbers change by the
    rounding of activation functions at most."""
    graph = next(messages(memoryview(model), MODEL_GRAPH))
    known_shapes = next(texts(memoryview(model), MODEL_PRODUCER), "") == OURS
    joins = _joins(_steps(graph), known_shapes)
    new = {join.at: join.message for join in joins}
    changed = {index for join in joins for index in join.gone} | new.keys()

    def of_graph() -> Iterator[bytes]:
        index = -1
        for field, _, whole in spans(graph):
            index += field == GRAPH_NODE
            if field != GRAPH_NODE or index not in changed:
                yield bytes(whole)
            elif index in new:
                yield encoded(GRAPH_NODE, new[index])

    def of_model(field: int, _: Bytes) -> bytes | None:
        return b"".join(of_graph()) if field == MODEL_GRAPH else None

    return rewritten(memoryview(model), of_model) if joins else model


def _steps(graph: Bytes) -> Steps:
    steps = [
        Step(index, node.operator, node.domain, tuple(node.inputs), tuple(node.outputs), node)
        for index, node in enumerate(nodes_of(graph))
    ]
    users: dict[str, list[Step]] = defaultdict(list)
    for step in steps:
        for value in step.inputs:
            users[value].append(step)
    makers = {value: step for step in steps for value in step.outputs}
    return Steps(steps, users, makers, frozenset(_read_outside(graph, steps)), initializers_of(graph))


def _read_outside(graph: Bytes, steps: Iterable[Step]) -> Iterator[str]:
    """Outputs of the graph, and what subgraphs read."""
    yield from ports_of(graph, GRAPH_OUTPUT)
    for subgraph in (each for step in steps for each in step.node.subgraphs):
        yield from ports_of(subgraph, GRAPH_OUTPUT)
        for node in all_nodes(subgraph):
            yield from node.inputs


def _joins(steps: Steps, known_shapes: bool) -> list[Join]:
    joins, used = list[Join](), set[int]()
    for step in steps.all:
        join = None if step.index in used else _join(steps, step, known_shapes)
        if join is not None and not join.gone & used:
            joins.append(join)
            used |= join.gone
    return joins


def _join(steps: Steps, step: Step, known_shapes: bool) -> Join | None:
    """`known_shapes`: what is added to a layer has its shape, as in the graphs that edgellm exports."""
    if step.is_linear:
        return _of_linear(steps, step, known_shapes)
    return _scaled(steps, step) if step.operator in NORMS and step.domain == OURS else None


def _of_linear(steps: Steps, linear: Step, known_shapes: bool) -> Join | None:
    user = steps.only_user(linear)
    if user is None:
        return None
    if (user.operator, user.domain) in ACTIVATIONS and len(user.inputs) == 1:
        return _gated(steps, linear, user) or _merged([linear, user], linear.inputs, _activation(user))
    if known_shapes and user.operator == "Add" and not user.domain:
        return _with_residual(steps, linear, user)
    return None


def _gated(steps: Steps, linear: Step, activation: Step) -> Join | None:
    """activation(linear(x)) x second(x), where both layers have the same sizes."""
    product = steps.only_user(activation)
    if product is None or product.operator != "Mul" or product.domain:
        return None
    second = steps.makers.get(_other(product, activation.outputs[0]))
    if second is None or not second.is_linear or steps.only_user(second) is not product or not _alike(linear, second):
        return None
    weights, scales, zeros, _, bias = _padded(second.inputs, RESIDUAL)[1:]
    inputs = [*_padded(linear.inputs, SECOND), weights, scales, zeros, bias]
    return _merged([linear, activation, second, product], inputs, _activation(activation))


def _with_residual(steps: Steps, linear: Step, add: Step) -> Join | None:
    residual = _other(add, linear.outputs[0])
    maker = steps.makers.get(residual)
    if maker is None or len(linear.inputs) > RESIDUAL:  # an input or a constant, whose shape may be another
        return None
    return _merged([linear, add], [*_padded(linear.inputs, RESIDUAL), residual], b"")


def _scaled(steps: Steps, norm: Step) -> Join | None:
    """A norm whose channels are also wanted multiplied by constants: its second output, at its own place."""
    (value,) = norm.outputs
    for product in steps.users.get(value, ()):
        if product.operator != "Mul" or product.domain:
            continue
        scale, weight = (steps.constants.get(name) for name in (_other(product, value), norm.inputs[WEIGHT]))
        if scale is None or weight is None or read_tensor(scale).dims != read_tensor(weight).dims:
            continue
        inputs = [*_padded(norm.inputs, SCALE), _other(product, value)]
        gone = frozenset((norm.index, product.index))
        return Join(norm.index, gone, _node(norm, inputs, [value, *product.outputs]))
    return None


def _other(step: Step, value: str) -> str:
    first, second = step.inputs
    return second if first == value else first


def _padded(inputs: Sequence[str], count: int) -> list[str]:
    return [*inputs, *[""] * (count - len(inputs))]


def _alike(first: Step, second: Step) -> bool:
    """Whether they read the same x and their matrices have the same sizes."""
    return first.inputs[0] == second.inputs[0] and first.node.numbers == second.node.numbers


def _activation(step: Step) -> bytes:
    """The attributes that BlockLinear has for it."""
    number = encoded(ATTRIBUTE_NAME, b"activation") + encoded(ATTRIBUTE_INT, ACTIVATIONS[step.operator, step.domain])
    found = encoded(NODE_ATTRIBUTE, number + encoded(ATTRIBUTE_KIND, KIND_INT))
    if step.operator != "QuickGelu":
        return found
    given = [bytes(each) for each in messages(step.node.message, NODE_ATTRIBUTE)]
    alpha = encoded(ATTRIBUTE_NAME, b"alpha") + encoded_float(ATTRIBUTE_FLOAT, QUICK_GELU_ALPHA)
    return found + encoded(NODE_ATTRIBUTE, given[0] if given else alpha + encoded(ATTRIBUTE_KIND, KIND_FLOAT))


def _merged(steps: Sequence[Step], inputs: Sequence[str], attributes: bytes) -> Join:
    """The first step with what the others add to it; the last one's place and outputs are its own."""
    first, last = steps[0], steps[-1]
    return Join(last.index, frozenset(step.index for step in steps), _node(first, inputs, last.outputs) + attributes)


def _node(step: Step, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The step with other inputs and outputs."""
    ports = (NODE_INPUT, NODE_OUTPUT)
    kept = b"".join(bytes(whole) for field, _, whole in spans(step.node.message) if field not in ports)
    named = [encoded(NODE_INPUT, name.encode()) for name in inputs]
    named += [encoded(NODE_OUTPUT, name.encode()) for name in outputs]
    return b"".join(named) + kept
