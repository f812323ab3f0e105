"""What evaluations of an encoder by known labels have in common: the data's labels as the model's, inputs that fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.errors import InputError, OptionError, nearest
from edgellm.evaluation.records import Columns
from edgellm.evaluation.results import ROUNDS
from edgellm.models.encoder import EncoderModel
from edgellm.text.encodings import Encoding, truncated

SHOWN = 12  # labels in a message


@dataclass(frozen=True)
class Labels:
    """The model's labels are `names`, by number; `renamed` gives its label for one that only the data knows."""

    names: Sequence[str]
    renamed: Mapping[str, str]

    @classmethod
    def create(cls, names: Sequence[str], renamed: Mapping[str, str] | None) -> Labels:
        """Raises OptionError where a label is to become one that the model does not have."""
        made = cls(tuple(names), dict(renamed or {}))
        for name in made.renamed.values():
            made.number(name, "label")
        return made

    def number(self, name: str, option: str) -> int:
        """The number of a label that the option named `option` asks for. Raises OptionError."""
        if name not in self.names:
            raise OptionError(f"{option}: the model has no label {name!r}; {nearest(name, self.names)}")
        return self.names.index(name)

    def of(self, value: Any, place: str) -> int:
        """The number of a label of the data: the model's name for it, one that is renamed to it, or its number. Raises
        InputError."""
        name = self.renamed.get(str(value), value) if isinstance(value, str | int) else value
        if isinstance(name, str) and name in self.names:
            return self.names.index(name)
        number = int(name) if isinstance(name, str) and name.isascii() and name.isdigit() else name
        if type(number) is int and 0 <= number < len(self.names):
            return number
        known = ", ".join(self.names[:SHOWN]) + (", ..." if len(self.names) > SHOWN else "")
        raise InputError(
            f"{place}: the label {value!r} is none of the model's ({known}), and no number from 0 to "
            f"{len(self.names) - 1}; say which one it is with --label {value}=NAME"
        )


class LabelEvaluator:
    """Knows the model's labels, what the data calls them, and how long an input may be."""

    batch_size = 32

    def __init__(
        self,
        model: EncoderModel,
        columns: Columns,
        *,
        label: Mapping[str, str] | None = None,
        truncation: bool = False,
        bootstrap: int = ROUNDS,
    ) -> None:
        """label: what the data calls a label, and what the model does. truncation: cut inputs that are too long.
        bootstrap: resamples for the intervals. Raises OptionError for a label that the model does not have."""
        self._model, self._columns = model, columns
        self._labels = Labels.create(model.manifest.model.labels, label)
        self._truncation, self._bootstrap = truncation, bootstrap

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"label": dict(self._labels.renamed), "truncation": self._truncation}

    def _cut(self, encoding: Encoding, place: str) -> Encoding:
        """Raises InputError where the input is longer than the model takes and may not be cut."""
        most = self._model.manifest.context_length
        if len(encoding) > most and not self._truncation:
            raise InputError(
                f"{place}: {len(encoding)} tokens, and the model takes {most}; cut such inputs with --truncation"
            )
        return truncated(encoding, most)
