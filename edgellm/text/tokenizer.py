"""Text to token ids and back, also token by token."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import tokenizers

from edgellm.errors import InputError, OptionError, PackageCorruptError, corrupt
from edgellm.package.json_data import read_json
from edgellm.system.memory import return_freed_memory
from edgellm.text.clean_up import CleanUp
from edgellm.text.clean_up import clean_up as cleaned_up
from edgellm.text.encodings import Encoding, Side, from_tokenizer
from edgellm.text.token_bytes import TokenBytes, token_bytes
from edgellm.text.tokenizer_errors import library_errors, load_tokenizer
from edgellm.types import IntArray

CLEAN_BPE = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
# Characters or tokens, which take a few milliseconds. Longer ones go the way of the library's batches, which lets other
# threads go on meanwhile.
LONG = 1 << 12
REPLACEMENT = "\ufffd"  # what decoders write for bytes that are not (yet) a character


class Tokenizer:
    """A `tokenizer.json`, with what tokenizer_config.json alone can say, its `config`: whether decoded text is cleaned
    up, whether special tokens in a text are text, and at which side long ones are cut."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, config: Mapping[str, Any] = MappingProxyType({})) -> None:
        self._tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = config.get("split_special_tokens") is True
        # Merges of bytes or characters have their spaces where they belong: transformers cleans up other texts only.
        self._may_clean_up = type(tokenizer.model).__name__ != "BPE" or config.get(CLEAN_BPE) is True
        self.truncation_side: Side = "left" if config.get("truncation_side") == "left" else "right"
        self.cleans_up = self._may_clean_up and config.get("clean_up_tokenization_spaces") is True
        self.vocab_size: int = tokenizer.get_vocab_size(with_added_tokens=True)
        self.special_ids = frozenset(i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special)
        self.byte_ids = _byte_fallback_ids(tokenizer)

    @classmethod
    def from_file(cls, path: Path, config: Mapping[str, Any] = MappingProxyType({})) -> Tokenizer:
        def unreadable(reason: str) -> PackageCorruptError:
            return corrupt(f"{path} cannot be read: {reason}")

        try:
            content = path.read_bytes()
        except OSError as error:
            raise unreadable(str(error)) from error
        return cls(load_tokenizer(content, unreadable), config)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> IntArray:
        """The text's tokens [length] int64; with `add_special_tokens`, those that the post-processor adds (such as a
        first BOS token) are included. Raises InputError."""
        check_text(text)
        with library_errors(_failed):
            if len(text) > LONG:
                (found,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
            else:
                found = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
            return np.array(found.ids, np.int64)

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = True, clean_up: bool | None = None) -> str:
        """The tokens' text. Unless `clean_up` says so, the tokenizer does whether it is cleaned up."""
        with library_errors(_failed):
            if len(tokens) > LONG:
                (text,) = self._tokenizer.decode_batch([list(tokens)], skip_special_tokens=skip_special_tokens)
            else:
                text = str(self._tokenizer.decode(list(tokens), skip_special_tokens=skip_special_tokens))
        wanted = self.cleans_up if clean_up is None else clean_up and self._may_clean_up
        return cleaned_up(text) if wanted else text

    def encoding(self, text: str | Sequence[str], pair: str | None = None) -> Encoding:
        """A text, or a text and its pair, as an encoder reads them: special tokens included. A list is a text in words,
        whose offsets count from the beginning of each word."""
        for part in (text,) if isinstance(text, str) else text:
            check_text(part)
        if pair is not None:
            check_text(pair)
        words = not isinstance(text, str)
        with library_errors(_failed):
            given: Any = list(text) if words else text
            if len(text) + len(pair or "") > LONG:
                inputs = [given if pair is None else (given, pair)]
                return from_tokenizer(self._tokenizer.encode_batch(inputs, is_pretokenized=words)[0])
            return from_tokenizer(self._tokenizer.encode(given, pair, is_pretokenized=words))

    def id_of(self, token: str) -> int | None:
        """The id of a token of the vocabulary."""
        found = self._tokenizer.token_to_id(token)
        return None if found is None else int(found)

    def token_of(self, token_id: int) -> str:
        """A token as the vocabulary has it, "" for an unknown id."""
        return str(self._tokenizer.id_to_token(token_id) or "")

    def join(self, tokens: Sequence[str]) -> str:
        """The text of tokens of the vocabulary; unlike `decode`, it keeps special ones."""
        decoder = self._tokenizer.decoder
        with library_errors(_failed):
            return " ".join(tokens) if decoder is None else str(decoder.decode(list(tokens)))

    def token_bytes(self) -> TokenBytes:
        """What each token of the vocabulary writes, read anew. Raises OptionError where that depends on others."""
        return token_bytes(self._tokenizer)

    @property
    def marks_continuations(self) -> bool:
        """Whether the tokens inside of a word have a prefix that the text has not, such as ##."""
        return bool(getattr(self._tokenizer.model, "continuing_subword_prefix", None))

    def special_ids_of(self, texts: Collection[str]) -> frozenset[int]:
        """The special tokens with these texts."""
        found = {self.id_of(text) for text in texts}
        return frozenset(i for i in self.special_ids if i in found)

    def special_texts(self) -> dict[str, int]:
        """The ids of special tokens by their texts."""
        return {self.token_of(i): i for i in self.special_ids}

    def has_text(self, token: int) -> bool:
        """Whether the token shows in decoded text: not a special token, and known to the tokenizer."""
        return token not in self.special_ids and self._tokenizer.id_to_token(token) is not None


def no_tokenizer(*, why: str = "", instead: str = "") -> InputError:
    """The error of a package without a tokenizer. `why`: what needs one. `instead`: what else the caller can do."""
    need = f", and {why}" if why else ""
    way_out = f"{instead}, or " if instead else ""
    return InputError(
        f"this package has no tokenizer, because its checkpoint had none{need}: {way_out}add a tokenizer.json to the "
        "checkpoint and export it again"
    )


def open_tokenizer(package: Path) -> Tokenizer | None:
    """The package's tokenizer, None where it has only token ids. It should be opened before the graphs: reading the
    file takes twice the memory that the tokenizer keeps, and the rest then serves them."""
    file = package / "tokenizer.json"
    if not file.is_file():
        return None
    tokenizer = Tokenizer.from_file(file, read_json(package / "tokenizer_config.json"))
    return_freed_memory()
    return tokenizer


class Detokenizer:
    """Gives the text of one sequence, token by token. The pieces and the last `flush` add up to `decode` of all tokens;
    without a tokenizer they are empty. `clean_up`: False leaves it out. `keep`: special tokens whose text is not left
    out.

    A piece is held back while it ends inside a character. Decoders may look at a token's neighbours (a leading space is
    dropped only from the very first token), so a token is always decoded together with the ones before it.
    """

    def __init__(
        self, tokenizer: Tokenizer | None, clean_up: bool | None = None, *, keep: Collection[str] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._kept = frozenset() if tokenizer is None else tokenizer.special_ids_of(keep)
        self._context: list[int] = []  # tokens whose text is out already
        self._pending: list[int] = []
        cleans_up = tokenizer is not None and tokenizer.cleans_up
        self._clean = CleanUp() if cleans_up and clean_up is not False else None

    def add(self, token: int) -> str:
        """The text that is complete now, often that of `token`, "" while a character is incomplete."""
        text = self._decoded(token)
        return text if self._clean is None else self._clean.add(text)

    def flush(self) -> str:
        """What was held back; call it when no more tokens follow."""
        text = self._take(self._text(self._tokenizer)) if self._tokenizer and self._pending else ""
        return text if self._clean is None else self._clean.add(text) + self._clean.flush()

    def _decoded(self, token: int) -> str:
        if self._tokenizer is None or not (token in self._kept or self._tokenizer.has_text(token)):
            return ""
        self._pending.append(token)
        # A run of byte tokens decodes as a whole: one stray byte turns all of it into replacement characters.
        if token in self._tokenizer.byte_ids:
            return ""
        text = self._text(self._tokenizer)
        return "" if text.endswith(REPLACEMENT) else self._take(text)

    def _text(self, tokenizer: Tokenizer) -> str:
        """Special tokens that come here are those to keep."""
        known, text = (
            tokenizer.decode(tokens, clean_up=False, skip_special_tokens=False)
            for tokens in (self._context, self._context + self._pending)
        )
        return text[len(known) :]

    def _take(self, text: str) -> str:
        self._context, self._pending = self._pending, []
        return text


def stop_string_matcher(tokenizer: Tokenizer | None, stop_strings: Sequence[str]) -> Callable[[IntArray], bool] | None:
    """A function that says whether a stop string ends in, or lies in, the text of the last of some tokens, to be called
    after each new one with all of them; None where there are no stop strings.

    As in Hugging Face's `generate`, special tokens have their text here, a stop string may begin in the prompt, where
    that is among the tokens, and the text that is given back keeps it and whatever else its last token carries, special
    tokens left out.
    """
    if not stop_strings:
        return None
    if tokenizer is None:
        raise OptionError("stop_strings and stop need a tokenizer, and this package has none; use eos_token_id")
    # A character has at most four bytes and a token at least one, so this many tokens cover the longest stop string.
    reach = 4 * max(map(len, stop_strings)) + 4

    def matches(tokens: IntArray) -> bool:
        last = tokens[-reach:].tolist()
        before, text = (tokenizer.decode(part, skip_special_tokens=False) for part in (last[:-1], last))
        known = 0  # not all of `before`: its last character may have been incomplete
        while known < min(len(before), len(text)) and before[known] == text[known]:
            known += 1
        return any(stop in text[max(0, known - len(stop) + 1) :] for stop in stop_strings)

    return matches


def check_text(text: object) -> None:
    """Raises InputError unless `text` is a str that can be written as UTF-8."""
    if not isinstance(text, str):
        raise InputError(f"expected text, found {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        found = f"U+{ord(text[error.start]):04X} at position {error.start}"
        raise InputError(
            f"the text holds a lone surrogate ({found}): it was read from bytes that are not UTF-8; decode them with "
            "the right encoding, or with errors='replace'"
        ) from error


def _failed(reason: str) -> PackageCorruptError:
    return corrupt(f"the package's tokenizer.json fails at this text: {reason}")


def _byte_fallback_ids(tokenizer: tokenizers.Tokenizer) -> frozenset[int]:
    """The ids of tokens like <0xE2>, if the decoder joins them to characters (sentencepiece models)."""
    if "ByteFallback" not in repr(tokenizer.decoder):
        return frozenset()
    ids = (tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
    return frozenset(i for i in ids if i is not None)
