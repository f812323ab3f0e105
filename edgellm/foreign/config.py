"""What a directory's JSON files and its graphs' shapes say of a model: sizes, lengths, special tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.errors import PackageError
from edgellm.foreign.files import CONFIG, ForeignDirectory, past_names
from edgellm.package.json_data import read_json
from edgellm.package.manifest import Precision, Weights

CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx", "seq_length")
DEFAULT_CONTEXT = 2048  # tokens, where neither config nor tokenizer says
MAX_SENSIBLE_LENGTH = 1 << 24  # tokenizers without a limit say 10**30
RELATIVE = "relative_attention_num_buckets"  # of models that look at distances
# Families that count positions from behind the padding token's number.
BEHIND_PADDING = {"roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text", "roberta-prelayernorm", "ibert"}


def context_length_of(directory: ForeignDirectory) -> int:
    if has_no_end(directory):
        return MAX_SENSIBLE_LENGTH
    stated = (directory.config.get(key) for key in CONTEXT_KEYS)
    sensible = (n for n in stated if type(n) is int and 0 < n <= MAX_SENSIBLE_LENGTH)
    return next(sensible, min(tokenizer_length(directory), DEFAULT_CONTEXT))


def text_length_of(directory: ForeignDirectory) -> int:
    """The most tokens of an encoder's text."""
    rows = context_length_of(directory)
    if str(directory.config.get("model_type")) in BEHIND_PADDING:
        padding = directory.config.get("pad_token_id")
        rows -= max(2, padding + 1 if type(padding) is int else 0)
    return min(rows, tokenizer_length(directory))


def has_no_end(directory: ForeignDirectory) -> bool:
    """Whether positions are relative only, as T5's."""
    return RELATIVE in directory.config and "max_position_embeddings" not in directory.config


def tokenizer_length(directory: ForeignDirectory) -> int:
    """What the tokenizer's config says; without a limit, or without a file, the most that makes sense."""
    length = read_json(directory.root / "tokenizer_config.json").get("model_max_length")
    return length if type(length) is int and 0 < length <= MAX_SENSIBLE_LENGTH else MAX_SENSIBLE_LENGTH


def vocab_size_of(directory: ForeignDirectory) -> int:
    """The graph's entries, or the config's: an encoder's outputs need not be of the vocabulary's size."""
    graph, config = directory.parts[0], directory.config
    logits, stated = graph.facts.outputs.get("logits"), config.get("vocab_size")
    if type(stated) is int and stated > 0 and not past_names(graph):
        return stated
    return size_of(logits.shape[-1] if logits is not None and logits.shape else "?", config, "vocab_size")


def size_of(dim: int | str, config: Mapping[str, Any], *keys: str) -> int:
    """A dimension of the graph, or what config.json says where the graph leaves it open."""
    values = (dim, *(config.get(key) for key in keys))
    found = next((value for value in values if type(value) is int and value > 0), None)
    if found is None:
        raise PackageError(f"neither the graph nor {CONFIG} says the {keys[0]}")
    return found


def weights_of(directory: ForeignDirectory) -> Weights:
    """How the weights are stored; the precision is that of most of them."""
    facts = directory.parts[0].facts
    counts: dict[Precision, int] = {"fp32": 0, "fp16": 0, "int8": 0, "int4": 0}
    by_type: dict[int, Precision] = {1: "fp32", 10: "fp16", 16: "fp16", 2: "int8", 3: "int8", 21: "int4", 22: "int4"}
    for data_type, count in facts.weights.items():
        if data_type in by_type:
            counts[by_type[data_type]] += count
    precision = max(counts, key=lambda name: counts[name])
    if precision == "int8" and 4 in facts.bits:
        precision = "int4"
    return Weights(precision, "as found", tied_embedding=False)
