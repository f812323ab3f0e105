"""A loaded package: generate, stream, chat, score.

model = edgellm.load("smollm2-int8")
print(model.generate("The capital of France is").text)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np

from edgellm.engines.cached import AnyEngine
from edgellm.engines.checks import check_graphs, only_graph
from edgellm.engines.concat.decoder import ConcatEngine
from edgellm.engines.concat.graph import open_concat_graph
from edgellm.engines.in_place.decoder import Engine
from edgellm.errors import InputError
from edgellm.generation.call import Cancel, Request
from edgellm.generation.generating import Conversing
from edgellm.generation.reader import PromptReader, read_generation_defaults
from edgellm.generation.results import Generation, Score
from edgellm.models.attentions import Attentions, DecoderResult, check_attentions, decoder_pass, token_texts
from edgellm.models.generative import GenerativeModel
from edgellm.ort.loaded_graph import LoadedGraph, LoadSettings
from edgellm.package.manifest import DecoderFacts, Manifest
from edgellm.sessions.generation_session import GenerationSession, load_session
from edgellm.sessions.source import SessionSource
from edgellm.text.chat import ChatTemplate
from edgellm.text.prompts import Prompt, encode_prompt, is_single
from edgellm.text.tokenizer import Tokenizer, open_tokenizer
from edgellm.types import IntArray, Logits, ProgressHook


def open_model(package: Path, manifest: Manifest[DecoderFacts], settings: LoadSettings) -> Model:
    """What `edgellm.load` makes of a package for text-generation."""
    tokenizer = open_tokenizer(package)
    if manifest.model.cache.growth == "concat":
        graph = open_concat_graph(package, manifest, settings)
        concat = partial(ConcatEngine, graph, manifest, prefill_chunk=settings.prefill_chunk)
        return Model(package, manifest, tokenizer, graph.loaded, concat)
    loaded = settings.open(package / only_graph(manifest).file, fuse=not manifest.arrives_fused)
    check_graphs(dict.fromkeys(manifest.graphs, loaded), manifest)
    engine = partial(Engine, loaded, manifest, prefill_chunk=settings.prefill_chunk)
    return Model(package, manifest, tokenizer, loaded, engine)


class Model(GenerativeModel[AnyEngine], Conversing):
    """A decoder-only model. It may be used from several threads: each call has a cache of its own, and
    ONNX Runtime runs them side by side.

    The cache of the last finished call with a single row is kept, so that a prompt that continues it (the next turn of
    a chat) computes only what is new; `reset` frees it.
    """

    manifest: Manifest[DecoderFacts]
    _one_at_a_time = "stream takes one prompt; use generate for a list"

    def __init__(
        self,
        package: Path,
        manifest: Manifest[DecoderFacts],
        tokenizer: Tokenizer | None,
        loaded: LoadedGraph,
        new_engine: Callable[..., AnyEngine],
    ) -> None:
        super().__init__(package, manifest, tokenizer, loaded, new_engine)
        self.chat_template = ChatTemplate.from_package(package)
        self.generation_defaults = read_generation_defaults(package)
        self._loaded = loaded
        self._reader = PromptReader(manifest, tokenizer, self.generation_defaults, self.chat_template)
        self._session_source = SessionSource(package, self._reader, new_engine)

    @overload
    def generate(
        self, prompt: Prompt, *, cancel: Cancel | None = ..., progress: ProgressHook | None = ..., **options: Any
    ) -> Generation: ...

    @overload
    def generate(
        self,
        prompt: Sequence[Prompt],
        *,
        options: Sequence[Mapping[str, Any]] | None = ...,
        cancel: Cancel | None = ...,
        progress: ProgressHook | None = ...,
        **shared: Any,
    ) -> list[Generation]: ...

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        options: Sequence[Mapping[str, Any]] | None = None,
        cancel: Cancel | None = None,
        progress: ProgressHook | None = None,
        **shared: Any,
    ) -> Generation | list[Generation]:
        """Continue a prompt (text or token ids), or each of a list of prompts.

        Keywords are the options of `GenerationOptions`, on top of the package's generation_config.json.
        options: of a list of prompts, a dict for each prompt, on top of these. Each prompt gets what it gets alone.
        cancel: stop early when it is set, also from another thread; what is there by then is returned.
        progress: called between chunks of the prompt.
        """
        single = is_single(prompt)
        prompts: Sequence[Any] = [prompt] if single else list(prompt)
        results = self._generations(Request(prompts, shared, cancel, progress, options))
        return results[0] if single else results

    def logits(self, prompt: Prompt) -> Logits:
        """[length, vocab] float32: what the model predicts after each token of the prompt."""
        return np.concatenate(list(self.logits_in_chunks(prompt)))

    def logits_in_chunks(self, prompt: Prompt) -> Iterator[Logits]:
        """`logits` in pieces [chunk, vocab], one behind the other: memory does not grow with vocabulary x length."""
        yield from self._all_logits(self._one_prompt(prompt))

    def run(self, prompt: Prompt, *, output_attentions: bool = False) -> DecoderResult:
        """One pass over a prompt: what the model predicts after each token and, from a package exported with
        --attentions, how much each token looks at each other. Memory grows with the square of the tokens then."""
        tokens = self._one_prompt(prompt)
        if not output_attentions:
            return DecoderResult(tuple(tokens.tolist()), self.logits(tokens), None)
        graph = next(iter(self.manifest.graphs.values()))
        check_attentions(graph)
        logits, weights = decoder_pass(self._loaded, self.manifest, graph, tokens)
        texts = token_texts(self.tokenizer, tokens.tolist())
        return DecoderResult(tuple(tokens.tolist()), logits, Attentions(weights, texts, texts))

    def score(self, prompt: Prompt) -> Score:
        """The log-probability of each token of a text but the first. Memory does not grow with vocabulary x length."""
        tokens = self._one_prompt(prompt)
        if len(tokens) < 2:
            raise InputError("score needs at least two tokens: the first one is only given, not predicted")
        return self._score(tokens)

    def session(self, *, max_bytes: int | None = None, reuse_generated: bool = False) -> GenerationSession:
        """A sequence that is kept from call to call, with a cache of its own.

        max_bytes: the most memory of its cache; None: what the model's context takes.
        reuse_generated: let the next prompt take over generated tokens even where reading them as a prompt would give
        other numbers, by about the quantization error: int8 and int4 weights with a float cache, on ONNX Runtime's own
        kernels. Otherwise those are read again, and all numbers are those of a prompt that was read in one go.
        """
        return GenerationSession(self._session_source, max_bytes=max_bytes, reuse_generated=reuse_generated)

    def load_session(
        self, path: str | Path, *, max_bytes: int | None = None, reuse_generated: bool = False
    ) -> GenerationSession:
        """What `GenerationSession.save` wrote with this model. Nothing of the file is trusted: all of it is checked.

        Raises SessionFileError: SessionNotFoundError, SessionVersionError, SessionMismatchError (of another model,
        tokenizer or kind of cache) or SessionCorruptError; MemoryBudgetError where it does not fit in max_bytes.
        """
        return load_session(self._session_source, Path(path), max_bytes=max_bytes, reuse_generated=reuse_generated)

    def _one_prompt(self, prompt: Prompt) -> IntArray:
        if not is_single(prompt):
            raise InputError("expected one prompt, found a list of prompts")
        return encode_prompt(prompt, self.tokenizer, self.manifest)
