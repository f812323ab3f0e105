"""A SentencePiece model (tokenizer.model) as it is, for models that have no tokenizer class of their own."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from edgellm_export.tokenizer.scheme import Draft, metaspace, named_tokens, sequence, text_of
from edgellm_export.tokenizer.sentencepiece import UNIGRAM
from edgellm_export.tokenizer.settings import Settings
from edgellm_export.tokenizer.source import checked_model, found_in_texts, merges_by_score
from edgellm_export.tokenizer.vocabulary import SPACE, TokenKind


def plain(path: Path, settings: Settings) -> tuple[Draft, Settings]:
    """The tokenizer of the model in `path`, and the settings, changed to how it finds added tokens. Raises
    CheckpointError or UnsupportedModelError."""
    model = checked_model(path)
    spec = model.trainer_spec
    tokens = _renamed([str(piece.piece) for piece in model.pieces], settings)
    whole = [tokens[i] for i, piece in enumerate(model.pieces) if piece.type == TokenKind.USER_DEFINED]
    tokenizer = build_plain(str(path), model, tokens, bool(settings.options.get("legacy", True)))
    usual = {
        "bos_token": (spec.bos_id, spec.bos_piece or "<s>"),
        "eos_token": (spec.eos_id, spec.eos_piece or "</s>"),
        "unk_token": (spec.unk_id, spec.unk_piece or "<unk>"),
    }
    named = named_tokens(settings, {name: str(piece) for name, (index, piece) in usual.items() if index >= 0})
    controls = [token for token in found_in_texts(model) if text_of(token) not in whole]
    extra = settings.extra if settings.extra is not None else controls
    if model.normalizer_spec.add_dummy_prefix:
        settings = dataclasses.replace(settings, added={i: _on_raw_text(t) for i, t in settings.added.items()})
    return Draft(tokenizer, named, extra), settings


def build_plain(
    origin: str, model: Any, tokens: Sequence[str], legacy: bool, ids: Mapping[str, int] | None = None
) -> Any:
    """The library's tokenizer of a SentencePiece model whose pieces have these texts, and, unless they are their
    numbers, these `ids`. `legacy` puts a space before each piece of text between added tokens, not only the first."""
    spec = model.normalizer_spec
    whole = [tokens[i] for i, piece in enumerate(model.pieces) if piece.type == TokenKind.USER_DEFINED]
    tokenizer = Tokenizer(_model(origin, model, tokens, ids or {token: i for i, token in enumerate(tokens)}, whole))
    tokenizer.normalizer = sequence(_normalizers(spec, legacy))
    cuts = [metaspace("always" if legacy else "first", split=False)] if spec.add_dummy_prefix else []
    if whole:
        longest_first = sorted(whole, key=len, reverse=True)
        cuts.append(pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), behavior="isolated"))
    if cuts:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    tokenizer.decoder = decoders.Sequence(_decoders(model))
    return tokenizer


def _model(origin: str, model: Any, tokens: Sequence[str], ids: Mapping[str, int], whole: Sequence[str]) -> Any:
    spec = model.trainer_spec
    if spec.model_type == UNIGRAM:
        scored = [(token, float(piece.score)) for token, piece in zip(tokens, model.pieces, strict=True)]
        return models.Unigram(scored, unk_id=spec.unk_id, byte_fallback=spec.byte_fallback)
    normal = {
        tokens[i]: (float(piece.score), i) for i, piece in enumerate(model.pieces) if piece.type == TokenKind.NORMAL
    }
    return models.BPE(
        vocab=dict(ids),
        merges=merges_by_score(origin, normal),
        unk_token=str(spec.unk_piece),
        fuse_unk=True,
        byte_fallback=spec.byte_fallback,
        ignore_merges=bool(whole),
    )


def _normalizers(spec: Any, legacy: bool) -> list[Any]:
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(bytes(spec.precompiled_charsmap)))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.escape_whitespaces:
        steps.append(normalizers.Replace(" ", SPACE))
    if spec.add_dummy_prefix and legacy:  # SentencePiece adds one to a text that begins with one, too
        steps.append(normalizers.Replace(Regex(rf"\A{SPACE}"), SPACE * 2))
    return steps


def _decoders(model: Any) -> list[Any]:
    steps: list[Any] = [decoders.Replace(SPACE, " ")]
    if model.trainer_spec.byte_fallback:
        steps.append(decoders.ByteFallback())
    if model.normalizer_spec.add_dummy_prefix:
        return [*steps, decoders.Fuse(), decoders.Strip(" ", left=1)]
    return [*steps, decoders.Fuse()] if model.trainer_spec.byte_fallback else steps


def _renamed(tokens: list[str], settings: Settings) -> list[str]:
    """The pieces with the names that added tokens give them, but for a name that another piece has and keeps."""
    names = {i: token.content for i, token in settings.added.items()}
    kept = {token for i, token in enumerate(tokens) if i not in names}
    return [names[i] if i in names and names[i] not in kept else token for i, token in enumerate(tokens)]


def _on_raw_text(token: AddedToken) -> AddedToken:
    """The same token, found before a text is normalized."""
    flags = {name: getattr(token, name) for name in ("single_word", "lstrip", "rstrip", "special")}
    return AddedToken(token.content, normalized=False, **flags)
