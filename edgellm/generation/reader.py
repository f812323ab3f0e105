"""Requests read: options checked, on top of what a package's files say of how to generate, and prompts that fit."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.constraints import Constraints
from edgellm.decoding import Beginning, Ends, GenerationOptions, SequencePlan
from edgellm.decoding.constraint import Constraint
from edgellm.errors import ChatTemplateError, OptionError
from edgellm.generation.call import Call, ChatArguments, Options, Request
from edgellm.generation.overflow import Fitted, MemoryBudget, Room, fit_chat, fit_prompt, system_messages
from edgellm.package.generation import GENERATION, read_settings, refused
from edgellm.package.json_data import read_json
from edgellm.package.manifest import DecoderFacts, Manifest
from edgellm.text.answers import AnswerFormat, ToolChoice
from edgellm.text.chat import ChatTemplate
from edgellm.text.messages import Message, check_messages
from edgellm.text.prompts import prompt_end, read_prompt
from edgellm.text.tokenizer import Tokenizer, stop_string_matcher
from edgellm.types import IntArray


@dataclass(frozen=True)
class Settled:
    """What one prompt is asked for, checked. Encoder-decoders also have `start`, the tokens that targets begin with,
    and `language`, the code that the source is to name."""

    options: GenerationOptions
    start: IntArray | None = None
    language: str | None = None


@dataclass(frozen=True)
class Reader(ABC):
    """Makes a `Call` of a `Request`, with the parts of a package that prompts pass through. `defaults`: its
    generation_config.json. `constraints`: those of earlier calls."""

    manifest: Manifest
    tokenizer: Tokenizer | None
    defaults: Mapping[str, Any]
    constraints: Constraints = field(default_factory=Constraints, kw_only=True, compare=False)

    def call(self, request: Request) -> Call:
        """A request, checked and ready to run. Raises InputError or OptionError."""
        settled = request.settled(self._settle)
        self._check_together(settled)
        fitted = [self._fit(prompt, one, request.chat) for prompt, one in zip(request.prompts, settled, strict=True)]
        settled = [self._held_to(one, fit, request.chat) for fit, one in zip(fitted, settled, strict=True)]
        plans = {options: self._plan(options) for options in {one.options for one in settled}}
        beginnings = [self._begin(fit, one, plans[one.options]) for fit, one in zip(fitted, settled, strict=True)]
        for beginning in beginnings:
            check_forced(beginning)
        return Call(
            beginnings,
            dropped=[fit.dropped for fit in fitted],
            window=next((fit.window for fit in fitted), None),
            tokenizer=self.tokenizer,
            cancelled=None if request.cancel is None else request.cancel.is_set,
            progress=request.progress,
        )

    @abstractmethod
    def _settle(self, given: Options) -> Settled:
        """Options of one prompt, on top of the defaults. Raises OptionError."""

    @abstractmethod
    def _check_together(self, settled: Sequence[Settled]) -> None:
        """Raises OptionError where prompts cannot be one call."""

    @abstractmethod
    def _fit(self, prompt: Any, settled: Settled, chat: ChatArguments | None) -> Fitted:
        """The tokens of a text, of token ids or of a chat's messages. Raises InputError or OptionError."""

    def _held_to(self, settled: Settled, fitted: Fitted, chat: ChatArguments | None) -> Settled:
        """With the grammar of the calls that a chat asks for, where it asks for any. Raises OptionError."""
        return settled

    @abstractmethod
    def _begin(self, fitted: Fitted, settled: Settled, plan: SequencePlan) -> Beginning:
        """The prompt with its plan. Raises OptionError or ContextOverflowError where no new token has room."""

    def _options(self, given: Options) -> GenerationOptions:
        """`given` on top of the defaults. Raises OptionError."""
        if problems := refused({**self.defaults, **given}):
            raise OptionError(f"{GENERATION}: {'; '.join(problems)}; remove the key from the package's file")
        options = GenerationOptions.create(self.defaults, **given).within(self.manifest.vocab_size, given)
        options.check_vocabulary(self.manifest.vocab_size)
        self._constraint(options)
        return options

    def _constraint(self, options: GenerationOptions) -> Constraint | None:
        return self.constraints.of(options, self.tokenizer, self.manifest.vocab_size)

    def _plan(self, options: GenerationOptions) -> SequencePlan:
        tokens = self.manifest.tokens
        ends = Ends(
            eos_token_ids=tokens.eos if options.eos_token_id is None else options.eos_token_id,
            pad_token_id=tokens.pad if options.pad_token_id is None else options.pad_token_id,
            matches_stop_string=stop_string_matcher(self.tokenizer, options.stop_strings),
            matches_stop=stop_string_matcher(self.tokenizer, options.stop),
            deadline=None if options.max_time is None else time.monotonic() + options.max_time,
        )
        return SequencePlan.create(options, ends, self._constraint(options))


@dataclass(frozen=True)
class PromptReader(Reader):
    """The reader of a decoder-only model. `budget`: a limit on the memory of its cache."""

    manifest: Manifest[DecoderFacts]
    chat_template: ChatTemplate
    budget: MemoryBudget | None = None

    def room(self, rows: int = 1) -> Room:
        """What each of so many rows has room for."""
        length = self.manifest.context_length
        return Room(length) if self.budget is None else self.budget.room(length, rows)

    def chat_tokens(
        self, messages: Sequence[Message], arguments: ChatArguments, *, add_generation_prompt: bool = True
    ) -> IntArray:
        text = self.chat_template.render(
            messages,
            tools=arguments.told_tools,
            template=arguments.template,
            add_generation_prompt=add_generation_prompt,
            **(arguments.variables or {}),
        )
        return read_prompt(text, self.tokenizer, self.manifest, add_special_tokens=False)

    def _settle(self, given: Options) -> Settled:
        options = self._options(given)
        if options.reasoning_budget is not None and not options.reasoning_markers:
            options = replace(options, reasoning_markers=self._reasoning_markers())
        asked = any(given.get(name) for name in ("prompt_lookup", "prompt_lookup_num_tokens"))
        why = _no_drafts(self.manifest.model)
        if asked and options.prompt_lookup and why is not None:
            raise OptionError(f"prompt_lookup has no effect with this model, whose {why}; leave it out")
        return Settled(options)

    def _reasoning_markers(self) -> tuple[tuple[int, ...], ...]:
        """The tokens that reasoning begins and ends with, as the chat template has it. Raises OptionError."""
        formats = (AnswerFormat.of(self.chat_template.source(template=name)) for name in self.chat_template.names)
        thoughts = next((each.reasoning for each in formats if each.reasoning is not None), None)
        if thoughts is None or self.tokenizer is None:
            raise OptionError(
                "reasoning_budget has no effect: the package's chat template marks no reasoning; leave it out, or give "
                "the tokens that reasoning begins and ends with as reasoning_markers"
            )
        encode = self.tokenizer.encode
        return tuple(tuple(encode(t, add_special_tokens=False).tolist()) for t in (thoughts.begin, thoughts.end))

    def _held_to(self, settled: Settled, fitted: Fitted, chat: ChatArguments | None) -> Settled:
        if chat is None or self.tokenizer is None:
            return settled
        choice = ToolChoice.read(chat.tools, chat.tool_choice, chat.parallel_tool_calls)
        if not choice.is_constraint:
            return settled
        options = settled.options
        if options.constraint is not None and options.json_schema is None:
            raise OptionError(
                f"{options.constraint[0]} says what the text may be, and so do the tools, as one is strict, or has to "
                "be called, or several may not; leave one of these out"
            )
        form = AnswerFormat.of(self.chat_template.source(tools=chat.told_tools, template=chat.template))
        end = prompt_end(fitted.tokens, self.tokenizer)
        content = None if options.json_schema is None else json.loads(options.json_schema)
        grammar = form.grammar(choice, prompt=end, special=self.tokenizer.special_texts(), content=content)
        options = replace(options, json_schema=None, grammar=grammar)
        self._constraint(options)
        return replace(settled, options=options)

    def _check_together(self, settled: Sequence[Settled]) -> None:
        if len(settled) > 1 and any(one.options.overflow == "shift" for one in settled):
            raise OptionError(f'overflow is "shift" with {len(settled)} prompts, expected one: give them one by one')

    def _fit(self, prompt: Any, settled: Settled, chat: ChatArguments | None) -> Fitted:
        if chat is not None:
            return self._fit_chat(prompt, chat, settled.options)
        return self._fit_tokens(read_prompt(prompt, self.tokenizer, self.manifest), settled.options)

    def _fit_chat(self, messages: Sequence[Message], arguments: ChatArguments, options: GenerationOptions) -> Fitted:
        check_messages(messages)
        encode = partial(self.chat_tokens, arguments=arguments)
        if options.overflow == "truncate":
            if options.overflow_keep is not None:
                raise OptionError(
                    f'overflow_keep is {options.overflow_keep} and has no effect on a chat with overflow="truncate", '
                    "of which system messages stay and turns are dropped; leave it out"
                )
            return fit_chat(messages, encode, options, self.room(options.rows))
        tokens = encode(messages)
        keep = self._system_tokens(messages, tokens, arguments) if options.overflow == "shift" else None
        return self._fit_tokens(tokens, options, keep)

    def _fit_tokens(self, tokens: IntArray, options: GenerationOptions, keep: int | None = None) -> Fitted:
        return fit_prompt(tokens, options, self.room(options.rows), bos=self.manifest.tokens.bos, keep=keep)

    def _begin(self, fitted: Fitted, settled: Settled, plan: SequencePlan) -> Beginning:
        options = settled.options
        longest = None if options.overflow == "shift" else self.room(options.rows).tokens
        return Beginning(fitted.tokens, plan, options.limit(len(fitted.tokens), longest))

    def _system_tokens(self, messages: Sequence[Message], tokens: IntArray, arguments: ChatArguments) -> int | None:
        """How many tokens of a chat are its system messages; None where it has none, or the template does not render
        them by themselves."""
        count = system_messages(messages)
        if not count:
            return None
        try:
            alone = self.chat_tokens(messages[:count], arguments, add_generation_prompt=False)
        except ChatTemplateError:
            return None
        shared = min(len(alone), len(tokens))
        different = np.flatnonzero(alone[:shared] != tokens[:shared])
        return int(different[0]) if len(different) else shared


def check_forced(beginning: Beginning) -> None:
    """Raises OptionError where all texts that a constraint allows begin with more tokens than there may be."""
    state = beginning.plan.begin()
    forced = 0 if state is None else len(state.forced())
    if forced > beginning.max_new_tokens:
        raise OptionError(
            f"what the constraint asks for begins with {forced} tokens that are always the same, and "
            f"{beginning.max_new_tokens} are left for all of it; raise max_new_tokens"
        )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


# Settings that genai_config.json shares with generation_config.json, and whether a value makes sense. Lengths and beams
# are left out: the builder of onnxruntime-genai writes the context's length and one beam, whatever the model.
SEARCH: Mapping[str, Callable[[Any], bool]] = {
    "repetition_penalty": lambda value: _is_number(value) and value > 0,
    "min_length": lambda value: type(value) is int and value >= 0,
    "do_sample": lambda value: type(value) is bool,
}
SAMPLING: Mapping[str, Callable[[Any], bool]] = {
    "temperature": lambda value: _is_number(value) and value > 0,
    "top_k": lambda value: type(value) is int and value >= 0,
    "top_p": lambda value: _is_number(value) and 0 < value <= 1,
}


def _no_drafts(facts: DecoderFacts) -> str | None:
    """Why a model is never given drafted tokens; None where it may be."""
    if facts.rope.changes_with_every_token:
        return "rotary tables change with every token"
    return None if facts.cache.states is None else "states cannot forget a draft that is rejected"


def read_generation_defaults(package: Path) -> dict[str, Any]:
    """generation_config.json; without one, what genai_config.json says under "search" or, without that, config.json.
    Raises PackageCorruptError."""
    search = read_json(package / "genai_config.json").get("search")
    if (package / GENERATION).is_file() or not isinstance(search, dict):
        return read_settings(package)
    heard = {**SEARCH, **(SAMPLING if search.get("do_sample") is True else {})}
    return {name: search[name] for name, fits in heard.items() if name in search and fits(search[name])}
