"""What a tokenizer's class makes of a vocabulary, and the pieces that classes share.

transformers 5 takes from tokenizer.json the vocabulary, the merges and what is put around a text; how a text is
normalized and cut is the class's, by the options in tokenizer_config.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors

from edgellm.text.template_files import SPECIAL_TOKENS as NAMES
from edgellm_export.tokenizer.settings import Settings, Token
from edgellm_export.tokenizer.vocabulary import SPACE


@dataclass(frozen=True)
class Source:
    """A vocabulary, from tokenizer.json or from older files; `origin` names it in errors.

    `ids` is it for BPE and WordPiece; `scores`, (token, score) by id, for Unigram. `table` is the precompiled table of
    a SentencePiece normalization, `unknown` the id that such a model gives to unknown tokens, and `controls` are its
    tokens that are found in texts. `surrounding` and `pad_token` are tokenizer.json's post-processor and padding.
    """

    origin: str
    ids: Mapping[str, int] = field(default_factory=dict)
    merges: Sequence[tuple[str, str]] = ()
    scores: Sequence[tuple[str, float]] = ()
    table: bytes | None = None
    unknown: int | None = None
    controls: tuple[AddedToken, ...] | None = None
    surrounding: Any = None
    pad_token: str | None = None


Ids = Callable[[Token | None], int]
Surrounding = Callable[[Ids], Any]


@dataclass(frozen=True)
class Draft:
    """A tokenizer that has no added tokens yet. `named` and `extra` are its special tokens, `late` those that are added
    after all others; `surrounding` makes the post-processor of the tokens' ids, where the class has one of its
    own. `has_types` says whether the class tells a text from its pair."""

    tokenizer: Tokenizer
    named: Mapping[str, Token | None]
    extra: Sequence[Token] = ()
    surrounding: Surrounding | None = None
    late: Sequence[AddedToken] = ()
    has_types: bool = False


Scheme = Callable[[Source, Settings], Draft]


def named_tokens(settings: Settings, usual: Mapping[str, Token | None]) -> dict[str, Token | None]:
    """The special tokens with names, in transformers' order: the files' or the `usual` ones of the class."""
    given = {**usual, **settings.named}
    own = [name for name in given if name not in NAMES]
    return {name: given[name] for name in (*NAMES, *own) if name in given}


def extra_tokens(settings: Settings, usual: Sequence[Token] | None = None) -> Sequence[Token]:
    """The special tokens without names: the files' or the `usual` ones of the class."""
    if settings.extra is not None:
        return settings.extra
    return (settings.additional or ()) if usual is None else usual


def with_space_before(token: Token | None) -> Token | None:
    """A token that takes the space before it along, unless a file says what it does."""
    return AddedToken(token, lstrip=True) if isinstance(token, str) else token


def text_of(token: Token | None) -> str:
    return token.content if isinstance(token, AddedToken) else str(token)


def around(single: Sequence[Token | None], pair: Sequence[Token | None]) -> Surrounding:
    """A post-processor of two templates: tokens, and "$A" and "$B" for the texts. ":1" behind one is its type."""

    def make(ids: Ids) -> Any:
        pieces = [text_of(token) for token in (*single, *pair)]
        tokens = {_without_type(piece) for piece in pieces if not piece.startswith("$")}
        return template([text_of(t) for t in single], [text_of(t) for t in pair], {t: ids(t) for t in sorted(tokens)})

    return make


def template(single: Sequence[str], pair: Sequence[str], ids: Mapping[str, int]) -> Any:
    return processors.TemplateProcessing(single=list(single), pair=list(pair), special_tokens=list(ids.items()))


def _without_type(piece: str) -> str:
    head, colon, kind = piece.rpartition(":")
    return head if colon and kind.isdigit() else piece


def cls_and_sep(cls: Token | None, sep: Token | None) -> Surrounding:
    """BERT's: the second text and what is behind it are of type 1."""
    first, last = text_of(cls), text_of(sep)
    one = [f"{first}:0", "$A:0", f"{last}:0"]
    return around(one, [*one, "$B:1", f"{last}:1"])


def bos_and_eos(settings: Settings, named: Mapping[str, Token | None]) -> Surrounding:
    """What add_bos_token and add_eos_token ask for around each text."""
    bos = named.get("bos_token") if settings.flag("add_bos_token", False) else None
    eos = named.get("eos_token") if settings.flag("add_eos_token", False) else None
    parts = [[f"{text_of(bos)}:{i}"] * (bos is not None) for i in (0, 1)]
    ends = [[f"{text_of(eos)}:{i}"] * (eos is not None) for i in (0, 1)]
    single = [*parts[0], "$A:0", *ends[0]]
    return around(single, [*single, *parts[1], "$B:1", *ends[1]])


def metaspace(scheme: str, *, split: bool = True) -> Any:
    """Spaces become visible, and words are cut before them."""
    return pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=split)


def words_with_metaspace(scheme: str = "always") -> Any:
    """The same, with all white space alike."""
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace(scheme)])


def sequence(steps: Sequence[Any]) -> Any:
    return normalizers.Sequence(list(steps))
