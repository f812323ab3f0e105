"""The package directory as frozen dataclasses: what `edgellm.json` says, read and validated in one place.

The exporter writes a `Manifest`, the runtime reads it; nothing else passes between the two. The runtime never looks at
an architecture's name: whatever it needs to know is a field here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from edgellm.errors import PackageCorruptError, PackageVersionError
from edgellm.package.typed_json import parse

FORMAT_VERSION = 1
MANIFEST_NAME = "edgellm.json"

Task = Literal[
    "text-generation",
    "text2text-generation",
    "fill-mask",
    "text-classification",
    "token-classification",
    "question-answering",
    "feature-extraction",
]
GENERATION_TASKS: tuple[Task, ...] = ("text-generation", "text2text-generation")
LABEL_TASKS: tuple[Task, ...] = ("text-classification", "token-classification")
Pooling = Literal["mean", "cls", "max"]
Problem = Literal["single_label_classification", "multi_label_classification", "regression"]
Target = Literal["cpu", "cuda"]
Precision = Literal["fp32", "fp16", "int8", "int4"]
KVCacheType = Literal["float", "int8"]  # "float": the type of the graph's activations

# What the names of outputs with attention weights begin with; the layer's number follows.
ATTENTIONS, CROSS_ATTENTIONS = "attentions.", "cross_attentions."

CACHE_ITEM_BYTES = {"float32": 4, "float16": 2, "int8": 1}


@dataclass(frozen=True)
class GraphFile:
    """One ONNX graph. `inputs` and `outputs` are the names at its boundary, cache tensors excluded."""

    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def attentions(self) -> tuple[str, ...]:
        """The outputs with attention weights, [batch, heads, tokens, tokens], one for each layer; mostly none."""
        return tuple(name for name in self.outputs if name.startswith(ATTENTIONS))

    @property
    def cross_attentions(self) -> tuple[str, ...]:
        """The same of a decoder's attention to its source, [batch, heads, target tokens, source tokens]."""
        return tuple(name for name in self.outputs if name.startswith(CROSS_ATTENTIONS))


@dataclass(frozen=True)
class CacheLayout:
    """The key/value cache: 2 x `num_layers` tensors of [batch, num_kv_heads, capacity, head_dim].

    `past` and `present` are name patterns with `{layer}` and `{side}` ("key" or "value"). `growth` says what a step
    does: "in_place" writes into the spare capacity of the buffer that is bound as past and present alike, "concat"
    gives the past back with the new tokens behind it. The scales of an int8 cache are constants of the graph.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: Literal["float32", "float16", "int8"]
    growth: Literal["in_place", "concat"] = "in_place"
    past: str = "past_key_values.{layer}.{side}"
    present: str = "present.{layer}.{side}"

    def names(self) -> list[tuple[str, str]]:
        """The graph's past and present tensors, layer by layer, key before value."""
        return [(_name(self.past, at), _name(self.present, at)) for at in _places(self.num_layers)]

    def bytes_per_token(self) -> int:
        """Bytes that one token of one row occupies in the whole cache."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * CACHE_ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class CrossCacheLayout:
    """The keys and values of a source that each layer of a decoder reads: 2 x `num_layers` tensors of
    [sources, num_heads, source tokens, head_dim]. The encoder makes them once, under the names `present`; the decoder
    takes them under the names `past`."""

    num_layers: int
    num_heads: int
    head_dim: int
    dtype: Literal["float32", "float16"]
    past: str = "past_key_values.{layer}.encoder.{side}"
    present: str = "present.{layer}.encoder.{side}"

    def names(self) -> list[tuple[str, str]]:
        """The encoder's output and the decoder's input for each tensor, layer by layer, key before value."""
        return [(_name(self.present, at), _name(self.past, at)) for at in _places(self.num_layers)]

    def bytes_per_token(self) -> int:
        """Bytes that one token of one source occupies in all layers."""
        return 2 * self.num_layers * self.num_heads * self.head_dim * CACHE_ITEM_BYTES[self.dtype]


def _places(layers: int) -> list[tuple[int, str]]:
    return [(layer, side) for layer in range(layers) for side in ("key", "value")]


def _name(pattern: str, place: tuple[int, str]) -> str:
    layer, side = place
    return pattern.format(layer=layer, side=side)


@dataclass(frozen=True)
class Rope:
    """What the runtime must do for rotary tables that depend on the sequence length.

    `has_length_input`: the graph has an optional input `rope_length` [1] int64 (default 0). The tables follow
    max(row length, rope_length); prefill in chunks feeds the whole prompt's length so that it equals one-shot prefill.
    `recompute_beyond`: when a row grows from this many tokens to more, its cache is computed anew from its tokens
    (the original model does so), because all keys must come from the same table.
    """

    has_length_input: bool = False
    recompute_beyond: int | None = None

    @property
    def changes_with_every_token(self) -> bool:
        """Dynamic NTK scaling beyond the trained length, which is not known here."""
        return self.has_length_input and self.recompute_beyond is None


@dataclass(frozen=True)
class Embedding:
    """How a sentence encoder makes one vector of a text: the graph pools the hidden states of its tokens, the runtime
    makes the result a unit vector if `normalize`. `max_tokens`: longer texts were cut in training."""

    pooling: Pooling
    normalize: bool
    max_tokens: int


@dataclass(frozen=True)
class Encoder:
    """What the runtime must know of an encoder-only model. `labels`: what the outputs stand for, in order; none unless
    the task is a classification. `problem_type`: of text-classification, None where the checkpoint does not say.
    `rows_apart`: the graph mixes the rows of a batch (one scale for all), so each is run by itself."""

    labels: tuple[str, ...] = ()
    problem_type: Problem | None = None
    embedding: Embedding | None = None
    rows_apart: bool = False


@dataclass(frozen=True)
class TokenIds:
    """Special token ids. `eos` is a list because chat models end on any of several. `decoder_start`: what the target of
    an encoder-decoder begins with."""

    bos: int | None = None
    eos: tuple[int, ...] = ()
    pad: int | None = None
    decoder_start: int | None = None


@dataclass(frozen=True)
class Weights:
    """How the weights are stored. `scheme` is a short name such as "blockwise-32"; details are in the report."""

    precision: Precision
    scheme: str
    tied_embedding: bool


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and lower-case hexadecimal sha256 of one file of the package; "" where nothing recorded one, in a
    directory without edgellm.json."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """`edgellm.json`. `files` maps each other file of the package, by POSIX path inside it, to its size and hash.
    `cache`: of models that generate. `context_length`: in tokens, of an encoder-decoder the longest target;
    `source_length` its longest source, None for no limit; `cross_cache`: its decoder's view of the source."""

    task: Task
    model_type: str
    target: Target
    graphs: Mapping[str, GraphFile]
    cache: CacheLayout | None
    weights: Weights
    vocab_size: int
    context_length: int
    tokens: TokenIds
    rope: Rope = Rope()
    source_length: int | None = None
    cross_cache: CrossCacheLayout | None = None
    encoder: Encoder | None = None
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def kv_cache(self) -> CacheLayout:
        """The cache of a model that generates."""
        assert self.cache is not None
        return self.cache

    @property
    def encoder_facts(self) -> Encoder:
        """Of an encoder-only model."""
        assert self.encoder is not None
        return self.encoder

    @property
    def cross(self) -> CrossCacheLayout:
        """What the decoder of an encoder-decoder reads of a source."""
        assert self.cross_cache is not None
        return self.cross_cache

    @property
    def has_hashes(self) -> bool:
        """Whether this was read from a file; a directory of another tool's graphs has none."""
        return all(entry.sha256 for entry in self.files.values())

    @property
    def arrives_fused(self) -> bool:
        """Whether the graphs are edgellm's own; in those of other tools there are operators to join."""
        return self.source.get("kind") != "onnx" and "optimum-onnx" not in self.versions

    @property
    def decoding_rounds_apart(self) -> bool:
        """Whether a token decoded by itself leaves keys and values behind that differ from those of the same token in a
        prompt by more than float rounding. Attention over a float cache adds in another order then; where the matrices
        are integers, rounding the activations enlarges that."""
        integers = self.weights.precision in ("int8", "int4")
        return integers and self.target == "cpu" and self.kv_cache.dtype != "int8"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Manifest:
        """Raises PackageVersionError for a newer format, PackageCorruptError for missing, unknown, mistyped fields."""
        _check_version(data)
        manifest = parse(cls, data, MANIFEST_NAME)
        _check_paths(manifest)
        _check_numbers(manifest)
        _check_cache(manifest)
        _check_encoder(manifest)
        return manifest


def _check_version(data: Mapping[str, Any]) -> None:
    version = data.get("format_version")
    if type(version) is not int or version < 1:
        raise PackageCorruptError(
            f"{MANIFEST_NAME}: format_version is {version!r}, expected a whole number from 1; export the package again"
        )
    if version > FORMAT_VERSION:
        raise PackageVersionError(
            f"{MANIFEST_NAME}: the package has format version {version}, this edgellm reads up to {FORMAT_VERSION}; "
            "upgrade edgellm"
        )


def _check_paths(manifest: Manifest) -> None:
    names = [*manifest.files, *(graph.file for graph in manifest.graphs.values())]
    for name in names:
        path = PurePosixPath(name)
        if not name or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
            raise PackageCorruptError(
                f"{MANIFEST_NAME}: file name {name!r} is not a plain path inside the package; export the package again"
            )
    others = sorted(graph.file for graph in manifest.graphs.values() if not graph.file.endswith(".onnx"))
    if others:  # ONNX Runtime goes by the name, and has a format without the checks of this one
        raise PackageCorruptError(
            f"{MANIFEST_NAME}: the graph {others[0]!r} is no .onnx file; export the package again"
        )
    unlisted = sorted({graph.file for graph in manifest.graphs.values()} - manifest.files.keys())
    unlisted += sorted(name for name, entry in manifest.files.items() if not entry.sha256)
    if unlisted:
        raise PackageCorruptError(
            f"{MANIFEST_NAME}: no size and hash for {', '.join(unlisted)}; export the package again"
        )


def _check_cache(manifest: Manifest) -> None:
    generates = manifest.task in GENERATION_TASKS
    if generates != (manifest.cache is not None):
        raise PackageCorruptError(
            f"{MANIFEST_NAME}: a package for {manifest.task} {'needs a' if generates else 'has no'} key/value cache; "
            "export the package again"
        )
    if manifest.cross_cache is not None:
        cross = manifest.cross_cache
        _check_sizes({f"cross_cache.{name}": getattr(cross, name) for name in ("num_layers", "num_heads", "head_dim")})
        _check_patterns("cross_cache", cross)
    if manifest.cache is None:
        return
    _check_sizes(
        {f"cache.{name}": getattr(manifest.cache, name) for name in ("num_layers", "num_kv_heads", "head_dim")}
    )
    _check_patterns("cache", manifest.cache)
    if manifest.cache.dtype == "int8" and manifest.target == "cuda":
        raise PackageCorruptError(
            f"{MANIFEST_NAME}: cache.dtype is 'int8' in a package for cuda, expected 'float16'; "
            "export the package again"
        )


def _check_encoder(manifest: Manifest) -> None:
    encodes = manifest.task not in GENERATION_TASKS
    if encodes != (manifest.encoder is not None):
        raise PackageCorruptError(
            f"{MANIFEST_NAME}: a package for {manifest.task} {'needs' if encodes else 'has no'} encoder's facts; "
            "export the package again"
        )
    if manifest.encoder is not None and bool(manifest.encoder.labels) != (manifest.task in LABEL_TASKS):
        raise PackageCorruptError(
            f"{MANIFEST_NAME}: {len(manifest.encoder.labels)} labels in a package for {manifest.task}; "
            "export the package again"
        )
    if manifest.encoder is not None and manifest.encoder.embedding is not None:
        _check_sizes({"encoder.embedding.max_tokens": manifest.encoder.embedding.max_tokens})


def _check_patterns(name: str, cache: CacheLayout | CrossCacheLayout) -> None:
    for key, pattern in (("past", cache.past), ("present", cache.present)):
        rest = pattern.replace("{layer}", "").replace("{side}", "")
        if not {"{layer}", "{side}"} <= set(re.findall(r"{\w+}", pattern)) or "{" in rest or "}" in rest:
            raise PackageCorruptError(
                f"{MANIFEST_NAME}: {name}.{key} is {pattern!r}, expected a name with {{layer}} and {{side}}; "
                "export the package again"
            )


def _check_sizes(sizes: Mapping[str, int]) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise PackageCorruptError(
                f"{MANIFEST_NAME}: {name} is {value}, expected at least 1; export the package again"
            )


def _check_numbers(manifest: Manifest) -> None:
    _check_sizes({"vocab_size": manifest.vocab_size, "context_length": manifest.context_length})
    if manifest.source_length is not None:
        _check_sizes({"source_length": manifest.source_length})
    tokens = manifest.tokens
    ids = [*tokens.eos, *(t for t in (tokens.bos, tokens.pad, tokens.decoder_start) if t is not None)]
    wrong = [t for t in ids if not 0 <= t < manifest.vocab_size]
    if wrong:
        raise PackageCorruptError(
            f"{MANIFEST_NAME}: token ids {wrong} are outside the vocabulary of {manifest.vocab_size}; "
            "export the package again"
        )
