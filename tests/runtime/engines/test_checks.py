"""A graph that is not what its manifest promises is refused when it is opened, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from edgellm.engines.checks import check_encoder, check_graphs, only_graph
from edgellm.errors import PackageCorruptError
from edgellm.ort.binding import DTYPES, FLOATS, INTEGERS, TYPE_NAMES
from edgellm.package.manifest import (
    CacheLayout,
    CrossCacheLayout,
    DecoderFacts,
    EncoderDecoderFacts,
    EncoderFacts,
    GraphFile,
    Manifest,
    Rope,
    TokenIds,
    Weights,
)

FLOAT, HALF, INT64, INT32 = "tensor(float)", "tensor(float16)", "tensor(int64)", "tensor(int32)"
VOCAB = 50


@dataclass
class Ports:
    """What a session says of its graph: by name, type and shape."""

    given: dict[str, tuple[str, list[Any]]]
    made: dict[str, tuple[str, list[Any]]]
    optional_inputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = field(init=False)
    outputs: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.inputs, self.outputs = tuple(self.given), tuple(self.made)
        self.input_types, self.output_types = ({n: t for n, (t, _) in p.items()} for p in (self.given, self.made))
        self.input_shapes, self.output_shapes = ({n: s for n, (_, s) in p.items()} for p in (self.given, self.made))


def layouts(growth: str) -> tuple[CacheLayout, CrossCacheLayout]:
    own = CacheLayout(2, 3, 8, "float32", growth, "past.{layer}.{side}", "present.{layer}.{side}")  # type: ignore[arg-type]
    return own, CrossCacheLayout(2, 3, 8, "float32", "past.{layer}.source.{side}", "present.{layer}.source.{side}")


def manifest_of(kind: str) -> Manifest[DecoderFacts | EncoderDecoderFacts]:
    task, growth, graphs = KINDS[kind]
    own, cross = layouts(growth)
    inputs = {name: tuple(integers) for name, (integers, _) in graphs.items()}
    outputs = {name: ("last_hidden_state",) if name == "encoder" else ("logits",) for name in graphs}
    return Manifest(
        task=task,  # type: ignore[arg-type]
        model_type="toy",
        target="cpu",
        graphs={name: GraphFile(f"{name}.onnx", inputs[name], outputs[name]) for name in graphs},
        model=EncoderDecoderFacts(own, cross) if task.startswith("text2text") else DecoderFacts(own),
        weights=Weights("fp32", "float32", tied_embedding=False),
        vocab_size=VOCAB,
        context_length=64,
        tokens=TokenIds(),
    )


IDS = {"input_ids": (INT64, ["rows", "tokens"]), "attention_mask": (INT64, ["rows", "total"])}
TARGET = {
    "input_ids": (INT64, ["rows", "tokens"]),
    "decoder_attention_mask": (INT64, ["rows", "total"]),
    "encoder_attention_mask": (INT64, ["rows", "source"]),
}
HIDDEN = {"encoder_hidden_states": (FLOAT, ["rows", "source", 24])}
# By kind: task, growth, and by graph its inputs beside the cache, and which of the caches it takes and gives.
KINDS: dict[str, tuple[str, str, dict[str, tuple[dict[str, Any], str]]]] = {
    "decoder in place": ("text-generation", "in_place", {"model": (IDS, "own>own")}),
    "encoder-decoder in place": (
        "text2text-generation",
        "in_place",
        {"encoder": (IDS, ">cross"), "decoder": (TARGET, "own cross>own")},
    ),
    "decoder": ("text-generation", "concat", {"model": (IDS, "own>own")}),
    "two decoders": ("text-generation", "concat", {"later": (IDS, "own>own"), "first": (IDS, ">own")}),
    "encoder-decoder": (
        "text2text-generation",
        "concat",
        {"encoder": (IDS, ">"), "decoder": (TARGET | HIDDEN, "own cross>own cross")},
    ),
    "encoder and two decoders": (
        "text2text-generation",
        "concat",
        {"encoder": (IDS, ">"), "first": (TARGET | HIDDEN, ">own cross"), "later": (TARGET, "own cross>own")},
    ),
}


def sessions_of(kind: str) -> dict[str, Ports]:
    """Graphs that are as promised."""
    _, growth, graphs = KINDS[kind]
    own, cross = layouts(growth)
    tensor = (FLOAT, ["rows", 3, "length", 8])
    pasts = {"own": [past for past, _ in own.names()], "cross": [past for _, past in cross.names()]}
    presents = {"own": [present for _, present in own.names()], "cross": [present for present, _ in cross.names()]}
    sessions = {}
    for name, (integers, caches) in graphs.items():
        takes, gives = (side.split() for side in caches.split(">"))
        made = {"last_hidden_state" if name == "encoder" else "logits": (FLOAT, ["rows", "tokens", VOCAB])}
        sessions[name] = Ports(
            integers | {past: tensor for cache in takes for past in pasts[cache]},
            made | {present: tensor for cache in gives for present in presents[cache]},
        )
    return sessions


def last(sessions: dict[str, Ports]) -> str:
    """The graph that has all that can be wrong."""
    return next(name for name in ("model", "decoder", "later") if name in sessions)


def changed(sessions: dict[str, Ports], **ports: tuple[str, list[Any]] | None) -> None:
    """The last graph with other tensors, by their names with _ for a dot; None: without them."""
    name = last(sessions)
    given, made = dict(sessions[name].given), dict(sessions[name].made)
    for port, value in ports.items():
        tensor = port.replace("__", ".")
        of = given if tensor in given or tensor.startswith("in") else made
        of.pop(tensor, None)
        if value is not None:
            of[tensor] = value
    sessions[name] = Ports(given, made)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_promised_is_taken(kind: str) -> None:
    check_graphs(sessions_of(kind), manifest_of(kind))  # type: ignore[arg-type]


FLAWS: dict[str, tuple[dict[str, Any], str]] = {
    "no cache of a layer": ({"past__1__key": None}, r"missing \['past\.1\.key'\], unknown \[\]"),
    "no present": ({"present__0__value": None}, r"missing \['present\.0\.value'\]"),
    "no logits": ({"logits": None}, r"missing \['logits'\]"),
    "an input that nobody fills": ({"in_pixels": (FLOAT, ["n"])}, r"unknown \['in_pixels'\]"),
    "another type of cache": (
        {"past__0__key": (HALF, ["r", 3, "n", 8])},
        r"past\.0\.key is tensor\(float16\) .*, the manifest promises 3 heads of 8, float32",
    ),
    "another head size": ({"past__1__value": (FLOAT, ["r", 3, "n", 16])}, r"past\.1\.value is .* 16\].* of 8"),
    "other heads": ({"past__1__value": (FLOAT, ["r", 2, "n", 8])}, r"past\.1\.value is .*2.*3"),
    "a flat cache": ({"past__1__value": (FLOAT, ["r", "n", 24])}, r"past\.1\.value is"),
    "another vocabulary": ({"logits": (FLOAT, ["r", "n", 51])}, "logits is .* 51.* 50"),
    "integer logits": ({"logits": (INT64, ["r", "n", VOCAB])}, r"logits is tensor\(int64\)"),
    "ids that are numbers": ({"input_ids": (FLOAT, ["r", "n"])}, r"input_ids is tensor\(float\)"),
}


@pytest.mark.parametrize("flaw", FLAWS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_as_promised_is_told(kind: str, flaw: str) -> None:
    ports, words = FLAWS[flaw]
    sessions = sessions_of(kind)
    changed(sessions, **ports)
    with pytest.raises(
        PackageCorruptError, match=f"{last(sessions)}.onnx and the manifest disagree: .*{words}"
    ) as error:
        check_graphs(sessions, manifest_of(kind))  # type: ignore[arg-type]
    assert str(error.value).endswith("export the package again")


@pytest.mark.parametrize("kind", KINDS)
def test_names_may_stand_for_any_size_and_layers_may_not_be_any_number(kind: str) -> None:
    sessions, manifest = sessions_of(kind), manifest_of(kind)
    changed(sessions, past__0__key=(FLOAT, ["r", "heads", "n", "size"]), logits=(FLOAT, ["r", None, "vocab"]))
    check_graphs(sessions, manifest)  # type: ignore[arg-type]
    beyond = replace(manifest, model=replace(manifest.model, cache=replace(manifest.model.cache, num_layers=10**9)))
    with pytest.raises(PackageCorruptError, match="1000000000 layers"):
        check_graphs(sessions, beyond)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_integers_are_narrow_only_where_arrays_are_made_for_them(kind: str) -> None:
    sessions = sessions_of(kind)
    changed(sessions, input_ids=(INT32, ["r", "n"]))

    def check() -> None:
        check_graphs(sessions, manifest_of(kind))  # type: ignore[arg-type]

    if "in place" in kind:
        with pytest.raises(PackageCorruptError, match=r"input_ids is tensor\(int32\) .* promises int64"):
            check()
    else:
        check()


def test_inputs_that_mean_nothing_here_are_refused_though_both_have_them() -> None:
    with pytest.raises(PackageCorruptError, match=r"unknown \['attention_mask'\]"):
        check_graphs(sessions_of("decoder"), manifest_of("decoder"), {"model": ("input_ids",)})  # type: ignore[arg-type]


def test_optional_inputs_and_those_of_rotary_tables() -> None:
    sessions = sessions_of("decoder in place")
    manifest = manifest_of("decoder in place")
    manifest = replace(manifest, model=replace(manifest.model, rope=Rope(has_length_input=True)))
    with pytest.raises(PackageCorruptError, match=r"missing \['rope_length'\]"):
        check_graphs(sessions, manifest)  # type: ignore[arg-type]
    sessions["model"].optional_inputs = ("rope_length",)
    check_graphs(sessions, manifest)  # type: ignore[arg-type]


ENCODER_FLAWS: dict[str, tuple[Callable[[Ports], Ports], str]] = {
    "other labels": (lambda p: replace(p, made={"logits": (FLOAT, ["r", 4])}), "3 labels, 4 outputs"),
    "no logits": (lambda p: replace(p, made={"scores": (FLOAT, ["r", 3])}), "missing .*logits"),
    "narrow ids": (lambda p: replace(p, given=p.given | {"input_ids": (INT32, ["r", "n"])}), r"tensor\(int32\)"),
    "pixels": (lambda p: replace(p, given=p.given | {"pixels": (FLOAT, ["n"])}), r"unknown \['pixels'\]"),
}


@pytest.mark.parametrize("flaw", ["none", *ENCODER_FLAWS])
def test_encoders(flaw: str) -> None:
    manifest = replace(manifest_of("decoder"), task="text-classification", model=EncoderFacts(labels=("a", "b", "c")))
    ports, known = Ports(dict(IDS), {"logits": (FLOAT, ["r", 3])}), tuple(IDS)
    if flaw == "none":
        check_encoder(ports, manifest, known)  # type: ignore[arg-type]
        return
    change, words = ENCODER_FLAWS[flaw]
    with pytest.raises(PackageCorruptError, match=f"disagree: .*{words}"):
        check_encoder(change(ports), manifest, known)  # type: ignore[arg-type]


def test_one_graph_is_one() -> None:
    assert only_graph(manifest_of("decoder")).file == "model.onnx"
    with pytest.raises(PackageCorruptError, match="text-generation needs one graph, the manifest lists later, first"):
        only_graph(manifest_of("two decoders"))
    with pytest.raises(PackageCorruptError, match="lists none"):
        only_graph(replace(manifest_of("decoder"), graphs={}))


def test_the_table_of_types() -> None:
    assert {name: DTYPES[kind].name for name, kind in TYPE_NAMES.items()} == {name: name for name in TYPE_NAMES}
    assert [DTYPES[name] for name in FLOATS] == [np.float32, np.float16]
    assert [DTYPES[name] for name in INTEGERS] == [np.int64, np.int32, np.bool_]
