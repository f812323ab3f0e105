"""What callers may pass as a prompt, made into token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import ContextOverflowError, InputError
from edgellm.package.manifest import EncoderDecoderFacts, Manifest
from edgellm.text.tokenizer import Tokenizer, no_tokenizer
from edgellm.types import IntArray

UNKNOWN = "<unk>"
PROMPT_END = 64  # tokens, of which is seen what an answer begins in
Prompt = str | list[int] | npt.NDArray[np.integer[Any]]


def is_single(prompt: object) -> bool:
    """Whether this is one prompt (text or token ids) and not a list of prompts. Raises InputError for neither."""
    if isinstance(prompt, str):
        return True
    if isinstance(prompt, np.ndarray) and prompt.ndim == 1:
        return True
    if isinstance(prompt, bytes | np.ndarray) or not isinstance(prompt, Sequence):
        raise InputError(f"a prompt is text or a list of token ids, or a list of such; found {_describe(prompt)}")
    if not prompt:
        raise InputError("the list of prompts is empty")
    return _is_int(prompt[0])


def encode_prompt(
    prompt: Any, tokenizer: Tokenizer | None, manifest: Manifest, *, add_special_tokens: bool = True
) -> IntArray:
    """The prompt's tokens [length] int64, at least one and no more than the model's context. An empty text is the BOS
    token, as in Hugging Face, if the model has one. Raises InputError."""
    tokens = read_prompt(prompt, tokenizer, manifest, add_special_tokens=add_special_tokens)
    if len(tokens) > manifest.context_length:
        raise ContextOverflowError(
            f"the prompt has {len(tokens)} tokens, the model's context is {manifest.context_length}; shorten the prompt"
        )
    return tokens


def encode_source(
    source: Any, tokenizer: Tokenizer | None, manifest: Manifest[EncoderDecoderFacts], *, any_length: bool = False
) -> IntArray:
    """The tokens [length] int64, at least one, that the encoder of an encoder-decoder reads. Raises InputError."""
    tokens = read_prompt(source, tokenizer, manifest, unknown=UNKNOWN)
    longest = manifest.model.source_length
    if not any_length and longest is not None and len(tokens) > longest:
        raise ContextOverflowError(
            f"the source has {len(tokens)} tokens, and the model's table of positions {longest}; "
            'shorten the source, split it, or let its end be cut with overflow="truncate"'
        )
    return tokens


def read_prompt(
    prompt: Any,
    tokenizer: Tokenizer | None,
    manifest: Manifest,
    *,
    add_special_tokens: bool = True,
    unknown: str | None = None,
) -> IntArray:
    """The prompt's tokens [length] int64, at least one and however many there are. Pieces of a text that are beyond the
    model's vocabulary become the token `unknown`. Raises InputError."""
    if isinstance(prompt, str):
        if tokenizer is None:
            raise no_tokenizer(instead="give the prompt as token ids (Python only)")
        tokens = tokenizer.encode(prompt, add_special_tokens=add_special_tokens)
        beyond = tokens >= manifest.vocab_size
        if unknown is not None and beyond.any() and (substitute := tokenizer.id_of(unknown)) is not None:
            tokens[beyond] = substitute
    else:
        tokens = token_ids(prompt)
    if not len(tokens):
        if manifest.tokens.bos is None:
            raise InputError("the prompt is empty, and this model has no BOS token to start from; give it some text")
        return np.array([manifest.tokens.bos], np.int64)
    wrong = tokens[(tokens < 0) | (tokens >= manifest.vocab_size)]
    if len(wrong):
        raise InputError(f"the prompt has token id {wrong[0]}, expected ids from 0 to {manifest.vocab_size - 1}")
    return tokens


def token_ids(prompt: Any) -> IntArray:
    if isinstance(prompt, np.ndarray):
        if prompt.ndim != 1 or prompt.dtype.kind not in "iu":
            raise InputError(f"token ids must be a one-dimensional array of integers, found {_describe(prompt)}")
        return prompt.astype(np.int64)
    if isinstance(prompt, bytes) or not isinstance(prompt, Sequence):
        raise InputError(f"a prompt is text or a list of token ids, found {_describe(prompt)}")
    wrong = next((item for item in prompt if not _is_int(item)), None)
    if wrong is not None:
        raise InputError(f"a list of token ids holds {wrong!r}, expected whole numbers")
    try:
        return np.array(prompt, np.int64)
    except OverflowError as error:
        raise InputError("the prompt has a token id beyond 64 bits") from error


def _is_int(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _describe(value: object) -> str:
    return (
        f"an array of shape {value.shape} and type {value.dtype}"
        if isinstance(value, np.ndarray)
        else type(value).__name__
    )


def prompt_end(tokens: IntArray, tokenizer: Tokenizer) -> str:
    """The end of a chat's prompt, which says what its answer begins in."""
    return tokenizer.decode(tokens[-PROMPT_END:].tolist(), skip_special_tokens=False, clean_up=False)
