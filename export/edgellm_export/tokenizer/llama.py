"""Tokenizers of Llama, Gemma and NLLB: SentencePiece's BPE, which merges over whole texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from edgellm_export.tokenizer.languages import NLLB, check_language
from edgellm_export.tokenizer.scheme import (
    Draft,
    Source,
    around,
    extra_tokens,
    metaspace,
    named_tokens,
    sequence,
    text_of,
)
from edgellm_export.tokenizer.settings import Settings, Token
from edgellm_export.tokenizer.vocabulary import SPACE

LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
GEMMA = {
    "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>",
}  # fmt: skip
INFILLING = {
    "prefix_token": f"{SPACE}<PRE>", "middle_token": f"{SPACE}<MID>", "suffix_token": f"{SPACE}<SUF>",
    "eot_token": f"{SPACE}<EOT>", "fill_token": "<FILL_ME>",
}  # fmt: skip
FAIRSEQ = {
    "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>",
    "cls_token": "<s>", "mask_token": "<mask>",
}  # fmt: skip


def llama(source: Source, settings: Settings) -> Draft:
    """A space is put before a text; before each piece between added tokens too where the tokenizer is `legacy`."""
    space = settings.flag("add_prefix_space", True)
    scheme = ("always" if settings.flag("legacy", False) else "first") if space else "never"
    tokenizer = _bpe(source, byte_fallback=True)
    tokenizer.pre_tokenizer = metaspace(scheme, split=False)
    tokenizer.decoder = _bytes_to_text(first_space=space)
    return Draft(tokenizer, named_tokens(settings, LLAMA), extra_tokens(settings))


def code_llama(source: Source, settings: Settings) -> Draft:
    named = named_tokens(settings, LLAMA | INFILLING)
    tokenizer = _bpe(source, byte_fallback=True, unk=named["unk_token"])
    tokenizer.pre_tokenizer = metaspace("first" if settings.flag("add_prefix_space", True) else "never", split=False)
    tokenizer.decoder = _bytes_to_text(first_space=True)
    infilling = [token for name in INFILLING if (token := named[name]) is not None]
    return Draft(tokenizer, named, extra_tokens(settings, [*(settings.additional or ()), *infilling]))


def gemma(source: Source, settings: Settings) -> Draft:
    named = named_tokens(settings, GEMMA)
    tokenizer = _bpe(source, byte_fallback=True, unk=named["unk_token"])
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern=" ", behavior="merged_with_previous")
    tokenizer.decoder = _bytes_to_text(first_space=False)
    return Draft(tokenizer, named, extra_tokens(settings))


def nllb(source: Source, settings: Settings) -> Draft:
    """A text has its language's code before it, or with `legacy_behaviour` behind it."""
    named: Mapping[str, Token | None] = named_tokens(settings, FAIRSEQ)
    if isinstance(named["mask_token"], str):
        named = {**named, "mask_token": AddedToken(named["mask_token"], normalized=True, lstrip=True, special=True)}
    tokenizer = _bpe(source, byte_fallback=False, unk=named["unk_token"])
    if source.table is not None:
        steps = [normalizers.Precompiled(source.table), normalizers.Replace(Regex(" {2,}"), " ")]
        tokenizer.normalizer = sequence(steps)
    tokenizer.pre_tokenizer = metaspace("always")
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    codes = settings.additional if settings.additional is not None else NLLB
    extra = extra_tokens(settings, codes)
    language = settings.options.get("src_lang") or "eng_Latn"
    check_language(source.origin, language, [*map(text_of, extra), *source.ids])
    eos = named["eos_token"]
    before, behind = ([], [eos, language]) if settings.flag("legacy_behaviour", False) else ([language], [eos])
    surrounding = around([*before, "$A", *behind], [*before, "$A", "$B", *behind])
    return Draft(tokenizer, named, extra, surrounding)


def _bpe(source: Source, *, byte_fallback: bool, unk: Token | None = None) -> Tokenizer:
    named: dict[str, Any] = {} if unk is None else {"unk_token": text_of(unk)}
    return Tokenizer(
        models.BPE(
            vocab=dict(source.ids),
            merges=list(source.merges),
            fuse_unk=True,
            byte_fallback=byte_fallback,
            **named,
        )
    )


def _bytes_to_text(*, first_space: bool) -> Any:
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", left=1)] if first_space else steps)
