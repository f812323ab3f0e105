"""What a GGUF file says of generating: the tokens at which it ends, and settings of sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.checkpoint.config import is_number, is_positive
from edgellm_export.gguf.ids import ENCODERS, PREFIX, token_id
from edgellm_export.gguf.keys import plain
from edgellm_export.gguf.reader import GgufFile
from edgellm_export.tokenizer.vocabulary import TokenKind, Vocabulary

# Tokens that end a turn, a document or a file, whatever the file calls them; llama.cpp stops at them too.
ENDINGS = {
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>"),
    *("<EOT>", "_<EOT>", "<end_of_utterance>", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
    *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>"),
    *("<reponame>", "<|file_sep|>"),
}
NAMED = ("eot", "eom", "fim_pad", "fim_rep", "fim_sep")
SAMPLING = "general.sampling."
# What llama.cpp calls a setting: what Hugging Face does.
SETTINGS = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
NUMBERS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    **dict.fromkeys(("temp", "top_p", "min_p"), (is_number, "a number")),
    "top_k": (lambda value: type(value) is int, "a whole number"),
    "penalty_repeat": (is_positive, "a number above 0"),
}
# Settings that Hugging Face does not have, and the values with which they do nothing.
WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "penalty_last_n": (-1, 64),
    "xtc_probability": (0.0,),
    "mirostat": (0,),
}
IGNORED = {"sequence", "xtc_threshold", "mirostat_tau", "mirostat_eta"}  # of the ones above, or of no effect


def token_ids(file: GgufFile, vocabulary: Vocabulary) -> dict[str, Any]:
    """The ids of BOS, EOS and padding as config.json names them; EOS are all tokens that end generation."""
    size = len(vocabulary.tokens)
    named = [vocabulary.eos, *_listed(file, "eos_token_ids", size), *(token_id(file, name, size) for name in NAMED)]
    by_text = [index for index in vocabulary.special() if vocabulary.tokens[index] in ENDINGS]
    eos = list(dict.fromkeys(index for index in [*named, *by_text] if index is not None))
    ids = {"bos_token_id": vocabulary.bos, "eos_token_id": eos, "pad_token_id": vocabulary.pad}
    return {key: value for key, value in ids.items() if value not in (None, [])}


def generation_config(file: GgufFile, vocabulary: Vocabulary, config: Mapping[str, Any]) -> dict[str, Any]:
    """generation_config.json, empty for models that do not generate. Raises UnsupportedModelError."""
    if file.fact("general.architecture") in ENCODERS:
        return {}
    given = token_ids(file, vocabulary) | _sampling(file)
    if "decoder_start_token_id" in config:
        given["decoder_start_token_id"] = config["decoder_start_token_id"]
    suppressed = _listed(file, "suppress_tokens", len(vocabulary.tokens))
    return given | ({"suppress_tokens": suppressed} if suppressed else {})


def _sampling(file: GgufFile) -> dict[str, Any]:
    given = {key.removeprefix(SAMPLING): plain(v) for key, v in file.metadata.items() if key.startswith(SAMPLING)}
    _check_numbers(file, given)
    settings = {SETTINGS[key]: _within(key, value) for key, value in given.items() if key in SETTINGS}
    penalty = given.get("penalty_repeat", 1.0)
    for key, value in given.items():
        known = key in SETTINGS or key in IGNORED or key == "penalty_repeat"
        if not known and value not in WITHOUT_EFFECT.get(key, ()) and not (key == "penalty_last_n" and penalty == 1):
            raise UnsupportedModelError(
                f"{file.path}: {SAMPLING}{key} is {value!r}, which edgellm's sampling does not have; "
                "make a file without it (gguf_new_metadata.py --remove-metadata)"
            )
    if settings:
        settings["do_sample"] = is_positive(settings.get("temperature", 1.0))
        if not settings["do_sample"]:
            del settings["temperature"]
    return settings | ({"repetition_penalty": penalty} if penalty != 1 else {})


def _check_numbers(file: GgufFile, given: Mapping[str, Any]) -> None:
    for key in given.keys() & NUMBERS.keys():
        fits, expected = NUMBERS[key]
        if not fits(given[key]):
            raise CheckpointError(
                f"{file.path}: {SAMPLING}{key} is {given[key]!r}, expected {expected}; make a file without it "
                "(gguf_new_metadata.py --remove-metadata)"
            )


def _within(key: str, value: float) -> float:
    """As llama.cpp takes what is out of range."""
    return max(value, 0) if key in ("temp", "top_k") else min(max(value, 0.0), 1.0)


def _listed(file: GgufFile, key: str, size: int) -> list[int]:
    """The ids in the array `key`, those outside of the vocabulary left out."""
    value = file.metadata.get(f"{PREFIX}{key}")
    items = value.tolist() if isinstance(value, np.ndarray) and value.dtype.kind in "iu" else []
    return [index for index in items if 0 <= index < size]


def override(token: str, kind: int) -> int:
    """What a token is: those that end something are control tokens, whatever the file says."""
    return int(TokenKind.CONTROL) if token in ENDINGS else kind
