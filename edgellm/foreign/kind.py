"""What a manifest says by kind of model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from edgellm.package.manifest import GraphFile, ModelFacts, Task


class Kind(TypedDict):
    """What a manifest says by kind of model."""

    task: Task
    graphs: Mapping[str, GraphFile]
    model: ModelFacts
