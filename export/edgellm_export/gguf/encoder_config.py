"""GGUF metadata of encoders to the config.json that Hugging Face has for the same model."""

from __future__ import annotations

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.gguf.decoder_config import EPS, RANK
from edgellm_export.gguf.keys import Config, Keys, check_heads, layer_count
from edgellm_export.gguf.reader import GgufFile

TOKENIZER = "tokenizer.ggml.model"
BERT_TYPES = {"bert": "bert", "t5": "xlm-roberta", "gpt2": "roberta"}  # by the kind of tokenizer
CLASSES = {
    "bert": "Bert", "distilbert": "DistilBert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta",
}  # fmt: skip
POOLINGS = {1: "mean", 2: "cls", 3: "lasttoken"}
PAD = 1  # of RoBERTa and its kin, where the file does not say


def bert_config(keys: Keys) -> Config:
    """BERT and its kin, which conversion makes one architecture of: the tokenizer and the tensors say which it was."""
    kind = _bert_type(keys.file)
    class_name = f"{CLASSES[kind]}{'ForSequenceClassification' if _has_head(keys, kind) else 'Model'}"
    config = _encoder(keys, kind, class_name)
    if kind in ("roberta", "xlm-roberta"):
        config["pad_token_id"] = _padding(keys.file)
        config["max_position_embeddings"] += config["pad_token_id"] + 1
    return (_distilbert(keys, config) if kind == "distilbert" else config) | _labels(keys)


def nomic_config(keys: Keys) -> Config:
    _refuse_heads(keys)
    config = _encoder(keys, "nomic_bert", "NomicBertModel")
    return config | {"hidden_act": "silu", "rope_theta": keys.number("rope.freq_base")}


def modernbert_config(keys: Keys) -> Config:
    """Every so many layers one sees all tokens, the first one and on; the others half of the window to either side."""
    _refuse_heads(keys)
    config = _encoder(keys, "modernbert", "ModernBertModel")
    config["norm_eps"] = config.pop("layer_norm_eps")
    del config["hidden_act"]
    keys.must_be("rope.scaling.type", "none")
    return config | {
        "hidden_activation": keys.get("hidden_activation") or "gelu",
        "local_attention": keys.integer("attention.sliding_window"),
        "global_attn_every_n_layers": keys.integer("attention.sliding_window_pattern", 3),
        "global_rope_theta": keys.number("rope.freq_base"),
        "local_rope_theta": keys.number("rope.freq_base_swa"),
    }


def _encoder(keys: Keys, model_type: str, class_name: str) -> Config:
    """What all have in common."""
    keys.must_be("attention.causal", False)
    _refuse_parts(keys.file)
    heads, hidden = keys.integer("attention.head_count"), keys.integer("embedding_length")
    check_heads(keys, heads, max(hidden // heads, 1))
    types = keys.file.tensors.get("token_types.weight")
    return {
        "architectures": [class_name],
        "model_type": model_type,
        "max_position_embeddings": keys.integer("context_length"),
        "layer_norm_eps": keys.number(EPS),
        "hidden_size": hidden,
        "num_hidden_layers": layer_count(keys),
        "num_attention_heads": heads,
        "intermediate_size": keys.integer("feed_forward_length"),
        "hidden_act": "gelu",
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        **({"type_vocab_size": types.shape[0]} if types else {}),
    }


def pooling_of(file: GgufFile, arch: str) -> str | None:
    """How a sentence encoder makes one vector of a text's states; None for other models. Raises
    UnsupportedModelError."""
    value = file.fact(f"{arch}.pooling_type", 0)
    if value in (0, RANK):
        return None
    if type(value) is not int or value not in POOLINGS:
        raise UnsupportedModelError(
            f"{file.path}: {arch}.pooling_type is {value!r}; edgellm builds 1 (the mean), 2 (the first token) and 3 "
            "(the last one)"
        )
    return POOLINGS[value]


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


def _refuse_heads(keys: Keys) -> None:
    """Which conversion takes without what is behind or in front of them."""
    keys.get("pooling_type")
    found = next((name for name in keys.file.tensors if name.startswith("cls")), None)
    if found or keys.get("classifier.output_labels"):
        raise UnsupportedModelError(
            f"{keys.file.path} has a head ({found or 'classifier.output_labels'}), of which GGUF holds a part alone; "
            "export the Hugging Face checkpoint that it was made from"
        )


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
