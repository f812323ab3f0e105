"""Packages, directories of other tools, saved sessions, and data to evaluate with."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgellm.package.manifest import (
    CacheLayout,
    DecoderFacts,
    EncoderFacts,
    FileEntry,
    GraphFile,
    Manifest,
    TokenIds,
    Weights,
)
from edgellm.sessions.header import Header
from fuzz.parsers import SESSION
from fuzz.seeds.writing import write_input, write_json, write_part
from fuzz.targets import saved_session

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # the sha256 of nothing


def write_sessions() -> None:
    """The arrays are zeros, so that the header's target can make them."""
    checksums = (zlib.crc32(bytes(16)), zlib.crc32(bytes(32)), zlib.crc32(bytes(32)))
    header = Header("a", "b", SESSION, tokens=2, read=1, long_table=False, checksums=checksums, metadata={"x": [1]})
    write_json("session_header", "seed", asdict(header))
    write_input("session", "seed", saved_session(json.dumps(asdict(header)).encode())["session.kv"])


def write_evaluation() -> None:
    squad = [{"paragraphs": [{"context": "c", "qas": [{"id": "1", "question": "q", "answers": {"text": ["c"]}}]}]}]
    write_json("evaluation_data", "seed-squad", {"data": squad})
    write_input("evaluation_data", "seed-lines", b'{"text": "a", "label": 1}\n{"text": "b", "label": "x"}\n')
    write_input("evaluation_data", "seed-csv", b'text,label\n"a, ""b""\nc",1\nd,2\n')
    write_input("evaluation_data", "seed-tsv", 'text\tanswers\na\t"b"\né\tc\n'.encode())


def write_generation_configs() -> None:
    options = {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 20,
        "eos_token_id": [1, 2],
        "bad_words_ids": [[3, 4]],
        "max_new_tokens": 20,
        "stop_strings": ["x"],
        "forced_eos_token_id": 2,
        "pad_token_id": -1,
    }
    write_json("generation_config", "seed", options)
    write_json("generation_config", "seed-beams", {"num_beams": 4, "early_stopping": "never", "length_penalty": 2.0})


def write_manifests() -> None:
    files = {"model.onnx": FileEntry(0, EMPTY)}
    weights = Weights("int8", "blockwise-32", tied_embedding=True)
    graph = GraphFile("model.onnx", ("input_ids", "attention_mask"), ("logits",))
    common: dict[str, Any] = {
        "target": "cpu",
        "graphs": {"model": graph},
        "weights": weights,
        "vocab_size": 40,
        "context_length": 64,
        "files": files,
        "source": {"kind": "gguf", "dtypes": ["F32"]},
        "versions": {"edgellm": "0"},
    }
    decoder = Manifest(
        task="text-generation",
        model_type="llama",
        model=DecoderFacts(CacheLayout(1, 1, 4, "float32")),
        tokens=TokenIds(1, (2,), 0),
        **common,
    )
    encoder = Manifest(
        task="text-classification",
        model_type="bert",
        model=EncoderFacts(("A", "B"), "regression"),
        tokens=TokenIds(),
        **common,
    )
    write_json("manifest", "seed-decoder", decoder.to_dict())
    write_json("manifest", "seed-encoder", encoder.to_dict())


def write_graphs() -> None:
    decoder = _decoder_graph()
    write_part("decoder.onnx", decoder)
    for target in ("onnx", "foreign_graph"):
        write_input(target, "seed-decoder", decoder)
        write_input(target, "seed-encoder", _encoder_graph())
    config = {
        "model_type": "llama",
        "vocab_size": 40,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "hidden_size": 4,
        "max_position_embeddings": 64,
        "id2label": {"0": "A", "1": "B"},
        "architectures": ["BertForTokenClassification"],
    }
    write_part("foreign.json", json.dumps(config).encode())
    generation = {"eos_token_id": [1, 2], "bos_token_id": 1, "pad_token_id": None}
    files = {"config.json": config, "generation_config.json": generation}
    names = {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"}
    outputs = {"present_key_names": "present.%d.key", "present_value_names": "present.%d.value"}
    decoder_config = {"filename": "model.onnx", "num_hidden_layers": 1, "head_size": 4, "num_key_value_heads": 1}
    decoder_config |= {"inputs": names, "outputs": outputs, "session_options": {"provider_options": []}}
    genai = {"type": "llama", "vocab_size": 40, "context_length": 64, "eos_token_id": [1], "decoder": decoder_config}
    write_json("genai_files", "seed", {"genai_config.json": {"model": genai, "search": {"max_length": 64}}})
    write_json("foreign_files", "seed", files | {"tokenizer_config.json": {"model_max_length": 10**30}})


def _decoder_graph() -> bytes:
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "all"])
    sides = ("key", "value")
    pasts = [
        helper.make_tensor_value_info(f"past_key_values.0.{s}", TensorProto.FLOAT, ["batch", 1, "past", 4])
        for s in sides
    ]
    presents = [
        helper.make_tensor_value_info(f"present.0.{s}", TensorProto.FLOAT, ["batch", 1, "all", 4]) for s in sides
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "length", 40])
    nodes = [helper.make_node("Identity", [f"past_key_values.0.{s}"], [f"present.0.{s}"]) for s in sides]
    nodes += [helper.make_node("Gather", ["table", "input_ids"], ["logits"])]
    table = numpy_helper.from_array(np.zeros((40, 40), np.int8), "table")
    table.dims[:] = [40, 40]
    graph = helper.make_graph(nodes, "decoder", [ids, mask, *pasts], [logits, *presents], [table])
    return _small(helper.make_model(graph))


def _encoder_graph() -> bytes:
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    then = helper.make_graph([helper.make_node("Constant", [], ["x"], value_float=1.0)], "then", [], [logits])
    nodes = [
        helper.make_node("If", ["cond"], ["logits"], then_branch=then, else_branch=then),
        helper.make_node("MatMulNBits", ["a"], ["b"], domain="com.microsoft", bits=4, K=8, N=8),
    ]
    weight = TensorProto(name="w", dims=[2, 2], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "model.onnx_data"), ("offset", "0"), ("length", "16")):
        weight.external_data.add(key=key, value=value)
    constant = numpy_helper.from_array(np.zeros((2, 2), np.float32), "c")
    return _small(helper.make_model(helper.make_graph(nodes, "encoder", [ids], [logits], [weight, constant])))


def _small(model: onnx.ModelProto) -> bytes:
    model.graph.doc_string = ""
    return bytes(model.SerializeToString())
