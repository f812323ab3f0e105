"""edgellm's own kernels: their library, where it is installed, and graphs with its operators for ONNX Runtime's."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from edgellm.errors import MissingDependencyError, OptionError, ProviderError
from edgellm.ort.experts import with_experts
from edgellm.ort.joining import joined
from edgellm.package.manifest import KVCacheChoice
from edgellm.package.onnx_file import (
    GRAPH_INPUT,
    GRAPH_NODE,
    GRAPH_OUTPUT,
    MODEL_GRAPH,
    NODE_DOMAIN,
    NODE_OP_TYPE,
    TENSOR_ELEMENT,
    TYPE_TENSOR,
    VALUE_NAME,
    VALUE_TYPE,
    Node,
    Port,
    Tensor,
    initializers_of,
    nodes_of,
    parsed,
    ports_of,
    read_tensor,
)
from edgellm.package.protobuf import Bytes, encoded, messages, rewritten, spans, texts

KernelChoice = Literal["auto", "off"]

INTERFACE = 3  # of the library, whose operators are written into graphs here
VARIABLE = "EDGELLM_KERNELS"  # names an instruction set, for tests
LARGEST_GRAPH = 64 << 20  # bytes; a file that holds its weights itself is left to ONNX Runtime
DOMAIN, REPLACED_DOMAIN = "edgellm", "com.microsoft"
MODEL_OPSET, OPSET_DOMAIN, OPSET_VERSION = 8, 1, 2
FLOAT32, UINT8, UINT16 = 1, 2, 4
OTHER_FLOATS, OTHER_FLOAT_NAMES = {10, 11, 16}, {"float16", "float64", "bfloat16"}
INPUTS = (None, UINT8, FLOAT32, UINT8, None, FLOAT32)  # of MatMulNBits: the types of those that are constants
GROUPS = 4  # its input that says which block a column belongs to
BLOCKS = (16, 32, 64, 128, 256)
PAST_KEY, PAST_VALUE, SCALES, ATTENTION_INPUTS = 3, 4, 12, 14  # of GroupQueryAttention
PRESENT_KEY, ATTENTION_OUTPUTS = 1, 3
ATTENTION_ATTRIBUTES = {
    "num_heads", "kv_num_heads", "scale", "softcap", "local_window_size", "do_rotary", "rotary_interleaved",
    "smooth_softmax", "qk_output", "kv_cache_bit_width", "k_quant_type", "v_quant_type",
}  # fmt: skip
MULTI_HEAD_ATTRIBUTES = {"num_heads", "scale", "mask_filter_value", "unidirectional"}
VALUE, LINEAR_BIAS, MULTI_HEAD_INPUTS = 2, 3, 6  # of MultiHeadAttention
LAST_AXIS = 2**64 - 1  # -1, as it lies in the file
ATTENTION, BFLOAT16_ATTENTION = "Attention", "AttentionBfloat16"
OTHER_ATTENTION = {BFLOAT16_ATTENTION, "AttentionInt8", "MultiHead", "Softmax"}  # names that do not end with it

log = logging.getLogger("edgellm")


@dataclass(frozen=True)
class Library:
    """`path`: what ONNX Runtime registers. `instruction_sets`: those that this machine runs, the fastest first."""

    path: Path
    instruction_sets: tuple[str, ...]

    @property
    def chosen(self) -> str:
        """The instruction set that is used. Raises OptionError where the variable names one that is not there."""
        forced = os.environ.get(VARIABLE)
        if forced and forced not in self.instruction_sets:
            raise OptionError(
                f"the variable {VARIABLE} is {forced!r}, expected one that this machine runs: "
                f"{', '.join(self.instruction_sets)}"
            )
        return forced or self.instruction_sets[0]


def open_library() -> Library:
    """Raises MissingDependencyError where there is none, ProviderError where it cannot be loaded."""
    try:
        import edgellm_kernels
    except ImportError as error:
        raise MissingDependencyError("edgellm-kernels is not installed") from error
    try:
        found = edgellm_kernels.interface()
        sets = edgellm_kernels.instruction_sets()
    except (OSError, AttributeError) as error:
        raise ProviderError(f"the library of edgellm-kernels cannot be loaded: {error}") from error
    if found != INTERFACE:
        raise ProviderError(
            f"edgellm-kernels is of another version: its operators have the number {found}, expected {INTERFACE}; "
            "install the edgellm and the edgellm-kernels that belong together"
        )
    return Library(edgellm_kernels.library(), sets)


@cache
def library() -> Library | None:
    """The installed kernels; None where there are none, or none that can be loaded."""
    try:
        return open_library()
    except MissingDependencyError:
        return None
    except ProviderError as error:
        log.warning("%s; ONNX Runtime's own kernels are used", error)
        return None


@dataclass(frozen=True)
class Exchanged:
    """A graph with edgellm's operators, and the instruction set they run on. `attends`: all attention is theirs."""

    graph: bytes
    instruction_set: str
    attends: bool


def exchange(graph: Path, options: Any, kv_cache: KVCacheChoice = "auto") -> Exchanged | None:
    """The graph in the file `graph` with edgellm's operators, for which ONNX Runtime's session options are prepared;
    None where there are no kernels, or no operators that they replace. `kv_cache` is as for LoadedGraph."""
    found = library()
    exchanged = None if found is None else with_kernels(graph, kv_cache)
    if found is None or exchanged is None:
        return None
    options.register_custom_ops_library(str(found.path))
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.parent))
    return Exchanged(exchanged, found.chosen, _attends(exchanged))


def _attends(model: bytes) -> bool:
    """Whether there is attention in the graph, and all of it is edgellm's; a softmax may be attention in steps, unless
    it is beside a choice of experts."""
    nodes = [*nodes_of(next(messages(memoryview(model), MODEL_GRAPH)))]
    ranked = {name for node in nodes if node.operator == "TopK" for name in (*node.inputs, *node.outputs)}
    ours = [
        node.domain == DOMAIN
        for node in nodes
        if node.operator.endswith("Attention")
        or (node.operator in OTHER_ATTENTION and not ranked.intersection((*node.inputs, *node.outputs)))
    ]
    return bool(ours) and all(ours)


def with_kernels(graph: Path, kv_cache: KVCacheChoice = "auto") -> bytes | None:
    """The content of the file `graph` with edgellm's operators; None where it has none that they replace."""
    try:
        if graph.stat().st_size > LARGEST_GRAPH:
            return None
        model = graph.read_bytes()
        stacked = with_experts(model)
        exchanged = _exchanged(memoryview(stacked), kv_cache, has_others=stacked is not model)
        return None if exchanged is None else joined(exchanged)
    except (OSError, ValueError, IndexError, KeyError, StopIteration):  # ONNX Runtime says better what is wrong with it
        return None


@dataclass(frozen=True)
class UsedKernels:
    """What runs graphs here: the instruction set of edgellm's kernels, None where there are none, and for how many
    operators."""

    instruction_set: str | None
    operators: int


def used_kernels(graphs: Sequence[Path]) -> UsedKernels:
    found = library()
    return UsedKernels(None if found is None else found.chosen, sum(map(replaceable, graphs)))


def replaceable(graph: Path) -> int:
    """How many operators of the file `graph` have kernels here."""
    return 0 if graph.stat().st_size > LARGEST_GRAPH else parsed(graph, _replaceable)


def _replaceable(graph: Bytes) -> int:
    facts = Facts(graph)
    return sum(_replacement(node, facts) is not None for node in nodes_of(graph))


@dataclass(frozen=True)
class Facts:
    """What decides whether a node of the graph is replaced, read when it is asked for."""

    graph: Bytes

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        return {name: read_tensor(message) for name, message in initializers_of(self.graph).items()}

    @cached_property
    def inputs(self) -> Mapping[str, Port]:
        return ports_of(self.graph, GRAPH_INPUT)

    @cached_property
    def is_float32(self) -> bool:
        """Whether nothing that is computed is of another type of floating point numbers; weights may be, which are
        made float32 when the graph is opened."""
        ports = [*self.inputs.values(), *ports_of(self.graph, GRAPH_OUTPUT).values()]
        casts = {node.numbers.get("to", 0) for node in nodes_of(self.graph) if node.operator == "Cast"}
        return not casts & OTHER_FLOATS and not {port.dtype for port in ports} & OTHER_FLOAT_NAMES


def _exchanged(data: Bytes, kv_cache: KVCacheChoice, *, has_others: bool) -> bytes | None:
    """`has_others`: it has operators of edgellm's already."""
    graph = next(messages(data, MODEL_GRAPH), None)
    if graph is None:
        return None
    facts, exchanged = Facts(graph), 0
    caches = _caches(graph, facts) if kv_cache == "bfloat16" else frozenset()

    def of_graph(field: int, message: Bytes) -> bytes | None:
        nonlocal exchanged
        if field in (GRAPH_INPUT, GRAPH_OUTPUT):
            return _retyped(message, UINT16) if next(texts(message, VALUE_NAME), "") in caches else None
        name = _replacement(Node(message), facts) if field == GRAPH_NODE else None
        if name is None:
            return None
        exchanged += 1
        name = BFLOAT16_ATTENTION if name == ATTENTION and caches else name
        ours = {NODE_OP_TYPE: name.encode(), NODE_DOMAIN: DOMAIN.encode()}
        named = rewritten(message, lambda part, _: ours.get(part))
        return named if Node(message).domain else named + encoded(NODE_DOMAIN, DOMAIN.encode())

    def of_model(field: int, message: Bytes) -> bytes | None:
        return rewritten(message, of_graph) if field == MODEL_GRAPH else None

    opset = encoded(OPSET_DOMAIN, DOMAIN.encode()) + encoded(OPSET_VERSION, 1)
    changed = rewritten(data, of_model)
    return changed + encoded(MODEL_OPSET, opset) if exchanged or has_others else None


def _caches(graph: Bytes, facts: Facts) -> frozenset[str]:
    """The names of the past and present keys and values that Attention reads and writes."""
    nodes = [node for node in nodes_of(graph) if _replacement(node, facts) == ATTENTION]
    return frozenset(
        name for node in nodes for name in (*node.inputs[PAST_KEY : PAST_VALUE + 1], *node.outputs[PRESENT_KEY:])
    )


def _retyped(port: Bytes, element: int) -> bytes:
    """An input or output of the graph that is a tensor, with another type of numbers."""

    def of_type(field: int, tensor: Bytes) -> bytes | None:
        if field != TYPE_TENSOR:
            return None
        rest = [bytes(whole) for part, _, whole in spans(tensor) if part != TENSOR_ELEMENT]
        return encoded(TENSOR_ELEMENT, element) + b"".join(rest)

    return rewritten(port, lambda field, kind: rewritten(kind, of_type) if field == VALUE_TYPE else None)


def _replacement(node: Node, facts: Facts) -> str | None:
    """The operator of edgellm's that computes the same, if there is one."""
    found = OPERATORS.get((node.domain, node.operator), ())
    return next((operator.name for operator in found if operator.fits(node, facts)), None)


def _fits_linear(node: Node, facts: Facts) -> bool:
    """Whether a MatMulNBits has constant weights and rounds its activations, as these kernels do, in float32."""
    numbers = node.numbers
    blocks = numbers.get("bits") in (4, 8) and numbers.get("block_size") in BLOCKS
    if not blocks or numbers.get("accuracy_level") != 4:
        return False
    given = [*node.inputs, *[""] * len(INPUTS)][: len(INPUTS)]
    types = {name: kind for name, kind in zip(given, INPUTS, strict=True) if kind is not None and name}
    tensors = facts.tensors
    constants = all(name in tensors and tensors[name].data_type == kind for name, kind in types.items())
    return constants and bool(given[1] and given[2]) and not given[GROUPS]


def _fits_attention(node: Node, facts: Facts) -> bool:
    """Whether a GroupQueryAttention reads and writes a float32 cache."""
    return _cache_type(node, facts) == "float32" and not any(node.inputs[SCALES:])


def _fits_attention_int8(node: Node, facts: Facts) -> bool:
    """Whether its cache is of int8, with scales."""
    scales = node.inputs[SCALES:]
    eight_bits = node.numbers.get("kv_cache_bit_width") == 8
    return _cache_type(node, facts) == "int8" and eight_bits and len(scales) == 2 and all(scales)


def _cache_type(node: Node, facts: Facts) -> str | None:
    """Of a GroupQueryAttention in float32 whose cache is an input of the graph, and that gives nothing besides."""
    inputs, outputs = node.inputs, node.outputs
    complete = len(inputs) <= ATTENTION_INPUTS and len(outputs) == ATTENTION_OUTPUTS and all(outputs)
    if not complete or not ATTENTION_ATTRIBUTES.issuperset(node.attributes):
        return None
    pasts = (facts.inputs.get(name) for name in inputs[PAST_KEY : PAST_VALUE + 1])
    types = {None if past is None else past.dtype for past in pasts}
    return types.pop() if len(types) == 1 and facts.is_float32 else None


def _fits_multi_head(node: Node, facts: Facts) -> bool:
    """Whether a MultiHeadAttention has a query, keys and values apart, no cache, and gives nothing else."""
    inputs = node.inputs
    complete = VALUE < len(inputs) <= MULTI_HEAD_INPUTS and all(inputs[: VALUE + 1]) and len(node.outputs) == 1
    if not complete or any(inputs[LINEAR_BIAS : LINEAR_BIAS + 1]):
        return False
    known = MULTI_HEAD_ATTRIBUTES.issuperset(node.attributes) and not node.numbers.get("unidirectional")
    return known and facts.is_float32


def _fits_norm(node: Node, facts: Facts) -> bool:
    """Whether a norm is over the last axis, with constants for all of its numbers, and gives nothing else."""
    numbers = node.numbers
    last = numbers.get("axis", LAST_AXIS) == LAST_AXIS and numbers.get("stash_type", FLOAT32) == FLOAT32
    weights = [facts.tensors.get(name) for name in node.inputs[1:] if name]
    whole = bool(weights) and all(each is not None and _is_vector(each) for each in weights)
    return last and whole and len(node.outputs) == 1 and facts.is_float32


def _is_vector(tensor: Tensor) -> bool:
    return tensor.data_type == FLOAT32 and len(tensor.dims) == 1 and tensor.elements > 1


@dataclass(frozen=True)
class Operator:
    """One of edgellm's, and for which nodes it can stand."""

    name: str
    fits: Callable[[Node, Facts], bool]


OPERATORS = {
    (REPLACED_DOMAIN, "MatMulNBits"): (Operator("BlockLinear", _fits_linear),),
    (REPLACED_DOMAIN, "GroupQueryAttention"): (
        Operator(ATTENTION, _fits_attention),
        Operator("AttentionInt8", _fits_attention_int8),
    ),
    (REPLACED_DOMAIN, "MultiHeadAttention"): (Operator("MultiHead", _fits_multi_head),),
    ("", "LayerNormalization"): (Operator("LayerNorm", _fits_norm),),
    ("", "SimplifiedLayerNormalization"): (Operator("RMSNorm", _fits_norm),),
}
