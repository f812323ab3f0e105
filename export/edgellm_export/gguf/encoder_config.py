"""GGUF metadata of encoders and encoder-decoders to the config.json that Hugging Face has for the same model."""

from __future__ import annotations

import numpy as np

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.gguf.keys import Config, Keys, check_heads, layer_count
from edgellm_export.gguf.reader import GgufFile

TOKENIZER = "tokenizer.ggml.model"
BERT_TYPES = {"bert": "bert", "t5": "xlm-roberta", "gpt2": "roberta"}  # by the kind of tokenizer
CLASSES = {
    "bert": "Bert", "distilbert": "DistilBert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta",
}  # fmt: skip
POOLINGS = {1: "mean", 2: "cls"}
RANK = 4  # a number for each text, from the head for texts
PAD = 1  # of RoBERTa and its kin, where the file does not say
SAME = 0.2  # of the size of a row, which quantization moves far less


def bert_config(keys: Keys) -> Config:
    """BERT and its kin, which conversion makes one architecture of: the tokenizer and the tensors say which it was."""
    file = keys.file
    keys.must_be("attention.causal", False)
    _refuse_parts(file)
    kind = _bert_type(file)
    heads, hidden = keys.integer("attention.head_count"), keys.integer("embedding_length")
    check_heads(keys, heads, max(hidden // heads, 1))
    config: Config = {
        "architectures": [f"{CLASSES[kind]}{'ForSequenceClassification' if _has_head(keys, kind) else 'Model'}"],
        "model_type": kind,
        "max_position_embeddings": keys.integer("context_length"),
        "layer_norm_eps": keys.number("attention.layer_norm_epsilon"),
        "hidden_size": hidden,
        "num_hidden_layers": layer_count(keys),
        "num_attention_heads": heads,
        "intermediate_size": keys.integer("feed_forward_length"),
        "hidden_act": "gelu",
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }
    if types := file.tensors.get("token_types.weight"):
        config["type_vocab_size"] = types.shape[0]
    if kind in ("roberta", "xlm-roberta"):
        config["pad_token_id"] = _padding(file)
        config["max_position_embeddings"] += config["pad_token_id"] + 1
    return (_distilbert(keys, config) if kind == "distilbert" else config) | _labels(keys)


def pooling_of(file: GgufFile) -> str | None:
    """How a sentence encoder makes one vector of a text's states; None for other models. Raises
    UnsupportedModelError."""
    value = file.fact("bert.pooling_type", 0)
    if value in (0, RANK):
        return None
    if type(value) is not int or value not in POOLINGS:
        raise UnsupportedModelError(
            f"{file.path}: bert.pooling_type is {value!r}; edgellm builds 1 (the mean) and 2 (the first token)"
        )
    return POOLINGS[value]


def t5_config(keys: Keys) -> Config:
    """T5 1.0 and 1.1, Flan-T5 and mT5."""
    file = keys.file
    if "dec.blk.1.attn_rel_b.weight" in file.tensors:
        raise UnsupportedModelError(
            f"{file.path} has relative positions of their own in each layer, as UMT5, which edgellm does not build; "
            "T5, Flan-T5 and mT5 it does"
        )
    heads, hidden = keys.integer("attention.head_count"), keys.integer("embedding_length")
    head_dim = keys.integer("attention.key_length", max(hidden // heads, 1))
    keys.must_be("attention.value_length", 0, head_dim)
    keys.must_be("attention.head_count_kv", 0, heads)
    keys.must_be("attention.causal", True)
    layers = layer_count(keys)
    start = keys.get("decoder_start_token_id")
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "d_model": hidden,
        "d_ff": keys.integer("feed_forward_length"),
        "d_kv": head_dim,
        "num_layers": layers,
        "num_decoder_layers": keys.integer("decoder_block_count", layers),
        "num_heads": heads,
        "n_positions": keys.integer("context_length", 512),
        "layer_norm_epsilon": keys.number("attention.layer_norm_rms_epsilon"),
        "relative_attention_num_buckets": keys.integer("attention.relative_buckets_count"),
        "relative_attention_max_distance": 128,  # llama.cpp's
        "feed_forward_proj": "gated-gelu" if "enc.blk.0.ffn_gate.weight" in file.tensors else "relu",
        "tie_word_embeddings": _is_tied(file),
        "decoder_start_token_id": start if type(start) is int else 0,
        "torch_dtype": "float32",
    }


def _bert_type(file: GgufFile) -> str:
    tokenizer = file.fact(TOKENIZER)
    if not isinstance(tokenizer, str) or tokenizer not in BERT_TYPES:
        raise UnsupportedModelError(
            f"{file.path} is an encoder with a tokenizer of type {tokenizer!r}, expected {', '.join(BERT_TYPES)}; "
            "export the Hugging Face checkpoint"
        )
    if tokenizer == "bert" and "token_types.weight" not in file.tensors:
        return "distilbert"
    return BERT_TYPES[tokenizer]


def _refuse_parts(file: GgufFile) -> None:
    """Steps behind the model, and layers of its relatives, that edgellm does not build."""
    found = next((name for name in file.tensors if name.startswith(("dense_2", "dense_3", "cls.norm"))), None)
    if found:
        raise UnsupportedModelError(
            f"{file.path} has {found}, a step behind the model that edgellm does not build; use a file without it"
        )


def _has_head(keys: Keys, kind: str) -> bool:
    """Whether the model ranks or classifies texts. Raises UnsupportedModelError for a head without its first part."""
    keys.get("pooling_type")
    heads = [name for name in keys.file.tensors if name.startswith("cls.")]
    if heads and (kind == "bert" or not {"cls.weight", "cls.output.weight"} <= set(heads)):
        raise UnsupportedModelError(
            f"{keys.file.path} has the head {heads[0]} without the layer in front of it, which conversion to GGUF "
            "leaves out; export the Hugging Face checkpoint"
        )
    return bool(heads)


def _labels(keys: Keys) -> Config:
    labels, head = keys.get("classifier.output_labels"), keys.file.tensors.get("cls.output.weight")
    if head is None:
        return {}
    if labels is None:
        return {"num_labels": head.shape[0]}
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise CheckpointError(f"{keys.file.path}: {keys.arch}.classifier.output_labels is not a list of names")
    return {"id2label": {str(index): label for index, label in enumerate(labels)}}


def _padding(file: GgufFile) -> int:
    """The id that takes the last of the positions that conversion cuts off."""
    value = file.metadata.get("tokenizer.ggml.padding_token_id", PAD)
    if type(value) is not int or not 0 <= value < 1 << 16:
        raise CheckpointError(f"{file.path}: tokenizer.ggml.padding_token_id is {value!r}, expected a token's id")
    return value


def _distilbert(keys: Keys, config: Config) -> Config:
    """The same with DistilBERT's names, which has a fixed epsilon."""
    if config["layer_norm_eps"] != 1e-12:
        keys.problem(f"{keys.arch}.attention.layer_norm_epsilon is {config['layer_norm_eps']}, DistilBERT has 1e-12")
    renamed = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
    }
    return {renamed.get(key, key): value for key, value in config.items()}


def _is_tied(file: GgufFile) -> bool:
    """Whether the head is the embedding, whose inputs T5 then scales: it may be there twice, quantized differently."""
    head, embedding = file.tensors.get("output.weight"), file.tensors.get("token_embd.weight")
    if head is None or embedding is None:
        return True
    if head.shape != embedding.shape:
        return False
    rows = min(8, head.shape[0])
    one, other = head.rows(0, rows), embedding.rows(0, rows)
    with np.errstate(all="ignore"):
        return bool(np.linalg.norm(one - other) < SAME * np.linalg.norm(other))
