"""What evaluations of an encoder by known labels have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.errors import InputError
from edgellm.evaluation.bootstrap import ROUNDS
from edgellm.evaluation.columns import Columns
from edgellm.evaluation.labels import Labels
from edgellm.models.encoder import EncoderModel
from edgellm.text.encodings import Encoding, truncated


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
