"""An adapter's tensors merged into the weights of its base, as views of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edgellm.errors import CheckpointError, ExportError, TensorError, UnsupportedModelError
from edgellm_export.adapters.base import Base
from edgellm_export.adapters.config import AdapterConfig
from edgellm_export.adapters.parts import Factors, sort_tensors
from edgellm_export.adapters.reader import EMBEDDING
from edgellm_export.adapters.refusals import MERGE
from edgellm_export.adapters.views import Added, KeptTranspose, LowRank, WithMagnitude, WithRows
from edgellm_export.checkpoint.accounting import listing
from edgellm_export.checkpoint.patterns import SECONDS, end_in_time
from edgellm_export.checkpoint.tensors import LazyTensor, RowSlice, Transposed, transposed

Tensors = dict[str, LazyTensor]


@dataclass(frozen=True)
class Adapter:
    """An adapter, ready to be merged. `place`: where it lies, for messages. `weight`: what its changes are multiplied
    by."""

    place: str
    config: AdapterConfig
    tensors: Mapping[str, LazyTensor]
    weight: float


@dataclass(frozen=True)
class Merge:
    """A merge under way. `tensors`: the weights as they are so far, of a tied model also the head's. `added`,
    `replaced`: the names of those that adapters added to, and of those of which they brought the whole."""

    base: Base
    tensors: Tensors
    added: set[str] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)

    def merge(self, adapter: Adapter) -> None:
        """Raises TensorError for tensors that do not fit the base, CheckpointError for patterns without end, and
        ExportError where adapters cannot be combined."""
        step = _Step(self.base, self.tensors, adapter)
        parts = sort_tensors(adapter.tensors)
        if not end_in_time(adapter.config.patterns, parts.factors):
            raise CheckpointError(
                f"{adapter.place}: its patterns of modules' names take more than {SECONDS} seconds to match; list the "
                "modules by their names in adapter_config.json"
            )
        step.unmatched.extend(parts.unknown)
        for name, tensor in parts.whole.items():
            step.replace(name, tensor)
        for module, rows in parts.words.items():
            step.replace_rows(module, rows)
        for module, factors in parts.factors.items():
            step.add(module, factors)
        step.finish()
        twice = step.replaced & (self.replaced | self.added) | step.added & self.replaced
        if twice:
            raise ExportError(
                f"{adapter.place} and an adapter before it both change {', '.join(sorted(twice)[:5])}, of which at "
                "least one brings the whole; export with one of the two"
            )
        trained = step.replaced - step.added  # of what it adds to, it brings copies of the base's
        if trained and adapter.weight != 1:
            raise ExportError(
                f"{adapter.place} has the weight {adapter.weight:g}, and brings whole tensors, for which a weight says "
                f"nothing: {', '.join(sorted(trained)[:5])}; leave out the weight"
            )
        self.added.update(step.added)
        self.replaced.update(step.replaced)


@dataclass(frozen=True)
class _Step:
    """One adapter's part of a merge, which changes `tensors`. Problems are collected and raised by `finish`."""

    base: Base
    tensors: Tensors
    adapter: Adapter
    added: set[str] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)
    unmatched: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def replace(self, name: str, tensor: LazyTensor) -> None:
        """A whole tensor: of a module that the adapter saves as its own, else in place, where also a tied head sees
        it."""
        is_saved = self.adapter.config.is_saved(name)
        full = self._find(name)
        if full is None and not is_saved:
            self.unmatched.append(name)
            return
        if not tensor.shape or (full is not None and not self._same_shape(full, tensor)):
            expected = "" if full is None else f", expected {list(self.tensors[full].shape)}"
            self.wrong.append(f"{name} has shape {list(tensor.shape)}{expected}")
            return
        place = full or name  # in a head that the base does not have, the adapter's own name
        self._put(place, RowSlice(place, tensor, 0, tensor.shape[0]), tied=not is_saved)
        self.replaced.add(place)

    def replace_rows(self, module: str, rows: LazyTensor) -> None:
        """Rows of an embedding or a head, which a tied one shares."""
        full, indices = self._find(f"{module}.weight"), self._rows_of(module)
        if full is None or indices is None:
            self.unmatched.append(f"{module} (rows of single words)")
            return
        table = self.tensors[full]
        if rows.shape != (len(indices), *table.shape[1:]) or max(indices, default=0) >= table.shape[0]:
            self.wrong.append(
                f"{module} has rows of shape {list(rows.shape)} for {len(indices)} words, expected rows of a table "
                f"{list(table.shape)}"
            )
            return
        if self.base.tied and full == self.base.head:
            raise UnsupportedModelError(
                f"{self.adapter.place} replaces rows of a head that is the embedding, where PEFT does one thing "
                f"when it runs the adapter and another when it merges it; in the latter case, {MERGE}"
            )
        self._put(full, WithRows(table, np.array(indices, np.int64), rows), tied=True)
        self.replaced.add(full)

    def add(self, module: str, factors: Factors) -> None:
        """Low-rank matrices."""
        full = self._find(f"{module}.weight")
        if full is None:
            self.unmatched.append(f"{module}.lora_*")
        elif not self._is_target(module, full):
            self.unmatched.append(f"{module}.lora_* (not one of target_modules, so PEFT leaves it out)")
        elif problem := self._problem(module, full, factors):
            self.wrong.append(problem)
        else:
            self._put(full, self._changed(module, full, factors), tied=False)
            self.added.add(full)
            if factors.bias is not None:
                self._add_bias(module, factors.bias)

    def finish(self) -> None:
        """Raises TensorError with all problems."""
        problems = [listing("matching nothing", self.unmatched), listing("not fitting", self.wrong)]
        if any(problems):
            raise TensorError(
                f"the tensors of {self.adapter.place} are not those of an adapter of this base\n"
                + "\n".join(problem for problem in problems if problem)
                + "\ngive the base that it was trained on, which its adapter_config.json names"
            )

    def _find(self, name: str) -> str | None:
        full = self.base.find(name, self.tensors)
        if (full or name) in self.base.frozen:
            raise UnsupportedModelError(
                f"{self.adapter.place} changes {name}, which encoder and decoder share, and what that means differs "
                f"between versions of transformers; merge it with PEFT first: {MERGE}"
            )
        return full

    def _is_target(self, module: str, full: str) -> bool:
        config = self.adapter.config
        return config.targets.has(module) or (config.ensure_weight_tying and self.base.tied and full == self.base.head)

    def _put(self, name: str, tensor: LazyTensor, *, tied: bool) -> None:
        pair = (self.base.embedding, self.base.head)
        for each in pair if tied and self.base.tied and name in pair else (name,):
            self.tensors[each] = tensor

    def _same_shape(self, name: str, tensor: LazyTensor) -> bool:
        """The vocabulary may have grown."""
        shape = self.tensors[name].shape
        return tensor.shape == shape or (name in self.base.names.vocabulary and tensor.shape[1:] == shape[1:])

    def _rows_of(self, module: str) -> tuple[int, ...] | None:
        """Which rows are replaced; None where the config does not say."""
        indices = self.adapter.config.token_indices
        ends = [end for end in indices if end != EMBEDDING and (module == end or module.endswith(f".{end}"))]
        if ends:
            return tuple(indices[ends[0]])
        is_embedding = self.base.find(f"{module}.weight", self.tensors) == self.base.embedding
        return tuple(indices[EMBEDDING]) if EMBEDDING in indices and is_embedding else None

    def _problem(self, module: str, full: str, factors: Factors) -> str | None:
        """Why low-rank matrices cannot be those of a weight."""
        config, shape = self.adapter.config, self.tensors[full].shape
        if config.lora_bias != (factors.bias is not None):
            return (
                f"{module} has {'no' if config.lora_bias else 'a'} bias behind B, and lora_bias is {config.lora_bias}"
            )
        if config.use_dora != (factors.magnitude is not None):
            return f"{module} has {'no' if config.use_dora else 'a'} magnitude, and use_dora is {config.use_dora}"
        a, b, rank = factors.a, factors.b, config.rank_of(module)
        if len(shape) != 2:
            return f"{module} is no matrix, but has shape {list(shape)}"
        outputs, inputs = shape if factors.is_embedding == self.base.is_transposed(full) else shape[::-1]
        if a.shape != (rank, inputs) or b.shape != (outputs, rank):
            return (
                f"{module} has A {list(a.shape)} and B {list(b.shape)}, expected {[rank, inputs]} and {[outputs, rank]}"
            )
        if factors.magnitude is not None and factors.magnitude.shape != (outputs,):
            return f"{module} has a magnitude {list(factors.magnitude.shape)}, expected {[outputs]}"
        return None

    def _changed(self, module: str, full: str, factors: Factors) -> LazyTensor:
        weight, scale = self.tensors[full], self.adapter.weight * self.adapter.config.scale_of(module)
        if factors.is_embedding:
            if factors.magnitude is not None:
                raise UnsupportedModelError(
                    f"{self.adapter.place} has DoRA for an embedding, {module}; merge it with PEFT first: {MERGE}"
                )
            a, b = KeptTranspose(factors.b.name, factors.b), KeptTranspose(factors.a.name, factors.a)
            return LowRank(weight, a, b, scale)
        is_transposed = self.base.is_transposed(full)
        changed = transposed(full, weight) if is_transposed else weight
        changed = LowRank(changed, factors.a, factors.b, scale)
        if factors.magnitude is not None:
            changed = WithMagnitude(changed, factors.magnitude)
        return Transposed(full, changed) if is_transposed else changed

    def _add_bias(self, module: str, bias: LazyTensor) -> None:
        full = self._find(f"{module}.bias")
        if full is None or self.tensors[full].shape != bias.shape:
            self.wrong.append(f"{module} has a lora_bias {list(bias.shape)}, and the base no such bias")
            return
        scale = self.adapter.weight * self.adapter.config.scale_of(module)
        self._put(full, Added(self.tensors[full], bias, scale), tied=False)
        self.added.add(full)
