"""Encoders with each head, a line for each way in which a config differs."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from making import (
    Situation,
    edited,
    model,
    roberta_tokenizer,
    unigram_tokenizer,
    without,
    word_piece_tokenizer,
)

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
HEADS = {
    "mlm": "AutoModelForMaskedLM",
    "labels": "AutoModelForSequenceClassification",
    "tokens": "AutoModelForTokenClassification",
    "answer": "AutoModelForQuestionAnswering",
    "states": "AutoModel",
}
LABELS = {"id2label": {0: "bad", 1: "good", 2: "ugly"}, "label2id": {"bad": 0, "good": 1, "ugly": 2}}
CONFIG = "config.json"


BLANKS = dict.fromkeys(
    ("tokens", "pairs", "logits", "start_logits", "end_logits", "last_hidden_state"),
    "the class drops blanks at the ends in 5, and keeps them in 4.57 where tokenizer.json does",
)


def rows(config: str, name: str, tokenizer: Any = word_piece_tokenizer, **usual: Any) -> Any:
    def row(head: str, ending: str = "", *edits: Any, **changes: Any) -> Situation:
        settings = {**SIZES, **usual, **changes}
        kept = {key: value for key, value in settings.items() if value is not ...}
        full = "-".join(part for part in (name, head, ending) if part)
        return model(full, config, HEADS[head], *edits, tokenizer=tokenizer, **kept)

    return row


bert = rows("BertConfig", "bert")
ernie = rows("ErnieConfig", "ernie")
electra = rows("ElectraConfig", "electra", embedding_size=24)
roberta = rows(
    "RobertaConfig", "roberta", roberta_tokenizer, max_position_embeddings=130, type_vocab_size=1, pad_token_id=1
)
xlm = rows(
    "XLMRobertaConfig", "xlm-roberta", unigram_tokenizer, max_position_embeddings=130, type_vocab_size=1,
    pad_token_id=1, differs=BLANKS,
)  # fmt: skip
camembert = rows(
    "CamembertConfig", "camembert", unigram_tokenizer, max_position_embeddings=130, type_vocab_size=1,
    pad_token_id=1, differs=BLANKS,
)  # fmt: skip
PROTEINS = ("<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>")


def esm_tokenizer(hf: Any) -> Any:
    with tempfile.TemporaryDirectory() as room:
        (Path(room) / "vocab.txt").write_text("\n".join(PROTEINS))
        return hf.EsmTokenizer(f"{room}/vocab.txt", model_max_length=128)


without_types = partial(word_piece_tokenizer, model_input_names=["input_ids", "attention_mask"])
distilbert = rows(
    "DistilBertConfig", "distilbert", without_types, dim=32, hidden_dim=48, n_layers=2, n_heads=4,
    hidden_size=..., intermediate_size=..., num_hidden_layers=..., num_attention_heads=...,
)  # fmt: skip

albert = rows("AlbertConfig", "albert", embedding_size=24)
rembert = rows("RemBertConfig", "rembert", input_embedding_size=24, output_embedding_size=40)
roformer = rows("RoFormerConfig", "roformer")
mpnet = rows("MPNetConfig", "mpnet", without_types, max_position_embeddings=130, pad_token_id=1, type_vocab_size=...)
RELATIVE: dict[str, Any] = {
    "relative_attention": True, "pos_att_type": "p2c|c2p", "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip
deberta = rows("DebertaConfig", "deberta", without_types, **RELATIVE)
deberta_v2 = rows(
    "DebertaV2Config", "deberta-v2", without_types, position_buckets=16, share_att_key=True, norm_rel_ebd="layer_norm",
    **RELATIVE,
)  # fmt: skip
modernbert = rows(
    "ModernBertConfig", "modernbert", without_types, local_attention=16, pad_token_id=0, reference_compile=False,
    cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
NEWER = (albert, rembert, roformer, mpnet, deberta, deberta_v2, modernbert)
# Since transformers 5, and without a head for answers.
nomic = rows("NomicBertConfig", "nomic-bert", versions=("5",))
gte = rows("GteConfig", "gte", without_types, versions=("5",))
eurobert = rows(
    "EuroBertConfig", "eurobert", without_types, versions=("5",), num_key_value_heads=2, head_dim=16, pad_token_id=0,
    type_vocab_size=...,
)  # fmt: skip
esm = rows(
    "EsmConfig", "esm", esm_tokenizer, vocab_size=33, pad_token_id=1, mask_token_id=32, token_dropout=True,
    position_embedding_type="rotary", type_vocab_size=...,
)  # fmt: skip
LATEST = [head for head in HEADS if head != "answer"]

SITUATIONS = [
    *(make(head) for make in (bert, ernie, electra, roberta, xlm, camembert, distilbert, *NEWER) for head in HEADS),
    *(make(head) for make in (nomic, gte, eurobert) for head in LATEST),
    *(esm(head) for head in LATEST),
    esm("mlm", "1b", position_embedding_type="absolute", emb_layer_norm_before=True),
    eurobert("labels", "mean", classifier_pooling="mean", attention_bias=True),
    eurobert("labels", "first", classifier_pooling="bos", rope_theta=5000.0),
    eurobert("mlm", "biased", mlp_bias=True, tie_word_embeddings=True),
    bert("labels", "named", **LABELS),
    bert("labels", "label2id-is-old", edited(CONFIG, label2id={"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}), **LABELS),
    bert("labels", "without-label2id", without(CONFIG, "label2id"), **LABELS),
    bert("labels", "one", num_labels=1),
    bert("labels", "several", problem_type="multi_label_classification", **LABELS),
    bert("tokens", "named", **LABELS),
    bert("mlm", "relu", hidden_act="relu"),
    bert("mlm", "eps", layer_norm_eps=1e-3),
    rows("BertConfig", "bert", without_types)("mlm", "one-type", type_vocab_size=1),
    bert("states", "gelu-new", hidden_act="gelu_new"),
    roberta("mlm", "pad-0", pad_token_id=0),
    electra("mlm", "equal-sizes", embedding_size=32),
    distilbert("labels", "named", **LABELS),
    distilbert("labels", "relu", activation="relu"),
    distilbert("mlm", "sinusoids", sinusoidal_pos_embds=True),
]
