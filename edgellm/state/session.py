"""A sequence that is kept from call to call: a conversation, a document with questions about it, a shared beginning.

with model.session() as session:
    session.prefill("A long text ...")
    print(session.generate("A long text ... and a question").text)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edgellm import session as ort
from edgellm.calls import AnyEngine, Call
from edgellm.chat import Message, check_messages
from edgellm.errors import InputError, OptionError, SessionCorruptError, SessionError
from edgellm.history import MIN_CHUNK, HeldRow
from edgellm.manifest import Manifest
from edgellm.overflow import Room
from edgellm.prompt_reader import ChatArguments, PromptReader
from edgellm.prompts import IntArray, Prompt, is_single, read_prompt
from edgellm.results import Generation, Piece
from edgellm.run import HEADROOM, Cancel, ProgressHook
from edgellm.state.file import SavedFile, open_file, write_file
from edgellm.state.header import Header
from edgellm.state.identity import Identity


class _Cancelled(Exception):
    """Ends the reading of a prompt."""


@dataclass(frozen=True)
class SessionSource:
    """What sessions need of their model. `new_engine` makes an engine with an empty cache."""

    package: Path
    reader: PromptReader
    new_engine: Callable[[], AnyEngine]

    @property
    def manifest(self) -> Manifest:
        return self.reader.manifest

    @cached_property
    def identity(self) -> Identity:
        return Identity.of(self.package, self.manifest)


class GenerationSession:
    """One sequence and its cache. Made by `Model.session` and `Model.load_session`.

    Each call takes a whole prompt, or all messages of a chat: the longest beginning that the cache holds already is
    found and not computed again. One call at a time: a second one, also from another thread, is a SessionError, and so
    is any call after `close`. After an error while the model ran, the session is empty.

    `max_bytes`: the most memory of the cache; prompt and answer together then have `max_tokens` tokens at most, divided
    by the number of beams or of returned sequences. `metadata`: the caller's own, kept in a saved file: JSON data.
    """

    def __init__(self, source: SessionSource, *, max_bytes: int | None = None, reuse_generated: bool = False) -> None:
        self._source = source
        self._reader = source.reader
        self.max_bytes = _checked_budget(max_bytes, source.manifest)
        self.reuse_generated = reuse_generated
        self.metadata: dict[str, Any] = {}
        self._busy = threading.Lock()
        self._engine: AnyEngine | None = self._new_engine()

    def generate(
        self, prompt: Prompt, *, cancel: Cancel | None = None, progress: ProgressHook | None = None, **options: Any
    ) -> Generation:
        """Continue a prompt, with the options of `Model.generate`. The session then holds the prompt and what was
        generated, but for the last token; of several sequences or beams, the prompt alone."""
        return self._generate(self._prompt_call(prompt, options, cancel, progress))

    def stream(
        self, prompt: Prompt, *, cancel: Cancel | None = None, progress: ProgressHook | None = None, **options: Any
    ) -> Iterator[Piece]:
        """`generate`, a piece per token. The session is in use from the first piece until the last, or until the
        iterator is closed."""
        return self._stream(self._prompt_call(prompt, options, cancel, progress))

    def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        template: str | None = None,
        template_variables: dict[str, Any] | None = None,
        cancel: Cancel | None = None,
        progress: ProgressHook | None = None,
        **options: Any,
    ) -> Generation:
        """The assistant's answer to `messages`: all of them, as of `Model.chat`."""
        arguments = ChatArguments(tools, template, template_variables)
        return self._generate(self._chat_call(messages, arguments, options, cancel, progress))

    def stream_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        template: str | None = None,
        template_variables: dict[str, Any] | None = None,
        cancel: Cancel | None = None,
        progress: ProgressHook | None = None,
        **options: Any,
    ) -> Iterator[Piece]:
        """`chat`, a piece per token."""
        arguments = ChatArguments(tools, template, template_variables)
        return self._stream(self._chat_call(messages, arguments, options, cancel, progress))

    def prefill(
        self,
        prompt: Prompt | Sequence[Message],
        *,
        cancel: Cancel | None = None,
        progress: ProgressHook | None = None,
    ) -> int:
        """Read a prompt, or messages (a system message, say), without an answer. Returns how many tokens the session
        holds: fewer where it was cancelled."""
        tokens, room = self._tokens_of(prompt), self._room(1)
        if len(tokens) >= room.tokens:
            raise room.overflow("the prompt", len(tokens), "shorten it")

        def read(done: int, total: int) -> None:
            if progress is not None:
                progress(done, total)
            if cancel is not None and cancel.is_set():
                raise _Cancelled

        with self._in_use() as engine, suppress(_Cancelled):
            engine.limit(room.tokens)
            engine.headroom = HEADROOM
            engine.progress = read
            engine.prefill([tokens])
        return len(self.tokens)

    @property
    def tokens(self) -> tuple[int, ...]:
        """What the cache holds."""
        rows = self._open_engine().history.rows
        return tuple(rows[0].tokens) if rows else ()

    @property
    def reusable_tokens(self) -> int:
        """How many of `tokens` a prompt that begins with all of them takes over; the rest of it is computed."""
        tokens = self.tokens
        longer = np.array([*tokens, *[0] * MIN_CHUNK], np.int64)
        return self._open_engine().reusable([longer])

    @property
    def nbytes(self) -> int:
        """Bytes of the cache, spare room included."""
        return self._open_engine().cache_bytes

    @property
    def max_tokens(self) -> int:
        """The most tokens that prompt and answer may have together, for one sequence."""
        return self._room(1).tokens

    def trim(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        if not isinstance(length, int) or isinstance(length, bool) or length < 0:
            raise InputError(f"trim got {length!r}, expected how many tokens to keep")
        with self._locked() as engine:
            engine.trim(length)

    def fork(self) -> GenerationSession:
        """Another session that holds the same tokens, in memory of its own, with the same settings and metadata."""
        with self._locked() as engine:
            other = GenerationSession(self._source, max_bytes=self.max_bytes, reuse_generated=self.reuse_generated)
            other.metadata = deepcopy(self.metadata)
            if engine.rows:
                row, arrays = engine.held()
                with other._in_use() as receiver, receiver.receive(row) as targets:
                    for target, array in zip(targets, arrays, strict=True):
                        target[...] = array
        return other

    def reset(self) -> None:
        """Forget everything and free the cache."""
        with self._locked():
            self._engine = self._new_engine()

    def save(self, path: str | Path) -> None:
        """Write what the session holds, and its `metadata`, to a file: whole, or not at all. It contains the text, and
        is its owner's to read. Raises SessionError where the model's keys cannot serve again, or SessionWriteError."""
        check_savable(self._source.manifest)
        with self._locked() as engine:
            row, arrays = engine.held() if engine.rows else (HeldRow([], 0, False), _nothing(self._source.manifest))
            identity = self._source.identity
            header = Header(
                package=identity.package,
                tokenizer=identity.tokenizer,
                cache=identity.cache,
                tokens=len(row.tokens),
                read=row.read,
                long_table=row.long_table,
                checksums=(),
                metadata=self.metadata,
                versions={"edgellm": version("edgellm"), "onnxruntime": ort.version()},
            )
            write_file(Path(path), header, [np.array(row.tokens, np.int64), *arrays])

    def close(self) -> None:
        """Free the cache. Any call but this one is then a SessionError."""
        if self._engine is not None:
            with self._locked():
                self._engine = None

    def __enter__(self) -> GenerationSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load(self, file: SavedFile) -> None:
        """Take over a saved file, which is this model's. Raises SessionFileError, or MemoryBudgetError."""
        tokens, room = file.read_tokens(), self._room(1)
        manifest = self._source.manifest
        in_vocabulary = bool(((tokens >= 0) & (tokens < manifest.vocab_size)).all())
        if len(tokens) > manifest.context_length or not in_vocabulary:
            raise SessionCorruptError("its tokens are not this model's")
        if len(tokens) > room.tokens:
            raise room.overflow("the saved session", len(tokens), "or load it without a limit")
        self.metadata = dict(file.header.metadata)
        if not len(tokens):
            return
        row = HeldRow(tokens.tolist(), file.header.read, file.header.long_table)
        with self._in_use() as engine:
            engine.limit(room.tokens)
            with engine.receive(row) as arrays:
                file.read_into(arrays)

    def _new_engine(self) -> AnyEngine:
        engine = self._source.new_engine()
        engine.history.reuse_generated = self.reuse_generated
        return engine

    def _open_engine(self) -> AnyEngine:
        if self._engine is None:
            raise SessionError("this session is closed; make another one with model.session()")
        return self._engine

    @contextmanager
    def _locked(self) -> Iterator[AnyEngine]:
        """The engine, for one call at a time."""
        if not self._busy.acquire(blocking=False):
            raise SessionError(
                "this session is in use by another call, or by a stream that is not at its end: close that one first, "
                "or fork() the session before"
            )
        try:
            yield self._open_engine()
        finally:
            self._busy.release()

    @contextmanager
    def _in_use(self) -> Iterator[AnyEngine]:
        """The same for a call that runs it. After an error its cache may be half written, so it is replaced; a stream
        that is closed between two steps leaves it whole."""
        with self._locked() as engine:
            try:
                yield engine
            except GeneratorExit:
                raise
            except BaseException:
                self._engine = self._new_engine()
                raise
            finally:
                engine.progress = None

    def _room(self, rows: int) -> Room:
        """For each of so many sequences."""
        context = self._reader.context
        if self.max_bytes is None:
            return context
        tokens = self.max_bytes // (rows * _bytes_per_token(self._source.manifest))
        return context if tokens >= context.tokens else Room(tokens, self.max_bytes)

    def _prompt_call(
        self, prompt: Any, given: Mapping[str, Any], cancel: Cancel | None, progress: ProgressHook | None
    ) -> Call:
        if not is_single(prompt):
            raise InputError(
                "a session is one sequence, found a list of prompts; use model.generate, or a fork for each"
            )
        options = self._reader.options(given)
        room = self._room(max(options.num_beams, options.num_return_sequences))
        return Call.create(self._reader, self._reader.prompts([prompt], options, room), options, room, cancel, progress)

    def _chat_call(
        self,
        messages: Sequence[Message],
        arguments: ChatArguments,
        given: Mapping[str, Any],
        cancel: Cancel | None,
        progress: ProgressHook | None,
    ) -> Call:
        options = self._reader.options(given)
        room = self._room(max(options.num_beams, options.num_return_sequences))
        fitted = self._reader.chat(messages, arguments, options, room)
        return Call.create(self._reader, [fitted], options, room, cancel, progress)

    def _generate(self, call: Call) -> Generation:
        with self._in_use() as engine:
            engine.limit(call.room.tokens)
            (result,) = call.results(engine)
            self._settle(engine, call)
        return result

    def _stream(self, call: Call) -> Iterator[Piece]:
        call.check_streamable()
        return self._pieces(call)

    def _pieces(self, call: Call) -> Iterator[Piece]:
        with self._in_use() as engine:
            engine.limit(call.room.tokens)
            yield from call.pieces(engine)

    def _settle(self, engine: AnyEngine, call: Call) -> None:
        """Behind several sequences only the prompt is theirs together."""
        if max(call.options.num_beams, call.options.num_return_sequences) > 1:
            engine.keep_first(len(call.prompts[0].tokens))

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
        session._load(file)
    return session


def check_savable(manifest: Manifest) -> None:
    """Raises SessionError."""
    if manifest.rope.changes_with_every_token:
        raise SessionError(
            "the rotary tables of this model change with every token (dynamic scaling), so that nothing in its cache "
            "serves another prompt: keep the text instead of a saved session"
        )


def _bytes_per_token(manifest: Manifest) -> int:
    """While a step runs, a cache that concatenates is there twice."""
    layout = manifest.kv_cache
    return layout.bytes_per_token() * (2 if layout.growth == "concat" else 1)


def _checked_budget(max_bytes: Any, manifest: Manifest) -> int | None:
    if max_bytes is None:
        return None
    least = 2 * _bytes_per_token(manifest)
    if not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or max_bytes < least:
        raise OptionError(
            f"max_bytes is {max_bytes!r}, expected a whole number of bytes from {least}, what two tokens take"
        )
    return max_bytes


def _nothing(manifest: Manifest) -> list[Any]:
    layout = manifest.kv_cache
    empty = np.empty((layout.num_kv_heads, 0, layout.head_dim), layout.dtype)
    return [empty] * (2 * layout.num_layers)
