"""What a package's generation_config.json says of speech: the tokens that a target begins with, and their meanings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.errors import OptionError, corrupt, nearest
from edgellm.speech.languages import CODES, NAMES

FORCED = "forced_decoder_ids"


@dataclass(frozen=True)
class SpeechTokens:
    """`start`: what a target begins with. `no_timestamps`: what asks for none; those lie behind it. `languages`,
    `tasks`: tokens by name, such as "<|en|>" and "translate". `forced`: what comes behind the start where nobody says,
    in older checkpoints; None is a language to be found out. `previous`: what earlier text begins with. `latest`: how
    many timestamps the first may be past the first. `english_only`: there is no choice of language and task. `usual`:
    options of a call that the file has. `alignment_heads`: layers, and heads of these, that look at what is said."""

    start: int
    no_timestamps: int | None
    languages: Mapping[str, int]
    tasks: Mapping[str, int]
    forced: tuple[int | None, ...]
    previous: int | None
    latest: int | None
    english_only: bool
    usual: Mapping[str, Any]
    alignment_heads: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, settings: Mapping[str, Any], config: Mapping[str, Any], vocab_size: int) -> SpeechTokens:
        """`settings`: of generation_config.json; `config`: config.json. Raises PackageCorruptError."""

        def token(name: str) -> int | None:
            value = settings.get(name)
            if value is not None and not _is_token(value, vocab_size):
                raise corrupt(f"generation_config.json: {name} is {value!r}, expected a token of {vocab_size}")
            return value

        def tokens(name: str) -> Mapping[str, int]:
            value = settings.get(name) or {}
            if not isinstance(value, Mapping) or not all(_is_token(each, vocab_size) for each in value.values()):
                raise corrupt(f"generation_config.json: {name} is no table of tokens of {vocab_size}")
            return value

        start, latest = token("decoder_start_token_id"), settings.get("max_initial_timestamp_index")
        if start is None:
            raise corrupt("generation_config.json: decoder_start_token_id is missing, which a target begins with")
        if latest is not None and (type(latest) is not int or latest < 0):
            raise corrupt(f"generation_config.json: max_initial_timestamp_index is {latest!r}, expected a whole number")
        forced = settings.get(FORCED)
        forced = _forced(config.get(FORCED) if forced is None else forced, vocab_size)
        only = settings.get("is_multilingual") is False
        previous, usual = token("prev_sot_token_id"), {k: v for k, v in settings.items() if v is not None}
        none = token("no_timestamps_token_id")
        languages, tasks, heads = tokens("lang_to_id"), tokens("task_to_id"), alignment_heads(settings)
        return cls(start, none, languages, tasks, forced, previous, latest, only, usual, heads)

    @property
    def first_timestamp(self) -> int | None:
        return None if self.no_timestamps is None else self.no_timestamps + 1

    @property
    def no_speech(self) -> int | None:
        """The token that is likely at the start where nothing is said."""
        return None if self.no_timestamps is None else self.no_timestamps - 1

    def language(self, name: str) -> int:
        """The token of a language, by its name, its code or the token's text. Raises OptionError."""
        if self.english_only:
            raise OptionError(f"language is {name!r}, and this model knows English only; leave it out")
        asked = name.lower() if isinstance(name, str) else name
        found = asked if asked in self.languages else f"<|{CODES.get(asked, asked)}|>"
        if found not in self.languages:
            known = [each[2:-2] for each in self.languages]
            hint = nearest(str(name), [*known, *(NAMES[code] for code in known if code in NAMES)])
            raise OptionError(f"language is {name!r}, which this model does not know; {hint}")
        return self.languages[found]

    def task(self, name: str) -> int:
        """Raises OptionError."""
        if self.english_only:
            raise OptionError(f"task is {name!r}, and this model only transcribes; leave it out")
        if name not in self.tasks:
            raise OptionError(f"task is {name!r}; {nearest(str(name), self.tasks) if self.tasks else 'there are none'}")
        return self.tasks[name]

    def finds_language(self, language: str | None, task: str | None) -> bool:
        """Whether the language is to be found out."""
        unsaid = task is not None or not self.forced or self.forced[0] is None
        return language is None and bool(self.languages) and unsaid

    def beginning(self, language: str | None, task: str | None, found: int | None, *, timestamps: bool) -> list[int]:
        """What a target begins with. `found`: the language's token, where it was found out."""
        behind: list[int | None] = [] if language is not None or task is not None else list(self.forced)
        spoken = found if language is None else self.language(language)
        if spoken is not None:
            behind[:1] = [spoken]
        if task is not None:
            behind.append(self.task(task))
        elif language is not None and "transcribe" in self.tasks:
            behind.append(self.tasks["transcribe"])
        tokens = [self.start, *(each for each in behind if each is not None)]
        if self.no_timestamps is None:
            return tokens
        if not timestamps and tokens[-1] != self.no_timestamps:
            return [*tokens, self.no_timestamps]
        return tokens[:-1] if timestamps and tokens[-1] == self.no_timestamps else tokens


def alignment_heads(settings: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """The pairs of a layer and a head that generation_config.json names. Raises PackageCorruptError."""
    pairs = settings.get("alignment_heads") or []
    if not isinstance(pairs, Sequence) or not all(
        isinstance(pair, Sequence) and [type(n) for n in pair] == [int, int] and min(pair) >= 0 for pair in pairs
    ):
        raise corrupt(f"generation_config.json: alignment_heads is {pairs!r}, expected pairs of a layer and a head")
    return tuple((layer, head) for layer, head in pairs)


def _is_token(value: object, vocab_size: int) -> bool:
    return type(value) is int and 0 <= value < vocab_size


def _forced(pairs: Any, vocab_size: int) -> tuple[int | None, ...]:
    """Tokens of places from 1 on. Raises PackageCorruptError."""
    if not pairs:
        return ()
    fits = isinstance(pairs, Sequence) and all(
        isinstance(pair, Sequence) and len(pair) == 2 and (pair[1] is None or _is_token(pair[1], vocab_size))
        for pair in pairs
    )
    if not fits or [place for place, _ in pairs] != list(range(1, len(pairs) + 1)):
        raise corrupt(f"{FORCED} is {pairs!r}, expected a list of [place, token] for the places from 1 on")
    return tuple(token for _, token in pairs)
