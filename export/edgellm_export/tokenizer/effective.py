"""The tokenizer that transformers makes of a checkpoint's files, as one tokenizer.json."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm.text.tokenizer_errors import library_errors, load_tokenizer
from edgellm_export.checkpoint.json_file import read_json
from edgellm_export.tokenizer.classes import AS_IT_IS, BY_OWN_RULES, CLASSES, PLAIN_MODEL, TokenizerClass, class_name
from edgellm_export.tokenizer.esm import esm
from edgellm_export.tokenizer.m2m100 import m2m100
from edgellm_export.tokenizer.marian import marian
from edgellm_export.tokenizer.plain import plain
from edgellm_export.tokenizer.pretokenizers import TEKKEN
from edgellm_export.tokenizer.scheme import (
    Draft,
    Ids,
    Source,
    bos_and_eos,
    extra_tokens,
    named_tokens,
    template,
    text_of,
)
from edgellm_export.tokenizer.sentencepiece import REMEDY
from edgellm_export.tokenizer.settings import CONFIG, Settings, Token, read_optional, read_settings
from edgellm_export.tokenizer.source import (
    MERGES,
    PROPHETNET,
    VOCAB_JSON,
    VOCAB_TXT,
    from_sentencepiece,
    from_tokenizer_json,
    from_vocab_json,
    from_vocab_txt,
    padding_token,
    post_processor,
)
from edgellm_export.tokenizer.vocabulary import check_ids

TOKENIZER, CLEAN_UP = "tokenizer.json", "clean_up_tokenization_spaces"
# Classes that do without tokenizer.json, and the file for which they leave one alone.
SEPARATE = {"Marian": (marian, VOCAB_JSON), "M2M100": (m2m100, VOCAB_JSON), "Esm": (esm, VOCAB_TXT)}
VOCABULARIES = (
    PLAIN_MODEL, "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "spm.model", "source.spm",
    "target.spm", VOCAB_TXT, VOCAB_JSON, MERGES, PROPHETNET, "tekken.json", "tiktoken.model", "qwen.tiktoken",
    "spm_char.model", "bpe.codes",
)  # fmt: skip


@dataclass(frozen=True)
class Effective:
    """The content of tokenizer.json, and what tokenizer_config.json has to say beside it: the special tokens that have
    names, such as bos_token, `truncation_side` where tokenizer.json says it, and what the class says by itself."""

    content: bytes
    said: Mapping[str, str | bool]


def effective_tokenizer(path: Path) -> Effective | None:
    """The tokenizer of the directory `path`, None where it has no files of one. Raises CheckpointError or
    UnsupportedModelError."""
    file = path / TOKENIZER
    raw = file.read_bytes() if file.is_file() else None
    content = None if raw is None else _checked(file, raw)
    config, options = read_optional(path / "config.json"), read_optional(path / CONFIG)
    _refuse(path, options, raw)
    name = class_name(config, options, is_byte_level=raw is not None and b'"ByteLevel"' in raw)
    if content is None and not any((path / vocabulary).is_file() for vocabulary in VOCABULARIES):
        return None
    if name in BY_OWN_RULES:
        raise UnsupportedModelError(
            f"{path} is for {name}Tokenizer, which transformers builds of its files by rules of its own, and edgellm "
            'does not; for a tokenizer.json as it is, set "tokenizer_class": "PreTrainedTokenizerFast" in '
            "tokenizer_config.json"
        )

    def unfit(reason: str) -> CheckpointError:
        return CheckpointError(f"{path}: no tokenizer can be built of its files ({reason}); download them again")

    with library_errors(unfit):
        try:
            tokenizer, named = _made(path, name, content)
        except (KeyError, AttributeError) as error:  # the library reads more than it writes
            raise unfit(repr(error)) from error
        built = str(tokenizer.to_str()).encode()
    load_tokenizer(built, unfit)
    texts: dict[str, str | bool] = {key: text_of(token) for key, token in named.items() if token is not None}
    return Effective(built, texts | _truncation_side(name, content or {}, options) | _clean_up(name, options))


def _truncation_side(name: str, content: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, str]:
    """The side at which tokenizer.json cuts, or for a file as it is the options, is the usual one of callers who do
    not say it."""
    truncation = (name == AS_IT_IS and options.get("tokenizer_truncation")) or content.get("truncation")
    left = isinstance(truncation, dict) and str(truncation.get("direction")).lower() == "left"
    return {"truncation_side": "left"} if left and "truncation_side" not in options else {}


def _clean_up(name: str, options: Mapping[str, Any]) -> dict[str, bool]:
    usual = name in CLASSES and CLASSES[name].cleans_up and options.get(CLEAN_UP) is None
    return {CLEAN_UP: True} if usual else {}


def _refuse(path: Path, options: Mapping[str, Any], raw: bytes | None) -> None:
    """Raises UnsupportedModelError for what would make another tokenizer of tokenizer.json."""
    files = options.get("fast_tokenizer_files") or []
    others = [str(name) for name in files if name != TOKENIZER] if isinstance(files, list) else []
    if others:
        raise UnsupportedModelError(
            f"{path / CONFIG} has a tokenizer for each version of transformers, {', '.join(others)}; call the newest "
            f"{TOKENIZER}, and take fast_tokenizer_files out"
        )
    if options.get("fix_mistral_regex") is True and json.dumps(TEKKEN).encode()[1:-1] not in (raw or b""):
        raise UnsupportedModelError(
            f"{path / CONFIG} asks for fix_mistral_regex, and {TOKENIZER} cuts words in the old way; {REMEDY}"
        )


def _made(path: Path, name: str, content: Mapping[str, Any] | None) -> tuple[Tokenizer, Mapping[str, Token | None]]:
    settings = read_settings(path, content)
    source, draft, settings = _draft(path, name, content, settings)
    named = dict(draft.named)
    if source.pad_token is not None:
        named.setdefault("pad_token", source.pad_token)
    return _finished(draft, source, settings, named), named


def _draft(
    path: Path, name: str, content: Mapping[str, Any] | None, settings: Settings
) -> tuple[Source, Draft, Settings]:
    known = CLASSES.get(name)
    separate, file = SEPARATE.get(name, (None, ""))
    if separate is not None and (content is None or (path / file).is_file()):
        return Source(str(path)), separate(path, settings), settings
    if content is not None:
        if known is None:
            tokenizer = Tokenizer.from_str(json.dumps(content))
            source = Source(
                str(path / TOKENIZER), surrounding=tokenizer.post_processor, pad_token=padding_token(content)
            )
            return source, Draft(tokenizer, named_tokens(settings, {}), extra_tokens(settings)), settings
        source = from_tokenizer_json(path / TOKENIZER, content, known.model, f"{name}Tokenizer")
    elif known is None:
        draft, settings = plain(_found(path, PLAIN_MODEL, name), settings)
        return Source(str(path)), draft, settings
    else:
        source, settings = _older(path, name, known, settings)
    return source, known.scheme(source, settings), settings


def _older(path: Path, name: str, known: TokenizerClass, settings: Settings) -> tuple[Source, Settings]:
    """The vocabulary of a directory without tokenizer.json."""
    if known.file in (VOCAB_TXT, PROPHETNET):
        return from_vocab_txt(_found(path, known.file, name)), settings
    if known.file == VOCAB_JSON:
        return from_vocab_json(_found(path, VOCAB_JSON, name)), settings
    file = PLAIN_MODEL if (path / PLAIN_MODEL).is_file() else known.file
    source = from_sentencepiece(_found(path, file, name), known.model)
    source = known.rearrange(source, settings)
    return source, dataclasses.replace(settings, additional=source.controls)


def _found(path: Path, wanted: str, name: str) -> Path:
    """The vocabulary file of a class. Raises UnsupportedModelError where there are only others."""
    if not (path / wanted).is_file():
        others = [vocabulary for vocabulary in VOCABULARIES if (path / vocabulary).is_file()]
        whose = "tokenizer" if name == AS_IT_IS else f"{name}Tokenizer"
        raise UnsupportedModelError(
            f"{path} has {', '.join(others)} but no {TOKENIZER}, and a {whose} would be built of {wanted}; {REMEDY}"
        )
    return path / wanted


def _finished(draft: Draft, source: Source, settings: Settings, named: Mapping[str, Token | None]) -> Tokenizer:
    """The tokenizer with its added tokens, in the order in which transformers adds them, which gives new ones their
    ids."""
    tokenizer = draft.tokenizer
    asked = any(name in settings.options for name in ("add_bos_token", "add_eos_token"))
    if source.surrounding is not None:
        tokenizer.post_processor = source.surrounding
    _add(tokenizer, settings.added, named, draft.extra)
    tokenizer.add_tokens(list(draft.late))
    ids = _ids(tokenizer, named)
    surrounding = draft.surrounding
    if surrounding is None and (asked or tokenizer.post_processor is None):
        surrounding = bos_and_eos(settings, named)
    if surrounding is not None:
        tokenizer.post_processor = surrounding(ids)
    inputs = settings.options.get("model_input_names")
    if not ("token_type_ids" in inputs if isinstance(inputs, list) else draft.has_types):
        state = json.loads(tokenizer.post_processor.__getstate__())
        tokenizer.post_processor = post_processor(_without_types(state))
    return tokenizer


def _add(
    tokenizer: Tokenizer,
    added: Mapping[int, AddedToken],
    named: Mapping[str, Token | None],
    extra: Sequence[Token],
) -> None:
    there = {repr(token) for token in tokenizer.get_added_tokens_decoder().values()}
    tokens: list[Token] = [token for _, token in sorted(added.items()) if repr(token) not in there]
    texts = {t.content for t in tokenizer.get_added_tokens_decoder().values()} | {text_of(t) for t in tokens}
    for token in [*named.values(), *extra]:
        if token is not None and text_of(token) not in texts and token not in tokens:
            tokens.append(token)
    with_names = {text_of(token) for token in named.values() if token is not None}
    tokenizer.add_tokens([_special(token, with_names) for token in tokens])


def _special(token: Token, with_names: set[str]) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=True)
    if token.content in with_names and not token.special:
        token.special = True  # in place: a copy would not know whether `normalized` follows it
    return token


def _ids(tokenizer: Tokenizer, named: Mapping[str, Token | None]) -> Ids:
    def of(token: Token | None) -> int:
        found = tokenizer.token_to_id(text_of(token))
        if found is None:
            found = tokenizer.token_to_id(text_of(named.get("unk_token")))
        if found is None:
            raise ValueError(f"its vocabulary lacks the token {text_of(token)!r}")
        return int(found)

    return of


def _without_types(state: dict[str, Any]) -> dict[str, Any]:
    """The same post-processor, as tokenizer.json has it, which gives all tokens the type 0."""
    match state["type"]:
        case "Sequence":
            return state | {"processors": [_without_types(step) for step in state["processors"]]}
        case "BertProcessing":
            (sep, sep_id), (cls, cls_id) = state["sep"], state["cls"]
            made = template([cls, "$A", sep], [cls, "$A", sep, "$B:0", sep], {sep: sep_id, cls: cls_id})
            return dict(json.loads(made.__getstate__()))
        case "TemplateProcessing":
            for piece in [*state["single"], *state["pair"]]:
                next(iter(piece.values()))["type_id"] = 0
    return state


def _checked(path: Path, raw: bytes) -> Mapping[str, Any]:
    """The content of a tokenizer.json that the library loads. Raises CheckpointError."""

    def unreadable(reason: str) -> CheckpointError:
        return CheckpointError(f"{path} cannot be loaded ({reason}); download it again")

    load_tokenizer(raw, unreadable)
    content = read_json(path)
    vocab = (content.get("model") or {}).get("vocab")
    check_ids(str(path), vocab.values() if isinstance(vocab, dict) else ())
    return content
