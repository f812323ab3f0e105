"""What every kind of evaluation does: records to items, items through the model, what was seen to metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from edgellm.evaluation.records import Columns, Record
from edgellm.evaluation.results import Findings
from edgellm.loading import AnyModel
from edgellm.models.decoder import Model
from edgellm.models.encoder_decoder import EncoderDecoderModel
from edgellm.text.encodings import Encoding
from edgellm.text.tokenizer import Tokenizer, no_tokenizer

Generative = Model | EncoderDecoderModel
I = TypeVar("I")  # noqa: E741  # an item: what runs as one
S = TypeVar("S")  # what of an item's result the metrics need


@dataclass(frozen=True)
class ItemResult(Generic[S]):
    """What came of one item: what the metrics need of it, `seen`, and its line of the predictions file."""

    seen: S
    prediction: Mapping[str, Any]


@dataclass(frozen=True)
class Exercise:
    """What a model is given, and the texts that are right, none where there should be no answer."""

    given: Any
    right: Sequence[str]
    place: str


class Evaluator(Protocol[I, S]):
    """One kind of evaluation of one model. `run` takes `batch_size` items at a time."""

    batch_size: int

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was chosen, also by default, for the result."""

    def items(self, record: Record) -> Iterator[I]:
        """What there is to run of a record, checked but not run. Raises InputError."""

    def run(self, items: Sequence[I]) -> Sequence[ItemResult[S]]: ...

    def findings(self, seen: Sequence[S]) -> Findings: ...


def text_or_pair(model: AnyModel, columns: Columns, record: Record) -> Encoding:
    """The record's text, with its pair where it has one, as an encoder reads them. Raises InputError."""
    pair = columns.text(record, "text_pair") if columns.has(record, "text_pair") else None
    return tokenizer_of(model).encoding(columns.text(record, "text"), pair)


def tokenizer_of(model: AnyModel) -> Tokenizer:
    """The model's tokenizer. Raises InputError where it has none."""
    if model.tokenizer is None:
        raise no_tokenizer(why="an evaluation needs texts")
    return model.tokenizer
