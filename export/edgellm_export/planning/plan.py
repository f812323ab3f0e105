"""What an export would do, before any work: files, memory, time, and how fast the package would be on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgellm.inspection.footprint import size
from edgellm.package.manifest import DecoderFacts, EncoderFacts
from edgellm.package.report import MixturePoint
from edgellm.system.bandwidth import Bandwidth, read_bandwidth
from edgellm.system.cgroups import memory_limit
from edgellm.system.cpu import usable_cores
from edgellm.system.memory import available_memory_bytes
from edgellm_export.calibration.mixing import SHARES, Budget
from edgellm_export.planning.prediction import Prediction
from edgellm_export.planning.work_time import Speed, measured_speed, seconds
from edgellm_export.quantize import IntegerScheme, four_bits, scheme_for

# A step reads the weights at this share of the machine's read bandwidth, and each node takes so long besides. On two
# cores of an AMD EPYC: SmolLM2-135M 6.1 ms of 6.2 measured, in float32 14.4 of 13.7, Qwen2.5-0.5B's shape 14.6 of 15.2.
BANDWIDTH_SHARE, NODE_S = 0.93, 4e-6
# A prompt's products run at so many times the speed of numpy's in float32, and each node takes so long for a chunk.
PRODUCTS = {"fp32": 3.0, "fp16": 3.0, "int8": 6.6, "int4": 2.7, "mixed": 6.6}
CHUNK, CHUNK_NODE_S = 128, 60e-6
CONTEXTS = (512, 2048, 8192)


@dataclass(frozen=True)
class Resources:
    """What the machine has that a plan is for; None where it is not known. Memory and disk are in bytes."""

    threads: int
    bandwidth: Bandwidth | None
    speed: Speed
    memory_free: int | None
    disk_free: int


@dataclass(frozen=True)
class Plan:
    """A prediction on a machine: how long the export takes, how fast its package is, and what speaks against it.

    Speeds are those of a package that decodes, on the CPU; else None. `cache` gives bytes by tokens, `problems` say why
    the export would fail here, or might. `mixture`: of mixed precision, what there is between all layers in 8 bits, for
    which the other figures are, and all in 4; how far each is from the original is known when it has been measured.
    """

    prediction: Prediction
    machine: Resources
    seconds: float
    tokens_per_second: float | None
    prompt_tokens_per_second: float | None
    cache: Mapping[int, int]
    problems: tuple[str, ...]
    mixture: tuple[MixturePoint, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        it, machine = self.prediction, self.machine
        return {
            "files": dict(it.files),
            "size_bytes": it.size,
            "scratch_bytes": it.scratch,
            "peak_memory_bytes": it.peak,
            "peak_memory_by_step": dict(it.peaks),
            "seconds": self.seconds,
            "package_memory_bytes": {"context": it.package.context, "total": it.package.total},
            "read_per_token_bytes": it.read_per_token,
            "cache_bytes": {str(tokens): count for tokens, count in self.cache.items()},
            "tokens_per_second": self.tokens_per_second,
            "prompt_tokens_per_second": self.prompt_tokens_per_second,
            "machine": {
                "threads": machine.threads,
                "read_bandwidth_bytes_per_s": None if machine.bandwidth is None else machine.bandwidth.bytes_per_s,
                "float32_flops": machine.speed.flops,
                "memory_free_bytes": machine.memory_free,
                "disk_free_bytes": machine.disk_free,
            },
            "mixture": [asdict(point) for point in self.mixture],
            "problems": list(self.problems),
        }


def measure_resources(out: Path) -> Resources:
    """Measure this machine, for about a second. `out` is where the package would be."""
    threads, limit, available = usable_cores(), memory_limit(), available_memory_bytes()
    bandwidth = read_bandwidth(threads)
    bounds = [each for each in (available, None if limit is None else limit.limit - limit.used) if each is not None]
    there = next(place for place in (out.absolute(), *out.absolute().parents) if place.is_dir())
    return Resources(
        threads=threads,
        bandwidth=bandwidth if isinstance(bandwidth, Bandwidth) else None,
        speed=measured_speed(),
        memory_free=min(bounds, default=None),
        disk_free=shutil.disk_usage(there).free,
    )


def plan_of(prediction: Prediction, machine: Resources, budget: Budget | None = None) -> Plan:
    """`budget`: of mixed precision."""
    manifest = prediction.manifest
    contexts = [tokens for tokens in CONTEXTS if tokens < manifest.context_length] + [manifest.context_length]
    cache = None if isinstance(manifest.model, EncoderFacts) else manifest.model.cache
    mixture = speeds(_mixture(prediction), prediction, machine.bandwidth)
    return Plan(
        prediction=prediction,
        machine=machine,
        seconds=seconds(prediction.work, prediction.size, machine.speed),
        tokens_per_second=_tokens_per_second(prediction, machine.bandwidth, prediction.read_per_token),
        prompt_tokens_per_second=_prompt_tokens_per_second(prediction, machine),
        cache={} if cache is None else {tokens: cache.row_bytes(tokens) for tokens in contexts},
        problems=(*problems(prediction, machine), *_beyond(mixture, budget)),
        mixture=mixture,
    )


def _mixture(prediction: Prediction) -> list[MixturePoint]:
    """Without what only measuring can say."""
    if prediction.manifest.weights.precision != "mixed":
        return []
    target = prediction.manifest.target
    scheme, four = scheme_for("mixed", target), four_bits(target)
    assert isinstance(scheme, IntegerScheme)
    saved = sum(
        scheme.inner.file_bytes(each.rows, each.columns) - four.file_bytes(each.rows, each.columns)
        for each in prediction.work.matrices
    )
    return [MixturePoint(share, int(prediction.size - share * saved)) for share in SHARES]


def _beyond(mixture: Sequence[MixturePoint], budget: Budget | None) -> list[str]:
    """Why no mixture will be within the budget, as far as sizes go."""
    if budget is None or budget.size is None or mixture[-1].size_bytes <= budget.size:
        return []
    return [f"{size(mixture[-1].size_bytes)} is the least of any mixture, and {size(budget.size)} are allowed"]


def speeds(mixture: Sequence[MixturePoint], prediction: Prediction, bandwidth: object) -> tuple[MixturePoint, ...]:
    """The points with how fast each decodes: a step reads so much less as the package is smaller."""
    found = []
    for point in mixture:
        read = prediction.read_per_token - (mixture[0].size_bytes - point.size_bytes)
        found.append(replace(point, tokens_per_second=_tokens_per_second(prediction, bandwidth, read)))
    return tuple(found)


def _tokens_per_second(prediction: Prediction, bandwidth: object, read: int) -> float | None:
    """The speed of decoding with a short context, where a step reads so many bytes of weights."""
    manifest = prediction.manifest
    if isinstance(manifest.model, EncoderFacts) or manifest.target == "cuda" or not isinstance(bandwidth, Bandwidth):
        return None
    reading = read / (BANDWIDTH_SHARE * bandwidth.bytes_per_s)
    return 1 / (reading + NODE_S * prediction.nodes)


def _prompt_tokens_per_second(prediction: Prediction, machine: Resources) -> float | None:
    manifest = prediction.manifest
    if not isinstance(manifest.model, DecoderFacts) or manifest.target == "cuda":
        return None
    weights = prediction.work.multiplied
    rate = PRODUCTS[manifest.weights.precision] * machine.speed.flops
    return CHUNK / (2 * CHUNK * weights / rate + CHUNK_NODE_S * prediction.nodes)


def problems(prediction: Prediction, machine: Resources) -> list[str]:
    """Why the export would fail here, in a line each."""
    found = []
    if machine.disk_free < prediction.size + prediction.scratch:
        more = f", its comparison {size(prediction.scratch)} more" if prediction.scratch else ""
        found.append(
            f"the disk has {size(machine.disk_free)} left, and the package takes {size(prediction.size)}{more}"
        )
    free = machine.memory_free
    if free is not None and free < prediction.peak - prediction.base:
        found.append(f"{size(free)} of memory are free, and the export takes {size(prediction.peak)}")
    return found
