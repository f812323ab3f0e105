"""How much memory a package takes when it runs, estimated from its files; nothing is loaded.

Calibrated on Linux x86-64 with ONNX Runtime 1.31; `tests/e2e/test_footprint.py` holds the estimate to what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgellm.inspection.graph_weights import StoredWeight, stored_weights
from edgellm.package.manifest import EncoderFacts, Manifest

BASE_BYTES = 65 * 2**20  # Python, numpy, ONNX Runtime, and what a session takes without weights
TOKENIZER_FACTOR = 22  # bytes in memory for each of tokenizer.json
ACTIVATIONS = 8  # arrays of a chunk's tokens by the widest layer's outputs that are alive at a time
CHUNK_TOKENS = 128  # of a prompt, read at a time


@dataclass(frozen=True)
class Footprint:
    """Estimated bytes of a process that runs one sequence of `context` tokens. `base`: what any package takes, without
    its `tokenizer`. `weights`: as they lie in memory, which may be wider than in the files. `loading`: on top while
    they are packed, then given back. `cache`: keys and values. `run`: what one run computes."""

    context: int
    base: int
    tokenizer: int
    weights: int
    loading: int
    cache: int
    run: int

    @property
    def total(self) -> int:
        """The largest size that the process has."""
        return self.base + self.tokenizer + self.weights + max(self.loading, self.cache + self.run)


def footprint(package: Path, manifest: Manifest, context: int) -> Footprint:
    """The estimate for a package. `context`: tokens in the cache, or of an encoder's text. Raises PackageError where a
    graph cannot be read."""
    weights = _weights(package, manifest)
    tokenizer = package / "tokenizer.json"
    text = tokenizer.stat().st_size if tokenizer.is_file() else 0
    largest = max((each.loaded_bytes for each in weights), default=0)
    return Footprint(
        context=context,
        base=BASE_BYTES,
        tokenizer=TOKENIZER_FACTOR * text,
        weights=sum(each.loaded_bytes for each in weights) + (largest if _is_widened(manifest) else 0),
        loading=0 if _is_float(manifest) else largest,
        cache=cache_bytes(manifest, context),
        run=_run_bytes(weights, manifest, context),
    )


def cache_bytes(manifest: Manifest, context: int) -> int:
    """The bytes of one row's caches with `context` tokens; an encoder-decoder's source is as long as its target."""
    return manifest.model.row_bytes(context)


def _weights(package: Path, manifest: Manifest) -> list[StoredWeight]:
    """The weights of all graphs, those that several share once: they are mapped, or packed by the one that multiplies
    by them."""
    together: dict[tuple[str, ...], StoredWeight] = {}
    for graph in manifest.graphs.values():
        for place, weight in stored_weights(package / graph.file).items():
            known = together.get(place)
            together[place] = weight if known is None else max(known, weight, key=lambda each: each.loaded_bytes)
    return list(together.values())


def _is_float(manifest: Manifest) -> bool:
    return manifest.weights.precision in ("fp32", "fp16")


def _is_widened(manifest: Manifest) -> bool:
    """Whether the embedding lies there as float32 and, packed, as the head."""
    weights = manifest.weights
    return manifest.target == "cpu" and weights.precision == "fp16" and weights.tied_embedding


def _run_bytes(weights: list[StoredWeight], manifest: Manifest, context: int) -> int:
    tokens = context if isinstance(manifest.model, EncoderFacts) else min(context, CHUNK_TOKENS)
    widths = {each.width for each in weights} - {manifest.vocab_size}  # the head: one token
    return 4 * (ACTIVATIONS * tokens * max(widths, default=0) + manifest.vocab_size)


def size(count: float) -> str:
    """`count` bytes as text, such as "126.2 MiB"."""
    for unit, limit in (("B", 2**10), ("KiB", 2**20), ("MiB", 2**30)):
        if count < limit:
            return f"{count * 2**10 / limit:.{0 if unit == 'B' else 1}f} {unit}"
    return f"{count / 2**30:.2f} GiB"
