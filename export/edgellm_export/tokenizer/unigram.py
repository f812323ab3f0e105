"""Tokenizers of T5, XLM-RoBERTa, ALBERT and their kin: SentencePiece's Unigram, which cuts a text into the pieces of
the highest total score (Kudo, arXiv 1804.10959)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from edgellm.errors import CheckpointError
from edgellm_export.tokenizer.languages import MBART, MBART50, check_language
from edgellm_export.tokenizer.llama import FAIRSEQ
from edgellm_export.tokenizer.scheme import (
    Draft,
    Source,
    around,
    cls_and_sep,
    extra_tokens,
    metaspace,
    named_tokens,
    sequence,
    text_of,
    with_space_before,
    words_with_metaspace,
)
from edgellm_export.tokenizer.settings import Settings, Token
from edgellm_export.tokenizer.vocabulary import SPACE

T5 = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
PEGASUS = T5 | {"mask_token": "<mask_2>"}
ALBERT = {
    "bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "<unk>", "sep_token": "[SEP]", "pad_token": "<pad>",
    "cls_token": "[CLS]", "mask_token": "[MASK]",
}  # fmt: skip
DEBERTA = ALBERT | {"unk_token": "[UNK]", "pad_token": "[PAD]"}
XLNET = FAIRSEQ | {"sep_token": "<sep>", "cls_token": "<cls>"}
BIG_BIRD = FAIRSEQ | {"sep_token": "[SEP]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
EXTRA_IDS, PEGASUS_OFFSET = 100, 103  # of T5 and Pegasus where their options do not say
MOST_EXTRA = 1 << 16  # tokens that no file holds


def t5(source: Source, settings: Settings) -> Draft:
    """Its `extra_ids`, tokens for what was left out of a text, are special."""
    count = extra_ids(source.origin, settings)
    listed = list(settings.additional or ())
    sentinels = [token for token in listed if "<extra_id_" in text_of(token)]
    if not sentinels:
        listed += [f"<extra_id_{i}>" for i in range(count)]
    elif count and count != len(sentinels):
        raise CheckpointError(
            f"{source.origin}: its tokenizer has {len(sentinels)} special tokens named <extra_id_...>, and "
            f"extra_ids is {count}"
        )
    tokenizer = _unigram(source, 2)
    if source.table is not None:
        tokenizer.normalizer = normalizers.Precompiled(source.table)
    tokenizer.pre_tokenizer = words_with_metaspace()
    named = named_tokens(settings, T5)
    eos = named["eos_token"]
    surrounding = around(["$A", eos], ["$A", eos, "$B", eos])
    return Draft(tokenizer, named, extra_tokens(settings, listed), surrounding)


def extra_ids(origin: str, settings: Settings) -> int:
    """How many sentinels T5 has. Raises CheckpointError."""
    count = settings.options.get("extra_ids", EXTRA_IDS)
    if type(count) is not int or not 0 <= count <= MOST_EXTRA:
        raise CheckpointError(
            f"{origin}: extra_ids of its tokenizer is {count!r}, expected a whole number up to {MOST_EXTRA}"
        )
    return count


def pegasus(source: Source, settings: Settings) -> Draft:
    offset = pegasus_offset(source.origin, settings)
    sent = settings.options.get("mask_token_sent", "<mask_1>")
    known = {text_of(token) for token in settings.additional or ()}
    listed = [sent] if isinstance(sent, str) and sent not in known else []
    listed += [f"<unk_{i}>" for i in range(2, offset)]
    named = named_tokens(settings, PEGASUS)
    unknown = _index(source, named["unk_token"], None)
    tokenizer = _unigram(source, unknown)
    first = [normalizers.Replace("\n", " ")] if source.table is None else [normalizers.Precompiled(source.table)]
    tokenizer.normalizer = sequence([*first, normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = metaspace("always")
    eos = named["eos_token"]
    return Draft(tokenizer, named, extra_tokens(settings, listed), around(["$A", eos], ["$A", "$B", eos]))


def pegasus_offset(origin: str, settings: Settings) -> int:
    """How many ids Pegasus has before those of its pieces. Raises CheckpointError."""
    offset = settings.options.get("offset", PEGASUS_OFFSET)
    if type(offset) is not int or not 4 <= offset <= MOST_EXTRA:
        raise CheckpointError(
            f"{origin}: offset of its tokenizer is {offset!r}, expected a whole number from 4 to {MOST_EXTRA}"
        )
    return offset


def mbart(source: Source, settings: Settings) -> Draft:
    """A text has its language's code behind it."""
    named = named_tokens(settings, FAIRSEQ)
    named["mask_token"] = with_space_before(named["mask_token"])
    listed = [*MBART, *(token for token in settings.additional or () if text_of(token) not in MBART)]
    tokenizer = _unigram(source, 3)
    tokenizer.pre_tokenizer = words_with_metaspace()
    behind = [named["eos_token"], _language(source, settings)]
    return Draft(tokenizer, named, extra_tokens(settings, listed), around(["$A", *behind], ["$A", "$B", *behind]))


def mbart50(source: Source, settings: Settings) -> Draft:
    """A text has its language's code before it."""
    named = named_tokens(settings, {name: token for name, token in FAIRSEQ.items() if name != "bos_token"})
    named["mask_token"] = with_space_before(named["mask_token"])
    tokenizer = _unigram(source, 3)
    table = [] if source.table is None else [normalizers.Precompiled(source.table)]
    tokenizer.normalizer = sequence([*table, normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = metaspace("always")
    before, eos = _language(source, settings), named["eos_token"]
    extra = extra_tokens(settings, [*(settings.additional or ()), *MBART50])
    return Draft(tokenizer, named, extra, around([before, "$A", eos], [before, "$A", "$B", eos]))


def xlm_roberta(source: Source, settings: Settings) -> Draft:
    named = named_tokens(settings, FAIRSEQ)
    return _pieces_of_words(source, settings, named, extra_tokens(settings), 3)


def camembert(source: Source, settings: Settings) -> Draft:
    named = named_tokens(settings, FAIRSEQ)
    if isinstance(named["mask_token"], str):
        named["mask_token"] = AddedToken(named["mask_token"], lstrip=True, special=True)
    listed = [f"{token}NOTUSED" for token in ("<s>", "</s>", "<unk>")]
    extra = extra_tokens(settings, listed if settings.additional is None else settings.additional)
    texts = [token for token, _ in source.scores]
    unk = text_of(named["unk_token"])
    return _pieces_of_words(source, settings, named, extra, texts.index(unk) if unk in texts else 0)


def _pieces_of_words(
    source: Source, settings: Settings, named: Mapping[str, Token | None], extra: Sequence[Token], unknown: int
) -> Draft:
    tokenizer = _unigram(source, unknown)
    if source.table is not None:
        tokenizer.normalizer = normalizers.Precompiled(source.table)
    _cut_words(tokenizer, "always" if settings.flag("add_prefix_space", True) else "never")
    bos, eos = named["bos_token"], named["eos_token"]
    surrounding = around([bos, "$A", eos], [bos, "$A", eos, eos, "$B", eos])
    return Draft(tokenizer, named, extra, surrounding)


def albert(source: Source, settings: Settings) -> Draft:
    named = named_tokens(settings, ALBERT)
    tokenizer = _unigram(source, 1)
    tokenizer.normalizer = _plain_quotes(source, settings, accents=settings.flag("keep_accents", False), lower=True)
    _cut_words(tokenizer, "always" if settings.flag("add_prefix_space", True) else "never")
    surrounding = None if source.surrounding else cls_and_sep(named["cls_token"], named["sep_token"])
    return Draft(tokenizer, named, extra_tokens(settings), surrounding)


def rembert(source: Source, settings: Settings) -> Draft:
    named = named_tokens(settings, ALBERT)
    tokenizer = _unigram(source, 2)
    accents = settings.flag("keep_accents", True)
    tokenizer.normalizer = _plain_quotes(source, settings, accents=accents, lower=False, blanks=False)
    scheme = "always" if settings.flag("add_prefix_space", True) else "never"
    tokenizer.pre_tokenizer = metaspace(scheme)
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme=scheme)
    surrounding = cls_and_sep(named["cls_token"], named["sep_token"])
    return Draft(tokenizer, named, extra_tokens(settings), surrounding)


def xlnet(source: Source, settings: Settings) -> Draft:
    """Special tokens are behind the text; <cls> is of a type of its own."""
    named = named_tokens(settings, XLNET)
    named["mask_token"] = with_space_before(named["mask_token"])
    unknown = settings.options.get("unk_id", 0) if source.unknown is None else source.unknown
    tokenizer = _unigram(source, unknown)
    tokenizer.normalizer = _plain_quotes(source, settings, accents=False, lower=False)
    _cut_words(tokenizer, "always")
    sep, cls = text_of(named["sep_token"]), text_of(named["cls_token"])
    surrounding = around(["$A:0", f"{sep}:0", f"{cls}:2"], ["$A:0", f"{sep}:0", "$B:1", f"{sep}:1", f"{cls}:2"])
    listed = ["<eop>", "<eod>"] if settings.additional is None else settings.additional
    return Draft(tokenizer, named, extra_tokens(settings, listed), surrounding)


def deberta_v2(source: Source, settings: Settings) -> Draft:
    named = named_tokens(settings, DEBERTA)
    usual = settings.options.get("unk_id", 1) if source.unknown is None else source.unknown
    tokenizer = _unigram(source, _index(source, named["unk_token"], usual))
    lower = [normalizers.Lowercase()] if settings.flag("do_lower_case", False) else []
    white = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
    tokenizer.normalizer = sequence([*lower, white, normalizers.NFC(), normalizers.Strip(left=False, right=True)])
    scheme = "always" if settings.flag("add_prefix_space", True) else "first"
    marks = [pre_tokenizers.Punctuation(behavior="isolated")] if settings.flag("split_by_punct", False) else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*marks, metaspace(scheme)])
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme=scheme)
    surrounding = cls_and_sep(named["cls_token"], named["sep_token"])
    return Draft(tokenizer, named, extra_tokens(settings), surrounding, has_types=True)


def big_bird(source: Source, settings: Settings) -> Draft:
    named = named_tokens(settings, BIG_BIRD)
    named["mask_token"] = with_space_before(named["mask_token"])
    tokenizer = _unigram(source, _index(source, named["unk_token"], 100))
    tokenizer.normalizer = sequence([normalizers.Replace(Regex(" {2,}"), SPACE)])
    scheme = "always" if settings.flag("add_prefix_space", True) else "never"
    tokenizer.pre_tokenizer = metaspace(scheme)
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme=scheme)
    surrounding = cls_and_sep(named["cls_token"], named["sep_token"])
    return Draft(tokenizer, named, extra_tokens(settings), surrounding)


def _unigram(source: Source, unknown: int) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram(list(source.scores), unk_id=unknown, byte_fallback=False))
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    return tokenizer


def _cut_words(tokenizer: Tokenizer, scheme: str) -> None:
    tokenizer.pre_tokenizer = words_with_metaspace(scheme)
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme=scheme)


def _plain_quotes(source: Source, settings: Settings, *, accents: bool, lower: bool, blanks: bool = True) -> Any:
    """`blanks`: several stay."""
    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not blanks:
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if not accents:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if settings.flag("do_lower_case", lower):
        steps.append(normalizers.Lowercase())
    if source.table is not None:
        steps.append(normalizers.Precompiled(source.table))
    return sequence(steps)


def _index(source: Source, token: Token | None, usual: int | None) -> int:
    """The id of an unknown token with score 0, else the usual one. Raises CheckpointError where there is neither."""
    entry = (text_of(token), 0.0)
    pieces = list(source.scores)
    if entry in pieces:
        return pieces.index(entry)
    if usual is None:
        raise CheckpointError(f"{source.origin} lacks the unknown token {entry[0]!r} with a score of 0")
    return usual


def _language(source: Source, settings: Settings) -> str:
    language = settings.options.get("src_lang") or "en_XX"
    check_language(source.origin, language, [token for token, _ in source.scores])
    return str(language)
