"""Vocabulary to tokenizer.json, through the `tokenizers` library, and in the form in which it loads fastest."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from edgellm.errors import CheckpointError
from edgellm.text.tokenizer_errors import library_errors
from edgellm_export.tokenizer.pretokenizers import pre_tokenizer
from edgellm_export.tokenizer.vocabulary import SPACE, TokenKind, Vocabulary, check_lengths


def build_tokenizer(vocabulary: Vocabulary) -> bytes:
    """The content of tokenizer.json. Raises CheckpointError or UnsupportedModelError."""

    def unfit(reason: str) -> CheckpointError:
        return CheckpointError(f"{vocabulary.origin}: no tokenizer can be built from its vocabulary ({reason})")

    with library_errors(unfit):
        tokenizer = _scored(vocabulary) if vocabulary.merges is None else _byte_level(vocabulary)
        tokenizer.add_tokens(_added_tokens(vocabulary))
        _post_process(tokenizer, vocabulary)
        return str(tokenizer.to_str()).encode()


def _byte_level(vocabulary: Vocabulary) -> Tokenizer:
    """GPT-2's scheme: bytes as printable characters, merged within the words that the pre-tokenizer cuts."""
    pre = pre_tokenizer(vocabulary.pre, vocabulary.origin)
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary.ids(), merges=list(vocabulary.merges or ()), ignore_merges=pre.whole_words)
    )
    if pre.normalizer:
        tokenizer.normalizer = pre.normalizer()
    tokenizer.pre_tokenizer = pre.make()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _scored(vocabulary: Vocabulary) -> Tokenizer:
    """SentencePiece's BPE: merges over whole texts by score; what is not in the vocabulary becomes bytes."""
    unk = vocabulary.token(vocabulary.unk)
    model = models.BPE(
        vocab=vocabulary.ids(),
        merges=merges_from_scores(vocabulary),
        unk_token=unk,
        fuse_unk=unk is not None,
        byte_fallback=TokenKind.BYTE in vocabulary.kinds,
    )
    tokenizer = Tokenizer(model)
    escape: list[normalizers.Normalizer] = [normalizers.Replace(" ", SPACE)]
    unescape: list[decoders.Decoder] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if vocabulary.add_space:
        escape.insert(0, normalizers.Prepend(SPACE))
        unescape.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = normalizers.Sequence(escape)
    tokenizer.decoder = decoders.Sequence(unescape)
    return tokenizer


def merges_from_scores(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Every way to join two tokens into a third, best score first, as transformers' `generate_merges` orders them."""
    ids, scores = vocabulary.ids(), vocabulary.scores or ()
    mergeable = {t for t, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True) if kind in _MERGEABLE}
    found: list[tuple[float, int, int, tuple[str, str]]] = []
    check_lengths(vocabulary.origin, mergeable)
    for token in mergeable:
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in mergeable and right in mergeable:
                found.append((-scores[ids[token]], -len(left), ids[left], (left, right)))
    return [pair for *_, pair in sorted(found)]


_MERGEABLE = (TokenKind.NORMAL, TokenKind.USER_DEFINED)


def _added_tokens(vocabulary: Vocabulary) -> list[AddedToken]:
    return [
        AddedToken(
            vocabulary.tokens[index],
            special=vocabulary.kinds[index] != TokenKind.USER_DEFINED,
            normalized=False,
            rstrip=vocabulary.strip_right and vocabulary.tokens[index] not in vocabulary.keep_right,
        )
        for index in vocabulary.special()
    ]


def _post_process(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    bos = vocabulary.token(vocabulary.bos) if vocabulary.add_bos else None
    eos = vocabulary.token(vocabulary.eos) if vocabulary.add_eos else None
    if bos is None and eos is None:
        return
    ids = vocabulary.ids()
    single = [token for token in (bos, "$A:0", eos) if token is not None]
    pair = single + [token for token in (f"{bos}:1" if bos else None, "$B:1", f"{eos}:1" if eos else None) if token]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, ids[token]) for token in {bos, eos} if token is not None]
    )


def compact(content: bytes) -> bytes:
    """The same tokenizer, without indentation, each merge as one string, "l o": so tokenizers before 0.20 wrote them,
    and all read them. Lists of two take a fifth more time to load, and 2.5 MiB more for 49,000 merges.

    Merges of tokens that such a string could not hold stay as they are.
    """
    try:
        return json.dumps(
            _with_joined_merges(json.loads(content)), ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode()
    except (ValueError, RecursionError):  # what the library reads nevertheless: half of a surrogate pair somewhere
        return content


def _with_joined_merges(tokenizer: dict[str, Any]) -> dict[str, Any]:
    model = tokenizer.get("model") or {}
    merges = model.get("merges")
    if not merges or not all(isinstance(pair, list) and _fit_into_a_string(pair) for pair in merges):
        return tokenizer
    return tokenizer | {"model": model | {"merges": [" ".join(pair) for pair in merges]}}


def _fit_into_a_string(pair: list[str]) -> bool:
    """A line that begins with "#version" would be taken for the head of a file of merges."""
    return not any(" " in token for token in pair) and not pair[0].startswith("#version")
