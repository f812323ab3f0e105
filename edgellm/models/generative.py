"""What models that generate have in common: an engine for each call, one of which is kept, and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from edgellm.decoding import Decoder
from edgellm.engines.contract import RowEngine
from edgellm.generation.call import Call, Request
from edgellm.generation.generating import Generating
from edgellm.generation.results import Score
from edgellm.models.info import model_info
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.package.manifest import DecoderFacts, EncoderDecoderFacts, Manifest
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import IntArray, Logits

EngineT = TypeVar("EngineT", bound=RowEngine)


class GenerativeModel(Generating, Generic[EngineT]):
    """Each call has an engine of its own; that of the last finished call with a single prompt is kept, with what it has
    read.
    """

    def __init__(
        self,
        package: Path,
        manifest: Manifest[DecoderFacts] | Manifest[EncoderDecoderFacts],
        tokenizer: Tokenizer | None,
        loaded: LoadedGraph,
        new_engine: Callable[..., EngineT],
    ) -> None:
        self.manifest: Manifest[DecoderFacts] | Manifest[EncoderDecoderFacts] = manifest
        self.tokenizer = tokenizer  # None: token ids only
        self.info = model_info(package, manifest, loaded)
        self.new_engine = new_engine  # an empty one, over the same graphs
        self._idle: list[EngineT] = []  # at most one, and only list methods that are atomic

    def read(self, request: Request) -> Call:
        """A request, checked, to be run with an engine of the caller's own. Raises InputError or OptionError."""
        return self._reader.call(request)

    def reset(self) -> None:
        """Forget what was read last, and free its memory."""
        self._idle.clear()

    @contextmanager
    def _engine(self) -> Iterator[EngineT]:
        """An engine of the caller's own. After an error it is dropped: its cache may be half written."""
        try:
            engine = self._idle.pop()
        except IndexError:
            engine = self.new_engine()
        yield engine
        self._idle[:] = [engine] if engine.holds_one else []

    def _engine_for(self, call: Call) -> AbstractContextManager[Decoder]:
        return self._engine()

    def _all_logits(self, tokens: IntArray, source: IntArray | None = None) -> Iterator[Logits]:
        """The logits of every position in chunks [chunk, vocab]."""
        with self._engine() as engine:
            yield from engine.all_logits(tokens, source)

    def _score(self, tokens: IntArray, source: IntArray | None = None) -> Score:
        """The log-probabilities of tokens [2 or more]."""
        logprobs: list[float] = []
        for logits in self._all_logits(tokens, source):
            following = tokens[len(logprobs) + 1 : len(logprobs) + 1 + len(logits)]
            logprobs += map(_logprob, logits, following.tolist())
        return Score(tuple(tokens.tolist()), tuple(logprobs))


def _logprob(logits: Logits, token: int) -> float:
    """The log-softmax of logits [vocab] at a token. Row by row: more arrays of the size of many positions' logits would
    be most of a call's memory."""
    largest = logits.max()
    return float(logits[token] - (np.log(np.exp(logits - largest).sum(dtype=np.float64)) + largest))
