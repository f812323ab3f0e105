"""EuroBERT, of which transformers 4.57 has no class: tests/parity compares it with 5. Here the reference is Llama,
whose tensors it has, with a mask through which every token sees every other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import edgellm
import edgellm_export
from comparison import relative
from edgellm.errors import UnsupportedModelError
from families import SIZES, save_tokenizer, tiny_tokenizer

TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def llama() -> Any:
    torch.manual_seed(3)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES, pad_token_id=0, attn_implementation="eager")).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.add_(noise * 0.2) if parameter.ndim == 1 else parameter.copy_(noise * 0.15)
    return model


@pytest.fixture(scope="module")
def checkpoint(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("eurobert")
    llama.save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    config |= {"model_type": "eurobert", "architectures": ["EuroBertForMaskedLM"]}
    (path / "config.json").write_text(json.dumps(config))
    save_tokenizer(tiny_tokenizer(SIZES["vocab_size"]), path)
    return path


@torch.no_grad()
def test_tokens_see_those_behind_them(llama: Any, checkpoint: Path, tmp_path: Path) -> None:
    """Alone, and beside longer texts."""
    edgellm_export.export(checkpoint, tmp_path / "package", precision="fp32", verify_quality=False)
    model: Any = edgellm.load(tmp_path / "package", threads=1)
    texts = [np.random.default_rng(i).integers(3, SIZES["vocab_size"], n).tolist() for i, n in enumerate((30, 7, 21))]
    together = model.run(texts)
    for ids, found in zip(texts, together, strict=True):
        seen = torch.zeros(1, 1, len(ids), len(ids))
        expected = llama(torch.tensor([ids]), attention_mask=seen).logits[0].numpy()
        assert relative(np.asarray(found.logits), expected) < TOLERANCE
        assert relative(np.asarray(model.run([ids])[0].logits), expected) < TOLERANCE
        causal = llama(torch.tensor([ids])).logits[0].numpy()
        assert relative(causal, expected) > 0.1


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_integers_pass(precision: Any, checkpoint: Path, tmp_path: Path) -> None:
    report = edgellm_export.export(checkpoint, tmp_path / "package", precision=precision).report
    assert report is not None
    assert report.passed
    assert [each.node for each in report.matrices if each.error is None] == ["/lm_head"]


def test_it_has_no_head_for_answers(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="EuroBERT has no head for question-answering"):
        edgellm_export.export(checkpoint, tmp_path / "package", task="question-answering")
