"""Encoder-only graphs with their heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from edgellm.errors import PackageError
from edgellm.foreign.config import text_length_of
from edgellm.foreign.files import ForeignDirectory, graph_file
from edgellm.foreign.kind import KindFields
from edgellm.package.manifest import LABEL_TASKS, EncoderFacts, Problem, Task
from edgellm.package.sentence import read_embedding

MAX_LABELS = 1 << 20
MIXES_ROWS = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul"}  # operators with one scale for a whole batch


def encoder_kind(directory: ForeignDirectory) -> KindFields:
    """An encoder-only model: its head shows in the outputs, and in the name of the checkpoint's class."""
    root, config, graph = directory.root, directory.config, directory.parts[0]
    context_length = text_length_of(directory)
    outputs, architectures = graph.facts.outputs, config.get("architectures")
    name = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    task: Task | None = None
    if "start_logits" in outputs and "end_logits" in outputs:
        task = "question-answering"
    elif "logits" in outputs and len(outputs["logits"].shape) == 2:
        task = "text-classification"
    elif "logits" in outputs and name.endswith("ForTokenClassification"):
        task = "token-classification"
    elif "logits" in outputs and name.endswith("ForMaskedLM"):
        task = "fill-mask"
    elif "last_hidden_state" in outputs:
        task = "feature-extraction"
    if task is None:
        raise PackageError(
            f"{root} holds {graph.file} with outputs {', '.join(list(outputs)[:4])}: edgellm runs encoders with their "
            "heads, and decoders that were exported with their past, as `--task text-generation-with-past` does"
        )
    wanted = {"question-answering": ("start_logits", "end_logits"), "feature-extraction": ("last_hidden_state",)}
    file = graph_file(graph, ("input_ids", "attention_mask", "token_type_ids"), wanted.get(task, ("logits",)))
    labels = _labels(config, outputs["logits"].shape[-1]) if task in LABEL_TASKS else ()
    problem = config.get("problem_type")
    facts = EncoderFacts(
        labels=labels,
        problem_type=problem if task == "text-classification" and problem in get_args(Problem) else None,
        embedding=read_embedding(root, context_length) if task == "feature-extraction" else None,
        rows_apart=bool(MIXES_ROWS & graph.facts.operators),
    )
    return KindFields(task=task, graphs={"model": file}, model=facts, context_length=context_length)


def _labels(config: Mapping[str, Any], outputs: int | str) -> tuple[str, ...]:
    named = config.get("id2label")
    named = named if isinstance(named, dict) else {}
    count = outputs if isinstance(outputs, int) else len(named) or 2
    if not 0 < count <= MAX_LABELS:
        raise PackageError(f"its outputs have {count} classes, expected 1 to {MAX_LABELS}")
    return tuple(str(named.get(str(i), f"LABEL_{i}")) for i in range(count))
