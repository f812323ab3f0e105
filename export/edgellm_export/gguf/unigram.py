"""tokenizer.json of a Unigram vocabulary (T5, XLM-RoBERTa) as GGUF files hold it, read as llama.cpp does."""

from __future__ import annotations

import json
import math
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgellm.errors import CheckpointError
from edgellm.text.tokenizer_errors import library_errors
from edgellm_export.tokenizer.vocabulary import SPACE, TokenKind, Vocabulary

HIDDEN = "\ufdd0"  # in front of tokens that no text is cut into


def build_unigram(vocabulary: Vocabulary, table: bytes, *, merge_spaces: bool) -> bytes:
    """The content of tokenizer.json. `table`: of the normalization, may be empty. `merge_spaces`: those in a row are
    one, those at the ends none. Raises CheckpointError."""
    if vocabulary.unk is None:
        raise CheckpointError(f"{vocabulary.origin} has no token for unknown characters; use another file")
    ids = vocabulary.ids()
    with library_errors(lambda reason: CheckpointError(f"{vocabulary.origin}: no tokenizer can be built ({reason})")):
        tokenizer = Tokenizer(models.Unigram(_pieces(vocabulary), unk_id=vocabulary.unk, byte_fallback=False))
        if steps := _normalizers(table, vocabulary.add_space, merge_spaces):
            tokenizer.normalizer = normalizers.Sequence(steps)
        prefix = "always" if merge_spaces else "never"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=prefix, split=False)
        shown = "always" if vocabulary.add_space or merge_spaces else "never"
        spaces = decoders.Metaspace(replacement=SPACE, prepend_scheme=shown)
        tokenizer.decoder = decoders.Sequence([decoders.Replace(HIDDEN, ""), spaces])
        found = [(vocabulary.tokens[index], vocabulary.kinds[index]) for index in vocabulary.special()]
        tokenizer.add_tokens([AddedToken(t, special=k != TokenKind.USER_DEFINED, normalized=False) for t, k in found])
        _around(tokenizer, vocabulary, ids)
        return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False).encode()


def _pieces(vocabulary: Vocabulary) -> list[tuple[str, float]]:
    """Tokens and scores. Unknown characters count 10 less than the worst normal token, which no other may be worse
    than; unused tokens are hidden."""
    scores = vocabulary.scores or ()
    if not all(map(math.isfinite, scores)):
        raise CheckpointError(f"{vocabulary.origin} has scores that are not numbers; download it again")
    kinds = vocabulary.kinds
    worst = min((score for score, kind in zip(scores, kinds, strict=True) if kind == TokenKind.NORMAL), default=0.0)
    return [
        (token, float(score))
        if kind == TokenKind.NORMAL
        else (f"{HIDDEN if kind == TokenKind.UNUSED else ''}{token}", float(worst))
        for token, score, kind in zip(vocabulary.tokens, scores, kinds, strict=True)
    ]


def _normalizers(table: bytes, add_space: bool, merge_spaces: bool) -> list[Any]:
    """What is done to a text first. Where spaces are not merged, one is put before those that there are."""
    steps: list[Any] = [normalizers.Precompiled(table)] if table else []
    if merge_spaces:
        return [*steps, normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    return [*steps, normalizers.Prepend(" ")] if add_space else steps


def _around(tokenizer: Tokenizer, vocabulary: Vocabulary, ids: dict[str, int]) -> None:
    """BOS and EOS; two texts have BOS once and, where there is one, EOS twice between them, as in RoBERTa."""
    bos = vocabulary.token(vocabulary.bos) if vocabulary.add_bos else None
    eos = vocabulary.token(vocabulary.eos) if vocabulary.add_eos else None
    between = [eos, eos] if bos else [eos]
    single = [token for token in (bos, "$A", eos) if token is not None]
    pair = [token for token in (bos, "$A", *between, "$B", eos) if token is not None]
    special = [(token, ids[token]) for token in {bos, eos} if token is not None]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
