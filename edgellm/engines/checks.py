"""Whether a graph is what the manifest promises: the names at its boundary, and what its tensors are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edgellm.errors import PackageCorruptError
from edgellm.ort.binding import FLOATS, INTEGERS, TYPE_NAMES
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.package.manifest import (
    AudioFeatures,
    CacheLayout,
    CrossCacheLayout,
    DecoderFacts,
    EncoderDecoderFacts,
    EncoderFacts,
    GraphFile,
    Manifest,
    SpeechFacts,
)

HIDDEN = "encoder_hidden_states"  # the only input with numbers that is no cache
FEATURES = "input_features"  # of speech
MOST_TOLD = 4  # tensors in one message


@dataclass(frozen=True)
class Promised:
    """What a tensor is to be: of one of these types, and of this shape, if one is given, in which None varies. `words`
    say it."""

    words: str
    types: tuple[str, ...]
    shape: tuple[int | None, ...] | None = None

    def fits(self, kind: str, shape: Sequence[int | str | None]) -> bool:
        """Dimensions that vary have names in a graph, or none."""
        wanted = self.shape or (None,) * len(shape)
        pairs = zip(shape, wanted, strict=False)
        same = all(a == b for a, b in pairs if isinstance(a, int) and b is not None)
        return kind in self.types and len(shape) == len(wanted) and same


INT64 = Promised("int64", (TYPE_NAMES["int64"],))
Generates = DecoderFacts | EncoderDecoderFacts  # what only models that generate have
Promises = dict[str, Promised | None]  # by a tensor's name; None: that it exists


def check_graphs(
    graphs: Mapping[str, LoadedGraph], manifest: Manifest[Generates], known: Mapping[str, Collection[str]] | None = None
) -> None:
    """Raises PackageCorruptError where a graph of a model that generates does not have the inputs and outputs that the
    manifest promises. graphs: by the graph's name there. `known`: by the same, the inputs beside the cache that will
    be filled; None: all of them."""
    for name, loaded in graphs.items():
        graph = manifest.graphs[name]
        inputs, outputs = _cache_tensors(loaded, manifest, name)
        model = manifest.model
        rope_length = isinstance(model, DecoderFacts) and model.rope.has_length_input
        inputs |= {name: _filled(name, model.cache) for name in [*graph.inputs, *["rope_length"] * rope_length]}
        if isinstance(model, SpeechFacts) and FEATURES in inputs:
            inputs[FEATURES] = _features(model.audio)
        _check(loaded, graph, inputs, dict.fromkeys(graph.outputs) | outputs, (known or {}).get(name, inputs))


def check_encoder(loaded: LoadedGraph, manifest: Manifest[EncoderFacts], known: Collection[str]) -> None:
    """The same for the only graph of an encoder-only package, `known` as there."""
    graph, labels = only_graph(manifest), len(manifest.model.labels)
    inputs: Promises = dict.fromkeys(graph.inputs, INT64)
    outputs: Promises = dict.fromkeys([*graph.outputs, *["logits"] * bool(labels)])
    _check(loaded, graph, inputs, outputs, known)
    if labels and loaded.output_shapes["logits"][-1] != labels:
        raise _disagreement(graph, f"{labels} labels, {loaded.output_shapes['logits'][-1]} outputs")


def only_graph(manifest: Manifest) -> GraphFile:
    """Of a package that needs no other."""
    if len(manifest.graphs) != 1:
        raise lacks_graphs(manifest, "one graph")
    return next(iter(manifest.graphs.values()))


def lacks_graphs(manifest: Manifest, needs: str) -> PackageCorruptError:
    found = ", ".join(manifest.graphs) or "none"
    return PackageCorruptError(f"{manifest.task} needs {needs}, the manifest lists {found}; export the package again")


def _cache_tensors(loaded: LoadedGraph, manifest: Manifest[Generates], name: str) -> tuple[Promises, Promises]:
    """What the graph `name` takes and gives beside the manifest's lists. Among graphs that concatenate, one called
    "first" takes no past, and the source's keys and values are not the encoder's to make, nor those of one called
    "later"."""
    graph, own, vocab_size = manifest.graphs[name], manifest.model.cache, manifest.vocab_size
    cross = manifest.model.cross_cache if isinstance(manifest.model, EncoderDecoderFacts) else None
    across = [] if cross is None else _names(cross, loaded, graph)
    made: Promises = dict.fromkeys(present for present, _ in across)
    concat = own.growth == "concat"
    if cross is not None and name == "encoder":
        return {}, {} if concat else made
    mine = _names(own, loaded, graph)
    pasts: Promises = {
        past: _cached(each.array_dtype, each.heads, each.size) for each in own.tensors() for past, _ in each.ports
    }
    if cross is not None:
        pasts |= dict.fromkeys((past for _, past in across), _cached(cross.dtype, cross.num_heads, cross.head_dim))
    presents: Promises = dict.fromkeys(present for _, present in mine)
    presents |= made if concat and name != "later" else {}
    presents["logits"] = Promised(f"scores of {vocab_size} tokens", FLOATS, (None, None, vocab_size))
    return {} if name == "first" else pasts, presents


def _names(layout: CacheLayout | CrossCacheLayout, loaded: LoadedGraph, graph: GraphFile) -> list[tuple[str, str]]:
    """Of a cache that a graph of this size may have: a manifest can promise any number of layers."""
    most = len(loaded.inputs) + len(loaded.outputs)
    if layout.num_layers > most:
        raise _disagreement(graph, f"{layout.num_layers} layers, {most} inputs and outputs")
    return layout.names()


def _cached(dtype: str, heads: int, head_dim: int) -> Promised:
    return Promised(f"{heads} heads of {head_dim}, {dtype}", (TYPE_NAMES[dtype],), (None, heads, None, head_dim))


def _features(audio: AudioFeatures) -> Promised:
    shape = (None, audio.mel_bins, None if audio.raw else audio.frames)
    return Promised(
        f"float32 [any, {audio.mel_bins}, {'any' if audio.raw else audio.frames}]", (TYPE_NAMES["float32"],), shape
    )


def _filled(name: str, cache: CacheLayout) -> Promised:
    """An input beside the cache: memory of ours is bound in place, arrays are made to measure for other graphs."""
    if name == HIDDEN:
        return Promised("numbers", FLOATS)
    return Promised("integers", INTEGERS) if cache.growth == "concat" else INT64


def _check(loaded: LoadedGraph, graph: GraphFile, inputs: Promises, outputs: Promises, known: Collection[str]) -> None:
    missing = ({*inputs} - {*loaded.inputs, *loaded.optional_inputs}) | ({*outputs} - {*loaded.outputs})
    unknown = ({*loaded.inputs} - {*inputs}) | ({*graph.inputs} - {*known})
    if missing or unknown:
        raise _disagreement(graph, f"missing {sorted(missing)}, unknown {sorted(unknown)}")
    types = loaded.input_types | loaded.output_types
    shapes = loaded.input_shapes | loaded.output_shapes
    wrong = [
        f"{name} is {types[name]} {shapes[name]}, the manifest promises {wanted.words}"
        for name, wanted in (inputs | outputs).items()
        if wanted is not None and name in types and not wanted.fits(types[name], shapes[name])
    ]
    if wrong:
        raise _disagreement(graph, "; ".join(wrong[:MOST_TOLD]))


def _disagreement(graph: GraphFile, how: str) -> PackageCorruptError:
    return PackageCorruptError(f"{graph.file} and the manifest disagree: {how}; export the package again")
