"""The package directory as frozen dataclasses: what `edgellm.json` says, read and validated in one place.

The exporter writes a `Manifest`, the runtime reads it; nothing else passes between the two. The runtime never looks at
an architecture's name: whatever it needs to know is a field here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Generic, TypeGuard

from edgellm.errors import OptionError
from edgellm.package.layouts import (
    ATTENTIONS,
    CACHE_ITEM_BYTES,
    CROSS_ATTENTIONS,
    ENCODER_TASKS,
    GENERATION_TASKS,
    INTEGERS,
    LABEL_TASKS,
    SPEECH_TASKS,
    TASKS,
    AudioFeatures,
    CacheLayout,
    CacheTensor,
    ConvLayout,
    CrossCacheLayout,
    DecoderFacts,
    Embedding,
    EncoderDecoderFacts,
    EncoderFacts,
    FileEntry,
    GraphFile,
    KVCacheChoice,
    KVCacheType,
    ModelFacts,
    Pooling,
    Precision,
    Problem,
    Rope,
    SpeechFacts,
    StateLayout,
    Target,
    Task,
    TokenIds,
    Weights,
)
from edgellm.package.manifest_file import FORMAT_VERSION, MANIFEST_NAME, ManifestFile, read_fields

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # with a default, which Python's own has from 3.13 on

    Facts = TypeVar("Facts", bound=ModelFacts, default=ModelFacts, covariant=True)
else:
    from typing import TypeVar

    Facts = TypeVar("Facts")

# Fields that earlier versions refuse: of the manifest, and of its cache.
YOUNGER = ("audio", "global_attention", "counts_by_row")
YOUNGER_OF_CACHE = ("conv", "values_are_keys", "shared", "states")
__all__ = [
    "ATTENTIONS", "CACHE_ITEM_BYTES", "CROSS_ATTENTIONS", "ENCODER_TASKS", "FORMAT_VERSION", "GENERATION_TASKS",
    "LABEL_TASKS", "MANIFEST_NAME", "SPEECH_TASKS", "TASKS", "AudioFeatures", "CacheLayout", "CacheTensor",
    "ConvLayout", "CrossCacheLayout", "DecoderFacts", "Embedding", "EncoderDecoderFacts", "EncoderFacts", "Facts",
    "FileEntry", "GraphFile", "KVCacheChoice", "KVCacheType", "Manifest", "ModelFacts", "Pooling", "Precision",
    "Problem", "Rope", "SpeechFacts", "StateLayout", "Target", "Task", "TokenIds", "Weights", "is_of",
]  # fmt: skip


@dataclass(frozen=True)
class Manifest(Generic[Facts]):
    """`edgellm.json`. `model`: what only its kind of model has. `files` maps each other file of the package, by POSIX
    path inside it, to its size and hash. `context_length`: in tokens, of an encoder-decoder the longest target."""

    task: Task
    model_type: str
    target: Target
    graphs: Mapping[str, GraphFile]
    model: Facts
    weights: Weights
    vocab_size: int
    context_length: int
    tokens: TokenIds
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def has_hashes(self) -> bool:
        """Whether this was read from a file; a directory of another tool's graphs has none."""
        return all(entry.sha256 for entry in self.files.values())

    @property
    def arrives_fused(self) -> bool:
        """Whether the graphs are edgellm's own; in those of other tools there are operators to join."""
        return self.source.get("kind") != "onnx" and "optimum-onnx" not in self.versions

    @property
    def decoding_rounds_apart(self: Manifest[DecoderFacts]) -> bool:
        """Whether a token decoded by itself leaves keys and values behind that differ from those of the same token in a
        prompt by more than float rounding. Attention over a float cache adds in another order then; where the matrices
        are integers, rounding the activations enlarges that."""
        return self.weights.precision in INTEGERS and self.target == "cpu" and self.model.cache.dtype != "int8"

    def loaded_as(self, kv_cache: KVCacheChoice) -> Manifest:
        """The manifest with the cache that is asked for when the package is loaded. Raises OptionError."""
        if kv_cache == "auto":
            return self
        if isinstance(self.model, EncoderFacts):
            raise OptionError(f"kv_cache is {kv_cache!r}, and a package for {self.task} has no key/value cache")
        return replace(self, model=replace(self.model, cache=self.model.cache.as_bfloat16()))

    def to_dict(self) -> dict[str, Any]:
        """The content of the file, in which the fields of all kinds of model lie side by side. Those that are younger
        are in packages that need them only."""
        own = {"cache": None, "encoder": self.model} if isinstance(self.model, EncoderFacts) else vars(self.model)
        content = asdict(ManifestFile(**own, **{name: getattr(self, name) for name in COMMON}))
        cache = content["cache"]
        for name in () if cache is None else YOUNGER_OF_CACHE:
            if not cache[name]:
                del cache[name]
        return {name: value for name, value in content.items() if value or name not in YOUNGER}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Manifest:
        """Raises PackageVersionError for a newer format, PackageCorruptError for missing, unknown, mistyped fields."""
        found = read_fields(data)
        return Manifest(model=found.model(), **{name: getattr(found, name) for name in COMMON})


COMMON = [each.name for each in fields(Manifest) if each.name != "model"]


def is_of(manifest: Manifest, kind: type[Facts]) -> TypeGuard[Manifest[Facts]]:
    """Whether the manifest is of that kind of model."""
    return isinstance(manifest.model, kind)
