"""The order in which classes number the pieces of a SentencePiece model, where it is not the model's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from edgellm_export.tokenizer.languages import MBART, MBART50, NLLB
from edgellm_export.tokenizer.scheme import Source, text_of
from edgellm_export.tokenizer.settings import Settings
from edgellm_export.tokenizer.unigram import extra_ids, pegasus_offset

Rearrange = Callable[[Source, Settings], Source]


def as_it_is(source: Source, settings: Settings) -> Source:
    return source


def t5(source: Source, settings: Settings) -> Source:
    count = extra_ids(source.origin, settings)
    sentinels = [(f"<extra_id_{i}>", 0.0) for i in range(count - 1, -1, -1)]
    return dataclasses.replace(source, scores=[*source.scores, *sentinels])


def pegasus(source: Source, settings: Settings) -> Source:
    offset = pegasus_offset(source.origin, settings)
    mask, sent = _text(settings, "mask_token", "<mask_1>"), str(settings.options.get("mask_token_sent", "<mask_2>"))
    masks = [mask for mask in dict.fromkeys((mask, sent)) if mask != "None"]
    first = [(token, 0.0) for token in (_text(settings, "pad_token", "<pad>"), _text(settings, "eos_token", "</s>"))]
    first += [(mask, 0.0) for mask in masks] + [(f"<unk_{i}>", -100.0) for i in range(2, offset)]
    return dataclasses.replace(source, scores=[*first, *list(source.scores)[2:]])


def xlm_roberta(source: Source, settings: Settings) -> Source:
    return _as_fairseq(source, settings, [])


def mbart(source: Source, settings: Settings) -> Source:
    return _as_fairseq(source, settings, MBART)


def mbart50(source: Source, settings: Settings) -> Source:
    return _as_fairseq(source, settings, MBART50, first="cls_token")


def _as_fairseq(source: Source, settings: Settings, languages: list[str], first: str = "bos_token") -> Source:
    usual = {first: "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    head = [(_text(settings, name, token), 0.0) for name, token in usual.items()]
    tail = [(token, 0.0) for token in (*languages, _text(settings, "mask_token", "<mask>"))]
    return dataclasses.replace(source, scores=[*head, *list(source.scores)[3:], *tail])


def camembert(source: Source, settings: Settings) -> Source:
    pad, unk = _text(settings, "pad_token", "<pad>"), _text(settings, "unk_token", "<unk>")
    head = [("<s>NOTUSED", 0.0), (pad, 0.0), ("</s>NOTUSED", 0.0), (unk, 0.0), ("<unk>NOTUSED", -100.0)]
    tail = [(_text(settings, "mask_token", "<mask>"), 0.0)]
    return dataclasses.replace(source, scores=[*head, *list(source.scores)[1:], *tail])


def nllb(source: Source, settings: Settings) -> Source:
    """Where no file numbers the languages, they have the ids of the published models: behind the pieces, before the
    mask. (transformers 4.57 has the mask first, 5.24 makes unknown tokens of them.)"""
    usual = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    head = [_text(settings, name, token) for name, token in usual.items()]
    numbered = any(token.content in NLLB for token in settings.added.values())
    tail = [] if numbered else [*NLLB, _text(settings, "mask_token", "<mask>")]
    tokens = dict.fromkeys([*head, *source.ids, *tail])
    return dataclasses.replace(source, ids={token: i for i, token in enumerate(tokens)}, controls=None)


def _text(settings: Settings, name: str, usual: str) -> str:
    return text_of(settings.named.get(name, usual))
