"""The tokenizer that GGUF metadata describes, as the files a Hugging Face checkpoint has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.gguf.reader import GgufFile
from edgellm_export.tokenizer.build import build_tokenizer, compact
from edgellm_export.tokenizer.pretokenizers import pre_tokenizer
from edgellm_export.tokenizer.vocabulary import TokenKind, Vocabulary

PREFIX = "tokenizer.ggml."
# Control tokens that end a turn or a document, whatever the file calls them; llama.cpp stops at them too.
ENDINGS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>")
# llama.cpp's ids for SentencePiece vocabularies that do not name them.
SPM_DEFAULTS = {"bos": 1, "eos": 2, "unknown": 0}


def read_vocabulary(file: GgufFile) -> Vocabulary:
    """Raises CheckpointError or UnsupportedModelError."""
    model = file.metadata.get(f"{PREFIX}model")
    if not isinstance(model, str) or model not in ("gpt2", "llama"):
        raise UnsupportedModelError(
            f"{file.path} has a tokenizer of type {model!r}, expected gpt2 or llama; export the Hugging Face checkpoint"
        )
    tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(_list(file, "tokens", str))]
    kinds = _list(file, "token_type", int, len(tokens)) or [int(TokenKind.NORMAL)] * len(tokens)
    return _spm(file, tokens, kinds) if model == "llama" else _bpe(file, tokens, kinds)


def _bpe(file: GgufFile, tokens: Sequence[str], kinds: Sequence[int]) -> Vocabulary:
    pre = str(file.metadata.get(f"{PREFIX}pre", "default"))
    return Vocabulary(
        **_in_common(file, tokens, kinds),
        merges=[_split_merge(file, merge) for merge in _list(file, "merges", str)],
        pre=pre,
        add_bos=_flag(file, "add_bos_token", pre_tokenizer(pre, str(file.path)).add_bos),
    )


def _spm(file: GgufFile, tokens: Sequence[str], kinds: Sequence[int]) -> Vocabulary:
    scores = _list(file, "scores", (float, int), len(tokens))
    if not scores:
        raise CheckpointError(f"{file.path} lacks {PREFIX}scores, without which its vocabulary cannot be used")
    name = str(file.metadata.get("general.name", "")).lower()
    return Vocabulary(
        **_in_common(file, tokens, kinds),
        scores=scores,
        add_bos=_flag(file, "add_bos_token", True),
        add_space=_flag(file, "add_space_prefix", True),
        # The file does not say; llama.cpp goes by the model's name too.
        strip_right="phi-3" in name or "phi3" in name,
        keep_right=("<unk>", "<s>", "<|endoftext|>"),
    )


def _in_common(file: GgufFile, tokens: Sequence[str], kinds: Sequence[int]) -> dict[str, Any]:
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    ids = {name: _id(file, key, len(tokens)) for name, key in names.items()}
    add_eos = _flag(file, "add_eos_token", False)
    return {"origin": str(file.path), "tokens": tokens, "kinds": kinds, "add_eos": add_eos, **ids}


def tokenizer_files(file: GgufFile, vocabulary: Vocabulary, config: Mapping[str, Any]) -> dict[str, bytes]:
    """The content of tokenizer.json, tokenizer_config.json, generation_config.json and, if the file has a template, of
    chat_template.jinja, by name."""
    context_length = config.get("max_position_embeddings") or config.get("n_positions")
    template = file.metadata.get("tokenizer.chat_template")
    files = {
        "tokenizer.json": compact(build_tokenizer(vocabulary)),
        "tokenizer_config.json": _json(_tokenizer_config(vocabulary, template, context_length)),
        "generation_config.json": _json(token_ids(file, vocabulary)),
    }
    if isinstance(template, str):
        files["chat_template.jinja"] = template.encode()
    return files


def token_ids(file: GgufFile, vocabulary: Vocabulary) -> dict[str, Any]:
    """The ids of BOS, EOS and padding as config.json names them; EOS are all tokens that end generation."""
    size = len(vocabulary.tokens)
    named = [vocabulary.eos, _id(file, "eot", size), _id(file, "eom", size)]
    by_text = [index for index in vocabulary.special() if vocabulary.tokens[index] in ENDINGS]
    eos = list(dict.fromkeys(index for index in [*named, *by_text] if index is not None))
    ids = {"bos_token_id": vocabulary.bos, "eos_token_id": eos, "pad_token_id": vocabulary.pad}
    return {key: value for key, value in ids.items() if value not in (None, [])}


def _tokenizer_config(vocabulary: Vocabulary, template: Any, context_length: Any) -> dict[str, Any]:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],  # without it transformers adds token_type_ids
        "model_max_length": context_length,
        "bos_token": vocabulary.token(vocabulary.bos),
        "eos_token": vocabulary.token(vocabulary.eos),
        "unk_token": vocabulary.token(vocabulary.unk),
        "pad_token": vocabulary.token(vocabulary.pad),
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": vocabulary.add_eos,
        "clean_up_tokenization_spaces": False,
        "chat_template": template if isinstance(template, str) else None,
    }
    return {key: value for key, value in config.items() if value is not None}


def _split_merge(file: GgufFile, merge: str) -> tuple[str, str]:
    cut = merge.find(" ", 1)
    if cut < 1:
        raise CheckpointError(f"{file.path} has the merge {merge!r}, expected two tokens with a space between")
    return merge[:cut], merge[cut + 1 :]


def _list(file: GgufFile, key: str, item: type | tuple[type, ...], count: int | None = None) -> list[Any]:
    """The array `key`, empty when it is absent and `count` is given. Raises CheckpointError."""
    value = file.metadata.get(f"{PREFIX}{key}")
    if value is None and count is not None:
        return []
    items = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(items, list) and items and isinstance(items[0], item) and count in (None, len(items)):
        return items
    raise CheckpointError(f"{file.path} has no usable {PREFIX}{key}; convert it again with a current llama.cpp")


def _id(file: GgufFile, name: str, size: int) -> int | None:
    """A special token's id; ids outside the vocabulary mean none, as in llama.cpp."""
    default = SPM_DEFAULTS.get(name) if file.metadata[f"{PREFIX}model"] == "llama" else None
    index = file.metadata.get(f"{PREFIX}{name}_token_id", default)
    return index if type(index) is int and 0 <= index < size else None


def _flag(file: GgufFile, name: str, default: bool) -> bool:
    value = file.metadata.get(f"{PREFIX}{name}", default)
    return value != 0 if isinstance(value, int) else default


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()
