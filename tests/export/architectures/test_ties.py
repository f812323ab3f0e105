"""Which weights are tied is what the checkpoint holds, as in transformers 5."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgellm.errors import TensorError
from edgellm_export.architectures import open_family
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.checkpoint.tensors import ArrayTensor

TABLE = np.arange(64 * 16, dtype=np.float32).reshape(64, 16)
LLAMA = {"model_type": "llama", "vocab_size": 64, "hidden_size": 16, "num_attention_heads": 1, "num_hidden_layers": 1}
T5 = {"model_type": "t5", "vocab_size": 64, "d_model": 16, "num_heads": 1, "d_kv": 16, "num_layers": 1}
BART = {"model_type": "bart", "vocab_size": 64, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 1, "decoder_attention_heads": 1}  # fmt: skip


def opened(config: dict[str, Any], **tables: np.ndarray) -> Any:
    tensors = {name: ArrayTensor(name, array) for name, array in tables.items()}
    return open_family(Checkpoint(config, tensors, {}, {}))


@pytest.mark.parametrize(
    ("says", "head", "tied"),
    [(True, None, True), (True, TABLE, True), (True, TABLE + 1, False), (False, TABLE, False)],
)
def test_a_head_of_its_own_is_taken_whatever_the_config_says(says: bool, head: Any, tied: bool) -> None:
    tables = {"model.embed_tokens.weight": TABLE} | ({} if head is None else {"lm_head.weight": head})
    family, _ = opened({**LLAMA, "tie_word_embeddings": says}, **tables)
    assert family.tied is tied


def test_a_tied_head_stands_for_the_embedding() -> None:
    _, named = opened({**LLAMA, "tie_word_embeddings": True}, **{"lm_head.weight": TABLE})
    assert named.tensors["model.embed_tokens.weight"].rows(0, 64) is not None


def test_an_untied_head_does_not() -> None:
    _, named = opened({**LLAMA, "tie_word_embeddings": False}, **{"lm_head.weight": TABLE})
    assert "model.embed_tokens.weight" not in named.tensors


@pytest.mark.parametrize(
    ("keys", "scaled"),
    [
        ({}, True),
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
        ({"tie_word_embeddings": False, "scale_decoder_outputs": True}, True),
    ],
)
def test_t5_scales_what_its_head_reads_as_the_config_says_and_ties_as_the_weights_say(
    keys: dict[str, Any], scaled: bool
) -> None:
    for head in (TABLE, TABLE + 1):
        family, _ = opened({**T5, **keys}, **{"shared.weight": TABLE, "lm_head.weight": head})
        assert (family.config.scaled, family.tied) == (scaled, head is TABLE)


def test_t5_with_unlike_tables_is_refused() -> None:
    with pytest.raises(TensorError, match=r"encoder.embed_tokens.weight and shared.weight differ"):
        opened(T5, **{"shared.weight": TABLE, "encoder.embed_tokens.weight": TABLE + 1})


def test_a_side_of_bart_may_have_a_table_of_its_own() -> None:
    tables = {"model.shared.weight": TABLE, "model.decoder.embed_tokens.weight": TABLE + 1, "lm_head.weight": TABLE}
    family, _ = opened({**BART, "tie_word_embeddings": False}, **tables)
    assert family.config.own_embeddings == ("decoder",)
    assert not family.tied


def test_tensors_of_no_dimension_are_compared_and_left() -> None:
    single = np.float32(1).reshape(())
    family, _ = opened({**LLAMA, "tie_word_embeddings": True}, **{"model.embed_tokens.weight": TABLE,
                       "lm_head.weight": single})  # fmt: skip
    assert not family.tied
    _, named = opened(BART, **{"model.shared.weight": TABLE, "final_logits_bias": single})
    assert named.tensors["final_logits_bias"].shape == ()
