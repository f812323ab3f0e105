"""What a manifest says by kind of model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from edgellm.package.manifest import GraphFile, ModelFacts, Task


class KindFields(TypedDict):
    """The fields of a manifest that each kind of model finds in its own way."""

    task: Task
    graphs: Mapping[str, GraphFile]
    model: ModelFacts
    context_length: int
