"""Facts about a loaded model of any kind."""

from __future__ import annotations

from pathlib import Path

from edgellm.generation.results import ModelInfo
from edgellm.ort.library import version
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.package.manifest import EncoderFacts, Manifest


def model_info(package: Path, manifest: Manifest, loaded: LoadedGraph) -> ModelInfo:
    """The facts about a model, whose `loaded` is what its tokens or numbers come from."""
    cache = None if isinstance(manifest.model, EncoderFacts) else manifest.model.cache
    return ModelInfo(
        path=package,
        model_type=manifest.model_type,
        precision=manifest.weights.precision,
        scheme=manifest.weights.scheme,
        target=manifest.target,
        device=loaded.device,
        provider=loaded.provider,
        threads=loaded.threads,
        context_length=manifest.context_length,
        vocab_size=manifest.vocab_size,
        cache_type="none" if cache is None else cache.dtype,
        cache_bytes_per_token=0 if cache is None else cache.bytes_per_token(),
        package_bytes=sum(entry.size for entry in manifest.files.values()),
        onnxruntime_version=version(),
        kernels=loaded.kernels,
    )
