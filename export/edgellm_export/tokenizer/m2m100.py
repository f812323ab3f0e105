"""M2M100's tokenizer: a SentencePiece model, its pieces numbered by vocab.json, and codes of languages behind them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models

from edgellm.errors import CheckpointError
from edgellm_export.tokenizer.languages import M2M100, WMT21, check_language
from edgellm_export.tokenizer.plain import build_plain
from edgellm_export.tokenizer.scheme import Draft, around, extra_tokens, named_tokens, text_of
from edgellm_export.tokenizer.sentencepiece import UNIGRAM
from edgellm_export.tokenizer.settings import Settings
from edgellm_export.tokenizer.source import UNREACHABLE, checked_model, numbered_tokens

VOCABULARY, MODEL = FILES = "vocab.json", "sentencepiece.bpe.model"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>"}
CODES = {"m2m100": M2M100, "wmt21": WMT21}


def m2m100(path: Path, settings: Settings) -> Draft:
    """A text has its language's code before it. Pieces that vocab.json lacks get ids beyond all others, which the
    runtime takes for unknown tokens. Raises CheckpointError or UnsupportedModelError."""
    absent = [name for name in FILES if not (path / name).is_file()]
    if absent:
        raise CheckpointError(f"{path} lacks {' and '.join(absent)} of its M2M100Tokenizer; download them")
    codes = CODES.get(str(settings.options.get("language_codes", "m2m100")))
    if codes is None:
        raise CheckpointError(f"{path}: language_codes of its tokenizer must be one of {', '.join(CODES)}")
    source = settings.options.get("src_lang") or "en"
    check_language(str(path), source, codes)
    named = named_tokens(settings, SPECIAL)
    ids = numbered_tokens(path / VOCABULARY, [text_of(named["unk_token"])])
    ids |= {f"__{code}__": len(ids) + i for i, code in enumerate(codes)}
    tokenizer = _tokenizer(path / MODEL, ids, text_of(named["unk_token"]))
    language, eos = f"__{source}__", named["eos_token"]
    surrounding = around([language, "$A", eos], [language, "$A", "$B", eos])
    return Draft(tokenizer, named, extra_tokens(settings), surrounding)


def _tokenizer(path: Path, ids: Mapping[str, int], unknown: str) -> Tokenizer:
    model = checked_model(path)
    pieces = [str(piece.piece) for piece in model.pieces]
    more = [piece for piece in pieces if piece not in ids]
    numbered = {**ids, **{piece: len(ids) + i for i, piece in enumerate(more)}}
    tokenizer = build_plain(str(path), model, pieces, True, numbered)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    if model.trainer_spec.model_type == UNIGRAM:
        scores = {piece: float(entry.score) for piece, entry in zip(pieces, model.pieces, strict=True)}
        ranked = sorted(numbered, key=lambda token: numbered[token])
        entries: list[Any] = [(token, scores.get(token, UNREACHABLE)) for token in ranked]
        tokenizer.model = models.Unigram(entries, unk_id=numbered[unknown], byte_fallback=False)
    return tokenizer
