"""Tiny encoder checkpoints, one list for all checks: every family with every head, seeded, made by transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from families import save_tokenizer

CONTEXT = 40  # rows of the position tables

SIZES: dict[str, Any] = {
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "type_vocab_size": 2,
}
WITHOUT_TYPES = {key: value for key, value in SIZES.items() if key != "type_vocab_size"}
DEBERTA: dict[str, Any] = {
    **SIZES, "type_vocab_size": 0, "relative_attention": True, "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False, "layer_norm_eps": 1e-7,
}  # fmt: skip
MODERN: dict[str, Any] = {
    **WITHOUT_TYPES, "local_attention": 8, "global_attn_every_n_layers": 2, "num_attention_heads": 3,
    "reference_compile": False, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
ESM: dict[str, Any] = {**WITHOUT_TYPES, "pad_token_id": 1, "mask_token_id": 4, "num_attention_heads": 3}
ANSWERS = ("question-answering",)
DISTIL: dict[str, Any] = {
    "vocab_size": 131,
    "dim": 48,
    "hidden_dim": 88,
    "n_layers": 3,
    "n_heads": 6,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
}
HEADS = {
    "fill-mask": "ForMaskedLM",
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "feature-extraction": "Model",
}
LABELS = {0: "bad", 1: "good", 2: "neither"}


@dataclass(frozen=True)
class EncoderFamily:
    """`stem`: of its classes' names in transformers, which has none for some tasks."""

    name: str
    stem: str
    settings: dict[str, Any]
    without: tuple[str, ...] = ()


FAMILIES = [
    EncoderFamily("albert", "Albert", {**SIZES, "embedding_size": 32}),
    EncoderFamily(
        "albert-groups",
        "Albert",
        {**SIZES, "embedding_size": 48, "num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2},
    ),
    EncoderFamily("bert", "Bert", SIZES),
    EncoderFamily("bert-relu", "Bert", {**SIZES, "hidden_act": "relu", "tie_word_embeddings": False}),
    EncoderFamily("camembert", "Camembert", {**SIZES, "pad_token_id": 1, "type_vocab_size": 1}),
    EncoderFamily("data2vec-text", "Data2VecText", {**SIZES, "pad_token_id": 1, "type_vocab_size": 1}),
    EncoderFamily("deberta", "Deberta", {**DEBERTA, "max_relative_positions": 12}),
    EncoderFamily("deberta-v2", "DebertaV2", {**DEBERTA, "type_vocab_size": 2, "position_biased_input": True}),
    EncoderFamily(
        "deberta-v3",
        "DebertaV2",
        {**DEBERTA, "position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    ),
    EncoderFamily("distilbert", "DistilBert", DISTIL),
    EncoderFamily("electra", "Electra", {**SIZES, "embedding_size": 32}),
    EncoderFamily("electra-square", "Electra", {**SIZES, "embedding_size": 48, "hidden_act": "gelu_new"}),
    EncoderFamily("ernie", "Ernie", {**SIZES, "use_task_id": True, "task_type_vocab_size": 3}),
    EncoderFamily("esm", "Esm", {**ESM, "position_embedding_type": "rotary", "token_dropout": True}, ANSWERS),
    EncoderFamily("esm-1b", "Esm", {**ESM, "emb_layer_norm_before": True, "token_dropout": True}, ANSWERS),
    EncoderFamily("esm-plain", "Esm", {**ESM, "tie_word_embeddings": False}, ANSWERS),
    EncoderFamily("megatron-bert", "MegatronBert", SIZES),
    EncoderFamily("modernbert", "ModernBert", MODERN),
    EncoderFamily(
        "modernbert-biased",
        "ModernBert",
        {
            **MODERN,
            "norm_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "classifier_pooling": "mean",
            "classifier_bias": True,
            "decoder_bias": False,
            "tie_word_embeddings": False,
        },
    ),
    EncoderFamily("mpnet", "MPNet", {**WITHOUT_TYPES, "pad_token_id": 1}),
    EncoderFamily("rembert", "RemBert", {**SIZES, "input_embedding_size": 40, "output_embedding_size": 56}),
    EncoderFamily("rembert-square", "RemBert", {**SIZES, "input_embedding_size": 48, "output_embedding_size": 48}),
    EncoderFamily("roberta", "Roberta", {**SIZES, "pad_token_id": 1, "type_vocab_size": 1}),
    EncoderFamily("roberta-prelayernorm", "RobertaPreLayerNorm", {**SIZES, "pad_token_id": 1, "type_vocab_size": 1}),
    EncoderFamily("roformer", "RoFormer", {**SIZES, "num_attention_heads": 3}),
    EncoderFamily("roformer-small", "RoFormer", {**SIZES, "embedding_size": 32, "hidden_act": "relu"}),
    EncoderFamily("xlm-roberta", "XLMRoberta", {**SIZES, "pad_token_id": 1, "type_vocab_size": 1}),
    EncoderFamily("xlm-roberta-xl", "XLMRobertaXL", {**SIZES, "pad_token_id": 1, "type_vocab_size": 1}),
]
BY_NAME = {family.name: family for family in FAMILIES}
CASES = [(family.name, task) for family in FAMILIES for task in HEADS if task not in family.without]


def make_model(name: str, task: str, **changes: Any) -> Any:
    """The seeded torch model in float32, eager. Norms and biases are random too: 1 and 0 would hide mistakes."""
    family = BY_NAME[name]
    torch.manual_seed(sum(map(ord, name + task)))
    labels = {"id2label": LABELS, "label2id": {v: k for k, v in LABELS.items()}} if "classification" in task else {}
    config = getattr(hf, f"{family.stem}Config")(**{**family.settings, **labels, **changes})
    config._attn_implementation = "eager"
    model = getattr(hf, f"{family.stem}{HEADS[task]}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.requires_grad:  # sinusoids
                continue
            noise = torch.randn_like(parameter)
            parameter.add_(noise * 0.2) if parameter.ndim == 1 else parameter.copy_(noise * 0.15)
    return model


def save_checkpoint(model: Any, path: Path, **options: Any) -> Path:
    """As `save_pretrained` writes it, with a tokenizer of letters that adds [CLS] and [SEP]."""
    model.save_pretrained(path, **options)
    tokenizer = tiny_tokenizer(model.config.vocab_size, model.config.pad_token_id)
    save_tokenizer(tokenizer, path, model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    return path


def tiny_tokenizer(vocab_size: int, pad: int) -> Tokenizer:
    """A token per letter; ids 0 and 1 are the padding and the unknown, in the order that makes `pad` right."""
    special = ["[PAD]", "[UNK]"] if pad == 0 else ["[UNK]", "[PAD]"]
    letters = [chr(i) for i in range(32, 32 + vocab_size - 5)]
    vocab = {token: i for i, token in enumerate([*special, "[CLS]", "[SEP]", "[MASK]", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="[UNK]"))
    tokenizer.add_special_tokens([*special, "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    return tokenizer
