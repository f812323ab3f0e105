"""Marian's tokenizer: a SentencePiece model for sources, one for targets, and the ids of both in vocab.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.tokenizer.scheme import Draft, around, extra_tokens, named_tokens, text_of
from edgellm_export.tokenizer.sentencepiece import UNIGRAM
from edgellm_export.tokenizer.settings import Settings
from edgellm_export.tokenizer.source import UNREACHABLE, checked_model, numbered_tokens
from edgellm_export.tokenizer.vocabulary import SPACE

SOURCE, TARGET, VOCABULARY = "source.spm", "target.spm", "vocab.json"
MARIAN = (SOURCE, TARGET, VOCABULARY)
HIDDEN = "\ufdd0"  # in front of tokens of targets alone
ADVICE = "Marian checkpoints of Helsinki-NLP on the hub have such models; no other class reads this one"
UNKNOWN, END, PAD = "<unk>", "</s>", "<pad>"


@dataclass(frozen=True)
class Pieces:
    """A SentencePiece model; the `table` of its normalization may be empty."""

    scores: Mapping[str, float]
    table: bytes


def marian(path: Path, settings: Settings) -> Draft:
    """Sources are cut by source.spm; ids are vocab.json's, which targets share.

    Pieces that vocab.json lacks get ids beyond it, which the runtime takes for unknown
    tokens. Tokens that source.spm lacks are hidden from texts by a character that no text has, which decoding drops;
    not single characters, which MarianTokenizer finds too where they stand alone (several in a row are one unknown
    token to it, and here their own tokens). Raises CheckpointError naming missing files, or UnsupportedModelError.
    """
    absent = [name for name in MARIAN if not (path / name).is_file()]
    if absent:
        raise CheckpointError(
            f"{path} lacks {', '.join(absent)}: a Marian checkpoint without tokenizer.json needs all of "
            f"{', '.join(MARIAN)}; download them"
        )
    if settings.flag("separate_vocabs", False):
        raise UnsupportedModelError(f"{path} has one vocabulary for sources and one for targets; edgellm builds one")
    source, ids = _read(path / SOURCE), numbered_tokens(path / VOCABULARY, (UNKNOWN, END))
    _read(path / TARGET)  # a damaged one is found now
    tokens = [*sorted(ids, key=lambda token: ids[token]), *[piece for piece in source.scores if piece not in ids]]
    named = named_tokens(settings, {"eos_token": END, "unk_token": UNKNOWN, "pad_token": PAD})
    special = [token for token in map(text_of, named.values()) if token in ids]
    scores = [UNREACHABLE if token in special else source.scores.get(token, UNREACHABLE) for token in tokens]
    languages = [token for token in ids if token.startswith(">>") and token.endswith("<<")]
    seen = {*source.scores, *special, *languages}
    names = [token if token in seen or len(token) == 1 else HIDDEN + token for token in tokens]
    tokenizer = _tokenizer(list(zip(names, scores, strict=True)), ids[UNKNOWN], source.table)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(HIDDEN, ""), tokenizer.decoder])
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in languages])
    eos = named["eos_token"]
    return Draft(tokenizer, named, extra_tokens(settings), around(["$A", eos], ["$A", "$B", eos]))


def _read(path: Path) -> Pieces:
    model = checked_model(path)
    if model.trainer_spec.model_type != UNIGRAM:
        raise UnsupportedModelError(f"{path} is not a SentencePiece Unigram model, which Marian's are; {ADVICE}")
    spec = model.normalizer_spec
    if model.trainer_spec.byte_fallback or not spec.remove_extra_whitespaces or not spec.add_dummy_prefix:
        raise UnsupportedModelError(f"{path} treats spaces or unknown characters in an unusual way; {ADVICE}")
    return Pieces({str(piece.piece): float(piece.score) for piece in model.pieces}, bytes(spec.precompiled_charsmap))


def _tokenizer(vocabulary: list[tuple[str, float]], unknown: int, table: bytes) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=unknown, byte_fallback=False))
    steps: list[Any] = [normalizers.Precompiled(table)] if table else []
    steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    return tokenizer
