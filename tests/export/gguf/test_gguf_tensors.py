from __future__ import annotations

import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.checkpoint.tensors import ArrayTensor, PairsApart
from edgellm_export.gguf.reader import read_gguf
from edgellm_export.gguf.tensors import Shifted, check_types
from edgellm_export.sources.opening import open_checkpoint
from gguf_files import LLAMA, QUANTIZABLE, READABLE, Array, byte_level, llama_tensors, random, write_gguf


def stored(path: Path, kind: gguf.GGMLQuantizationType, shape: tuple[int, ...]) -> Array:
    """Write a tensor `t` of that type; returns what gguf itself makes of it."""
    writer = gguf.GGUFWriter(path, "llama")
    if kind.name in QUANTIZABLE:
        data = gguf.quants.quantize(random(*shape), kind)
    else:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        data = np.random.default_rng(1).integers(0, 120, (*shape[:-1], shape[-1] // block * size), np.uint8)
    writer.add_tensor("t", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gguf.quants.dequantize(data, kind)


@pytest.mark.parametrize("name", [*QUANTIZABLE, *READABLE])
@pytest.mark.parametrize("shape", [(6, 512), (512,), (3, 2, 256)])
def test_rows_are_what_gguf_dequantizes(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    expected = stored(tmp_path / "w.gguf", gguf.GGMLQuantizationType[name], shape)
    file = read_gguf(tmp_path / "w.gguf")
    check_types(file.tensors)
    tensor = file.tensors["t"]
    assert tensor.shape == shape
    for start, stop in ((0, shape[0]), (1, 3), (2, 2)):
        rows = tensor.rows(start, stop)
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, expected.reshape(shape)[start:stop])


@pytest.mark.parametrize("name", ["Q8_K", "Q8_1", "Q1_0", "I32", "F64"])
def test_types_that_cannot_be_read_are_named(tmp_path: Path, name: str) -> None:
    writer = gguf.GGUFWriter(tmp_path / "w.gguf", "llama")
    kind = gguf.GGMLQuantizationType[name]
    size = gguf.GGML_QUANT_SIZES[kind][1]
    writer.add_tensor("blk.0.odd", np.zeros((2, size), np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedModelError, match=f"blk.0.odd has type {name}"):
        check_types(read_gguf(tmp_path / "w.gguf").tensors)


def permute(weights: Array, heads: int) -> Array:
    """LlamaModel.permute of llama.cpp's conversion: Hugging Face's rows to GGUF's."""
    rows = weights.shape[0]
    return weights.reshape(heads, 2, rows // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def test_llama_query_and_key_rows_come_back_in_order(tmp_path: Path) -> None:
    query, key, bias = random(64, 64), random(32, 64), random(64)
    tokenizer = byte_level()
    tensors = llama_tensors(len(tokenizer["tokenizer.ggml.tokens"]))
    tensors |= {
        "blk.0.attn_q.weight": permute(query, 4),
        "blk.0.attn_k.weight": permute(key, 2),
        "blk.0.attn_q.bias": permute(bias, 4),
    }
    checkpoint = open_checkpoint(str(write_gguf(tmp_path / "w.gguf", "llama", LLAMA | tokenizer, tensors)))
    read = {name.removeprefix("model.layers.0.self_attn."): tensor for name, tensor in checkpoint.tensors.items()}
    for name, expected in (("q_proj.weight", query), ("k_proj.weight", key), ("q_proj.bias", bias)):
        for start, stop in ((0, len(expected)), (5, 6), (7, 19), (15, 17), (16, 32), (3, 3)):
            np.testing.assert_array_equal(read[name].rows(start, stop), expected[start:stop])
    np.testing.assert_array_equal(read["v_proj.weight"].rows(0, 32), tensors["blk.0.attn_v.weight"])


def test_views() -> None:
    matrix = random(600, 7)
    shifted = Shifted(ArrayTensor("norm", np.full(4, 1.5, np.float32)), -1.0)
    assert shifted.rows(1, 3).tolist() == [0.5, 0.5]
    rows = PairsApart(ArrayTensor("q", permute(matrix[:64], 4)), head_dim=16, rotary_dim=16)
    np.testing.assert_array_equal(rows.rows(0, 64), matrix[:64])


def test_a_file_that_shrinks_after_opening_is_reported(tmp_path: Path) -> None:
    stored(tmp_path / "w.gguf", gguf.GGMLQuantizationType.Q8_0, (64, 64))
    file = read_gguf(tmp_path / "w.gguf")
    (tmp_path / "w.gguf").write_bytes((tmp_path / "w.gguf").read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="became shorter while t was read"):
        file.tensors["t"].rows(0, 64)


def test_reading_rows_costs_memory_for_those_rows_only(tmp_path: Path) -> None:
    rows, columns, step = 8192, 1024, 64  # 32 MiB as float32
    writer = gguf.GGUFWriter(tmp_path / "w.gguf", "llama")
    writer.add_tensor("t", np.zeros((rows, columns // 32 * 34), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensor = read_gguf(tmp_path / "w.gguf").tensors["t"]
    tensor.rows(0, 1)
    tracemalloc.start()
    for start in range(0, rows, step):
        tensor.rows(start, start + step)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * step * columns * 4
