"""The encoder-decoder benchmark's checkpoints are what transformers and edgellm take for such models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import transformers as hf

import edgellm
import edgellm_export
from encoder_decoder import OWN, PEER, Row, table
from encoder_decoder_checkpoints import SHAPES, write_checkpoint

SMALL = {
    "t5-base": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2,
                "vocab_size": 300},
    "opus-mt": {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
                "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 301,
                "decoder_start_token_id": 300, "pad_token_id": 300},
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_checkpoints(name: str, tmp_path: Path) -> None:
    shape = replace(SHAPES[name], config=SHAPES[name].config | SMALL[name])
    path = write_checkpoint(tmp_path / "checkpoint", shape)
    model, report = hf.AutoModelForSeq2SeqLM.from_pretrained(path, output_loading_info=True)
    assert not report["unexpected_keys"]
    assert not report["missing_keys"] or all("embed_positions" in key for key in report["missing_keys"])
    out = edgellm_export.export(path, tmp_path / "package", precision="int8")
    assert out.report is not None
    assert out.report.calibration != "none"  # there is text for its tokenizer
    found = edgellm.load(out.path, threads=1).generate([5, 6, 7], max_new_tokens=4, eos_token_id=None)
    assert len(found.tokens) == 4
    assert model.config.vocab_size == shape.config["vocab_size"]


def test_table() -> None:
    row = Row("t5-base", 4, {OWN: [30.0, 20.0, 40.0], PEER: [10.0, 10.0, 10.0]}, {OWN: 300.4, PEER: 200.0}, 0.1)
    assert table([row]).split("\n")[-1] == "| T5-base | 4 | 30.0 | 10.0 | 3.00x (2.00-4.00) | 300 / 200 |"
