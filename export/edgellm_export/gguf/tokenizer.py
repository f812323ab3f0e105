"""The tokenizer that GGUF metadata describes, as the files a Hugging Face checkpoint has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer, processors

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm.text.tokenizer_errors import is_whole_table, load_tokenizer
from edgellm_export.gguf.generation import generation_config, override
from edgellm_export.gguf.ids import ENCODERS, PREFIX, flag, kind_of, token_id
from edgellm_export.gguf.reader import GgufFile
from edgellm_export.gguf.templates import chat_templates
from edgellm_export.gguf.unigram import build_unigram
from edgellm_export.gguf.wordpiece import bert_pieces, build_wordpiece
from edgellm_export.tokenizer.build import build_tokenizer, compact
from edgellm_export.tokenizer.pretokenizers import pre_tokenizer
from edgellm_export.tokenizer.vocabulary import TokenKind, Vocabulary

IDS = ("bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "cls", "mask")
FIM = ("fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep", "prefix", "suffix", "middle")
KNOWN = {
    *("model", "pre", "tokens", "token_type", "token_type_count", "scores", "merges", "eos_token_ids"),
    *(f"{name}_token_id" for name in (*IDS, *FIM)),
    *("add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix", "remove_extra_whitespaces"),
    *("add_padding_token", "add_unknown_token", "add_mask_token", "add_cls_token"),  # of older files; no one reads them
    *("precompiled_charsmap", "normalizer.lowercase", "normalizer.strip_accents", "suppress_tokens"),
}


def read_vocabulary(file: GgufFile) -> Vocabulary:
    """Raises CheckpointError or UnsupportedModelError."""
    model = kind_of(file)
    _refuse_unknown(file)
    tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(_list(file, "tokens", str))]
    kinds = _list(file, "token_type", int, len(tokens)) or [int(TokenKind.NORMAL)] * len(tokens)
    kinds = [override(token, kind) for token, kind in zip(tokens, kinds, strict=True)]
    readers = {"gpt2": _bpe, "llama": _spm, "bert": _wordpiece, "t5": _unigram}
    return readers[model](file, tokens, kinds)


def _refuse_unknown(file: GgufFile) -> None:
    keys = [key.removeprefix(PREFIX) for key in file.metadata if key.startswith(PREFIX)]
    unknown = [key for key in keys if key not in KNOWN]
    if unknown:
        raise UnsupportedModelError(
            f"{file.path} has metadata that edgellm does not know, and that may change tokens: "
            f"{', '.join(PREFIX + key for key in unknown[:8])}; export the Hugging Face checkpoint it was made from"
        )


def _bpe(file: GgufFile, tokens: Sequence[str], kinds: Sequence[int]) -> Vocabulary:
    pre = str(file.metadata.get(f"{PREFIX}pre", "default"))
    return Vocabulary(
        **_in_common(file, tokens, kinds),
        merges=[_split_merge(file, merge) for merge in _list(file, "merges", str)],
        pre=pre,
        add_bos=flag(file, "add_bos_token", pre_tokenizer(pre, str(file.path)).add_bos),
        add_eos=flag(file, "add_eos_token", False),
    )


def _spm(file: GgufFile, tokens: Sequence[str], kinds: Sequence[int]) -> Vocabulary:
    name = str(file.metadata.get("general.name", "")).lower()
    return Vocabulary(
        **_in_common(file, tokens, kinds),
        scores=_scores(file, len(tokens)),
        add_bos=flag(file, "add_bos_token", True),
        add_eos=flag(file, "add_eos_token", False),
        add_space=flag(file, "add_space_prefix", True),
        # The file does not say; llama.cpp goes by the model's name too.
        strip_right="phi-3" in name or "phi3" in name,
        keep_right=("<unk>", "<s>", "<|endoftext|>"),
    )


def _wordpiece(file: GgufFile, tokens: Sequence[str], kinds: Sequence[int]) -> Vocabulary:
    return Vocabulary(**_in_common(file, bert_pieces(tokens, kinds), kinds), add_bos=True)


def _unigram(file: GgufFile, tokens: Sequence[str], kinds: Sequence[int]) -> Vocabulary:
    return Vocabulary(
        **_in_common(file, tokens, kinds),
        scores=_scores(file, len(tokens)),
        add_bos=flag(file, "add_bos_token", False),
        add_eos=flag(file, "add_eos_token", True),
        add_space=flag(file, "add_space_prefix", False),
    )


def _in_common(file: GgufFile, tokens: Sequence[str], kinds: Sequence[int]) -> dict[str, Any]:
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    ids = {name: token_id(file, key, len(tokens)) for name, key in names.items()}
    return {"origin": str(file.path), "tokens": tokens, "kinds": kinds, **ids}


def _scores(file: GgufFile, count: int) -> list[float]:
    scores = _list(file, "scores", (float, int), count)
    if not scores:
        raise CheckpointError(f"{file.path} lacks {PREFIX}scores, without which its vocabulary cannot be used")
    return scores


def tokenizer_files(file: GgufFile, vocabulary: Vocabulary, config: Mapping[str, Any]) -> dict[str, bytes]:
    """The content of tokenizer.json, tokenizer_config.json, generation_config.json and, if the file has a template, of
    chat_template.jinja, by name."""
    context_length = next((config[key] for key in ("max_position_embeddings", "n_positions") if key in config), None)
    templates = chat_templates(file)
    special = _special(file, vocabulary)
    files = {
        "tokenizer.json": _loadable(file, compact(_tokenizer(file, vocabulary, special))),
        "tokenizer_config.json": _json(_tokenizer_config(vocabulary, special, context_length) | {**templates.config}),
        **{name: template.encode() for name, template in templates.files.items()},
    }
    generation = generation_config(file, vocabulary, config)
    return files | ({"generation_config.json": _json(generation)} if generation else {})


def _loadable(file: GgufFile, built: bytes) -> bytes:
    """Raises CheckpointError for a tokenizer that can be built and not be read again."""
    load_tokenizer(built, lambda reason: CheckpointError(f"{file.path}: its tokenizer cannot be loaded ({reason})"))
    return built


def _tokenizer(file: GgufFile, vocabulary: Vocabulary, special: Mapping[str, str | None]) -> bytes:
    match kind_of(file):
        case "bert":
            lowercase = flag(file, "normalizer.lowercase", True)
            strip = flag(file, "normalizer.strip_accents", lowercase)
            return build_wordpiece(vocabulary, special, lowercase=lowercase, strip_accents=strip)
        case "t5":
            merge = flag(file, "remove_extra_whitespaces", False)
            return build_unigram(vocabulary, _charsmap(file), merge_spaces=merge)
    built, arch = build_tokenizer(vocabulary), file.fact("general.architecture")
    return _around_pairs(built, vocabulary, twice=arch == "bert") if arch in ENCODERS else built


def _around_pairs(tokenizer: bytes, vocabulary: Vocabulary, *, twice: bool) -> bytes:
    """With what stands around two texts: RoBERTa has <s> A </s></s> B </s>, where ModernBERT's second end is one."""
    bos, eos = vocabulary.bos, vocabulary.eos
    if bos is None or eos is None or not (vocabulary.add_bos and vocabulary.add_eos):
        return tokenizer
    made = Tokenizer.from_buffer(tokenizer)
    begin, end = (vocabulary.tokens[bos], bos), (vocabulary.tokens[eos], eos)
    made.post_processor = (
        processors.RobertaProcessing(end, begin, trim_offsets=True, add_prefix_space=False)
        if twice
        else processors.BertProcessing(end, begin)
    )
    return str(made.to_str()).encode()


def _charsmap(file: GgufFile) -> bytes:
    """SentencePiece's table of how characters are normalized; may be empty. Raises CheckpointError."""
    value = file.metadata.get(f"{PREFIX}precompiled_charsmap")
    if value is None:
        return b""
    if not isinstance(value, np.ndarray) or value.dtype.itemsize != 1:
        raise CheckpointError(f"{file.path}: {PREFIX}precompiled_charsmap is no list of bytes; convert it again")
    table = value.tobytes()
    if not is_whole_table(table):
        raise CheckpointError(f"{file.path}: {PREFIX}precompiled_charsmap is cut off; download the file again")
    return table


def _special(file: GgufFile, vocabulary: Vocabulary) -> dict[str, str | None]:
    """What tokenizer_config.json says of special tokens, by name."""
    size = len(vocabulary.tokens)
    plain = {"bos": vocabulary.bos, "eos": vocabulary.eos, "unk": vocabulary.unk, "pad": vocabulary.pad}
    if kind_of(file) == "bert":
        begin = token_id(file, "cls", size) if f"{PREFIX}bos_token_id" not in file.metadata else vocabulary.bos
        ids = {"cls": vocabulary.bos if begin is None else begin, "sep": token_id(file, "seperator", size)}
        plain = {"unk": vocabulary.unk, "pad": vocabulary.pad, "mask": token_id(file, "mask", size), **ids}
    elif file.fact("general.architecture") in ENCODERS:
        plain |= {"cls": vocabulary.bos, "sep": vocabulary.eos, "mask": token_id(file, "mask", size)}
    return {name: vocabulary.token(index) for name, index in plain.items()}


def _tokenizer_config(vocabulary: Vocabulary, special: Mapping[str, str | None], context_length: Any) -> dict[str, Any]:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],  # without it transformers adds token_type_ids
        "model_max_length": context_length,
        **{f"{name}_token": token for name, token in special.items()},
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": vocabulary.add_eos,
        "clean_up_tokenization_spaces": False,
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


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()
