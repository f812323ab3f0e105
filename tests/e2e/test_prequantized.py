"""A tiny Llama quantized by each method becomes a package of the same numbers, with the same integers where it can."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers as hf
from onnx import numpy_helper
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

import edgellm
import edgellm_export
from adapter_files import save_adapter
from comparison import reference_logits, relative, relative_rms
from edgellm.commands.export_text import quality_lines
from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm.package.report import QuantizedSource, read_report
from families import save_checkpoint
from quantized_files import METHODS, awq, bnb_nf4, gptq, quantize

Shared = Callable[[str, Callable[[Path], Any]], Path]
SIZES = {"vocab_size": 160, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "head_dim": 32,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 96}  # fmt: skip
IDS = np.random.default_rng(0).integers(3, 131, 60)
INT4 = ("gptq-4", "gptq-4-128", "gptq-4-rows", "awq", "ct-int4", "ct-int4-128", "bitnet", "ct-mxfp4")
INT8 = ("gptq-8", "ct-int8", "bnb-int8")
KEPT = {"int4": INT4, "int8": (*INT4, *INT8)}
CASES = [(name, precision, True) for name in METHODS for precision in KEPT]
CASES += [(name, precision, False) for name in ("gptq-4-128", "ct-int8", "fp8") for precision in KEPT]
MATRICES = 2 * 5  # q, k and v are one in the graph


def tiny_llama() -> Any:
    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES, bos_token_id=1, eos_token_id=2, pad_token_id=0)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.add_(noise * 0.2) if parameter.ndim == 1 else parameter.copy_(noise * 0.1)
    return model


def with_weights(model: Any, matrices: Mapping[str, np.ndarray]) -> Any:
    changed = copy.deepcopy(model)
    found = changed.load_state_dict({name: torch.from_numpy(each) for name, each in matrices.items()}, strict=False)
    assert not found.unexpected_keys
    return changed


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny_llama()


@pytest.fixture
def quantized(llama: Any, tmp_path: Path) -> Callable[[str], tuple[Path, Any]]:
    """A checkpoint by its method, and the model with the numbers that its matrices stand for."""

    def make(name: str) -> tuple[Path, Any]:
        path = save_checkpoint(llama, tmp_path / "checkpoint")
        return path, with_weights(llama, quantize(path, METHODS[name]))

    return make


@pytest.mark.parametrize("name", METHODS)
def test_a_float_package_computes_with_the_numbers_of_the_checkpoint(
    name: str, quantized: Callable[[str], tuple[Path, Any]], llama: Any, tmp_path: Path
) -> None:
    path, model = quantized(name)
    exported = edgellm_export.export(path, tmp_path / "out", precision="fp32", verify_quality=False)
    found, expected = edgellm.load(exported.path, threads=1).logits(IDS), reference_logits(model, IDS)
    assert relative(found, expected) < 1e-5
    assert relative(reference_logits(llama, IDS), expected) > 0.01  # it was quantized
    assert exported.manifest.source["quantized"] == METHODS[name].config["quant_method"]


@pytest.mark.parametrize(("name", "precision", "calibrate"), CASES)
def test_integers_stay_as_they_are_where_the_package_has_their_grid(
    name: str, precision: Any, calibrate: bool, quantized: Callable[[str], tuple[Path, Any]], tmp_path: Path
) -> None:
    path, model = quantized(name)
    exported = edgellm_export.export(path, tmp_path / "out", precision=precision, calibrate=calibrate)
    report = exported.report
    assert report is not None
    assert report.source is not None
    kept = name in KEPT[precision]
    assert (len(report.source.kept), len(report.source.rounded)) == ((MATRICES, 0) if kept else (0, MATRICES))
    assert report.source.method == METHODS[name].config["quant_method"]
    # What is left where weights are kept: embedding, head and activations in int8 (measured 0.029 to 0.036).
    error = relative_rms(edgellm.load(exported.path, threads=1).logits(IDS), reference_logits(model, IDS))
    assert error < (0.045 if kept or precision == "int8" else 0.45)
    assert kept or precision == "int8" or error > 0.2  # weights rounded twice
    assert read_report(exported.path) == report


def test_a_package_has_the_integers_and_scales_of_the_checkpoint(
    quantized: Callable[[str], tuple[Path, Any]], tmp_path: Path
) -> None:
    path, _ = quantized("ct-int4-128")
    exported = edgellm_export.export(path, tmp_path / "out", precision="int4", verify_quality=False)
    stored = load_file(path / "model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    data = (exported.path / "model.onnx.data").read_bytes()
    assert stored[f"{name}.weight_packed"].numpy().tobytes() in data  # two levels in a byte, in the same order
    scales = stored[f"{name}.weight_scale"].float().numpy()
    assert np.repeat(scales, 4, axis=1).tobytes() in data  # blocks of 32


EXPERTS, LAYERS = 4, 2


def mxfp4_gpt_oss(path: Path) -> Any:
    """A checkpoint whose experts are MXFP4, as OpenAI's are, and the model with the numbers that transformers reads."""
    torch.manual_seed(0)
    sizes = {**SIZES, "intermediate_size": 96, "num_local_experts": EXPERTS, "num_experts_per_tok": 2}
    config = hf.GptOssConfig(**sizes, sliding_window=13, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    config._attn_implementation = "eager"
    model = hf.GptOssForCausalLM(config).eval()
    packed = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1 if name.endswith("norm.weight") else 0, 0.1)
            if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                experts, inputs, outputs = parameter.shape
                blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
                scales = torch.randint(121, 124, (experts, outputs, inputs // 32), dtype=torch.uint8)
                parameter.copy_(convert_moe_packed_tensors(blocks, scales, dtype=torch.float32))
                packed[name] = {f"{name}_blocks": blocks, f"{name}_scales": scales}
    save_checkpoint(model, path)
    tensors = {name: each for name, each in load_file(path / "model.safetensors").items() if name not in packed}
    for parts in packed.values():
        tensors |= parts
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    change_config(path, quantization_config={"quant_method": "mxfp4"})
    return model


def stored_matrix(package: Path, name: str) -> np.ndarray:
    """The numbers of a matrix of eight bits in blocks of 32, by the name of its weight."""
    tensors = {each.name: each for each in onnx.load(package / "model.onnx").graph.initializer}
    quants, scales = (numpy_helper.to_array(tensors[f"{name}.{part}"]) for part in ("quants", "scales"))
    return ((quants.astype(np.float32) - 128) * scales[..., None]).reshape(len(quants), -1)


@pytest.mark.parametrize("calibrate", [True, False])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_experts_of_gpt_oss_keep_their_numbers(precision: Any, calibrate: bool, tmp_path: Path) -> None:
    """At int4, too, whose grid would round them a second time; all other matrices have four bits there."""
    model = mxfp4_gpt_oss(tmp_path / "checkpoint")
    exported = edgellm_export.export(
        tmp_path / "checkpoint", tmp_path / "out", precision=precision, calibrate=calibrate
    )
    report = exported.report
    assert (len(report.source.kept), report.source.rounded) == (LAYERS * EXPERTS * 3, ())
    experts = {matrix.node for matrix in report.matrices if "/experts." in matrix.node}
    assert experts == {*report.source.kept}
    bits = {(matrix.bits, "expert" if matrix.node in experts else "other") for matrix in report.matrices[:-1]}
    assert bits - {(8, "other")} == {(8, "expert"), *([(4, "other")] if precision == "int4" else [])}  # 8: the router
    for i in range(LAYERS):
        place, found = f"model.layers.{i}.mlp.experts", model.model.layers[i].mlp.experts
        for expert in range(EXPERTS):
            both, down = (each[expert].detach().numpy().T for each in (found.gate_up_proj, found.down_proj))
            for part, expected in (("gate_proj", both[::2]), ("up_proj", both[1::2]), ("down_proj", down)):
                stored = stored_matrix(exported.path, f"{place}.{expert}.{part}.weight")
                np.testing.assert_array_equal(stored[:, : expected.shape[1]], expected)


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-5), ("int8", 0.06)])
def test_gpt_oss_of_mxfp4_computes_with_the_numbers_of_the_checkpoint(
    precision: Any, most: float, tmp_path: Path
) -> None:
    """Of most tokens: others go to another expert where two are all but equal."""
    model = mxfp4_gpt_oss(tmp_path / "checkpoint")
    exported = edgellm_export.export(
        tmp_path / "checkpoint", tmp_path / "out", precision=precision, verify_quality=False
    )
    found, expected = edgellm.load(exported.path, threads=1).logits(IDS), reference_logits(model, IDS)
    assert np.median(np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)) < most


def test_the_report_says_what_was_rounded_anew(llama: Any, tmp_path: Path) -> None:
    path = save_checkpoint(llama, tmp_path / "checkpoint")
    quantize(path, gptq(4, 32, symmetric=True), ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "lm_head"))
    source = edgellm_export.export(path, tmp_path / "out", precision="int4").report.source
    layers = ("self_attn/qkv_proj", "self_attn/o_proj", "mlp/up_proj")
    kept = (*(f"/model/layers.{i}/{layer}" for i in range(2) for layer in layers), "/lm_head")
    assert source == QuantizedSource("gptq", kept)
    mixed = save_checkpoint(llama, tmp_path / "mixed")
    quantize(mixed, gptq(4, 32, symmetric=True, order=True), ("down_proj",))
    report = edgellm_export.export(mixed, tmp_path / "out2", precision="int4").report
    names = "/model/layers.0/mlp/down_proj, /model/layers.1/mlp/down_proj"
    assert f"checkpoint   gptq; of its matrices 2 rounded anew ({names})" in quality_lines(report)


@pytest.mark.parametrize(("name", "activations"), [("ct-int8", "int8"), ("fp8", "fp8"), ("bnb-int8", "int8")])
def test_the_report_says_that_activations_are_not_rounded_as_in_the_checkpoint(
    name: str, activations: str, quantized: Callable[[str], tuple[Path, Any]], tmp_path: Path
) -> None:
    path, _ = quantized(name)
    config = json.loads((path / "config.json").read_bytes())
    for group in config["quantization_config"].get("config_groups", {}).values():
        group["input_activations"] = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True}
    (path / "config.json").write_text(json.dumps(config))
    lines = quality_lines(edgellm_export.export(path, tmp_path / "out", precision="int8").report)
    assert any(line.endswith(f"; its rounding of activations ({activations}) is left out") for line in lines)


@pytest.mark.parametrize("name", ["gptq-4-128", "bnb-nf4", "fp8"])
def test_an_adapter_on_a_quantized_base(
    name: str, quantized: Callable[[str], tuple[Path, Any]], llama: Any, tmp_path: Path
) -> None:
    """What QLoRA trains: the matrices that it changes are widened, the others keep their integers."""
    path, model = quantized(name)
    added = save_adapter(llama, tmp_path / "tuned", ("q_proj", "down_proj"))
    exported = edgellm_export.export(
        path, tmp_path / "out", precision="fp32", adapters=[tmp_path / "tuned"], verify_quality=False
    )
    with torch.no_grad():
        for module, change in added.items():
            model.get_submodule(module).weight += torch.from_numpy(change)
    found = edgellm.load(exported.path, threads=1).logits(IDS)
    assert relative(found, reference_logits(model, IDS)) < 2e-5
    source = edgellm_export.export(
        path, tmp_path / "out4", precision="int4", adapters=[tmp_path / "tuned"]
    ).report.source
    kept = {layer.rpartition("/")[2] for layer in source.kept}
    assert kept == ({"o_proj", "gate_proj", "up_proj"} if name.startswith("gptq") else set())


def quantized_gpt2(path: Path, method: Any) -> Any:
    """A checkpoint whose layers are quantized as Linear would be, and the model with their numbers."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 131, "n_embd": 64, "n_layer": 1, "n_head": 4, "n_positions": 64}
    model = hf.GPT2LMHeadModel(hf.GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)).eval()
    save_checkpoint(model, path)
    tensors = load_file(path / "model.safetensors")
    turned = {name: each.T.contiguous() if "c_" in name and each.ndim == 2 else each for name, each in tensors.items()}
    save_file(turned, path / "model.safetensors", {"format": "pt"})
    found = quantize(path, method, ("c_attn", "c_proj", "c_fc"))
    return with_weights(model, {name: np.ascontiguousarray(each.T) for name, each in found.items()})


@pytest.mark.parametrize("method", [bnb_nf4(), gptq(4, 32, symmetric=True)], ids=["bnb-nf4", "gptq-4"])
def test_conv1d_layers_of_gpt2(method: Any, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    changed = quantized_gpt2(path, method)
    exported = edgellm_export.export(path, tmp_path / "out", precision="fp32", verify_quality=False)
    logits = edgellm.load(exported.path, threads=1).logits(IDS)
    assert relative(logits, reference_logits(changed, IDS)) < 1e-5


def test_conv1d_layers_of_gpt2_keep_their_integers(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    changed = quantized_gpt2(path, gptq(4, 32, symmetric=True))
    exported = edgellm_export.export(path, tmp_path / "out", precision="int4")
    source = exported.report.source
    assert (len(source.kept), source.rounded) == (4, ())
    logits = edgellm.load(exported.path, threads=1).logits(IDS)
    assert relative_rms(logits, reference_logits(changed, IDS)) < 0.045


REFUSED = {
    "gptq marlin": (gptq(4, 32, symmetric=True), {"checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'"),
    "gptq is_marlin_format": (gptq(4, 32, symmetric=True), {"is_marlin_format": True}, "is_marlin_format is True"),
    "gptq 5 bits": (gptq(4, 32, symmetric=True), {"bits": 5}, "bits is 5; edgellm reads gptq checkpoints with 2 or 3"),
    "awq gemv": (awq(64), {"version": "GEMV"}, "version is 'gemv'; edgellm reads awq checkpoints with 'gemm'"),
    "awq llm-awq": (awq(64), {"backend": "llm-awq"}, "backend is 'llm-awq'"),
    "ct marlin-24": (METHODS["ct-int4"], {"format": "marlin-24"}, "format is 'marlin-24'"),
    "ct transforms": (METHODS["ct-int4"], {"transform_config": {"config_groups": {"R1": {}}}}, "transform_config is"),
    "ct sparse": (METHODS["ct-int4"], {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity_config is"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_variants_that_edgellm_does_not_read_are_refused_by_name(case: str, llama: Any, tmp_path: Path) -> None:
    method, changes, message = REFUSED[case]
    path = save_checkpoint(llama, tmp_path / "checkpoint")
    quantize(path, method)
    change_config(path, quantization_config={**method.config, **changes})
    with pytest.raises(UnsupportedModelError, match=r"quantization_config\.") as caught:
        edgellm_export.export(path, tmp_path / "out")
    assert message in str(caught.value)
    assert "export the original checkpoint" in str(caught.value)


def test_a_config_that_lacks_its_quantization_is_an_error_that_says_so(llama: Any, tmp_path: Path) -> None:
    path = save_checkpoint(llama, tmp_path / "checkpoint")
    quantize(path, METHODS["gptq-4"])
    change_config(path, quantization_config=None)
    with pytest.raises(CheckpointError, match=r"holds .*\.qweight.*no quantization_config; put the content of"):
        edgellm_export.export(path, tmp_path / "out")
    save_checkpoint(llama, path)
    change_config(path, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(CheckpointError, match=r"says that the checkpoint is quantized .gptq., and no tensor is"):
        edgellm_export.export(path, tmp_path / "out")


def change_config(path: Path, **changes: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


def test_a_plan_knows_the_matrices(llama: Any, tmp_path: Path) -> None:
    path = save_checkpoint(llama, tmp_path / "checkpoint")
    quantize(path, METHODS["gptq-4"])
    plan = edgellm_export.plan(path, tmp_path / "out", precision="int4", calibrate=False)
    exported = edgellm_export.export(path, tmp_path / "out", precision="int4", calibrate=False, verify_quality=False)
    assert plan.prediction.size == pytest.approx(sum(file.stat().st_size for file in exported.path.iterdir()), rel=0.02)


def test_a_package_has_a_config_of_its_own_and_optimum_takes_floats_only(llama: Any, tmp_path: Path) -> None:
    path = save_checkpoint(llama, tmp_path / "checkpoint")
    quantize(path, METHODS["awq"])
    exported = edgellm_export.export(path, tmp_path / "out", precision="fp16", verify_quality=False)
    assert "quantization_config" not in json.loads((exported.path / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"takes checkpoints in floating point, this one is quantized .awq"):
        edgellm_export.export(path, tmp_path / "via", via="optimum")
