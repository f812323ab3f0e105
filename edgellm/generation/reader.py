"""What a caller asks a decoder-only model for, checked: options, and prompts that fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edgellm.decoding import GenerationOptions
from edgellm.errors import ChatTemplateError, OptionError
from edgellm.generation.overflow import Fitted, Room, fit_chat, fit_prompt, system_messages
from edgellm.package.manifest import DecoderFacts, Manifest
from edgellm.text.chat import ChatTemplate, Message, check_messages
from edgellm.text.prompts import read_prompt
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import IntArray


@dataclass(frozen=True)
class ChatArguments:
    """How messages become a prompt: see `ChatTemplate.render`."""

    tools: Sequence[dict[str, Any]] | None = None
    template: str | None = None
    variables: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class PromptReader:
    """The parts of a package that prompts pass through. `defaults`: its generation_config.json."""

    manifest: Manifest[DecoderFacts]
    tokenizer: Tokenizer | None
    chat_template: ChatTemplate
    defaults: Mapping[str, Any]

    @property
    def context(self) -> Room:
        return Room(self.manifest.context_length)

    def options(self, given: Mapping[str, Any]) -> GenerationOptions:
        """Raises OptionError."""
        result = GenerationOptions.create(self.defaults, **given)
        result.check_vocabulary(self.manifest.vocab_size)
        asked = any(given.get(name) for name in ("prompt_lookup", "prompt_lookup_num_tokens"))
        if asked and result.prompt_lookup and self.manifest.model.rope.changes_with_every_token:
            raise OptionError(
                "prompt_lookup has no effect with this model, whose rotary tables change with every token; leave it out"
            )
        return result

    def prompts(self, prompts: Sequence[Any], options: GenerationOptions, room: Room) -> list[Fitted]:
        """Each text or list of token ids, as `options.overflow` says. Raises InputError or OptionError."""
        if options.overflow == "shift" and len(prompts) > 1:
            raise OptionError(f'overflow is "shift" with {len(prompts)} prompts, expected one: give them one by one')
        return [self._fit(read_prompt(prompt, self.tokenizer, self.manifest), options, room) for prompt in prompts]

    def chat(
        self, messages: Sequence[Message], arguments: ChatArguments, options: GenerationOptions, room: Room
    ) -> Fitted:
        """Messages, as `options.overflow` says. Raises InputError or OptionError."""
        check_messages(messages)
        encode = partial(self.chat_tokens, arguments=arguments)
        if options.overflow == "truncate":
            if options.overflow_keep is not None:
                raise OptionError(
                    f'overflow_keep is {options.overflow_keep} and has no effect on a chat with overflow="truncate", '
                    "of which system messages stay and turns are dropped; leave it out"
                )
            return fit_chat(messages, encode, options, room)
        tokens = encode(messages)
        keep = self._system_tokens(messages, tokens, arguments) if options.overflow == "shift" else None
        return self._fit(tokens, options, room, keep)

    def chat_tokens(
        self, messages: Sequence[Message], arguments: ChatArguments, *, add_generation_prompt: bool = True
    ) -> IntArray:
        text = self.chat_template.render(
            messages,
            tools=arguments.tools,
            template=arguments.template,
            add_generation_prompt=add_generation_prompt,
            **(arguments.variables or {}),
        )
        return read_prompt(text, self.tokenizer, self.manifest, add_special_tokens=False)

    def _fit(self, tokens: IntArray, options: GenerationOptions, room: Room, keep: int | None = None) -> Fitted:
        return fit_prompt(tokens, options, room, bos=self.manifest.tokens.bos, keep=keep)

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
