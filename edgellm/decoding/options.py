"""Generation options: the names and meanings of Hugging Face's GenerationConfig, checked once at the door."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from edgellm.decoding import validation as v
from edgellm.errors import ContextOverflowError, OptionError, nearest

DEFAULT_MAX_NEW_TOKENS = 256
MAX_BIAS = 1e6  # of a logit: more excludes or forces it all the same
_IN_PACKAGE = " in the package's generation_config.json"


@dataclass(frozen=True)
class GenerationOptions:
    """How to generate. Built by `create`, which merges a package's defaults with the caller's options, and checks.

    Lengths count tokens; `max_length` and `min_length` include the prompt, `max_new_tokens` and `min_new_tokens` do not
    and win over them. Differences from Hugging Face, all deliberate: `max_new_tokens` is 256 when nobody sets a length
    (there 20); a caller's `max_length` wins over the package's `max_new_tokens`; an option that would have no effect is
    an error (there a log line); `seed`, `logprobs`, `overflow`, `prompt_lookup`, `reasoning_budget` and what the text
    is to be (`json_schema`, `regex`, `grammar`, `choices`) are options here, and so are `logit_bias`,
    `presence_penalty`, `frequency_penalty`, `top_logprobs` and `stop`, with OpenAI's meanings.
    """

    max_new_tokens: int | None = DEFAULT_MAX_NEW_TOKENS
    max_length: int | None = None
    min_new_tokens: int | None = None
    min_length: int = 0
    max_time: float | None = None  # seconds
    stop_strings: tuple[str, ...] = ()  # which may begin in the prompt
    stop: tuple[str, ...] = ()  # the same in what was generated alone
    eos_token_id: tuple[int, ...] | None = None  # None: the package's; (): none, run to the limit
    pad_token_id: int | None = None

    num_beams: int = 1
    num_return_sequences: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50  # 0: off
    top_p: float = 1.0
    min_p: float | None = None
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    seed: int | None = None  # None: different tokens each time

    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    encoder_repetition_penalty: float = 1.0  # of tokens of the encoder's source, or of the prompt: above 1 favours them
    encoder_no_repeat_ngram_size: int = 0  # no n-gram of the encoder's source, or of the prompt, comes again
    presence_penalty: float = 0.0  # off the logit of each token that was generated, whatever came of the prompt
    frequency_penalty: float = 0.0  # the same, as often as it was
    logit_bias: tuple[tuple[int, float], ...] = ()  # of tokens, added to their logits
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: tuple[int, ...] | None = None
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    exponential_decay_length_penalty: tuple[int, float] | None = None  # from so many new tokens on, ends get likelier
    reasoning_budget: int | None = None  # new tokens of reasoning, behind which its end is forced
    reasoning_markers: tuple[tuple[int, ...], ...] = ()  # the tokens it begins and ends with; (): the chat template's
    renormalize_logits: bool = False  # after all of the above: beams then compare true probabilities
    logprobs: bool = False
    top_logprobs: int = 0  # of so many likeliest tokens beside the chosen one; above 0 sets logprobs

    overflow: Literal["error", "truncate", "shift"] = "error"  # of the context: see edgellm/generation/overflow.py
    overflow_keep: int | None = None  # leading tokens that always stay; None: a BOS token, of a chat system messages

    prompt_lookup: bool = False  # the same tokens, sooner where they repeat earlier ones: see prompt_lookup.py
    prompt_lookup_num_tokens: int | None = None  # the most to draft at once, 10 if None; a number sets prompt_lookup
    max_matching_ngram_size: int | None = None  # how many tokens to look up at most, 3 if None

    json_schema: str | None = None  # the text is JSON that this schema allows: a dict, JSON text or a pydantic model
    regex: str | None = None  # the whole text matches
    grammar: str | None = None  # of the text, in Lark's notation
    choices: tuple[str, ...] = ()  # the text is one of these

    @classmethod
    def create(cls, defaults: Mapping[str, Any] | None = None, **options: Any) -> GenerationOptions:
        """`options` are the caller's, `defaults` the package's generation_config.json, whose unknown keys are ignored.

        An option that is None is switched off, whatever the package says. Raises OptionError naming every problem.
        """
        heard = {name: _heard(name, value) for name, value in (defaults or {}).items()}
        defaults = {name: value for name, value in heard.items() if value is not None}
        problems = [f"unknown option {name!r}; {nearest(name, _CHECKS)}" for name in options if name not in _CHECKS]
        values: dict[str, Any] = {}
        for name in _CHECKS:
            source, origin = (options, "") if name in options else (defaults, _IN_PACKAGE)
            if name not in source:
                continue
            try:
                values[name] = _OFF[name] if source[name] is None else _CHECKS[name](source[name])
            except v.Unfit as expected:
                problems.append(f"{name} is {source[name]!r}{origin}, expected {expected}")
        result = cls(**_settle_constraint(_settle_implied(_settle_lengths(values, options)), options))
        problems += _combination_problems(result, options)
        if problems:
            raise OptionError(problems[0] if len(problems) == 1 else "\n  ".join(["invalid options:", *problems]))
        return result

    @property
    def rows(self) -> int:
        """How many rows of a cache one prompt takes."""
        return max(self.num_beams, self.num_return_sequences)

    def limit(self, prompt_len: int, context_length: int | None = None) -> int:
        """The most new tokens for a prompt of `prompt_len` tokens, at least 1; never beyond the model's context.

        Raises ContextOverflowError when not one token fits in the context, OptionError when `max_length` forbids any.
        """
        if context_length is not None and prompt_len >= context_length:
            raise ContextOverflowError(
                f"the prompt has {prompt_len} tokens, the model's context {context_length}: no room for a new token; "
                "shorten the prompt"
            )
        room = context_length - prompt_len if context_length is not None else None
        asked = self.max_new_tokens
        if asked is None and self.max_length is not None:
            asked = self.max_length - prompt_len
            if asked < 1:
                raise OptionError(
                    f"max_length is {self.max_length} and the prompt alone has {prompt_len} tokens; "
                    "raise max_length, or set max_new_tokens, which does not count the prompt"
                )
        if asked is None:
            asked = DEFAULT_MAX_NEW_TOKENS
        return asked if room is None else min(asked, room)

    def minimum(self, prompt_len: int) -> int:
        """The number of new tokens before which a prompt of `prompt_len` tokens must not end."""
        if self.min_new_tokens is not None:
            return self.min_new_tokens
        return max(0, self.min_length - prompt_len)

    @property
    def constraint(self) -> tuple[str, str | tuple[str, ...]] | None:
        """The option that says what the text may be, and its value; None: it may be any text."""
        return next(((name, value) for name in CONSTRAINTS if (value := getattr(self, name))), None)

    def forces_token_behind(self, length: int) -> bool:
        """Whether `forced_bos_token_id` is what comes behind so many tokens, the prompt included."""
        return self.forced_bos_token_id is not None and length == 1

    def within(self, vocab_size: int, given: Mapping[str, Any]) -> GenerationOptions:
        """The same without ids that no token has, as far as the package names them and they change nothing. `given`
        are the caller's."""
        names = [name for name in _SILENT_IDS if name not in given and getattr(self, name)]
        known: dict[str, Any] = {name: tuple(i for i in getattr(self, name) if i < vocab_size) for name in names}
        return replace(self, **known)

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raises OptionError if an option names a token id outside the model's vocabulary."""
        wrong = [f"{name} holds {i}" for name, ids in self._token_ids() for i in sorted(set(ids)) if i >= vocab_size]
        if wrong:
            raise OptionError(f"{', '.join(wrong)}: token ids of this model are below {vocab_size}")

    def _token_ids(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield "eos_token_id", self.eos_token_id or ()
        yield "bad_words_ids", tuple(token for word in self.bad_words_ids for token in word)
        yield "forced_bos_token_id", () if self.forced_bos_token_id is None else (self.forced_bos_token_id,)
        yield "forced_eos_token_id", self.forced_eos_token_id or ()
        yield "logit_bias", tuple(token for token, _ in self.logit_bias)
        yield "suppress_tokens", self.suppress_tokens
        yield "begin_suppress_tokens", self.begin_suppress_tokens
        yield "reasoning_markers", tuple(token for marker in self.reasoning_markers for token in marker)


_CHECKS: dict[str, v.Check] = {
    "max_new_tokens": v.integer(1),
    "max_length": v.integer(1),
    "min_new_tokens": v.integer(0),
    "min_length": v.integer(0),
    "max_time": v.number(0, above=True),
    "stop_strings": v.strings,
    "stop": v.strings,
    "eos_token_id": v.tokens,
    "pad_token_id": v.token,
    "num_beams": v.integer(1),
    "num_return_sequences": v.integer(1),
    "length_penalty": v.number(),
    "early_stopping": v.early_stopping,
    "num_beam_groups": v.integer(1),
    "diversity_penalty": v.factor(0),
    "do_sample": v.flag,
    "temperature": v.factor(0),
    "top_k": v.integer(0),
    "top_p": v.number(0, 1),
    "min_p": v.number(0, 1),
    "typical_p": v.number(0, 1, above=True),
    "epsilon_cutoff": v.number(0, 1, below=True),
    "eta_cutoff": v.number(0, 1, below=True),
    "seed": v.integer(0),
    "repetition_penalty": v.factor(),
    "no_repeat_ngram_size": v.integer(0),
    "encoder_repetition_penalty": v.factor(),
    "encoder_no_repeat_ngram_size": v.integer(0),
    "presence_penalty": v.number(-MAX_BIAS, MAX_BIAS),
    "frequency_penalty": v.number(-MAX_BIAS, MAX_BIAS),
    "logit_bias": v.biases(MAX_BIAS),
    "bad_words_ids": v.token_lists,
    "forced_bos_token_id": v.token,
    "forced_eos_token_id": v.tokens,
    "suppress_tokens": v.tokens,
    "begin_suppress_tokens": v.tokens,
    "exponential_decay_length_penalty": v.start_and_factor,
    "reasoning_budget": v.integer(0),
    "reasoning_markers": v.two_token_lists,
    "renormalize_logits": v.flag,
    "logprobs": v.flag,
    "top_logprobs": v.integer(0),
    "overflow": v.one_of("error", "truncate", "shift"),
    "overflow_keep": v.integer(0),
    "prompt_lookup": v.flag,
    "prompt_lookup_num_tokens": v.integer(1),
    "max_matching_ngram_size": v.integer(1),
    "json_schema": v.json_schema,
    "regex": v.text,
    "grammar": v.text,
    "choices": v.strings,
}

# What None means: the value that switches an option off, where that is not None itself.
_OFF: dict[str, Any] = {
    **{field.name: field.default for field in fields(GenerationOptions)},
    "max_new_tokens": None,
    "eos_token_id": (),
    "top_k": 0,
}

SAMPLING_ONLY = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
BEAMS_ONLY = ("length_penalty", "early_stopping")
ONE_BEAM_ONLY = ("top_logprobs",)
_LOOKUP_ONLY = ("prompt_lookup_num_tokens", "max_matching_ngram_size")
CONSTRAINTS = ("json_schema", "regex", "grammar", "choices")


_SILENT_IDS = ("eos_token_id", "suppress_tokens", "begin_suppress_tokens")  # where an id that no token has does nothing


def _heard(name: str, value: Any) -> Any:
    """What the package's file says, None where it is silent: ids below 0 stand for no token."""
    if name in _SILENT_IDS and isinstance(value, list | int):
        ids = value if isinstance(value, list) else [value]
        return [i for i in ids if not (type(i) is int and i < 0)]
    return None if name == "pad_token_id" and type(value) is int and value < 0 else value


def _settle_lengths(values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A length that the caller gives replaces both lengths of the package; see the class for what wins otherwise."""
    settled = dict(values)
    for by_caller, other in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
        if options.get(by_caller) is not None and options.get(other) is None:
            settled[other] = None
    if settled.get("max_new_tokens") is None:
        settled["max_new_tokens"] = DEFAULT_MAX_NEW_TOKENS if settled.get("max_length") is None else None
    return settled


def _settle_implied(values: Mapping[str, Any]) -> dict[str, Any]:
    """As in Hugging Face, a number of tokens to draft switches prompt lookup on; one of likeliest tokens, logprobs."""
    asked = {"prompt_lookup": values.get("prompt_lookup_num_tokens") is not None, **values}
    return {**asked, "logprobs": bool(values.get("logprobs") or values.get("top_logprobs"))}


def _settle_constraint(values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What the caller asks of the text replaces what the package does."""
    asks = any(options.get(name) is not None for name in CONSTRAINTS)
    return {name: value for name, value in values.items() if not asks or name not in CONSTRAINTS or name in options}


def _combination_problems(options: GenerationOptions, given: Mapping[str, Any]) -> list[str]:
    """What is wrong between options. `given` are the caller's: what a package merely carries may go unused."""
    o, problems = options, []
    if o.do_sample and o.temperature == 0:
        problems.append("temperature is 0 with do_sample=True; for greedy search set do_sample=False")
    if o.num_return_sequences > o.num_beams and not (o.do_sample and o.num_beams == 1):
        problems.append(
            f"num_return_sequences is {o.num_return_sequences}, expected at most num_beams ({o.num_beams}); "
            "raise num_beams, or sample with do_sample=True and num_beams=1"
        )
    if o.num_beams % o.num_beam_groups:
        problems.append(f"num_beam_groups is {o.num_beam_groups}, expected a divisor of num_beams ({o.num_beams})")
    if o.num_beam_groups > 1 and o.do_sample:
        problems.append(f"num_beam_groups is {o.num_beam_groups} with do_sample=True, expected do_sample=False")
    if (o.num_beam_groups > 1) != (o.diversity_penalty > 0):
        problems.append(
            f"num_beam_groups is {o.num_beam_groups} and diversity_penalty {o.diversity_penalty:g}: "
            "beam groups need both, a num_beam_groups above 1 and a diversity_penalty above 0"
        )
    if not o.do_sample:
        problems += _without_effect(o, given, SAMPLING_ONLY, "do_sample=True")
    if o.num_beams == 1:
        problems += _without_effect(o, given, BEAMS_ONLY, "num_beams above 1")
    else:
        problems += _without_effect(o, given, ("prompt_lookup", *_LOOKUP_ONLY, *ONE_BEAM_ONLY), "num_beams=1")
    if o.overflow == "error":
        problems += _without_effect(o, given, ("overflow_keep",), 'overflow="truncate" or overflow="shift"')
    if o.overflow == "shift" and o.rows > 1:
        problems.append(
            f'overflow is "shift" with num_beams={o.num_beams} and num_return_sequences={o.num_return_sequences}, '
            "expected 1 of each: one sequence can shift"
        )
    if len(several := [name for name in CONSTRAINTS if getattr(o, name)]) > 1:
        problems.append(f"{' and '.join(several)} say what the text may be, expected one of them")
    if o.reasoning_budget is None:
        problems += _without_effect(o, given, ("reasoning_markers",), "reasoning_budget")
    if not o.prompt_lookup and o.num_beams == 1:
        problems += _without_effect(o, given, _LOOKUP_ONLY, "prompt_lookup=True")
    return problems


def _without_effect(
    options: GenerationOptions, given: Mapping[str, Any], names: tuple[str, ...], needs: str
) -> list[str]:
    harmless = GenerationOptions()
    return [
        f"{name} is {given[name]!r} and has no effect without {needs}"
        for name in names
        if given.get(name) is not None
        and getattr(options, name) not in (getattr(harmless, name), _OFF[name])
        and not (name == "temperature" and options.temperature == 0)  # 0 asks for greedy search, which this is
    ]
