"""The tokenizer files of a checkpoint directory, with tokenizer.json built where only its ancestors are there."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm.package.sentence import sentence_files
from edgellm.text.template_files import MORE_TEMPLATES, OLD_TEMPLATE, TEMPLATE, read_templates
from edgellm.text.tokenizer_errors import check_growth, library_errors
from edgellm_export.checkpoint.json_file import read_json, read_text
from edgellm_export.tokenizer import bytelevel, unigram, wordpiece
from edgellm_export.tokenizer.build import build_tokenizer, compact
from edgellm_export.tokenizer.sentencepiece import REMEDY, read_sentencepiece
from edgellm_export.tokenizer.vocabulary import TokenKind, Vocabulary

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE_NAME = re.compile(r"[\w-][\w.-]*")
CARRIED = (TOKENIZER, TOKENIZER_CONFIG, "special_tokens_map.json", TEMPLATE, "generation_config.json")
ANCESTORS = (
    "tokenizer.model", bytelevel.MERGES, *unigram.MARIAN, unigram.SPIECE, unigram.BPE_MODEL, wordpiece.VOCAB,
)  # fmt: skip


def read_text_files(path: Path) -> dict[str, bytes]:
    """What a package carries of the directory `path`, as far as it exists. Raises CheckpointError."""
    files = {name: (path / name).read_bytes() for name in CARRIED if (path / name).is_file()}
    others = [OLD_TEMPLATE, *(f"{MORE_TEMPLATES}/{file.name}" for file in (path / MORE_TEMPLATES).glob("*.jinja"))]
    read = {name for name in others if (path / name).is_file()}
    for name in (files.keys() | read) - {TOKENIZER}:  # what the runtime, or this, will have to read
        (read_json if name.endswith(".json") else read_text)(path / name)
    config = read_json(path / TOKENIZER_CONFIG) if TOKENIZER_CONFIG in files else {}
    if TOKENIZER in files:
        _check_tokenizer(path / TOKENIZER, files[TOKENIZER])
        files[TOKENIZER] = compact(files[TOKENIZER])
    elif built := _built_tokenizer(path, config):
        files[TOKENIZER] = compact(built)
    return sentence_files(path) | files | _templates(path, config)


def _built_tokenizer(path: Path, config: Mapping[str, Any]) -> bytes | None:
    """The content of tokenizer.json, made of what there was before it; None where there is nothing."""

    def unfit(reason: str) -> CheckpointError:
        return CheckpointError(f"{path}: no tokenizer can be built of its files ({reason}); download them again")

    with library_errors(unfit):
        if _is_marian(path, config):
            return unigram.marian_tokenizer(path, config)
        if build := _unigram_builder(path):
            return build(path, config)
        if (path / wordpiece.VOCAB).is_file():
            return wordpiece.wordpiece_tokenizer(path, config)
        if _is_byte_level(path) and bytelevel.class_of(path, config, _model_type(path)) in bytelevel.ROBERTA:
            return bytelevel.roberta_tokenizer(path, config, _added(path, config))
        vocabulary = _old_vocabulary(path, config)
        return None if vocabulary is None else build_tokenizer(vocabulary)


def _is_marian(path: Path, config: Mapping[str, Any]) -> bool:
    """Whether there are files of a Marian tokenizer, even if not all of them."""
    files = [name for name in unigram.MARIAN if (path / name).is_file()]
    named = config.get("tokenizer_class") == "MarianTokenizer" or _model_type(path) == "marian"
    return bool(files) and (named or unigram.SOURCE in files)


def _unigram_builder(path: Path) -> Callable[[Path, Mapping[str, Any]], bytes] | None:
    """What builds a tokenizer from the directory's SentencePiece model, if there is one. Raises
    UnsupportedModelError."""
    file = next((name for name in (unigram.SPIECE, unigram.BPE_MODEL) if (path / name).is_file()), None)
    if file is None:
        return None
    builders = {
        ("t5", unigram.SPIECE): unigram.t5_tokenizer,
        ("mt5", unigram.SPIECE): unigram.t5_tokenizer,
        ("pegasus", unigram.SPIECE): unigram.pegasus_tokenizer,
        ("mbart", unigram.BPE_MODEL): unigram.mbart_tokenizer,
    }
    builder = builders.get((str(_model_type(path)), file))
    if builder is None:
        raise UnsupportedModelError(f"{path} has {file} but no {TOKENIZER}; {REMEDY}")
    return builder


def _is_byte_level(path: Path) -> bool:
    return (path / bytelevel.MERGES).is_file() and (path / bytelevel.VOCAB).is_file()


def _model_type(path: Path) -> Any:
    file = path / "config.json"
    return read_json(file).get("model_type") if file.is_file() else None


def _check_tokenizer(path: Path, content: bytes) -> None:
    from tokenizers import Tokenizer

    def unreadable(reason: str) -> CheckpointError:
        return CheckpointError(f"{path} cannot be loaded ({reason}); download it again")

    with library_errors(unreadable):
        tokenizer = Tokenizer.from_buffer(content)
    check_growth(tokenizer, unreadable)


def _encoded(path: Path, template: str) -> bytes:
    try:
        return template.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{path} has a chat template that is not Unicode text ({error})") from error


def _templates(path: Path, config: Mapping[str, Any]) -> dict[str, bytes]:
    """The chat templates, each in the file that newer checkpoints have it in."""
    found = {}
    for name, template in read_templates(path, config).items():
        if not TEMPLATE_NAME.fullmatch(name):
            raise CheckpointError(f"{path} has a chat template named {name!r}, which cannot be the name of a file")
        file = TEMPLATE if name == "default" else f"{MORE_TEMPLATES}/{name}.jinja"
        found[file] = _encoded(path, template)
    return found


def _old_vocabulary(path: Path, config: Mapping[str, Any]) -> Vocabulary | None:
    if (path / "tokenizer.model").is_file():
        vocabulary = read_sentencepiece(path / "tokenizer.model")
        vocabulary = dataclasses.replace(
            vocabulary,
            add_bos=config.get("add_bos_token", True) is not False,
            add_eos=config.get("add_eos_token", False) is True,
        )
    elif _is_byte_level(path):
        name = bytelevel.class_of(path, config, _model_type(path))
        vocabulary = bytelevel.read_vocabulary(path, bytelevel.PRE_TOKENIZERS[name])
    else:
        return None
    return _with_added_tokens(vocabulary, path, config)


def _with_added_tokens(vocabulary: Vocabulary, path: Path, config: Mapping[str, Any]) -> Vocabulary:
    """Tokens that were added after training, and those that the config calls special."""
    tokens, kinds = list(vocabulary.tokens), list(vocabulary.kinds)
    scores = list(vocabulary.scores) if vocabulary.scores is not None else None
    for index, (content, special) in sorted(_added(path, config).items()):
        if not 0 <= index <= len(tokens):
            raise CheckpointError(f"{path}: the added token {content!r} has id {index}, expected 0 to {len(tokens)}")
        kind = int(TokenKind.CONTROL if special else TokenKind.USER_DEFINED)
        if index == len(tokens):
            tokens.append(content)
            kinds.append(kind)
            if scores is not None:
                scores.append(0.0)
        elif kinds[index] != TokenKind.UNKNOWN:
            tokens[index], kinds[index] = content, kind
    return dataclasses.replace(vocabulary, tokens=tokens, kinds=kinds, scores=scores)


def _added(path: Path, config: Mapping[str, Any]) -> dict[int, tuple[str, bool]]:
    """The tokens that were added after training: by id, their text and whether they are special."""
    try:
        if (path / "added_tokens.json").is_file():
            old = {int(index): (str(text), True) for text, index in read_json(path / "added_tokens.json").items()}
        else:
            old = {}
        decoder = config.get("added_tokens_decoder") or {}
        return old | {int(i): (str(t["content"]), bool(t.get("special"))) for i, t in decoder.items()}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path}: its list of added tokens cannot be read ({error!r})") from error
