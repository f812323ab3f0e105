"""Tokenizers of BERT and its kin: words cut into the longest pieces that the vocabulary has."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgellm.errors import CheckpointError
from edgellm_export.tokenizer.scheme import (
    Draft,
    Ids,
    Source,
    around,
    cls_and_sep,
    extra_tokens,
    named_tokens,
    text_of,
    with_space_before,
)
from edgellm_export.tokenizer.settings import Settings, Token

BERT = {
    "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]",
}  # fmt: skip
MPNET = {
    "bos_token": "<s>", "eos_token": "</s>", "unk_token": "[UNK]", "sep_token": "</s>", "pad_token": "<pad>",
    "cls_token": "<s>", "mask_token": "<mask>",
}  # fmt: skip

PROPHETNET = {
    "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]", "x_sep_token": "[X_SEP]",
}  # fmt: skip


def bert(source: Source, settings: Settings, *, has_types: bool = True) -> Draft:
    named = named_tokens(settings, BERT)
    surrounding = cls_and_sep(named["cls_token"], named["sep_token"])
    tokenizer = _wordpiece(source, settings, named)
    return Draft(tokenizer, named, extra_tokens(settings), surrounding, has_types=has_types)


distilbert = partial(bert, has_types=False)


def mpnet(source: Source, settings: Settings) -> Draft:
    named = named_tokens(settings, MPNET)
    named["mask_token"] = with_space_before(named["mask_token"])

    def surrounding(ids: Ids) -> Any:
        sep, cls = ((text_of(named[name]), ids(named[name])) for name in ("sep_token", "cls_token"))
        return processors.RobertaProcessing(sep, cls, trim_offsets=True, add_prefix_space=False)

    return Draft(_wordpiece(source, settings, named), named, extra_tokens(settings), surrounding)


def prophetnet(source: Source, settings: Settings) -> Draft:
    """[X_SEP] ends the sentences of a summary."""
    named = named_tokens(settings, PROPHETNET)
    one = ["$A", text_of(named["sep_token"])]
    surrounding = around(one, [*one, "$B", one[1]])
    return Draft(_wordpiece(source, settings, named), named, extra_tokens(settings), surrounding)


def _wordpiece(source: Source, settings: Settings, named: Mapping[str, Token | None]) -> Tokenizer:
    unknown = text_of(named["unk_token"])
    if unknown not in source.ids:
        raise CheckpointError(f"{source.origin} lacks the token {unknown}; is it the vocabulary of a BERT model?")
    tokenizer = Tokenizer(models.WordPiece(dict(source.ids), unk_token=unknown))
    strip_accents = settings.options.get("strip_accents")
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.flag("tokenize_chinese_chars", True),
        strip_accents=None if strip_accents is None else bool(strip_accents),
        lowercase=settings.flag("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer
