"""Vocabularies: tokenizer.json's, or those of the files that there were before it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.checkpoint.json_file import read_json, read_text
from edgellm_export.tokenizer.scheme import Source
from edgellm_export.tokenizer.sentencepiece import BPE, REMEDY, UNIGRAM, read_model
from edgellm_export.tokenizer.vocabulary import TokenKind, check_ids, check_lengths

VOCAB_TXT, VOCAB_JSON, MERGES = "vocab.txt", "vocab.json", "merges.txt"
PROPHETNET = "prophetnet.tokenizer"  # as vocab.txt
UNREACHABLE = -1e4  # the score of tokens that a text is cut into only where nothing else fits
KINDS = {UNIGRAM: "Unigram", BPE: "BPE"}


def from_tokenizer_json(path: Path, content: Mapping[str, Any], kind: str, name: str) -> Source:
    """The vocabulary of tokenizer.json in the file `path`, whose `content` the library has loaded before. `kind` is the
    model that the tokenizer class `name` makes of it. Raises UnsupportedModelError for another one."""
    model = content["model"]
    found = model.get("type") or _kind_of(model)
    if found != kind:
        raise UnsupportedModelError(
            f"{path} holds a {found} model, and transformers' {name} would make a {kind} model of it; for the file as "
            'it is, set "tokenizer_class": "PreTrainedTokenizerFast" in tokenizer_config.json'
        )
    vocab = model["vocab"]
    return Source(
        origin=str(path),
        ids=vocab if kind != "Unigram" else {},
        merges=[_pair(merge) for merge in model.get("merges") or ()],
        scores=[(str(token), float(score)) for token, score in vocab] if kind == "Unigram" else (),
        table=_table(content.get("normalizer")),
        surrounding=post_processor(content.get("post_processor")),
        pad_token=padding_token(content),
    )


def padding_token(content: Mapping[str, Any]) -> str | None:
    return (content.get("padding") or {}).get("pad_token")


def _kind_of(model: Mapping[str, Any]) -> str:
    """Files of old versions do not say it."""
    if "merges" in model:
        return "BPE"
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "WordPiece" if "continuing_subword_prefix" in model else "WordLevel"


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _table(normalizer: Any) -> bytes | None:
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    tables = [step["precompiled_charsmap"] for step in steps if step.get("type") == "Precompiled"]
    return base64.b64decode(tables[0]) if tables and tables[0] else None


def post_processor(content: Any) -> Any:
    """The part of a tokenizer.json as the library's object, made without its vocabulary."""
    nothing = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "decoder"))
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    file = {"version": "1.0", "added_tokens": [], **nothing, "post_processor": content, "model": empty}
    return Tokenizer.from_str(json.dumps(file)).post_processor


def from_vocab_txt(path: Path) -> Source:
    """BERT's: a token on each line, numbered from 0."""
    lines = read_text(path).split("\n")
    tokens = lines[:-1] if lines[-1] == "" else lines
    return Source(origin=str(path), ids={line.rstrip(): i for i, line in enumerate(tokens)})


def from_vocab_json(path: Path) -> Source:
    """GPT-2's pair of files: vocab.json, `path`, and merges.txt beside it."""
    if not path.with_name(MERGES).is_file():
        raise CheckpointError(f"{path.parent} lacks {MERGES}, without which {path.name} cannot be used; download it")
    ids = read_json(path)
    if not all(type(i) is int and 0 <= i < 1 << 32 for i in ids.values()):
        raise CheckpointError(f"{path} does not number its tokens; download it again")
    check_ids(str(path), ids.values())
    lines = read_text(path.with_name(MERGES)).split("\n")
    pairs = [tuple(line.rstrip().split(" ")) for line in lines if line and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise CheckpointError(f"{path.with_name(MERGES)} has a line that is not two tokens with a space between")
    return Source(origin=str(path.parent), ids=ids, merges=[(left, right) for left, right in pairs])


def numbered_tokens(path: Path, needed: Sequence[str]) -> dict[str, int]:
    """Tokens by vocab.json, `path`, whose ids are those of a whole vocabulary. Raises CheckpointError."""
    ids = read_json(path)
    if not all(type(i) is int for i in ids.values()) or sorted(ids.values()) != list(range(len(ids))):
        raise CheckpointError(f"{path} does not number its tokens from 0 without gaps")
    absent = [token for token in needed if token not in ids]
    if absent:
        raise CheckpointError(f"{path} lacks the token {' and '.join(absent)}; download it again")
    return ids


def from_sentencepiece(path: Path, kind: str) -> Source:
    """A SentencePiece model of that kind. Raises CheckpointError or UnsupportedModelError."""
    model = checked_model(path)
    found = KINDS[model.trainer_spec.model_type]
    if found != kind:
        raise UnsupportedModelError(f"{path} is a SentencePiece {found} model, expected {kind}; {REMEDY}")
    scores = [(str(piece.piece), float(piece.score)) for piece in model.pieces]
    ids = {token: i for i, (token, _) in enumerate(scores)}
    return Source(
        origin=str(path),
        ids=ids if kind == "BPE" else {},
        merges=merges_by_id(str(path), ids) if kind == "BPE" else (),
        scores=scores if kind == "Unigram" else (),
        table=bytes(model.normalizer_spec.precompiled_charsmap) or None,
        unknown=int(model.trainer_spec.unk_id),
        controls=found_in_texts(model),
    )


def checked_model(path: Path) -> Any:
    """The ModelProto in `path`, one that a tokenizer can be made of. Raises CheckpointError or
    UnsupportedModelError."""
    model = read_model(path)
    if model.trainer_spec.model_type not in KINDS:
        raise UnsupportedModelError(f"{path} is a SentencePiece word or character model, expected BPE or Unigram")
    texts = [piece.piece for piece in model.pieces]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise CheckpointError(f"{path} has no pieces, or pieces that are not text; download it again")
    if len(set(texts)) != len(texts):
        raise CheckpointError(f"{path} holds a piece twice; download it again")
    if not all(abs(piece.score) < float("inf") for piece in model.pieces):
        raise CheckpointError(f"{path} has scores that are not numbers; download it again")
    if not 0 <= model.trainer_spec.unk_id < len(texts):
        raise CheckpointError(f"{path} has no unknown token; download it again")
    return model


def found_in_texts(model: Any) -> tuple[AddedToken, ...]:
    """The tokens of a SentencePiece model that are found in a text before it is cut; control tokens are special."""
    return tuple(
        AddedToken(str(piece.piece), normalized=False, special=piece.type == TokenKind.CONTROL)
        for piece in model.pieces
        if piece.type in (TokenKind.CONTROL, TokenKind.USER_DEFINED)
    )


def merges_by_id(origin: str, ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every way to join two tokens into a third, lowest id first, as transformers' `generate_merges` orders them."""
    return [pair for *_, pair in sorted(_ways(origin, ids, ids))]


def merges_by_score(origin: str, scores: Mapping[str, tuple[float, int]]) -> list[tuple[str, str]]:
    """The same, best score first. `scores` has a token's score and id."""
    ids = {token: i for token, (_, i) in scores.items()}
    ways = [(-scores[left + right][0], ids[left + right], left, right) for *_, (left, right) in _ways(origin, ids, ids)]
    return [(left, right) for *_, left, right in sorted(ways)]


def _ways(
    origin: str, ids: Mapping[str, int], parts: Mapping[str, int]
) -> Sequence[tuple[int, int, int, int, int, tuple[str, str]]]:
    check_lengths(origin, ids)
    found = []
    for token, index in ids.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in parts and right in parts:
                found.append((index, len(left), len(right), parts[left], parts[right], (left, right)))
    return found
