"""tokenizer.json out of SentencePiece models of the Unigram kind: Marian's pair of them, T5's, Pegasus's, mBART's.

They cut a text into the pieces of the highest total score (Kudo, arXiv 1804.10959), behind a normalization whose table
the model carries.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgellm.errors import CheckpointError, UnsupportedModelError, nearest
from edgellm_export.checkpoint.json_file import read_json
from edgellm_export.tokenizer.sentencepiece import REMEDY, UNIGRAM, read_model
from edgellm_export.tokenizer.vocabulary import SPACE, TokenKind

SOURCE, TARGET, VOCABULARY = "source.spm", "target.spm", "vocab.json"
MARIAN = (SOURCE, TARGET, VOCABULARY)
SPIECE, BPE_MODEL = "spiece.model", "sentencepiece.bpe.model"
UNREACHABLE = -1e4  # the score of tokens that a text is cut into only where nothing else fits
HIDDEN = "\ufdd0"  # in front of tokens of targets alone
UNKNOWN, END, PAD = "<unk>", "</s>", "<pad>"
FOUND = (TokenKind.CONTROL, TokenKind.USER_DEFINED)  # in a text, before it is cut
EXTRA_IDS, PEGASUS_OFFSET = 100, 103  # of T5 and Pegasus where their configs do not say
MOST_EXTRA = 1 << 16  # tokens that no file holds
LANGUAGES = (
    "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP nl_XX "
    "ro_RO ru_RU si_LK tr_TR vi_VN zh_CN"
)
MORE_LANGUAGES = (
    "af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE sw_KE ta_IN "
    "te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI"
)


@dataclass(frozen=True)
class Pieces:
    """A SentencePiece model; the `table` of its normalization may be empty."""

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
    return _around(tokenizer, ["$A", END], ids)


def t5_tokenizer(path: Path, config: Mapping[str, Any]) -> bytes:
    """The content of tokenizer.json for a checkpoint with spiece.model: its pieces, then the extra ids.

    `config`: tokenizer_config.json. Raises CheckpointError or UnsupportedModelError.
    """
    pieces = _read(path / SPIECE)
    count = config.get("extra_ids", EXTRA_IDS)
    if type(count) is not int or not 0 <= count <= MOST_EXTRA:
        raise CheckpointError(
            f"{path}: extra_ids of its tokenizer is {count!r}, expected a whole number up to {MOST_EXTRA}"
        )
    extra = [f"<extra_id_{i}>" for i in range(count - 1, -1, -1)]
    known = [*pieces.scores]
    kinds = zip(known, pieces.kinds, strict=True)
    added = [(token, kind == TokenKind.CONTROL) for token, kind in kinds if kind in FOUND]
    added += [(known[pieces.unknown], True), *((token, True) for token in extra)]
    vocabulary = [*pieces.scores.items(), *((token, 0.0) for token in extra)]
    return _built(path / SPIECE, vocabulary, pieces, added, ["$A", END])


def pegasus_tokenizer(path: Path, config: Mapping[str, Any]) -> bytes:
    """The content of tokenizer.json for Pegasus: special tokens, then the pieces of spiece.model but for its own
    two."""
    pieces = _read(path / SPIECE)
    offset = config.get("offset", PEGASUS_OFFSET)
    if type(offset) is not int or not 4 <= offset <= MOST_EXTRA:
        raise CheckpointError(
            f"{path}: offset of its tokenizer is {offset!r}, expected a whole number from 4 to {MOST_EXTRA}"
        )
    first = [PAD, END, "<mask_1>", "<mask_2>", *(f"<unk_{i}>" for i in range(2, offset))]
    vocabulary = [*((token, -100.0) for token in first), *list(pieces.scores.items())[2:]]
    added = [(token, True) for token in [*first, UNKNOWN]]
    return _built(path / SPIECE, vocabulary, pieces, added, ["$A", END])


def mbart_tokenizer(path: Path, config: Mapping[str, Any]) -> bytes:
    """The content of tokenizer.json for mBART and mBART-50: pieces of sentencepiece.bpe.model, then the codes of
    languages. The language of the source is `config`'s, or English."""
    pieces = _read(path / BPE_MODEL)
    fifty = config.get("tokenizer_class") in ("MBart50Tokenizer", "MBart50TokenizerFast")
    languages = (f"{LANGUAGES} {MORE_LANGUAGES}" if fifty else LANGUAGES).split()
    source = config.get("src_lang") or "en_XX"
    if source not in languages:
        raise CheckpointError(f"{path}: src_lang of its tokenizer is {source!r}; {nearest(str(source), languages)}")
    first = ["<s>", PAD, END, UNKNOWN]
    vocabulary = [*((token, 0.0) for token in first), *list(pieces.scores.items())[3:]]
    vocabulary += [(token, 0.0) for token in [*languages, "<mask>"]]
    added = [(token, True) for token in [*first, *languages, "<mask>"]]
    single = [source, "$A", END] if fifty else ["$A", END, source]
    return _built(path / BPE_MODEL, vocabulary, pieces, added, single)


def _built(
    path: Path, vocabulary: list[tuple[str, float]], pieces: Pieces, added: list[tuple[str, bool]], single: list[str]
) -> bytes:
    """The content of tokenizer.json. `added` are the tokens that are found in a text before it is cut, and whether they
    are special; `single` is what is put around a text, "$A"."""
    ids = {token: i for i, (token, _) in enumerate(vocabulary)}
    if len(ids) != len(vocabulary) or not {END, UNKNOWN} <= ids.keys():
        raise UnsupportedModelError(f"{path} has other special tokens than its family's; {REMEDY}")
    tokenizer = _tokenizer(vocabulary, ids[UNKNOWN], pieces.table)
    tokenizer.add_tokens([AddedToken(token, special=special, normalized=False) for token, special in added])
    return _around(tokenizer, single, ids)


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
    if not all(map(math.isfinite, scores.values())):
        raise CheckpointError(f"{path} has scores that are not numbers; download it again")
    kinds = [int(piece.type) for piece in model.pieces]
    unknown = int(model.trainer_spec.unk_id)
    if not 0 <= unknown < len(kinds) or not all(isinstance(piece, str) for piece in scores):
        raise CheckpointError(f"{path} has no unknown token, or pieces that are not text; download it again")
    return Pieces(scores, kinds, unknown, bytes(spec.precompiled_charsmap))


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


def _around(tokenizer: Tokenizer, single: list[str], ids: Mapping[str, int]) -> bytes:
    special = [(token, ids[token]) for token in single if token != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False).encode()
