"""A loaded package: generate, stream, chat, score.

model = edgellm.load("smollm2-int8")
print(model.generate("The capital of France is").text)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np

from edgellm import session as ort
from edgellm.chat import ChatTemplate, Message
from edgellm.concat_engine import ConcatEngine
from edgellm.concat_graph import open_concat_graph
from edgellm.decoding import (
    Emitted,
    GenerationOptions,
    Hypothesis,
    Logits,
    PromptLookup,
    Step,
    Stopping,
    search,
)
from edgellm.engine import Engine, check_graph, decoder_graph
from edgellm.errors import InputError, OptionError
from edgellm.manifest import Manifest
from edgellm.prompts import IntArray, Prompt, encode_prompt, is_single
from edgellm.results import GeneratedSequence, Generation, ModelInfo, Piece, Score, Timing
from edgellm.session import LoadSettings
from edgellm.tokenizer import Detokenizer, Tokenizer, read_json, stop_string_matcher

AnyEngine = Engine | ConcatEngine
HEADROOM = 256  # tokens of cache made ready beyond the prompt

ProgressHook = Callable[[int, int], None]  # (prompt tokens done, prompt tokens in all)


class Cancel(Protocol):
    """`threading.Event`, or anything else that can be asked whether it is set."""

    def is_set(self) -> bool: ...


def open_model(package: Path, manifest: Manifest, settings: LoadSettings) -> Model:
    """What `edgellm.load` makes of a package for text-generation."""
    if manifest.kv_cache.growth == "concat":
        graph = open_concat_graph(package, manifest, settings)
        engine = partial(ConcatEngine, graph, manifest, prefill_chunk=settings.prefill_chunk)
        return Model(package, manifest, graph.session, engine)
    session = settings.open(package / decoder_graph(manifest).file)
    check_graph(session, manifest)
    return Model(package, manifest, session, partial(Engine, session, manifest, prefill_chunk=settings.prefill_chunk))


class Model:
    """May be used from several threads: each call has a cache of its own, and ONNX Runtime runs them side by side.

    The cache of the last finished call with a single row is kept, so that a prompt that continues it (the next turn of
    a chat) computes only what is new; `reset` frees it.
    """

    def __init__(
        self, package: Path, manifest: Manifest, session: ort.Session, new_engine: Callable[[], AnyEngine]
    ) -> None:
        self.manifest = manifest
        file = package / "tokenizer.json"
        self.tokenizer = Tokenizer.from_file(file) if file.is_file() else None  # None: token ids only
        self.chat_template = ChatTemplate.from_package(package)
        self.generation_defaults = read_json(package / "generation_config.json")
        self.info = _info(package, manifest, session)
        self._new_engine = new_engine
        self._idle: list[AnyEngine] = []  # at most one, and only list methods that are atomic

    @overload
    def generate(
        self, prompt: Prompt, *, cancel: Cancel | None = ..., progress: ProgressHook | None = ..., **options: Any
    ) -> Generation: ...

    @overload
    def generate(
        self,
        prompt: Sequence[Prompt],
        *,
        cancel: Cancel | None = ...,
        progress: ProgressHook | None = ...,
        **options: Any,
    ) -> list[Generation]: ...

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        cancel: Cancel | None = None,
        progress: ProgressHook | None = None,
        **options: Any,
    ) -> Generation | list[Generation]:
        """Continue a prompt (text or token ids), or each of a list of prompts.

        options: those of `GenerationOptions`, on top of the package's generation_config.json.
        cancel: stop early when it is set, also from another thread; what is there by then is returned.
        progress: called between chunks of the prompt.
        """
        single = is_single(prompt)
        prompts: Sequence[Any] = [prompt] if single else list(prompt)
        tokens = [encode_prompt(p, self.tokenizer, self.manifest) for p in prompts]
        results = self._generate(tokens, self._options(options), cancel, progress)
        return results[0] if single else results

    def stream(
        self, prompt: Prompt, *, cancel: Cancel | None = None, progress: ProgressHook | None = None, **options: Any
    ) -> Iterator[Piece]:
        """Like `generate` for one prompt and one sequence, a piece per token. Closing the iterator stops it."""
        if not is_single(prompt):
            raise InputError("stream takes one prompt; use generate for a list")
        return self._stream(
            encode_prompt(prompt, self.tokenizer, self.manifest), self._options(options), cancel, progress
        )

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
        """The assistant's answer to `messages`, a list like [{"role": "user", "content": "Hi"}]."""
        tokens = self._chat_tokens(messages, tools, template, template_variables)
        return self._generate([tokens], self._options(options), cancel, progress)[0]

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
        tokens = self._chat_tokens(messages, tools, template, template_variables)
        return self._stream(tokens, self._options(options), cancel, progress)

    def logits(self, prompt: Prompt) -> Logits:
        """[length, vocab] float32: what the model predicts after each token of the prompt."""
        tokens = self._one_prompt(prompt)
        with self._engine() as engine:
            return np.concatenate(list(engine.all_logits(tokens)))

    def score(self, prompt: Prompt) -> Score:
        """The log-probability of each token of a text but the first. Memory does not grow with vocabulary x length."""
        tokens = self._one_prompt(prompt)
        if len(tokens) < 2:
            raise InputError("score needs at least two tokens: the first one is only given, not predicted")
        logprobs: list[float] = []
        with self._engine() as engine:
            for logits in engine.all_logits(tokens):
                following = tokens[len(logprobs) + 1 : len(logprobs) + 1 + len(logits)]
                logprobs += _logprobs(logits[: len(following)], following)
        return Score(tuple(tokens.tolist()), tuple(logprobs))

    def reset(self) -> None:
        """Forget the last prompt and free its cache."""
        self._idle.clear()

    def _one_prompt(self, prompt: Prompt) -> IntArray:
        if not is_single(prompt):
            raise InputError("expected one prompt, found a list of prompts")
        return encode_prompt(prompt, self.tokenizer, self.manifest)

    def _chat_tokens(
        self, messages: Sequence[Message], tools: Any, template: str | None, variables: dict[str, Any] | None
    ) -> IntArray:
        text = self.chat_template.render(messages, tools=tools, template=template, **(variables or {}))
        return encode_prompt(text, self.tokenizer, self.manifest, add_special_tokens=False)

    def _options(self, options: dict[str, Any]) -> GenerationOptions:
        result = GenerationOptions.create(self.generation_defaults, **options)
        result.check_vocabulary(self.manifest.vocab_size)
        asked = any(options.get(name) for name in ("prompt_lookup", "prompt_lookup_num_tokens"))
        if asked and result.prompt_lookup and self.manifest.rope.changes_with_every_token:
            raise OptionError(
                "prompt_lookup has no effect with this model, whose rotary tables change with every token; leave it out"
            )
        return result

    def _stopping(self, prompts: Sequence[IntArray], options: GenerationOptions, cancel: Cancel | None) -> Stopping:
        tokens = self.manifest.tokens
        eos = tokens.eos if options.eos_token_id is None else options.eos_token_id
        pad = tokens.pad if options.pad_token_id is None else options.pad_token_id
        return Stopping(
            eos_token_ids=eos,
            pad_token_id=pad,
            matches_stop_string=stop_string_matcher(self.tokenizer, options.stop_strings),
            cancelled=None if cancel is None else cancel.is_set,
            deadline=None if options.max_time is None else time.monotonic() + options.max_time,
            max_new_tokens=tuple(options.limit(len(prompt), self.manifest.context_length) for prompt in prompts),
        )

    @contextmanager
    def _engine(self) -> Iterator[AnyEngine]:
        """An engine of the caller's own. After an error it is dropped: its cache may be half written."""
        try:
            engine = self._idle.pop()
        except IndexError:
            engine = self._new_engine()
        yield engine
        engine.progress = None
        self._idle[:] = [engine] if engine.rows == 1 else []

    def _generate(
        self, prompts: list[IntArray], options: GenerationOptions, cancel: Cancel | None, progress: ProgressHook | None
    ) -> list[Generation]:
        run = _Run(self._stopping(prompts, options, cancel), progress)
        with self._engine() as engine:
            for _ in run.steps(engine, prompts, options):
                pass
        timing = run.timing(prompts)
        return [
            Generation(tuple(map(self._sequence, hypotheses)), len(prompt), timing)
            for prompt, hypotheses in zip(prompts, run.hypotheses, strict=True)
        ]

    def _sequence(self, hypothesis: Hypothesis) -> GeneratedSequence:
        h = hypothesis
        text = self.tokenizer.decode(h.tokens) if self.tokenizer else ""
        return GeneratedSequence(text, h.tokens, h.finish_reason, h.logprobs, h.score)

    def _stream(
        self, prompt: IntArray, options: GenerationOptions, cancel: Cancel | None, progress: ProgressHook | None
    ) -> Iterator[Piece]:
        if options.num_beams > 1 or options.num_return_sequences > 1:
            raise OptionError(
                f"num_beams is {options.num_beams} and num_return_sequences {options.num_return_sequences}, "
                "expected 1: beams are not final before the end, so they cannot be streamed; use generate"
            )
        return self._pieces(prompt, options, _Run(self._stopping([prompt], options, cancel), progress))

    def _pieces(self, prompt: IntArray, options: GenerationOptions, run: _Run) -> Iterator[Piece]:
        detokenizer = Detokenizer(self.tokenizer)
        finished = False
        with self._engine() as engine:
            for step in run.steps(engine, [prompt], options):
                for emitted in step.emitted:
                    finished = emitted.finish_reason is not None
                    yield _piece(emitted, detokenizer)
        if not finished:
            yield Piece(detokenizer.flush(), (), None, run.hypotheses[0][0].finish_reason)


class _Interrupted(Exception):
    """Ends a prefill."""


class _Run:
    """One search: its steps, its clock and, at the end, its hypotheses."""

    def __init__(self, stopping: Stopping, progress: ProgressHook | None) -> None:
        self._stopping = stopping
        self._progress = progress
        self._started = time.perf_counter()
        self._first_token: float | None = None
        self._lookup: PromptLookup | None = None
        self.hypotheses: list[list[Hypothesis]] = []

    def steps(self, engine: AnyEngine, prompts: list[IntArray], options: GenerationOptions) -> Generator[Step, None, None]:
        self._started = time.perf_counter()
        engine.headroom = min(HEADROOM, max(self._stopping.max_new_tokens))
        engine.progress = self._on_prefill
        if options.prompt_lookup and options.num_beams == 1:
            self._lookup = PromptLookup(engine, self._stopping.max_new_tokens, options)
        steps = search(self._lookup or engine, prompts, options, self._stopping)
        try:
            self.hypotheses = yield from self._timed(steps)
        except _Interrupted as interruption:
            empty = Hypothesis((), () if options.logprobs else None, None, str(interruption))
            self.hypotheses = [[empty] for _ in prompts]

    def timing(self, prompts: list[IntArray]) -> Timing:
        end = time.perf_counter()
        new_tokens = sum(len(h.tokens) for hypotheses in self.hypotheses for h in hypotheses)
        first = (self._first_token or end) - self._started
        drafts = (self._lookup.drafted, self._lookup.accepted) if self._lookup else (0, 0)
        return Timing(first, end - self._started, sum(map(len, prompts)), new_tokens, *drafts)

    def _timed(
        self, steps: Generator[Step, None, list[list[Hypothesis]]]
    ) -> Generator[Step, None, list[list[Hypothesis]]]:
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                return list(end.value)
            self._first_token = self._first_token or time.perf_counter()
            yield step

    def _on_prefill(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(done, total)
        reason = self._stopping.interruption() if done < total else None
        if reason is not None:
            raise _Interrupted(reason)


def _piece(emitted: Emitted, detokenizer: Detokenizer) -> Piece:
    text = detokenizer.add(emitted.token)
    if emitted.finish_reason is not None:
        text += detokenizer.flush()
    logprobs = None if emitted.logprob is None else (emitted.logprob,)
    return Piece(text, (emitted.token,), logprobs, emitted.finish_reason)


def _logprobs(logits: Logits, tokens: IntArray) -> list[float]:
    """The log-softmax of each row at its token. logits: [length, vocab], tokens: [length]."""
    largest = logits.max(axis=-1, keepdims=True)
    normalizer = np.log(np.exp(logits - largest).sum(axis=-1, dtype=np.float64)) + largest[:, 0]
    chosen: list[float] = (logits[np.arange(len(tokens)), tokens] - normalizer).tolist()
    return chosen


def _info(package: Path, manifest: Manifest, session: ort.Session) -> ModelInfo:
    return ModelInfo(
        path=package,
        model_type=manifest.model_type,
        precision=manifest.weights.precision,
        scheme=manifest.weights.scheme,
        target=manifest.target,
        device=session.device,
        provider=session.provider,
        threads=session.threads,
        context_length=manifest.context_length,
        vocab_size=manifest.vocab_size,
        cache_type=manifest.kv_cache.dtype,
        cache_bytes_per_token=manifest.kv_cache.bytes_per_token(),
        package_bytes=sum(entry.size for entry in manifest.files.values()),
        onnxruntime_version=ort.version(),
    )
