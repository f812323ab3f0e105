"""What an export leaves to each kind of model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from edgellm.errors import ExportError
from edgellm.package.manifest import GraphFile, Manifest, ModelFacts, Task, TokenIds, Weights
from edgellm.package.report import Report
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import Progress
from edgellm_export.architectures.names import Names
from edgellm_export.blocks.build import CacheScales, DecoderShape, Material
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.exporters.contract import Choices
from edgellm_export.float_run.layers import FloatRun
from edgellm_export.onnx.builder import BuiltGraph
from edgellm_export.package.side_files import versions
from edgellm_export.quantize import IntegerScheme, WeightScheme, scheme_for
from edgellm_export.verification.layers import WrittenPackage

Text = TypeVar("Text", bound=Sized)
Facts = TypeVar("Facts", bound=ModelFacts)


@dataclass(frozen=True)
class Recipe(ABC, Generic[Text]):
    """A checkpoint under its family's `names`, and what the caller chose. `Text`: what its model reads."""

    checkpoint: Checkpoint
    choices: Choices
    names: Names
    shape: DecoderShape

    @property
    def scheme(self) -> WeightScheme:
        """How weights are stored that no text has decided about."""
        return scheme_for(self.choices.precision, self.choices.target)

    @property
    def calibrates(self) -> bool:
        """Whether text will decide: there is something to round, and a tokenizer to make tokens of text with."""
        rounds = isinstance(self.scheme, IntegerScheme)
        return self.choices.calibrate and rounds and "tokenizer.json" in self.checkpoint.files

    @property
    def ignored(self) -> Sequence[str]:
        """Patterns of the tensors that may be left over."""
        return self.names.ignored(tied=self.shape.tied_embedding)

    @property
    @abstractmethod
    def original(self) -> FloatRun[Text]:
        """A float run of the checkpoint."""

    @abstractmethod
    def manifest(self) -> Manifest[Any]:
        """The manifest, still without its files' hashes."""

    @abstractmethod
    def graphs(self, material: Material) -> Mapping[str, BuiltGraph]:
        """The package's graphs by the names of their files."""

    @abstractmethod
    def texts(self, work: Path, manifest: Manifest[Any]) -> Sequence[Text]:
        """Text to calibrate with, by the tokenizer in `work`; none without one. Raises ExportError where the user's is
        too short."""

    @abstractmethod
    def measured(self, tokenizer: Tokenizer, manifest: Manifest[Any]) -> Sequence[Text]:
        """The texts that `verify` compares on."""

    @abstractmethod
    def verify(self, written: WrittenPackage[Any], progress: Progress) -> Report:
        """Compare a package with its original."""

    def describe(self, work: Path, manifest: Manifest[Any]) -> None:
        """Write the files that say to other programs what the manifest says."""

    def borrowers(self, material: Material) -> Mapping[str, BuiltGraph]:
        """Graphs for other programs by the names of their files, all of whose weights are those of `graphs`."""
        return {}

    def cache(self, work: Path, manifest: Manifest[Any], progress: Progress) -> Sequence[CacheScales | None]:
        """Scales of an int8 key/value cache, if there is to be one."""
        return ()

    def expected_cache(self) -> Sequence[CacheScales | None]:
        """Scales of the same shapes, before any work."""
        return ()

    def described(self, task: Task, graphs: Mapping[str, GraphFile], model: Facts, tokens: TokenIds) -> Manifest[Facts]:
        """A manifest, with what is the same for all kinds of model."""
        return Manifest(
            task=task,
            model_type=str(self.checkpoint.config["model_type"]),
            target=self.choices.target,
            graphs=graphs,
            model=model,
            weights=Weights(self.choices.precision, self.scheme.name, self.shape.tied_embedding),
            vocab_size=self.shape.vocab_size,
            context_length=self.shape.context_length,
            tokens=tokens,
            source=dict(self.checkpoint.source),
            versions=versions(),
        )


def check_cuda(choices: Choices) -> None:
    """Raises ExportError for what attention on CUDA does not have."""
    if choices.target == "cuda" and choices.precision == "fp32":
        raise ExportError(
            "CUDA's attention kernel has no float32; export with --precision fp16 for CUDA, or fp32 for the CPU"
        )
