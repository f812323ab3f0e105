"""tokenizer.json out of SentencePiece models of the Unigram kind: Marian's pair of them, and T5's.

They cut a text into the pieces of the highest total score (Kudo, arXiv 1804.10959), behind a normalization whose table
the model carries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.checkpoint.json_file import read_json
from edgellm_export.checkpoint.tokenizer.sentencepiece import REMEDY, SPACE, UNIGRAM, read_model

SOURCE, TARGET, VOCABULARY = "source.spm", "target.spm", "vocab.json"
MARIAN = (SOURCE, TARGET, VOCABULARY)
SPIECE = "spiece.model"
UNREACHABLE = -1e4  # the score of tokens that a text is cut into only where nothing else fits
HIDDEN = "\ufdd0"  # in front of tokens of targets alone
UNKNOWN, END, PAD = "<unk>", "</s>", "<pad>"
CONTROL, USER_DEFINED = 3, 4
EXTRA_IDS = 100  # of T5 where its config does not say


@dataclass(frozen=True)
class Pieces:
    """A SentencePiece model. `table`: of its normalization, may be empty."""

    scores: Mapping[str, float]
    kinds: Sequence[int]
    unknown: int
    table: bytes


def marian_tokenizer(path: Path, config: Mapping[str, Any]) -> bytes:
    """The content of tokenizer.json: sources are cut by source.spm, ids are vocab.json's, which targets share.

    `config`: tokenizer_config.json. Pieces that vocab.json lacks get ids beyond it, which the runtime takes for unknown
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
    if config.get("separate_vocabs"):
        raise UnsupportedModelError(f"{path} has one vocabulary for sources and one for targets; edgellm builds one")
    source, ids = _read(path / SOURCE), _ids(path / VOCABULARY)
    _read(path / TARGET)  # a damaged one is found now
    tokens = [*sorted(ids, key=lambda token: ids[token]), *[piece for piece in source.scores if piece not in ids]]
    special = [token for token in (END, UNKNOWN, PAD) if token in ids]
    scores = [UNREACHABLE if token in special else source.scores.get(token, UNREACHABLE) for token in tokens]
    languages = [token for token in ids if token.startswith(">>") and token.endswith("<<")]
    seen = {*source.scores, *special, *languages}
    names = [token if token in seen or len(token) == 1 else HIDDEN + token for token in tokens]
    tokenizer = _tokenizer(list(zip(names, scores, strict=True)), ids[UNKNOWN], source.table)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(HIDDEN, ""), tokenizer.decoder])
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in languages])
    return _ended(tokenizer, ids[END])


def t5_tokenizer(path: Path, config: Mapping[str, Any]) -> bytes:
    """The content of tokenizer.json for a checkpoint with spiece.model: its pieces, then the extra ids.

    `config`: tokenizer_config.json. Raises CheckpointError or UnsupportedModelError.
    """
    pieces = _read(path / SPIECE)
    count = config.get("extra_ids", EXTRA_IDS)
    if type(count) is not int or count < 0:
        raise CheckpointError(f"{path}: extra_ids of its tokenizer is {count!r}, expected a whole number")
    extra = [f"<extra_id_{i}>" for i in range(count - 1, -1, -1)]
    known = [*pieces.scores]
    if END not in pieces.scores:
        raise UnsupportedModelError(f"{path / SPIECE} has no {END}; {REMEDY}")
    tokenizer = _tokenizer([*pieces.scores.items(), *((token, 0.0) for token in extra)], pieces.unknown, pieces.table)
    kinds = zip(known, pieces.kinds, strict=True)
    added = [(token, kind == CONTROL) for token, kind in kinds if kind in (CONTROL, USER_DEFINED)]
    added += [(known[pieces.unknown], True), *((token, True) for token in extra)]
    tokenizer.add_tokens([AddedToken(token, special=special, normalized=False) for token, special in added])
    return _ended(tokenizer, known.index(END))


def _read(path: Path) -> Pieces:
    model = read_model(path)
    if model.trainer_spec.model_type != UNIGRAM:
        raise UnsupportedModelError(f"{path} is not a SentencePiece Unigram model; {REMEDY}")
    spec = model.normalizer_spec
    if model.trainer_spec.byte_fallback or not spec.remove_extra_whitespaces or not spec.add_dummy_prefix:
        raise UnsupportedModelError(f"{path} treats spaces or unknown characters in an unusual way; {REMEDY}")
    scores = {piece.piece: float(piece.score) for piece in model.pieces}
    if len(scores) != len(model.pieces):
        raise CheckpointError(f"{path} holds a piece twice; download it again")
    kinds = [int(piece.type) for piece in model.pieces]
    return Pieces(scores, kinds, int(model.trainer_spec.unk_id), bytes(spec.precompiled_charsmap))


def _ids(path: Path) -> dict[str, int]:
    ids = read_json(path)
    if not all(type(i) is int for i in ids.values()) or sorted(ids.values()) != list(range(len(ids))):
        raise CheckpointError(f"{path} does not number its tokens from 0 without gaps")
    absent = [token for token in (UNKNOWN, END) if token not in ids]
    if absent:
        raise CheckpointError(f"{path} lacks the token {' and '.join(absent)}; download it again")
    return ids


def _tokenizer(vocabulary: list[tuple[str, float]], unknown: int, table: bytes) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=unknown, byte_fallback=False))
    steps: list[Any] = [normalizers.Precompiled(table)] if table else []
    steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    return tokenizer


def _ended(tokenizer: Tokenizer, end: int) -> bytes:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", END], pair=["$A", END, "$B", END], special_tokens=[(END, end)]
    )
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False).encode()
