"""A sequence that is kept from call to call: a conversation, a document with questions about it, a shared beginning.

with model.session() as session:
    session.prefill("A long text ...")
    print(session.generate("A long text ... and a question").text)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edgellm.decoding.decoder import Reading
from edgellm.engines.cached import AnyEngine
from edgellm.engines.history import MIN_CHUNK
from edgellm.errors import InputError
from edgellm.generation.call import Call, Cancel, ChatArguments, Request
from edgellm.generation.generating import Conversing
from edgellm.generation.overflow import MemoryBudget
from edgellm.generation.results import Generation
from edgellm.sessions.file import open_file
from edgellm.sessions.holder import EngineHolder
from edgellm.sessions.saving import check_savable, copy_into, load_into, save_engine
from edgellm.sessions.source import SessionSource
from edgellm.text.messages import Message, check_messages
from edgellm.text.prompts import Prompt, is_single, read_prompt
from edgellm.types import IntArray, ProgressHook


class _Cancelled(Exception):
    """Ends the reading of a prompt."""


class GenerationSession(Conversing):
    """One sequence and its cache. Made by `Model.session` and `Model.load_session`.

    Each call takes a whole prompt, or all messages of a chat: the longest beginning that the cache holds already is
    found and not computed again. One call at a time: a second one, also from another thread, is a SessionError, and so
    is any call after `close`. After an error while the model ran, the session is empty.

    `max_bytes`: the most memory of the cache; prompt and answer together then have `max_tokens` tokens at most, divided
    by the number of beams or of returned sequences. `metadata`: the caller's own, kept in a saved file: JSON data.
    """

    _one_at_a_time = "a session is one sequence, found a list of prompts; use model.generate, or a fork for each"

    def __init__(self, source: SessionSource, *, max_bytes: int | None = None, reuse_generated: bool = False) -> None:
        self._source = source
        self._reader = replace(source.reader, budget=MemoryBudget.create(max_bytes, source.manifest))
        self.max_bytes = max_bytes
        self.reuse_generated = reuse_generated
        self.metadata: dict[str, Any] = {}
        self._holder = EngineHolder(self._new_engine)

    def generate(
        self, prompt: Prompt, *, cancel: Cancel | None = None, progress: ProgressHook | None = None, **options: Any
    ) -> Generation:
        """Continue a prompt, with the options of `Model.generate`. The session then holds the prompt and what was
        generated, but for the last token; of several sequences or beams, the prompt alone."""
        return self._generations(Request([self._single(prompt)], options, cancel, progress))[0]

    def prefill(
        self,
        prompt: Prompt | Sequence[Message],
        *,
        cancel: Cancel | None = None,
        progress: ProgressHook | None = None,
    ) -> int:
        """Read a prompt, or messages (a system message, say), without an answer. Returns how many tokens the session
        holds: fewer where it was cancelled."""
        tokens, room = self._tokens_of(prompt), self._reader.room()
        if len(tokens) >= room.tokens:
            raise room.overflow("the prompt", len(tokens), "shorten it")

        def read(done: int, total: int) -> None:
            if progress is not None:
                progress(done, total)
            if cancel is not None and cancel.is_set():
                raise _Cancelled

        with self._holder.running() as engine, suppress(_Cancelled):
            engine.limit(room.tokens)
            engine.prefill([tokens], None, Reading(progress=read))
        return len(self.tokens)

    @property
    def tokens(self) -> tuple[int, ...]:
        """What the cache holds."""
        return tuple(self._holder.row.tokens)

    @property
    def reusable_tokens(self) -> int:
        """How many of `tokens` a prompt that begins with all of them takes over; the rest of it is computed."""
        longer = np.array([*self.tokens, *[0] * MIN_CHUNK], np.int64)
        return self._holder.engine.reusable([longer])

    @property
    def nbytes(self) -> int:
        """Bytes of the cache, spare room included."""
        return self._holder.engine.cache_bytes

    @property
    def max_tokens(self) -> int:
        """The most tokens that prompt and answer may have together, for one sequence."""
        return self._reader.room().tokens

    def trim(self, length: int) -> None:
        """Forget all but the first `length` tokens; one with short convolutions or states may have to forget some of
        these, too: `tokens` says what is left."""
        if type(length) is not int or length < 0:
            raise InputError(f"trim got {length!r}, expected how many tokens to keep")
        with self._holder.reading() as engine:
            engine.trim(length)

    def fork(self) -> GenerationSession:
        """Another session that holds the same tokens, in memory of its own, with the same settings and metadata."""
        with self._holder.reading() as engine:
            other = GenerationSession(self._source, max_bytes=self.max_bytes, reuse_generated=self.reuse_generated)
            other.metadata = deepcopy(self.metadata)
            with other._holder.running() as empty:
                copy_into(empty, engine, self._reader.room())
        return other

    def reset(self) -> None:
        """Forget everything and free the cache."""
        self._holder.empty()

    def save(self, path: str | Path) -> None:
        """Write what the session holds, and its `metadata`, to a file: whole, or not at all. It contains the text, and
        is its owner's to read. Raises SessionError where the model's keys cannot serve again, or SessionWriteError."""
        with self._holder.reading() as engine:
            save_engine(engine, self._source, self.metadata, Path(path))

    def close(self) -> None:
        """Free the cache. Any call but this one is then a SessionError."""
        self._holder.close()

    def __enter__(self) -> GenerationSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _new_engine(self) -> AnyEngine:
        return self._source.new_engine(reuse_generated=self.reuse_generated)

    @contextmanager
    def _engine_for(self, call: Call) -> Iterator[AnyEngine]:
        with self._holder.running() as engine:
            engine.limit(self._reader.room(call.rows).tokens)
            yield engine
            if call.rows > 1:
                engine.keep_first(len(call.beginnings[0].prompt))

    def _tokens_of(self, prompt: Any) -> IntArray:
        if isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], Mapping):
            check_messages(prompt)
            return self._reader.chat_tokens(prompt, ChatArguments(), add_generation_prompt=False)
        if not is_single(prompt):
            raise InputError("a session is one sequence, found a list of prompts; use a fork for each")
        return read_prompt(prompt, self._reader.tokenizer, self._source.manifest)


def load_session(
    source: SessionSource, path: Path, *, max_bytes: int | None, reuse_generated: bool
) -> GenerationSession:
    """See `Model.load_session`."""
    check_savable(source.manifest)
    with open_file(path) as file:
        source.identity.check(file.header)
        session = GenerationSession(source, max_bytes=max_bytes, reuse_generated=reuse_generated)
        session.metadata = dict(file.header.metadata)
        with session._holder.running() as engine:
            load_into(engine, file, source.manifest, session._reader.room())
    return session
