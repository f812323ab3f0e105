"""One checked call of a decoder-only model, and what an engine makes of it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.cached_engine import CachedEngine
from edgellm.decoding import GenerationOptions, Step, Stopping
from edgellm.overflow import Fitted, Room
from edgellm.prompt_reader import PromptReader
from edgellm.prompts import IntArray
from edgellm.results import Generation, Piece
from edgellm.run import Cancel, ProgressHook, Run, check_streamable, generations, pieces, stopping
from edgellm.tokenizer import Tokenizer

AnyEngine = CachedEngine[Any]


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
    def create(
        cls,
        reader: PromptReader,
        prompts: Sequence[Fitted],
        options: GenerationOptions,
        room: Room,
        cancel: Cancel | None,
        progress: ProgressHook | None,
    ) -> Call:
        """`room`: what the prompts were fitted to."""
        lengths = [len(prompt.tokens) for prompt in prompts]
        longest = None if options.overflow == "shift" else room.tokens
        ends = stopping(reader.manifest, reader.tokenizer, lengths, options, cancel, longest)
        return cls(prompts, options, room, ends, reader.tokenizer, progress)

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
