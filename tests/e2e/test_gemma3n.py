"""Gemma 3n: what is particular to it, beside the checks that all families go through."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import edgellm
import edgellm_export
from comparison import prompt
from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm.package.manifest import DecoderFacts, is_of
from edgellm_export.architectures import read_family
from families import BY_NAME

NAME = "gemma3n"
OWN, SHARED = 4, (2, 2, 3)  # layers with keys and values, and whose the others read
SIDES = ("key", "value")
TABLE = "embed_tokens_per_layer"
FLOAT = 1  # of ONNX' types of numbers
KEPT = ("modality_router", "prediction_coefs", "correction_coefs")


def test_layers_that_share_keys_and_values_take_no_memory_for_them(load: Callable[..., edgellm.Model]) -> None:
    model = load(NAME)
    assert is_of(model.manifest, DecoderFacts)
    cache = model.manifest.model.cache
    assert (cache.num_layers, cache.num_attention_layers, cache.shared) == (OWN + len(SHARED), OWN, SHARED)
    assert model.info.cache_bytes_per_token == 2 * OWN * cache.num_kv_heads * cache.head_dim * 4
    assert len(cache.tensors()) == 2 * OWN
    ports = [tensor.ports for tensor in cache.tensors()]
    assert sorted(port for each in ports for port in each) == sorted(
        (f"past_key_values.{i}.{side}", f"present.{i}.{side}") for i in range(cache.num_layers) for side in SIDES
    )
    assert [past for past, _ in ports[2 * SHARED[0]]] == [f"past_key_values.{i}.key" for i in (2, 4, 5)]


def test_a_saved_session_has_what_own_layers_keep(load: Callable[..., edgellm.Model], tmp_path: Path) -> None:
    model, ids = load(NAME), prompt(NAME, 64)
    session = model.session()
    expected = session.generate(ids, max_new_tokens=8).tokens
    session.save(tmp_path / "state")
    assert (tmp_path / "state").stat().st_size < 1.5 * 72 * model.info.cache_bytes_per_token
    restored = model.load_session(tmp_path / "state")
    more = np.concatenate([ids, expected, prompt(NAME, 5)])
    assert restored.generate(more, max_new_tokens=8).tokens == model.generate(more, max_new_tokens=8).tokens


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shared": [2, 2, 4]}, r"cache.shared is \(2, 2, 4\), expected for each a layer of the 4 before them"),
        ({"shared": [0] * 8}, r"expected for each a layer of the 0 before them"),
        ({"growth": "concat"}, r"cache.shared belongs to a decoder's cache that is written in place"),
    ],
)
def test_damaged_facts_are_refused(
    package: Callable[..., Path], tmp_path: Path, changes: Mapping[str, Any], message: str
) -> None:
    path = shutil.copytree(package(NAME), tmp_path / "package")
    manifest = json.loads((path / "edgellm.json").read_text())
    manifest["cache"] |= changes
    (path / "edgellm.json").write_text(json.dumps(manifest))
    with pytest.raises(edgellm.PackageCorruptError, match=message):
        edgellm.load(path)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_what_a_package_is_called_is_true(precision: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """The table of all layers has 8 bits, every matrix is calibrated, and in float32 are vectors and AltUp's few
    numbers alone."""
    exported = edgellm_export.export(checkpoint(NAME), tmp_path / "package", precision=precision)
    report = exported.report
    assert report is not None
    assert report.passed
    layers = [each for each in report.matrices if each.node != "/lm_head"]
    named = [each.node for each in layers if "/layers." not in each.node]
    assert sorted(named) == sorted(
        [
            "/model/per_layer_model_projection",
            *(f"/model/altup_{part}.{i}" for part in ("projections", "unembed_projections") for i in range(3)),
        ]
    )
    assert all(each.error is not None for each in layers)
    assert {each.bits for each in layers} == {8 if precision == "int8" else 4}
    graph = onnx.load(exported.path / "model.onnx", load_external_data=False).graph
    tensors = {each.name: each for each in graph.initializer}
    lookups = [node for node in graph.node if node.op_type == "GatherBlockQuantized" and TABLE in node.name]
    assert len(lookups) == 1
    assert next(each.i for each in lookups[0].attribute if each.name == "bits") == 8
    wide = [name for name, each in tensors.items() if each.data_type == FLOAT and _matrix(each) and "scale" not in name]
    assert {name.split(".")[-2] for name in wide} == set(KEPT)


def _matrix(tensor: onnx.TensorProto) -> bool:
    return len(tensor.dims) == 2 and min(tensor.dims) > 1 and "cos" not in tensor.name and "sin" not in tensor.name


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"intermediate_size": [88, 72]},
        r"intermediate_size is \[88, 72\], expected a whole number, or one for each of 7",
    ),
    ({"intermediate_size": [88] * 6 + [0]}, r"expected a whole number, or one for each of 7 layers"),
    ({"activation_sparsity_pattern": [1.0] * 7}, r"expected a share from 0 to below 1 for each of 7 layers"),
    ({"activation_sparsity_pattern": 0.5}, r"activation_sparsity_pattern is 0.5, expected a share from 0"),
    ({"num_kv_shared_layers": 7}, r"num_kv_shared_layers is 7 of 7, and a kind has no layer before these"),
    ({"num_kv_shared_layers": 6}, r"num_kv_shared_layers is 6 of 7, and a kind has no layer before these"),
    ({"num_kv_shared_layers": -1}, r"num_kv_shared_layers is -1, expected a whole number from 0"),
    ({"altup_active_idx": 4}, r"altup_active_idx is 4, expected a whole number from 0 to 3"),
    ({"altup_num_inputs": 1}, r"altup_num_inputs is 1, expected a whole number from 2"),
    ({"laurel_rank": 0}, r"laurel_rank is 0, expected a whole number from 1"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=lambda each: str(each)[:40])
def test_configs_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    config = BY_NAME[NAME].config().to_dict() | {"model_type": "gemma3n_text"}
    assert read_family(config, 1000).shape.shared == SHARED
    with pytest.raises(CheckpointError, match=message):
        read_family(config | changes, 1000)


def test_a_config_that_says_little_is_the_e4b(tmp_path: Path) -> None:
    family = read_family({"model_type": "gemma3n_text"}, 10_000)
    assert family.shape.shared == tuple(19 if i % 5 == 4 else 18 for i in range(20, 35))
    assert [share for share in family.own.sparsity if share] == [0.95] * 10
    assert family.own.sizes == [16384] * 35


def test_it_is_no_embedding_model(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="no embedding model of a decoder with inputs for each layer"):
        edgellm_export.export(checkpoint(NAME), tmp_path / "package", task="feature-extraction")
