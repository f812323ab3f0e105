"""What a manifest says by kind of model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from edgellm.package.manifest import CacheLayout, CrossCacheLayout, Encoder, GraphFile, Task


class Kind(TypedDict):
    """What a manifest says by kind of model."""

    task: Task
    graphs: Mapping[str, GraphFile]
    cache: CacheLayout | None
    cross_cache: CrossCacheLayout | None
    encoder: Encoder | None
    source_length: int | None
