"""`edgellm.json` as it lies: the fields of all kinds of model side by side, and what they must be like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgellm.errors import PackageCorruptError, PackageVersionError, corrupt
from edgellm.package.file_names import is_inside
from edgellm.package.json_data import Mistyped, build
from edgellm.package.layouts import (
    CONV_STEP,
    GENERATION_TASKS,
    LABEL_TASKS,
    SPEECH_TASKS,
    AudioFeatures,
    CacheLayout,
    ConvLayout,
    CrossCacheLayout,
    DecoderFacts,
    EncoderDecoderFacts,
    EncoderFacts,
    FileEntry,
    GraphFile,
    ModelFacts,
    Rope,
    SpeechFacts,
    StateLayout,
    Target,
    Task,
    TokenIds,
    Weights,
)

FORMAT_VERSION = 1
MANIFEST_NAME = "edgellm.json"


@dataclass(frozen=True)
class ManifestFile:
    """The file's fields, in its order: see `Manifest` and the kinds of `ModelFacts`. `cache`: of models that generate.
    `rope`, `source_length`, `global_attention`, `cross_cache`, `counts_by_row`, `audio`, `encoder`: of some kinds
    only."""

    task: Task
    model_type: str
    target: Target
    graphs: Mapping[str, GraphFile]
    cache: CacheLayout | None
    weights: Weights
    vocab_size: int
    context_length: int
    tokens: TokenIds
    rope: Rope = field(default_factory=Rope)
    source_length: int | None = None
    global_attention: Literal["first"] | None = None
    cross_cache: CrossCacheLayout | None = None
    counts_by_row: bool = False
    audio: AudioFeatures | None = None
    encoder: EncoderFacts | None = None
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def model(self) -> ModelFacts:
        """What only the kind of model has that the task is for, of checked fields. Raises PackageCorruptError where an
        encoder-decoder's parts are not all there."""
        if self.encoder is not None:
            return self.encoder
        assert self.cache is not None
        if self.task == "text-generation":
            return DecoderFacts(self.cache, self.rope)
        in_place = self.cache.growth == "in_place"
        if self.cross_cache is None or (in_place and self.graphs.keys() != {"encoder", "decoder"}):
            raise corrupt(
                f"{self.task} needs the graphs encoder and decoder and a cross_cache between them, the manifest lists "
                f"{', '.join(self.graphs) or 'none'}"
            )
        facts = EncoderDecoderFacts(
            self.cache, self.cross_cache, self.source_length, self.global_attention, self.counts_by_row
        )
        return facts if self.audio is None else SpeechFacts(**vars(facts), audio=self.audio)


def read_fields(data: Mapping[str, Any]) -> ManifestFile:
    """The fields of the file's content, checked. Raises PackageVersionError for a newer format, PackageCorruptError for
    missing, unknown, mistyped fields."""
    _check_version(data)
    try:
        found = build(ManifestFile, data, MANIFEST_NAME)
    except Mistyped as error:
        raise corrupt(str(error)) from None
    _check_paths(found)
    _check_numbers(found)
    _check_kind(found)
    _check_audio(found)
    _check_caches(found)
    _check_encoder(found)
    return found


def _check_version(data: Mapping[str, Any]) -> None:
    version = data.get("format_version")
    if type(version) is not int or version < 1:
        raise _corrupt(f"format_version is {version!r}, expected a whole number from 1")
    if version > FORMAT_VERSION:
        raise PackageVersionError(
            f"{MANIFEST_NAME}: the package has format version {version}, this edgellm reads up to {FORMAT_VERSION}; "
            "upgrade edgellm"
        )


def _check_paths(found: ManifestFile) -> None:
    graphs = {graph.file for graph in found.graphs.values()}
    for name in [*found.files, *graphs]:
        if not is_inside(name) or ":" in name:
            raise _corrupt(f"file name {name!r} is not a plain path inside the package")
    others = sorted(file for file in graphs if not file.endswith(".onnx"))
    if others:  # ONNX Runtime goes by the name, and has a format without the checks of this one
        raise _corrupt(f"the graph {others[0]!r} is no .onnx file")
    unlisted = sorted(graphs - found.files.keys())
    unlisted += sorted(name for name, entry in found.files.items() if not entry.sha256)
    if unlisted:
        raise _corrupt(f"no size and hash for {', '.join(unlisted)}")


def _check_numbers(found: ManifestFile) -> None:
    _check_sizes({"vocab_size": found.vocab_size, "context_length": found.context_length})
    if found.source_length is not None:
        _check_sizes({"source_length": found.source_length})
    tokens = found.tokens
    ids = [*tokens.eos, *(t for t in (tokens.bos, tokens.pad, tokens.decoder_start) if t is not None)]
    wrong = [t for t in ids if not 0 <= t < found.vocab_size]
    if wrong:
        raise _corrupt(f"token ids {wrong} are outside the vocabulary of {found.vocab_size}")


def _check_kind(found: ManifestFile) -> None:
    generates = found.task in (*GENERATION_TASKS, *SPEECH_TASKS)
    if generates != (found.cache is not None):
        raise _corrupt(f"a package for {found.task} {'needs a' if generates else 'has no'} key/value cache")
    if generates == (found.encoder is not None):
        raise _corrupt(f"a package for {found.task} {'has no' if generates else 'needs'} encoder's facts")


def _check_audio(found: ManifestFile) -> None:
    if (found.audio is not None) != (found.task in SPEECH_TASKS):
        raise _corrupt(f"a package for {found.task} {'needs' if found.audio is None else 'has no'} facts of audio")
    if found.audio is not None:
        _check_sizes({f"audio.{name}": size for name, size in vars(found.audio).items() if name != "longest"})
        if found.source_length is None and not found.audio.raw:
            raise _corrupt(f"a package for {found.task} needs a source_length")


def _check_caches(found: ManifestFile) -> None:
    own, cross = found.cache, found.cross_cache
    if cross is not None:
        _check_layout("cross_cache", cross, num_layers=cross.num_layers, num_heads=cross.num_heads)
    if found.counts_by_row and (cross is None or own is None or own.growth != "in_place"):
        raise _corrupt("counts_by_row belongs to encoder-decoders whose cache is written in place, expected false")
    if own is not None:
        _check_layout("cache", own, num_layers=own.num_layers, num_kv_heads=own.num_kv_heads)
        if own.dtype == "bfloat16":
            raise _corrupt("cache.dtype is 'bfloat16', which no package has; expected 'float32', 'float16' or 'int8'")
        if own.values_are_keys and own.growth != "in_place":
            raise _corrupt("cache.values_are_keys is true of a cache that grows by concatenation, expected false")
        if own.dtype == "int8" and found.target == "cuda":
            raise _corrupt("cache.dtype is 'int8' in a package for cuda, expected 'float16'")
        if own.conv is not None:
            _check_conv(own, own.conv, found)
        if own.shared:
            _check_shared(own, found)
        if own.states is not None:
            _check_states(own, own.states, found)


def _check_conv(cache: CacheLayout, conv: ConvLayout, found: ManifestFile) -> None:
    _check_sizes({"cache.conv.width": conv.width, "cache.conv.kernel": conv.kernel})
    if conv.kernel > CONV_STEP:  # of which a cache remembers the last ones at each step
        raise _corrupt(f"cache.conv.kernel is {conv.kernel}, expected at most {CONV_STEP}")
    layers = sorted({*conv.layers})
    if list(conv.layers) != layers or not 0 < len(layers) < cache.num_layers or not layers[-1] < cache.num_layers:
        raise _corrupt(f"cache.conv.layers is {conv.layers}, expected some of {cache.num_layers} layers, ascending")
    if layers[0] < 0 or cache.growth != "in_place" or found.task != "text-generation":
        raise _corrupt("cache.conv belongs to a decoder's cache that is written in place, and to layers from 0 on")


def _check_shared(cache: CacheLayout, found: ManifestFile) -> None:
    own = max(cache.num_own_layers, 0)
    if not all(0 <= source < own for source in cache.shared):
        raise _corrupt(f"cache.shared is {cache.shared}, expected for each a layer of the {own} before them")
    if cache.growth != "in_place" or cache.conv or cache.states or found.task != "text-generation":
        raise _corrupt("cache.shared belongs to a decoder's cache that is written in place, of keys and values alone")


def _check_states(cache: CacheLayout, states: StateLayout, found: ManifestFile) -> None:
    if not states.fits(cache.num_layers):
        raise _corrupt(f"cache.states is {states}, expected positive sizes and some of {cache.num_layers} layers")
    if cache.conv is not None or cache.growth != "in_place" or found.task != "text-generation":
        raise _corrupt("cache.states belongs to a decoder's cache that is written in place, and not to one with conv")
    if found.target != "cpu":
        raise _corrupt(f"cache.states is there in a package for {found.target}, expected one for the CPU")


def _check_layout(name: str, cache: CacheLayout | CrossCacheLayout, **sizes: int) -> None:
    _check_sizes({f"{name}.{size}": value for size, value in {**sizes, "head_dim": cache.head_dim}.items()})
    for key, pattern in (("past", cache.past), ("present", cache.present)):
        rest = pattern.replace("{layer}", "").replace("{side}", "")
        if not {"{layer}", "{side}"} <= set(re.findall(r"{\w+}", pattern)) or "{" in rest or "}" in rest:
            raise _corrupt(f"{name}.{key} is {pattern!r}, expected a name with {{layer}} and {{side}}")


def _check_encoder(found: ManifestFile) -> None:
    encoder = found.encoder
    if encoder is None:
        return
    if bool(encoder.labels) != (found.task in LABEL_TASKS):
        raise _corrupt(f"{len(encoder.labels)} labels in a package for {found.task}")
    if encoder.embedding is not None:
        _check_sizes({"encoder.embedding.max_tokens": encoder.embedding.max_tokens})


def _check_sizes(sizes: Mapping[str, int]) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise _corrupt(f"{name} is {value}, expected at least 1")


def _corrupt(why: str) -> PackageCorruptError:
    return corrupt(f"{MANIFEST_NAME}: {why}")
