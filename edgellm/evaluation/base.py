"""What every kind of evaluation does: records to items, items through the model, what was seen to metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from edgellm.errors import InputError
from edgellm.evaluation.records import Record
from edgellm.evaluation.results import Findings
from edgellm.loading import AnyModel
from edgellm.text.tokenizer import Tokenizer

I = TypeVar("I")  # noqa: E741  # an item: what runs as one
S = TypeVar("S")  # what of an item's result the metrics need


@dataclass(frozen=True)
class Outcome(Generic[S]):
    """`prediction`: a line of the predictions file."""

    seen: S
    prediction: Mapping[str, Any]


class Evaluator(Protocol[I, S]):
    """`batch_size`: items per call of `run`. `settings`: what was chosen, for the result."""

    batch_size: int

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def items(self, record: Record) -> Iterator[I]:
        """What to run of a record, without running it. Raises InputError."""

    def run(self, items: Sequence[I]) -> Sequence[Outcome[S]]: ...

    def findings(self, seen: Sequence[S]) -> Findings: ...


def tokenizer_of(model: AnyModel) -> Tokenizer:
    if model.tokenizer is None:
        raise InputError(
            "this package has no tokenizer, because its checkpoint had none, and an evaluation needs texts: add a "
            "tokenizer.json to the checkpoint and export it again"
        )
    return model.tokenizer
