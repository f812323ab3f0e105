"""One checked call of a decoder-only model, and what an engine makes of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.decoding import GenerationOptions, Step, Stopping
from edgellm.engines.contract import CachedEngine
from edgellm.generation.overflow import Fitted, Room
from edgellm.generation.reader import ChatArguments, PromptReader
from edgellm.generation.results import Generation, Piece
from edgellm.generation.run import Cancel, Run, check_streamable, generations, pieces, stopping
from edgellm.text.chat import Message
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import IntArray, ProgressHook

AnyEngine = CachedEngine[Any]


@dataclass(frozen=True)
class Asked:
    """What a caller adds to prompts; `options` are not checked yet."""

    options: Mapping[str, Any]
    cancel: Cancel | None
    progress: ProgressHook | None


@dataclass(frozen=True)
class Call:
    """Prompts that fit into `room`, how to continue them, and when that ends. To be run once: its clock has started."""

    prompts: Sequence[Fitted]
    options: GenerationOptions
    room: Room
    stopping: Stopping
    tokenizer: Tokenizer | None
    progress: ProgressHook | None

    @classmethod
    def of_prompts(
        cls, reader: PromptReader, prompts: Sequence[Any], asked: Asked, room_for: Callable[[GenerationOptions], Room]
    ) -> Call:
        """Texts or lists of token ids. Raises InputError or OptionError."""
        options = reader.options(asked.options)
        room = room_for(options)
        return cls._create(reader, reader.prompts(prompts, options, room), options, room, asked)

    @classmethod
    def of_chat(
        cls,
        reader: PromptReader,
        messages: Sequence[Message],
        arguments: ChatArguments,
        asked: Asked,
        room_for: Callable[[GenerationOptions], Room],
    ) -> Call:
        """Raises InputError or OptionError."""
        options = reader.options(asked.options)
        room = room_for(options)
        return cls._create(reader, [reader.chat(messages, arguments, options, room)], options, room, asked)

    @classmethod
    def _create(
        cls, reader: PromptReader, prompts: Sequence[Fitted], options: GenerationOptions, room: Room, asked: Asked
    ) -> Call:
        lengths = [len(prompt.tokens) for prompt in prompts]
        longest = None if options.overflow == "shift" else room.tokens
        ends = stopping(reader.manifest, reader.tokenizer, lengths, options, asked.cancel, longest)
        return cls(prompts, options, room, ends, reader.tokenizer, asked.progress)

    def results(self, engine: AnyEngine) -> list[Generation]:
        """One for each of the prompts."""
        run = self._run()
        for _ in self._steps(run, engine):
            pass
        return generations(run, self._tokens, self.tokenizer)

    def pieces(self, engine: AnyEngine) -> Iterator[Piece]:
        """Of the only sequence of the only prompt."""
        run = self._run()
        return pieces(run, self._steps(run, engine), self.tokenizer)

    def check_streamable(self) -> None:
        """Raises OptionError."""
        check_streamable(self.options)

    @property
    def _tokens(self) -> list[IntArray]:
        return [prompt.tokens for prompt in self.prompts]

    def _run(self) -> Run:
        return Run(self.stopping, self.progress, [prompt.dropped for prompt in self.prompts])

    def _steps(self, run: Run, engine: AnyEngine) -> Generator[Step, None, None]:
        window = next((prompt.window for prompt in self.prompts), None)
        return run.steps(engine, self._tokens, self.options, verifier=engine, window=window)
