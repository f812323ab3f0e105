"""A loaded encoder-only package: texts in, the numbers of its head out.

model = edgellm.load("sentiment-int8")
print(model.run(["A lovely film."])[0].logits)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.engines.checks import check_encoder, only_graph
from edgellm.errors import ContextOverflowError, InputError, OptionError, TaskError
from edgellm.models.attentions import Attentions, check_attentions, token_texts
from edgellm.models.info import model_info
from edgellm.models.token_vectors import TokenVectors, token_vectors, unit
from edgellm.ort.loaded_graph import LoadedGraph, LoadSettings
from edgellm.package.manifest import EncoderFacts, Manifest
from edgellm.package.sentence import pooled
from edgellm.package.sentence_steps import TOKEN_HEAD_FILES, TOKEN_HEADS
from edgellm.text.encodings import Encoding, Truncation, truncated
from edgellm.text.prompts import token_ids
from edgellm.text.tokenizer import Tokenizer, no_tokenizer, open_tokenizer
from edgellm.types import FloatArray, IntArray

TextOrIds = str | tuple[str, str] | Sequence[int] | npt.NDArray[np.integer[Any]] | Encoding

BATCH_TOKENS = 2048  # of a run, padding included: more gain nothing, and cost memory
BATCH_LOGITS = 1 << 25  # numbers that a run gives: 128 MiB of float32
PADDING = 1 / 8  # of a row, at most: shorter inputs go into another run
TRIED = (3, 9)  # tokens of the rows that a graph of another tool is asked about
AGREEMENT = {"float": 1e-3, "integer": 2e-2}  # of the largest number: less is rounding
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class EncoderResult:
    """What the model says of one input, without padding. float32.

    `logits`: [tokens, vocab] for fill-mask, [labels] for text-classification, [tokens, labels] for
    token-classification, and the hidden states [tokens, hidden] for feature-extraction. For question-answering, `start`
    and `end` instead: how well each token begins and ends the answer, [tokens] each. `attentions`: if asked for.
    """

    encoding: Encoding
    outputs: Mapping[str, FloatArray]
    attentions: Attentions | None = None

    @property
    def logits(self) -> FloatArray:
        return self._output("logits" if "logits" in self.outputs else "last_hidden_state")

    @property
    def start(self) -> FloatArray:
        return self._output("start_logits")

    @property
    def end(self) -> FloatArray:
        return self._output("end_logits")

    def _output(self, name: str) -> FloatArray:
        if name not in self.outputs:
            raise TaskError(f"this model gives no {name}; it gives {', '.join(self.outputs)}")
        return self.outputs[name]


class Vectors(np.ndarray[Any, np.dtype[np.float32]]):
    """float32. `truncated`: the numbers of the texts of which only the beginning (or the end) was read, as they are
    longer than those of the training."""

    truncated: tuple[int, ...] = ()


def vectors_of(array: FloatArray, truncated: Sequence[int] = ()) -> Vectors:
    found = array.view(Vectors)
    found.truncated = tuple(truncated)
    return found


class EncoderModel:
    """May be used from several threads. The result of an input does not depend on the others in the call."""

    def __init__(
        self, package: Path, manifest: Manifest[EncoderFacts], tokenizer: Tokenizer | None, loaded: LoadedGraph
    ) -> None:
        self.manifest = manifest
        self.tokenizer = tokenizer  # None: token ids only
        self.labels: Mapping[int, str] = dict(enumerate(manifest.model.labels))
        self.info = model_info(package, manifest, loaded)
        self._loaded = loaded
        self._graph = only_graph(manifest)

    def run(
        self,
        inputs: Sequence[TextOrIds],
        *,
        truncation: Truncation | None = None,
        max_length: int | None = None,
        output_attentions: bool = False,
    ) -> list[EncoderResult]:
        """The model's outputs for each input: a text, a pair of texts, token ids (special ones included), or what
        `tokenizer.encoding` made of a text.

        truncation: cut inputs of more than `max_length` tokens (None: the model's most); without it they are an error.
        output_attentions: how much each token looks at each other as well, of a package exported with --attentions;
        inputs run one by one then. Raises InputError, ContextOverflowError or OptionError.
        """
        left_out = {"sentence_embedding", *self._graph.attentions}
        names = [name for name in self._graph.outputs if name not in left_out]
        if output_attentions:
            check_attentions(self._graph)
        limit = self.manifest.context_length
        encodings = self._encodings(inputs, truncation, limit if max_length is None else max_length, limit)
        if output_attentions:
            return [self._with_attentions(encoding, names) for encoding in encodings]
        return [
            EncoderResult(encoding, outputs)
            for encoding, outputs in zip(encodings, self._outputs(encodings, names), strict=True)
        ]

    def embed(
        self,
        texts: str | Sequence[TextOrIds],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        normalize: bool | None = None,
        truncate_dim: int | None = None,
        truncation: Truncation | None = "longest_first",
    ) -> Vectors:
        """[texts, dim] float32: a vector for each text, or [dim] for a single one, of a package made of a sentence
        encoder.

        prompt: what stands before each text. prompt_name: the checkpoint's prompt of that name instead, such as
        "query"; without both, its default prompt if it has one. Token ids are taken as they are.
        normalize: unit vectors; None is what the checkpoint says. truncate_dim: so many numbers of each vector, the
        first, of models that were trained for it (Matryoshka); with `normalize` true, a unit vector again.
        truncation: how texts that are longer than those of the training are cut, as sentence-transformers cuts them;
        the result's `truncated` says which were. None makes them an error. Raises TaskError for other packages,
        OptionError, and what `run` raises.
        """
        embedding = self.manifest.model.embedding
        if embedding is None:
            raise TaskError(
                f"{self.info.path} says nothing of how to make one vector of a text: its checkpoint had no "
                "modules.json and pooling config, or was exported for another task; use run for the states of all "
                "tokens"
            )
        if isinstance(texts, str):
            found = self.embed(
                [texts], prompt=prompt, prompt_name=prompt_name, normalize=normalize, truncate_dim=truncate_dim,
                truncation=truncation,
            )  # fmt: skip
            return vectors_of(found[0], found.truncated)
        limit = embedding.max_tokens
        whole = self._read(_behind(texts, embedding.before(prompt, prompt_name)))
        encodings = self._fitted(whole, truncation, limit, limit)
        if "sentence_embedding" in self._graph.outputs:
            rows = [outputs["sentence_embedding"] for outputs in self._outputs(encodings, ["sentence_embedding"])]
        else:
            states = self._outputs(encodings, ["last_hidden_state"])
            rows = [pooled(outputs["last_hidden_state"], embedding.poolings) for outputs in states]
        vectors = np.stack(rows)
        if embedding.normalize if normalize is None else normalize:
            vectors = unit(vectors)
        if truncate_dim is not None:
            vectors = _first(vectors, truncate_dim)
            vectors = unit(vectors) if normalize else vectors
        cut = [row for row, (one, fitted) in enumerate(zip(whole, encodings, strict=True)) if len(fitted) < len(one)]
        return vectors_of(vectors, cut)

    def embed_tokens(
        self, texts: Sequence[TextOrIds], *, truncation: Truncation | None = "longest_first"
    ) -> list[TokenVectors]:
        """What a model such as BGE-M3 gives for the tokens of each text, beside the vector of the whole, which `embed`
        gives. truncation: as in `embed`. Raises TaskError for other packages, and what `run` raises."""
        embedding = self.manifest.model.embedding
        names = [name for name in TOKEN_HEADS if name in self._graph.outputs]
        if embedding is None or not names:
            raise TaskError(
                f"{self.info.path} gives nothing for single tokens: its checkpoint had neither of "
                f"{', '.join(TOKEN_HEAD_FILES)}; use embed for a text's vector, or run for its tokens' states"
            )
        limit = embedding.max_tokens
        encodings = self._fitted(self._read(texts), truncation, limit, limit)
        special = frozenset() if self.tokenizer is None else self.tokenizer.special_ids
        found = self._outputs(encodings, names)
        return [
            token_vectors(encoding.ids, outputs, special) for encoding, outputs in zip(encodings, found, strict=True)
        ]

    def _encodings(
        self, inputs: Sequence[TextOrIds], truncation: Truncation | None, length: int, limit: int
    ) -> list[Encoding]:
        return self._fitted(self._read(inputs), truncation, length, limit)

    def _read(self, inputs: Sequence[TextOrIds]) -> list[Encoding]:
        if isinstance(inputs, str | bytes) or not isinstance(inputs, Sequence):
            raise InputError(f"expected a list of inputs, found {type(inputs).__name__}")
        if not inputs:
            raise InputError("the list of inputs is empty")
        return [self._encoding(one) for one in inputs]

    def _fitted(
        self, encodings: list[Encoding], truncation: Truncation | None, length: int, limit: int
    ) -> list[Encoding]:
        if type(length) is not int or not 1 <= length <= limit:
            raise OptionError(f"max_length is {length!r}, expected a whole number from 1 to {limit}")
        if truncation is not None:
            side = "right" if self.tokenizer is None else self.tokenizer.truncation_side
            encodings = [truncated(encoding, length, truncation, at=side) for encoding in encodings]
        for number, encoding in enumerate(encodings):
            if len(encoding) > limit:
                raise ContextOverflowError(
                    f"input {number} has {len(encoding)} tokens, this model takes at most {limit}; shorten it, or cut "
                    "it with truncation='longest_first'"
                )
        return encodings

    def _encoding(self, one: TextOrIds) -> Encoding:
        if isinstance(one, Encoding):
            encoding = one
        elif isinstance(one, str) or (isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str)):
            if self.tokenizer is None:
                raise no_tokenizer(instead="give token ids")
            text, pair = (one, None) if isinstance(one, str) else one
            encoding = self.tokenizer.encoding(text, pair)
        else:
            encoding = _bare(token_ids(one))
        if not len(encoding):
            raise InputError("an input has no tokens; give it some text")
        size = self.manifest.vocab_size
        wrong = encoding.ids[(encoding.ids < 0) | (encoding.ids >= size)]
        if len(wrong):
            raise InputError(f"an input has token id {wrong[0]}, expected ids from 0 to {size - 1}")
        return encoding

    def _outputs(self, encodings: Sequence[Encoding], names: Sequence[str]) -> list[dict[str, FloatArray]]:
        """The outputs of each input, by name and without padding."""
        found: list[dict[str, FloatArray]] = [{}] * len(encodings)
        lengths = [len(encoding) for encoding in encodings]
        room = 1 if self.manifest.model.rows_apart else BATCH_LOGITS // self._numbers_per_token(names)
        padding = PADDING if len(set(lengths)) == 1 or self.takes_padding else 0
        for rows in buckets(lengths, BATCH_TOKENS, room, padding):
            arrays = self._loaded.run(self._feeds([encodings[row] for row in rows]), names)
            for place, row in enumerate(rows):
                length, values = len(encodings[row]), (array.numpy()[place] for array in arrays)
                found[row] = {
                    name: value[:length] if name in self._per_token else value
                    for name, value in zip(names, values, strict=True)
                }
        return found

    @cached_property
    def takes_padding(self) -> bool:
        """Whether a row gets the same when it is padded. Of another tool's graph nothing says so: it is asked when it
        first matters."""
        manifest = self.manifest
        if manifest.model.lengths_apart or manifest.has_hashes:
            return not manifest.model.lengths_apart
        short, long = (_bare(np.linspace(manifest.vocab_size - 1, 0, n).astype(np.int64)) for n in TRIED)
        names = [name for name in self._graph.outputs if name not in self._graph.attentions]
        alone, padded = (self._loaded.run(self._feeds(rows), names) for rows in ([short], [short, long]))
        limit = AGREEMENT["float" if manifest.weights.precision in ("fp32", "fp16") else "integer"]
        for one, both in zip(alone, padded, strict=True):
            expected = one.numpy()[0]
            found = both.numpy()[0][: len(expected)]
            if float(np.abs(found - expected).max()) > limit * float(np.abs(expected).max()):
                return False
        return True

    def _with_attentions(self, encoding: Encoding, names: Sequence[str]) -> EncoderResult:
        """One input by itself: the weights are right only where nothing is padded."""
        arrays = self._loaded.run(self._feeds([encoding]), [*names, *self._graph.attentions])
        values = [array.numpy()[0] for array in arrays]
        tokens = token_texts(self.tokenizer, encoding.ids.tolist())
        outputs = dict(zip(names, values, strict=False))
        return EncoderResult(encoding, outputs, Attentions(np.stack(values[len(names) :]), tokens, tokens))

    @property
    def _per_token(self) -> frozenset[str]:
        """The outputs that have a row for each token."""
        whole = {"sentence_embedding", *(["logits"] if self.manifest.task == "text-classification" else [])}
        return frozenset(self._graph.outputs) - whole

    def _numbers_per_token(self, names: Sequence[str]) -> int:
        shapes = [self._loaded.output_shapes[name] for name in names if name in self._per_token]
        return max(1, sum(int(shape[2] or 1) if len(shape) > 2 else 1 for shape in shapes))

    def _feeds(self, encodings: Sequence[Encoding]) -> dict[str, IntArray]:
        longest = max(map(len, encodings))
        ids = np.full((len(encodings), longest), self.manifest.tokens.pad or 0, np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding)] = encoding.ids
            types[row, : len(encoding)] = encoding.type_ids
            mask[row, : len(encoding)] = 1
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: arrays[name] for name in self._graph.inputs}


def open_encoder(package: Path, manifest: Manifest[EncoderFacts], settings: LoadSettings) -> EncoderModel:
    """What `edgellm.load` makes of an encoder-only package."""
    tokenizer = open_tokenizer(package)
    loaded = settings.open(package / only_graph(manifest).file, fuse=not manifest.arrives_fused)
    check_encoder(loaded, manifest, INPUTS)
    return EncoderModel(package, manifest, tokenizer, loaded)


def _behind(inputs: Sequence[TextOrIds], prompt: str) -> Sequence[TextOrIds]:
    """The texts, and the first ones of pairs, behind a prompt."""
    if not prompt or isinstance(inputs, str | bytes) or not isinstance(inputs, Sequence):
        return inputs
    return [
        prompt + one if isinstance(one, str)
        else (prompt + one[0], one[1]) if isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str)
        else one
        for one in inputs
    ]  # fmt: skip


def buckets(lengths: Sequence[int], tokens: int, rows_tokens: int, padding: float = PADDING) -> Iterator[list[int]]:
    """The numbers of the inputs of each run: inputs of like length, so that at most a share `padding` is padding, and
    no more than `tokens` (or `rows_tokens`) tokens in a run unless a single input has more."""
    room = max(1, min(tokens, rows_tokens))
    bucket: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        longest = lengths[bucket[0]] if bucket else lengths[row]
        if bucket and (lengths[row] < longest * (1 - padding) or (len(bucket) + 1) * longest > room):
            yield bucket
            bucket = []
        bucket.append(row)
    if bucket:
        yield bucket


def _first(vectors: FloatArray, size: int) -> FloatArray:
    """So many numbers of each. Raises OptionError."""
    width = vectors.shape[1]
    if type(size) is not int or not 1 <= size <= width:
        raise OptionError(f"truncate_dim is {size!r}, expected a whole number from 1 to {width}")
    return np.ascontiguousarray(vectors[:, :size])


def _bare(ids: IntArray) -> Encoding:
    """Token ids without a text."""
    zeros = np.zeros(len(ids), np.int64)
    return Encoding(ids, zeros, np.zeros(len(ids), np.bool_), np.zeros((len(ids), 2), np.int64), zeros - 1, zeros)
