"""SmolLM2-135M-Instruct from its GGUF file: float32 beside transformers, int8 beside float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import edgellm
from comparison import distributions, trimmed
from edgellm.package.report import read_report
from edgellm.system.cpu import usable_cores
from edgellm_export.sources.opening import open_checkpoint

pytestmark = pytest.mark.real_model

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n    ",
    "Water boils at 100 degrees Celsius because",
    "1, 1, 2, 3, 5, 8,",
    "Dear Sir or Madam,\n\nI am writing to",
    "<|im_start|>user\nIs a whale a fish? Answer yes or no.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nSay hello.<|im_end|>\n<|im_start|>assistant\n",
    "Die Hauptstadt von Deutschland ist",
    "In 1969, two astronauts walked on the Moon. The first of them, Neil Armstrong, said that",
]
LENGTH, COUNT = 896, 9  # tokens per held-out sequence at most, sequences


@pytest.fixture(scope="module")
def reference(smollm2_gguf: Path) -> Any:
    """transformers on the weights that the exporter reads from the same file."""
    checkpoint = open_checkpoint(str(smollm2_gguf))
    config = hf.LlamaConfig(**checkpoint.config, attn_implementation="sdpa")
    with torch.device("meta"):
        model = hf.LlamaForCausalLM(config)
    weights = {name: torch.from_numpy(t.rows(0, t.shape[0]).copy()) for name, t in checkpoint.tensors.items()}
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # its table is no weight, and was made on "meta"
    return model.eval()


@pytest.fixture(scope="module")
def fp32(smollm2_package: Callable[[str], Path]) -> edgellm.Model:
    return edgellm.load(smollm2_package("fp32"), device="cpu")


@torch.no_grad()
def continued(model: Any, prompts: list[np.ndarray], eos: int, **options: Any) -> list[tuple[int, ...]]:
    """By transformers, with padding on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[eos] * (longest - len(p)) + p.tolist() for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    torch.set_num_threads(usable_cores())
    out = model.generate(ids, attention_mask=mask, do_sample=False, eos_token_id=eos, pad_token_id=eos, **options)
    torch.set_num_threads(1)
    return [trimmed(row[longest:].tolist(), eos) for row in out]


@pytest.mark.parametrize("options", [{"max_new_tokens": 64}, {"max_new_tokens": 16, "num_beams": 5}], ids=str)
def test_tokens_of_transformers(options: dict[str, Any], reference: Any, fp32: edgellm.Model) -> None:
    """Both in one batch, which reads the weights once for all; test_independence.py has prompts one by one."""
    eos = 2  # <|im_end|>
    prompts = [fp32.tokenizer.encode(text) for text in PROMPTS]
    expected = continued(reference, prompts, eos, **options)
    found = fp32.generate(prompts, do_sample=False, eos_token_id=eos, **options)
    assert [generation.tokens for generation in found] == expected
    assert "num_beams" in options or {"eos", "length"} == {generation.finish_reason for generation in found}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_report_passes(precision: str, smollm2_package: Callable[[str], Path]) -> None:
    report = read_report(smollm2_package(precision))
    assert report is not None
    assert report.passed


@pytest.fixture(scope="module")
def int8_beside_fp32(
    fp32: edgellm.Model, smollm2_package: Callable[[str], Path], held_out: list[str]
) -> tuple[float, float]:
    """KL divergence in nats per token, and the share of tokens at which both put the same one first."""
    int8 = edgellm.load(smollm2_package("int8"), device="cpu")
    divergence, agreement = [], []
    for text in held_out[:COUNT]:
        ids = fp32.tokenizer.encode(text)[:LENGTH]
        comparison = distributions(fp32.logits(ids), int8.logits(ids))
        divergence.append(comparison.kl_divergence())
        agreement.append(comparison.agreement())
    return float(np.concatenate(divergence).mean()), float(np.concatenate(agreement).mean())


def test_int8_has_the_distribution_of_float32(int8_beside_fp32: tuple[float, float]) -> None:
    """Measured: 0.0034 on 7,168 tokens."""
    assert int8_beside_fp32[0] <= 0.006


def test_int8_has_the_choices_of_float32(int8_beside_fp32: tuple[float, float]) -> None:
    """Measured: 0.967 on 7,168 tokens; on a quarter of them it is 0.957 to 0.967, as roundings fall."""
    assert int8_beside_fp32[1] >= 0.96
