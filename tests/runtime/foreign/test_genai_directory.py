"""Directories of onnxruntime-genai: what genai_config.json says becomes a manifest, or a clear error."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import edgellm
import edgellm_export
from concat_directory import CONTEXT, DIM, HEADS, VOCAB, write_directory
from edgellm.errors import CheckpointError, PackageError, PackageNotFoundError
from edgellm.foreign import is_foreign, read_foreign
from edgellm.foreign.rope_tables import rope_of
from edgellm.generation.reader import read_generation_defaults
from edgellm.package.onnx_file import read_graph

CONFIG: dict[str, Any] = {
    "model": {
        "type": "toy",
        "bos_token_id": 1,
        "eos_token_id": [VOCAB - 1, VOCAB + 5],
        "pad_token_id": 0,
        "context_length": CONTEXT,
        "vocab_size": VOCAB,
        "decoder": {
            "filename": "model.onnx",
            "session_options": {"provider_options": []},
            "head_size": DIM,
            "num_hidden_layers": 1,
            "num_key_value_heads": HEADS,
            "inputs": {
                "past_key_names": "past_key_values.%d.key",
                "past_value_names": "past_key_values.%d.value",
            },
            "outputs": {"present_key_names": "present.%d.key", "present_value_names": "present.%d.value"},
        },
    },
    "search": {
        "past_present_share_buffer": False,
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 1.5,
        "max_length": 64,
    },
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for many configs in turn."""
    path = write_directory(tmp_path_factory.mktemp("toys") / "toy")
    (path / "config.json").unlink()
    (path / "generation_config.json").unlink()
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A graph that concatenates, described by genai_config.json alone."""
    path = write_directory(tmp_path / "toy")
    (path / "config.json").unlink()
    (path / "generation_config.json").unlink()
    write_config(path, CONFIG)
    return path


def write_config(path: Path, config: Any) -> None:
    (path / "genai_config.json").write_text(json.dumps(config))


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    config = deepcopy(CONFIG)
    change(config["model"])
    return config


def test_the_manifest(directory: Path) -> None:
    assert is_foreign(directory)
    root, manifest = read_foreign(directory)
    assert root == directory
    assert read_foreign(directory / "model.onnx") == (root, manifest)
    assert (manifest.task, manifest.target, manifest.model_type) == ("text-generation", "cpu", "toy")
    assert (manifest.vocab_size, manifest.context_length) == (VOCAB, CONTEXT)
    assert manifest.tokens.eos == (VOCAB - 1,)  # what lies outside the vocabulary never comes
    assert (manifest.model.cache.num_kv_heads, manifest.model.cache.head_dim) == (HEADS, DIM)
    assert manifest.model.cache.growth == "concat"
    assert manifest.graphs["model"].inputs == ("input_ids", "attention_mask", "position_ids")


def test_a_graph_that_concatenates(directory: Path, tmp_path: Path) -> None:
    """Runs as the same graph does that config.json describes."""
    options = {"max_new_tokens": 9, "do_sample": False}
    prompts = [[3, 4, 5, 6], [7, 8]]
    theirs, same = (edgellm.load(path) for path in (directory, write_directory(tmp_path / "same")))
    assert isinstance(theirs, edgellm.Model)
    assert isinstance(same, edgellm.Model)
    assert [g.tokens for g in theirs.generate(prompts, **options)] == [
        g.tokens for g in same.generate(prompts, **options)
    ]


def test_generation_defaults(directory: Path) -> None:
    """What makes no sense goes unheard, and so do lengths: the builder writes the context's."""
    assert read_generation_defaults(directory) == {"do_sample": True, "temperature": 0.7}
    (directory / "generation_config.json").write_text('{"top_k": 3}')
    assert read_generation_defaults(directory) == {"top_k": 3}


def test_a_package_for_cuda(directory: Path) -> None:
    options = {"provider_options": [{"cuda": {"enable_cuda_graph": "0"}}]}
    write_config(directory, changed(lambda model: model["decoder"].update(session_options=options)))
    assert read_foreign(directory)[1].target == "cuda"


REFUSED: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("vision", lambda m: m.update(vision={"filename": "vision.onnx"}), r"several graphs \(vision\)"),
    ("whisper", lambda m: m.update(encoder={"filename": "encoder.onnx"}), r"several graphs \(encoder\)"),
    ("draft", lambda m: m.update(drafter={"filename": "draft.onnx"}), r"several graphs \(drafter\)"),
    ("pipeline", lambda m: m["decoder"].update(pipeline=[{}]), r"several graphs \(decoder.pipeline\)"),
    ("operators", lambda m: m["decoder"]["session_options"].update(custom_ops_library="x.so"), "custom_ops_library"),
    ("window", lambda m: m["decoder"].update(sliding_window={"window_size": 4}), "moves with a window"),
    ("no name", lambda m: m["decoder"].pop("filename"), "names no graph"),
    ("number", lambda m: m["decoder"].update(filename=3), "names no graph"),
    ("text", lambda m: m.update(decoder="model.onnx"), "decoder is 'model.onnx', expected an object"),
    ("outside", lambda m: m["decoder"].update(filename="../outside.onnx"), "leads outside"),
    ("no size", lambda m: m.update(context_length=-1), "says the context_length"),
    ("layers", lambda m: m["decoder"].update(num_hidden_layers=2), "no past_key_values.1.key"),
    ("many layers", lambda m: m["decoder"].update(num_hidden_layers=10**12), "10{12} layers, keys of float32"),
    ("names", lambda m: m["decoder"]["inputs"].update(past_key_names="kv_%d"), "past_key_names is 'kv_%d'"),
    ("format", lambda m: m["decoder"]["inputs"].update(past_key_names="{0.__class__}key%d"), "with %d for the layer"),
    ("other names", lambda m: m["decoder"]["inputs"].update(
        past_key_names="past.%d.key", past_value_names="past.%d.value"), "cache that edgellm does not know"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refusals(directory: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    (directory.parent / "outside.onnx").write_bytes((directory / "model.onnx").read_bytes())
    write_config(directory, changed(change))
    with pytest.raises(PackageError, match=message) as error:
        edgellm.load(directory)
    assert "\n" not in str(error.value)


def test_a_graph_that_is_not_there(directory: Path) -> None:
    (directory / "model.onnx").unlink()
    with pytest.raises(PackageNotFoundError, match=r"has no model.onnx, which its genai_config.json names"):
        edgellm.load(directory)


def test_it_is_no_source_of_an_export(directory: Path) -> None:
    with pytest.raises(CheckpointError, match="holds graphs of onnxruntime-genai, which run as they are"):
        edgellm_export.export(directory, directory.parent / "out", via="optimum")


def test_inputs_that_nobody_fills(directory: Path) -> None:
    """As adapters have them."""
    model = onnx.load(directory / "model.onnx")
    model.graph.input.append(helper.make_tensor_value_info("q_proj.lora_A", TensorProto.FLOAT, [4, 4]))
    onnx.save(model, directory / "model.onnx")
    with pytest.raises(PackageError, match=r"inputs that edgellm does not know: q_proj.lora_A"):
        edgellm.load(directory)


def test_unknown_operators(directory: Path) -> None:
    model = onnx.load(directory / "model.onnx")
    model.graph.node[0].op_type, model.graph.node[0].domain = "Unheard", "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, directory / "model.onnx")
    with pytest.raises(edgellm.EdgellmError, match=r"com\.example"):
        edgellm.load(directory)


def test_rotary_tables_by_length(directory: Path) -> None:
    """A choice by length is understood, but a cache that concatenates is never computed anew."""
    graph = directory / "model.onnx"
    add_choice(graph, 24, "Greater")
    assert rope_of(graph, read_graph(graph)).recompute_beyond == 24
    with pytest.raises(PackageError, match="changes its rotary tables at 24 tokens"):
        edgellm.load(directory)


def test_another_choice(directory: Path) -> None:
    add_choice(directory / "model.onnx", 24, "Less")
    with pytest.raises(PackageError, match="not by a single length"):
        edgellm.load(directory)


def add_choice(path: Path, limit: int, operator: str) -> None:
    """Two tables, chosen by the mask's width."""
    model = onnx.load(path)
    graph = model.graph

    def branch(value: float) -> Any:
        table = numpy_helper.from_array(np.full((4, 2), value, np.float32))
        node = helper.make_node("Constant", [], [f"table_{value}"], value=table)
        return helper.make_graph([node], "branch", [], [helper.make_tensor_value_info(f"table_{value}", 1, [4, 2])])

    graph.initializer.append(numpy_helper.from_array(np.array(limit, np.int64), "limit"))
    graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "column"))
    graph.node.extend(
        [
            helper.make_node("Shape", ["attention_mask"], ["mask_shape"]),
            helper.make_node("Gather", ["mask_shape", "column"], ["total"]),
            helper.make_node(operator, ["total", "limit"], ["is_long"]),
            helper.make_node("If", ["is_long"], ["table"], then_branch=branch(1.0), else_branch=branch(2.0)),
        ]
    )
    onnx.save(model, path)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["%d", "key", "../x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """The config with one place, at any depth, replaced or taken away."""
    config = deepcopy(CONFIG)
    place: Any = config
    while True:
        key = draw(st.sampled_from(sorted(place)))
        if isinstance(place[key], dict) and place[key] and draw(st.booleans()):
            place = place[key]
            continue
        if draw(st.booleans()):
            place[key] = draw(VALUES)
        else:
            del place[key]
        return config


@settings(max_examples=300, deadline=None)
@given(config=damaged())
def test_any_damage_is_an_error_or_harmless(config: Any, toy: Path) -> None:
    write_config(toy, config)
    with contextlib.suppress(PackageError):
        root, manifest = read_foreign(toy)
        assert root == toy
        assert 0 < manifest.context_length <= 1 << 24
        assert manifest.model.cache.num_layers == 1
    assert read_generation_defaults(toy).keys() <= {"do_sample", "temperature", "top_k", "top_p"}
