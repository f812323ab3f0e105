"""adapter_config.json, as PEFT reads it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from edgellm_export.adapters.reader import AdapterReader
from edgellm_export.adapters.refusals import check_features, check_type

ALL_LINEAR = "all-linear"
LAYER = r".*?\.[^.]*\.(\d{1,9})\."
# Forms in which PEFT runs patterns.
END, LAYER_OF = r"(.*\.)?({})$", r"(?:^|.*?\.)(?:{})\.(\d{{1,9}})\."

T = TypeVar("T")


@dataclass(frozen=True)
class Targets:
    """Which modules have low-rank matrices. `modules`, `excluded`: a regular expression for the whole name, or names
    and ends of names; `modules` is None for PEFT's usual ones. `layers`: only in these, where there are any."""

    modules: str | Sequence[str] | None
    excluded: str | Sequence[str] = ()
    layers: Sequence[int] = ()
    layers_pattern: Sequence[str] = ()

    def has(self, module: str) -> bool:
        if self.excluded and _matches(self.excluded, module):
            return False
        if self.modules is None or self.modules == ALL_LINEAR:
            return True
        return _matches(self.modules, module) and (not self.layers or self._layer_of(module) in self.layers)

    @property
    def patterns(self) -> list[str]:
        """All that names are matched with."""
        whole = [each for each in (self.modules, self.excluded) if isinstance(each, str)]
        return [*whole, *map(LAYER_OF.format, self.layers_pattern)]

    def _layer_of(self, module: str) -> int | None:
        patterns = [LAYER_OF.format(pattern) for pattern in self.layers_pattern] or [LAYER]
        found = next((match for pattern in patterns if (match := re.match(pattern, module))), None)
        return None if found is None else int(found.groups()[-1])


@dataclass(frozen=True)
class AdapterConfig:
    """What adapter_config.json says of the tensors beside it. `rank_pattern`, `alpha_pattern`: by regular expressions
    for the ends of modules' names. `token_indices`: rows that are replaced, by the end of a module's name, or by
    `EMBEDDING`. `ensure_weight_tying`: a head that is the embedding has its low-rank matrices, too."""

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    targets: Targets
    modules_to_save: Sequence[str]
    token_indices: Mapping[str, Sequence[int]]
    use_rslora: bool
    use_dora: bool
    lora_bias: bool
    ensure_weight_tying: bool
    task_type: str | None

    @property
    def patterns(self) -> list[str]:
        """All that modules' names are matched with."""
        return [*self.targets.patterns, *map(END.format, (*self.rank_pattern, *self.alpha_pattern))]

    def rank_of(self, module: str) -> int:
        return _by_pattern(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str) -> float:
        """What the product of a module's two matrices is multiplied by."""
        rank, alpha = self.rank_of(module), _by_pattern(self.alpha_pattern, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def is_saved(self, tensor: str) -> bool:
        """Whether a tensor is of one of `modules_to_save`, which are the ends of modules' names."""
        return any(f"{end}." in tensor for end in self.modules_to_save)


def parse_adapter_config(data: Mapping[str, Any], place: str) -> AdapterConfig:
    """`place`: where the file is, for messages. Raises UnsupportedModelError or CheckpointError."""
    check_type(data, place)
    check_features(data, place)
    reader = AdapterReader(data, place)
    config = AdapterConfig(
        rank=reader.rank("r", 8),
        alpha=reader.number("lora_alpha", 8),
        rank_pattern=reader.rank_patterns("rank_pattern", END),
        alpha_pattern=reader.number_patterns("alpha_pattern", END),
        targets=Targets(
            None if data.get("target_modules") is None else reader.modules("target_modules"),
            reader.modules("exclude_modules"),
            reader.indices("layers_to_transform"),
            reader.patterns("layers_pattern", LAYER_OF),
        ),
        modules_to_save=reader.names("modules_to_save"),
        token_indices=reader.token_indices("trainable_token_indices"),
        use_rslora=reader.flag("use_rslora"),
        use_dora=reader.flag("use_dora"),
        lora_bias=reader.flag("lora_bias"),
        ensure_weight_tying=reader.flag("ensure_weight_tying"),
        task_type=reader.text("task_type"),
    )
    reader.finish()
    return config


def _matches(modules: str | Sequence[str], module: str) -> bool:
    if isinstance(modules, str):
        return re.fullmatch(modules, module) is not None
    return any(module == end or module.endswith(f".{end}") for end in modules)


def _by_pattern(patterns: Mapping[str, T], module: str, default: T) -> T:
    """The first pattern that matches the end of a module's name decides."""
    found = (value for pattern, value in patterns.items() if re.match(END.format(pattern), module))
    return next(found, default)
