"""A mixture of 8 and 4 bits: which matrices get 4, by what that saves and what it costs, within a budget.

What 4 bits in one matrix cost is how far its layer's output moves beside its size; such costs add up, and what a sum of
them does to the model's outputs is measured for some mixtures, between which it is interpolated. On SmolLM2-135M that
divergence was within a tenth of what was found for a mixture, and at half of all weights in 4 bits 0.021, where the
errors of the matrices' own outputs chose one of 0.037, and random ones had 0.035.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic

import numpy as np

from edgellm.errors import ExportError
from edgellm.package.report import MixturePoint
from edgellm.types import FloatArray, Progress
from edgellm_export.blocks.build import Material
from edgellm_export.blocks.channels import ChannelScales
from edgellm_export.blocks.experts import of_all_experts
from edgellm_export.calibration.rounding import Calibration, Rounding, described, rounded_layer, scales_of
from edgellm_export.float_run.layers import FloatLayer, FloatRun, ObservedLinear, States, Texts
from edgellm_export.quantize import IntegerScheme
from edgellm_export.quantize.calibrated import PreparedMatrix

WEIGHED = 4  # a matrix's cost is measured on one in so many of the texts
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the weights: mixtures that are measured in any case
MARGIN = 0.99  # of a budget: the package itself rounds a little otherwise than its layers one by one
TRIES = 4

Prepared = Mapping[str, PreparedMatrix]


@dataclass(frozen=True)
class Budget:
    """The most that a package of mixed precision may have: `divergence` from the original, see
    `edgellm_export.float_run.layers.FloatRun.distance`, or bytes on disk, `size`. One of the two is None."""

    divergence: float | None = None
    size: int | None = None


@dataclass(frozen=True)
class Unit:
    """Matrices that get the same bits, as they are multiplied at once. `cost`: the mean square of what 4 bits move the
    layer's output by, beside that output. `weights`: how many. `saved`, `freed`: bytes that 4 bits have less, in memory
    and on disk."""

    names: tuple[str, ...]
    cost: float
    weights: int
    saved: int
    freed: int


@dataclass(frozen=True)
class Forms:
    """A model's layers' matrices in 8 and in 4 bits, and the units of them, those first where 4 bits cost the least for
    what they save."""

    scales: ChannelScales
    eight: Prepared
    four: Prepared
    units: Sequence[Unit]

    def mixed(self, count: int) -> Prepared:
        """The first `count` units in 4 bits, the others in 8."""
        names = [name for unit in self.units[:count] for name in unit.names]
        return {**self.eight, **{name: self.four[name] for name in names}}

    def up_to(self, count: int, name: str) -> float:
        """The sum of a figure of the first `count` units."""
        return float(sum(getattr(unit, name) for unit in self.units[:count]))


@dataclass(frozen=True)
class Mixer(Generic[Texts]):
    """Measures mixtures on texts. `expected`: the float model's states for them behind its last layer. `material`: what
    layers are made of, but for matrices. `size`: bytes of the package where no layer has 4 bits."""

    run: FloatRun[Texts]
    texts: Sequence[Texts]
    expected: States
    material: Material
    forms: Forms
    size: int
    found: dict[int, float] = field(default_factory=dict)

    def divergence(self, count: int) -> float:
        """Of the mixture with `count` units in 4 bits, measured."""
        if count not in self.found:
            made = _made(self.material, self.forms.mixed(count))
            run = self.run.with_ends(made.scheme)
            states = run.through(self.texts, lambda layer, before: layer.quantized(made, before))
            self.found[count] = run.distance(self.texts, self.expected, states)
        return self.found[count]

    def expect(self, count: int) -> float:
        """About what `divergence` would be, from those that were measured."""
        known = sorted(self.found)
        costs = [self.forms.up_to(each, "cost") for each in known]
        return float(np.interp(self.forms.up_to(count, "cost"), costs, [self.found[each] for each in known]))

    def point(self, count: int, *, chosen: bool) -> MixturePoint:
        share = self.forms.up_to(count, "weights") / self.forms.up_to(len(self.forms.units), "weights")
        return MixturePoint(share, self.bytes_of(count), self.divergence(count), chosen=chosen)

    def bytes_of(self, count: int) -> int:
        return int(self.size - self.forms.up_to(count, "freed"))

    def curve(self) -> list[int]:
        """Counts at about the SHARES of the weights."""
        counts = range(len(self.forms.units) + 1)
        weights = np.array([self.forms.up_to(count, "weights") for count in counts])
        return [int(np.searchsorted(weights, share * weights[-1])) for share in SHARES]

    def within(self, budget: Budget) -> int:
        """The count that serves the budget best: of mixtures small enough, that with the least divergence, or of those
        close enough the smallest. Raises ExportError where there is none."""
        counts = range(len(self.forms.units) + 1)
        if budget.size is not None:
            small = [count for count in counts if self.bytes_of(count) <= budget.size]
            if not small:
                raise _too_small(budget.size, self.bytes_of(counts[-1]))
            return small[0]
        assert budget.divergence is not None
        limit = MARGIN * budget.divergence
        for _ in range(TRIES):
            close = [count for count in counts if self.expect(count) <= limit]
            if not close:
                break
            if self.divergence(close[-1]) <= limit:
                return close[-1]
        known = [count for count in self.found if self.found[count] <= limit]
        if not known:
            raise ExportError(
                f"a divergence of at most {budget.divergence:g} is less than that of all layers in 8 bits, which is "
                f"about {self.found[0]:.2g}; allow more, or export as fp16"
            )
        return max(known)


def mix(
    run: FloatRun[Texts], texts: Sequence[Texts], origin: str, measured: Sequence[Texts], eight: Rounding,
    four: Rounding, budget: Budget, material: Material, size: Callable[[Material], int], progress: Progress,
) -> Calibration:  # fmt: skip
    """Like `rounding.calibrate_layers`, with the matrices in the bits that serve the budget best. `measured`: the texts
    that the package will be compared with its original on. `material`: what layers are made of, but for scales and
    matrices. `size`: about the bytes of a package. Raises ExportError where nothing is within the budget."""
    smallest = size(replace(material, scheme=four.scheme))
    if budget.size is not None and smallest > budget.size:
        raise _too_small(budget.size, smallest)
    forms = _forms(run, texts, eight, four, material, progress)
    expected = run.through(measured, lambda layer, states: layer.run(states))
    scaled = replace(material, scales=forms.scales)
    mixer = Mixer(run, measured, expected, scaled, forms, size(scaled))
    curve = mixer.curve()
    for done, count in enumerate(curve, 1):
        mixer.divergence(count)
        progress("mix", done, len(curve))
    chosen = mixer.within(budget)
    points = [mixer.point(count, chosen=count == chosen) for count in sorted({*mixer.found, chosen})]
    return Calibration(described(texts, origin), forms.scales, forms.mixed(chosen), points)


def _too_small(size: int, smallest: int) -> ExportError:
    return ExportError(
        f"a package of at most {size} bytes is smaller than one with all layers in 4 bits, which takes about "
        f"{smallest}; allow so many"
    )


def _forms(
    run: FloatRun[Texts], texts: Sequence[Texts], eight: Rounding, four: Rounding, material: Material,
    progress: Progress,
) -> Forms:  # fmt: skip
    """All matrices in both forms, and what 4 bits cost."""
    scales: dict[str, FloatArray] = {}
    all_eight, all_four, units = dict[str, PreparedMatrix](), dict[str, PreparedMatrix](), list[Unit]()
    done, first = itertools.count(1), -(-len(texts) // WEIGHED)

    def weigh_layer(layer: FloatLayer, states: States) -> list[FloatArray]:
        after, linears = layer.observed(states)
        scales.update(scales_of(layer, linears, eight))
        in_eight, in_four = (rounded_layer(layer, linears, scales, rounding) for rounding in (eight, four))
        all_eight.update(in_eight)
        all_four.update(in_four)
        made = replace(_made(material, in_eight), scales=scales)
        units.extend(_units(layer, linears, (in_eight, in_four), made, states[:first], after[:first]))
        progress("calibrate", next(done), run.num_layers)
        return after

    run.through(texts, weigh_layer)
    units.sort(key=lambda unit: unit.cost / unit.saved)
    return Forms(scales, all_eight, all_four, units)


def _units(
    layer: FloatLayer, linears: Sequence[ObservedLinear], forms: tuple[Prepared, Prepared], material: Material,
    states: States, after: States,
) -> list[Unit]:  # fmt: skip
    """A layer's. `material`: with its matrices in 8 bits. `states`, `after`: the float model's before and behind it."""
    eight, four = forms
    shapes = {name: weight.shape for name, weight in layer.weights(material.scales).items()}
    before = layer.quantized(material, states)

    def unit(names: Sequence[str]) -> Unit:
        mixed = layer.quantized(_made(material, {**eight, **{name: four[name] for name in names}}), states)
        weights = sum(int(np.prod(shapes[name])) for name in names)
        sides = [(eight[name].form, four[name].form, shapes[name]) for name in names]
        saved = sum(large.nbytes(*shape) - small.nbytes(*shape) for large, small, shape in sides)
        freed = sum(large.file_bytes(*shape) - small.file_bytes(*shape) for large, small, shape in sides)
        return Unit(tuple(names), _moved(mixed, before, after), weights, saved, freed)

    # Alike matrices that read the same, such as gate and up, are multiplied in one step where they have the same form;
    # so are those of all experts.
    alike: dict[object, list[str]] = {}
    for each in linears:
        if each.outer:  # 8 bits in any case
            continue
        key = each.name if each.origin is None else (of_all_experts(each.origin), shapes[each.name])
        alike.setdefault(key, []).append(each.name)
    return [unit(names) for names in alike.values()]


def _moved(found: States, before: States, size: States) -> float:
    """The mean over tokens of |found - before|^2 / |size|^2."""
    shares = [
        np.square(np.linalg.norm(a - b, axis=-1) / np.maximum(np.linalg.norm(c, axis=-1), 1e-30)).ravel()
        for a, b, c in zip(found, before, size, strict=True)
    ]
    return float(np.mean(np.concatenate(shares), dtype=np.float64))


def _made(material: Material, prepared: Prepared) -> Material:
    """`material` with matrices that are rounded already."""
    assert isinstance(material.scheme, IntegerScheme)
    return replace(material, scheme=replace(material.scheme, prepared=prepared))
