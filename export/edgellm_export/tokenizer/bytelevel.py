"""Tokenizers of GPT-2 and its kin: bytes as printable characters, merged within the words that a text is cut into."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgellm_export.tokenizer.pretokenizers import QWEN2
from edgellm_export.tokenizer.scheme import (
    Draft,
    Ids,
    Source,
    around,
    bos_and_eos,
    extra_tokens,
    named_tokens,
    text_of,
)
from edgellm_export.tokenizer.settings import Settings

END = "<|endoftext|>"
GPT2 = {"bos_token": END, "eos_token": END, "unk_token": END, "pad_token": None}
NEOX = {"bos_token": END, "eos_token": END, "unk_token": END, "pad_token": "<|padding|>"}
QWEN = {"bos_token": None, "eos_token": END, "unk_token": END, "pad_token": END}
ROBERTA = {
    "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>",
    "cls_token": "<s>", "mask_token": "<mask>",
}  # fmt: skip
DEBERTA = {
    "bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]",
    "cls_token": "[CLS]", "mask_token": "[MASK]",
}  # fmt: skip


def gpt2(source: Source, settings: Settings) -> Draft:
    return Draft(_byte_level(source, settings), named_tokens(settings, GPT2), extra_tokens(settings))


def gpt_neox(source: Source, settings: Settings) -> Draft:
    named = named_tokens(settings, NEOX)
    tokenizer = _byte_level(source, settings)
    tokenizer.normalizer = normalizers.NFC()
    return Draft(tokenizer, named, extra_tokens(settings), bos_and_eos(settings, named))


def qwen2(source: Source, settings: Settings) -> Draft:
    named = named_tokens(settings, QWEN)
    extra = extra_tokens(settings)
    tokenizer = _byte_level(source, settings)
    tokenizer.normalizer = normalizers.NFC()
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=settings.flag("add_prefix_space", False), use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), bytes_of])
    special = dict.fromkeys(text_of(token) for token in (*named.values(), *extra) if token is not None)
    return Draft(tokenizer, named, extra, late=[AddedToken(text, special=True) for text in special])


def roberta(source: Source, settings: Settings) -> Draft:
    """RoBERTa's and BART's: one text is <s> A </s>, two are <s> A </s></s> B </s>."""
    named = named_tokens(settings, ROBERTA)

    def surrounding(ids: Ids) -> Any:
        sep, cls = ((text_of(named[name]), ids(named[name])) for name in ("sep_token", "cls_token"))
        trim, space = settings.flag("trim_offsets", True), settings.flag("add_prefix_space", False)
        return processors.RobertaProcessing(sep, cls, trim_offsets=trim, add_prefix_space=space)

    return Draft(_byte_level(source, settings), named, extra_tokens(settings), surrounding)


def deberta(source: Source, settings: Settings) -> Draft:
    named = named_tokens(settings, DEBERTA)
    cls, sep = named["cls_token"], named["sep_token"]
    surrounding = around([cls, "$A", sep], [cls, "$A", sep, sep, "$B", sep])
    return Draft(_byte_level(source, settings), named, extra_tokens(settings), surrounding, has_types=True)


def _byte_level(source: Source, settings: Settings) -> Tokenizer:
    tokenizer = Tokenizer(
        models.BPE(
            vocab=dict(source.ids),
            merges=list(source.merges),
            continuing_subword_prefix="",
            end_of_word_suffix="",
            fuse_unk=False,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=settings.flag("add_prefix_space", False))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
