"""What `edgellm inspect` prints for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from edgellm.commands.export_text import source_lines
from edgellm.inspection.contents import Inspection, Layer, StoredMatrix
from edgellm.inspection.footprint import size
from edgellm.inspection.graph_summary import GraphSummary
from edgellm.ort.kernels import UsedKernels
from edgellm.package.manifest import CacheLayout, EncoderDecoderFacts, EncoderFacts, Manifest
from edgellm.package.onnx_file import Port

LABELS = 8  # shown
OPERATORS = 8  # shown


def facts(found: Inspection, kernels: UsedKernels, *, verified: bool) -> list[str]:
    manifest, tokens = found.manifest, found.manifest.tokens
    return [
        f"path         {found.path}",
        f"model        {manifest.model_type}, {manifest.task}, from {_source(manifest)}",
        f"weights      {manifest.weights.precision} ({manifest.weights.scheme}), for {manifest.target}",
        f"context      {manifest.context_length} tokens, vocabulary {manifest.vocab_size}",
        *_model_lines(manifest),
        f"tokens       bos {tokens.bos}, eos {', '.join(map(str, tokens.eos)) or None}, pad {tokens.pad}",
        *_provenance(found),
        *_memory(found),
        *_files(manifest, verified=verified),
        *_kernels(kernels),
        *(line for name, graph in found.graphs.items() for line in _graph(name, graph)),
        *_layer_table(found.layers),
    ]


def matrix_table(matrices: Sequence[StoredMatrix]) -> list[str]:
    rows = [
        (
            f"{each.part}: {each.node}",
            each.operator,
            each.scheme,
            " x ".join(map(str, each.shape)),
            size(each.bytes),
            _percent(each.error),
        )
        for each in matrices
    ]
    return _table([("matrix", "operator", "format", "shape", "size", "error"), *rows], right={4, 5})


def _kernels(kernels: UsedKernels) -> list[str]:
    ours = f"edgellm's {kernels.instruction_set}" if kernels.instruction_set else "none of edgellm's here"
    return [f"kernels      {ours}, for {kernels.operators} operators"] if kernels.operators else []


def _files(manifest: Manifest, *, verified: bool) -> list[str]:
    checked = "all as exported" if verified else "hashes not checked (--verify)"
    total = size(sum(entry.size for entry in manifest.files.values()))
    return [
        f"files        {total}, {checked if manifest.has_hashes else 'made by another tool, no hashes'}",
        *(f"  {name}  {size(entry.size)}" for name, entry in sorted(manifest.files.items())),
    ]


def _model_lines(manifest: Manifest) -> list[str]:
    """What only the kind of model has; of an encoder-decoder, the context is that of its targets."""
    facts, lines = manifest.model, []
    if isinstance(facts, EncoderFacts):
        return _encoder_lines(facts)
    if isinstance(facts, EncoderDecoderFacts):
        longest = "of any length" if facts.source_length is None else f"of up to {facts.source_length} tokens"
        per_token = size(facts.cross_cache.bytes_per_token())
        lines.append(f"source       {longest}, {per_token} per token in the decoder's layers")
        if facts.global_attention is not None:
            lines.append(f"attention    global for the {facts.global_attention} token of a source")
    cache = facts.cache
    if not cache.num_attention_layers:
        return [*lines, f"cache        {_states(cache)}"]
    return [
        *lines,
        f"cache        {size(cache.bytes_per_token())} per token: {cache.num_attention_layers} layers, "
        f"{cache.num_kv_heads} heads of {cache.head_dim}, {cache.dtype}{_convolutions(cache)}"
        + ("" if cache.states is None else f"; {_states(cache)}"),
    ]


def _convolutions(cache: CacheLayout) -> str:
    conv = cache.conv
    if conv is None:
        return ""
    per_row = size(cache.bytes_per_row())
    return f"; {len(conv.layers)} convolutions of {conv.width} channels, {conv.dtype}, {per_row} per row"


def _states(cache: CacheLayout) -> str:
    states = cache.states
    assert states is not None
    sizes = f"{states.num_heads} heads of {states.head_dim} x {states.state_size}"
    return f"{len(states.layers)} states of {sizes}, float32, {size(states.bytes_per_row)} per row and copy"


def _encoder_lines(encoder: EncoderFacts) -> list[str]:
    embedding, lines = encoder.embedding, []
    if encoder.labels:
        shown = ", ".join(encoder.labels[:LABELS]) + (", ..." if len(encoder.labels) > LABELS else "")
        lines.append(f"labels       {len(encoder.labels)}: {shown}")
    if embedding is not None:
        unit = ", unit vectors" if embedding.normalize else ""
        poolings = " and ".join(embedding.poolings)
        lines.append(f"embedding    {poolings} of the tokens{unit}, texts of {embedding.max_tokens} tokens")
    return lines


def _provenance(found: Inspection) -> list[str]:
    manifest = found.manifest
    source, hashes = manifest.source, manifest.source.get("sha256")
    dtypes = ", ".join(map(str, source.get("dtypes") or ()))
    lines = [f"made with    {_pairs(manifest.versions)}"]
    if source.get("format"):
        lines.append(f"checkpoint   {source['format']}{f', {dtypes}' if dtypes else ''}")
    lines += [f"  {name}  sha256 {value}" for name, value in (hashes if isinstance(hashes, dict) else {}).items()]
    lines += source_lines(source)
    if found.written is not None:
        lines.append(f"written      {found.written:%Y-%m-%d %H:%M} UTC, says the file system")
    return lines


def _memory(found: Inspection) -> list[str]:
    it = found.memory
    rest = size(it.base + it.tokenizer)
    parts = f"{size(it.weights)} weights, {size(it.cache)} cache, {size(it.run)} a run, {rest} everything else"
    if found.manifest.target == "cuda":
        return [f"memory       {size(it.weights + it.cache)} of the GPU at {it.context} tokens: {parts.split(', ')[0]}"]
    return [f"memory       about {size(it.total)} at {it.context} tokens (--context): {parts}"]


def _graph(name: str, graph: GraphSummary) -> Iterator[str]:
    shown = list(graph.operators.items())[:OPERATORS]
    rest = graph.nodes - sum(count for _, count in shown)
    operators = ", ".join(f"{count} {operator}" for operator, count in shown)
    yield f"graph        {name}: {graph.nodes} nodes, {operators}{f', {rest} others' if rest else ''}"
    yield from (f"  in  {line}" for line in _ports(graph.inputs))
    yield from (f"  in  {line}, optional" for line in _ports(graph.optional))
    yield from (f"  out {line}" for line in _ports(graph.outputs))


def _ports(ports: Iterable[Port]) -> list[str]:
    """Those that differ by a number in their names together."""
    groups: dict[tuple[str, str, tuple[int | str, ...]], list[str]] = {}
    for port in ports:
        pattern = re.sub(r"\.\d+\.", ".*.", re.sub(r"\.\d+$", ".*", port.name))
        shape = tuple(re.sub(r"\d+", "*", each) if isinstance(each, str) else each for each in port.shape)
        groups.setdefault((pattern, port.dtype, shape), []).append(port.name)
    return [
        f"{names[0] if len(names) == 1 else pattern} [{', '.join(map(str, shape))}] {dtype}"
        + (f", {len(names)} of them" if len(names) > 1 else "")
        for (pattern, dtype, shape), names in groups.items()
    ]


def _layer_table(layers: Sequence[Layer]) -> list[str]:
    several = len({layer.part for layer in layers}) > 1
    rows = [
        (
            (f"{each.part} " if several else "") + ("outside" if each.layer is None else f"layer {each.layer}"),
            size(each.bytes),
            _percent(each.error),
            ", ".join(each.schemes),
        )
        for each in sorted(layers, key=lambda each: (each.part, -1 if each.layer is None else each.layer))
    ]
    return ["", *_table([("layer", "size", "error", "formats"), *rows], right={1, 2}), ""] if rows else []


def _table(rows: Sequence[Sequence[str]], right: set[int]) -> list[str]:
    """Columns as wide as their widest cell; those of `right` aligned there."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    sides = [">" if i in right else "<" for i in range(len(widths))]
    return ["  ".join(map("{:{}{}}".format, row, sides, widths)).rstrip() for row in rows]


def _percent(error: float | None) -> str:
    return "" if error is None else f"{error:.2%}"


def _pairs(values: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "unknown"


def _source(manifest: Manifest) -> str:
    revision = manifest.source.get("revision")
    return f"{manifest.source.get('name', 'unknown')}{f' at {revision}' if revision else ''}"
