"""ESM: what is particular to it, beside the checks that all families go through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import edgellm
import edgellm_export
from comparison import relative
from edgellm.errors import CheckpointError
from encoder_families import make_model

TOLERANCE = 2e-5
TOKENS = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]
PROTEIN = "MKTVRQERLKSIVRILERSKEPVSGAQLAEELSVSRQVIVQDIAYLRSLGYNIVATPRGYVLAGG"
NAMES = ["esm", "esm-1b"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """With the files of ESM's own tokenizer."""

    def make(name: str) -> Path:
        path = tmp_path_factory.mktemp(name)
        (path / "vocab.txt").write_text("\n".join(TOKENS))
        hf.EsmTokenizer(str(path / "vocab.txt"), model_max_length=80).save_pretrained(path)
        sizes = {"vocab_size": len(TOKENS), "mask_token_id": TOKENS.index("<mask>"), "max_position_embeddings": 80}
        make_model(name, "fill-mask", **sizes).save_pretrained(path)
        return path

    return make


def exported(source: Path, out: Path, **options: Any) -> Any:
    settings = {"precision": "fp32", "verify_quality": False}
    return edgellm.load(edgellm_export.export(source, out, **{**settings, **options}).path, threads=1)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_masks_are_made_up_for_in_each_text(name: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """Beside others with more masks, fewer, or none, and of other lengths: transformers 4.57 counts padding as tokens
    that are seen, 5 does not."""
    source = checkpoint(name)
    reference, tokenizer = (
        hf.AutoModelForMaskedLM.from_pretrained(source).eval(),
        hf.AutoTokenizer.from_pretrained(source),
    )
    texts = [PROTEIN[:30], "MK<mask>VRQERL", "<mask>KT<mask>RQ<mask>L K", f"{PROTEIN[:50]}<mask>", "MKx<mask>"]
    model = exported(source, tmp_path / "package")
    for text, found in zip(texts, model.run(texts), strict=True):
        alone = tokenizer(text, return_tensors="pt")
        expected = reference(**alone).logits[0].numpy()
        assert relative(np.asarray(found.logits), expected) < TOLERANCE
    masked = reference(**tokenizer("MK<mask>VRQERL", return_tensors="pt")).logits.numpy()
    reference.esm.embeddings.token_dropout = False
    assert relative(reference(**tokenizer("MK<mask>VRQERL", return_tensors="pt")).logits.numpy(), masked) > 0.1


@torch.no_grad()
def test_frequencies_are_the_checkpoints(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """Which may have been rounded to float16."""
    source = checkpoint("esm")
    tensors = load_file(source / "model.safetensors")
    rounded = {name: tensor * 1.25 for name, tensor in tensors.items() if name.endswith("inv_freq")}
    assert rounded
    save_file({**tensors, **rounded}, source / "model.safetensors", {"format": "pt"})
    reference = hf.AutoModelForMaskedLM.from_pretrained(source).eval()
    ids = hf.AutoTokenizer.from_pretrained(source)(PROTEIN, return_tensors="pt")
    found = exported(source, tmp_path / "package").run([PROTEIN])[0]
    assert relative(np.asarray(found.logits), reference(**ids).logits[0].numpy()) < TOLERANCE


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_integers_pass(precision: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    report = edgellm_export.export(checkpoint("esm"), tmp_path / "package", precision=precision).report
    assert report is not None
    assert report.passed


def test_a_vocabulary_without_its_special_tokens_is_refused(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    source = checkpoint("esm")
    (source / "vocab.txt").write_text("\n".join(TOKENS[3:]))
    with pytest.raises(CheckpointError, match=r"vocab.txt lacks the token <cls> and <eos>; download it again"):
        edgellm_export.export(source, tmp_path / "package")
