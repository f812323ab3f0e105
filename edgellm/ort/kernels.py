"""edgellm's own kernels: their library, where it is installed, and graphs with its operators for ONNX Runtime's."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from edgellm.errors import MissingDependencyError, OptionError, ProviderError
from edgellm.ort.joining import joined
from edgellm.package.onnx_file import (
    GRAPH_NODE,
    MODEL_GRAPH,
    NODE_DOMAIN,
    NODE_OP_TYPE,
    Node,
    Tensor,
    initializers_of,
    nodes_of,
    parsed,
    read_tensor,
)
from edgellm.package.protobuf import Bytes, encoded, messages, rewritten

KernelChoice = Literal["auto", "off"]

VARIABLE = "EDGELLM_KERNELS"  # names an instruction set, for tests
LARGEST_GRAPH = 64 << 20  # bytes; a file that holds its weights itself is left to ONNX Runtime
DOMAIN, BLOCK_LINEAR = "edgellm", b"BlockLinear"
MODEL_OPSET, OPSET_DOMAIN, OPSET_VERSION = 8, 1, 2
FLOAT32, UINT8 = 1, 2
INPUTS = (None, UINT8, FLOAT32, UINT8, None, FLOAT32)  # of MatMulNBits: the types of those that are constants
GROUPS = 4  # its input that says which block a column belongs to
BLOCKS = (16, 32, 64, 128, 256)

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
        return Library(edgellm_kernels.library(), edgellm_kernels.instruction_sets())
    except OSError as error:
        raise ProviderError(f"the library of edgellm-kernels cannot be loaded: {error}") from error


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
    """A graph with edgellm's operators, and the instruction set that they run on."""

    graph: bytes
    instruction_set: str


def exchange(graph: Path, options: Any) -> Exchanged | None:
    """The graph in the file `graph` with edgellm's operators, for which ONNX Runtime's session options are prepared;
    None where there are no kernels, or no operators that they replace."""
    found = library()
    exchanged = None if found is None else with_kernels(graph)
    if found is None or exchanged is None:
        return None
    options.register_custom_ops_library(str(found.path))
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.parent))
    return Exchanged(joined(exchanged), found.chosen)


def with_kernels(graph: Path) -> bytes | None:
    """The content of the file `graph` with edgellm's operators; None where it has none that they replace."""
    try:
        if graph.stat().st_size > LARGEST_GRAPH:
            return None
        return _exchanged(memoryview(graph.read_bytes()))
    except (OSError, ValueError, IndexError, KeyError):  # ONNX Runtime says better what is wrong with it
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
    tensors = _tensors(graph)
    return sum(_fits(node, tensors) for node in nodes_of(graph))


def _tensors(graph: Bytes) -> dict[str, Tensor]:
    return {name: read_tensor(message) for name, message in initializers_of(graph).items()}


def _exchanged(data: Bytes) -> bytes | None:
    graph = next(messages(data, MODEL_GRAPH), None)
    if graph is None:
        return None
    tensors, exchanged = _tensors(graph), 0

    def of_graph(field: int, message: Bytes) -> bytes | None:
        nonlocal exchanged
        if field != GRAPH_NODE or not _fits(Node(message), tensors):
            return None
        exchanged += 1
        return rewritten(message, _renamed)

    def of_model(field: int, message: Bytes) -> bytes | None:
        return rewritten(message, of_graph) if field == MODEL_GRAPH else None

    opset = encoded(OPSET_DOMAIN, DOMAIN.encode()) + encoded(OPSET_VERSION, 1)
    changed = rewritten(data, of_model)
    return changed + encoded(MODEL_OPSET, opset) if exchanged else None


def _renamed(field: int, _: Bytes) -> bytes | None:
    return {NODE_OP_TYPE: BLOCK_LINEAR, NODE_DOMAIN: DOMAIN.encode()}.get(field)


def _fits(node: Node, tensors: Mapping[str, Tensor]) -> bool:
    """Whether it is a MatMulNBits of constant weights that rounds its activations, as these kernels do, in float32."""
    if node.operator != "MatMulNBits" or node.domain != "com.microsoft":
        return False
    numbers = node.numbers
    blocks = numbers.get("bits") in (4, 8) and numbers.get("block_size") in BLOCKS
    if not blocks or numbers.get("accuracy_level") != 4:
        return False
    given = [*node.inputs, *[""] * len(INPUTS)][: len(INPUTS)]
    types = {name: kind for name, kind in zip(given, INPUTS, strict=True) if kind is not None and name}
    constants = all(name in tensors and tensors[name].data_type == kind for name, kind in types.items())
    return constants and bool(given[1] and given[2]) and not given[GROUPS]
