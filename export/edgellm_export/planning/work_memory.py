"""How much memory an export takes, step by step, and how much disk on the way. The steps hold one layer at a time, so
what counts is the largest layer, the text, and the package when it is run; the factors are how many copies of each a
step has alive.

Calibrated on exports of SmolLM2-135M, MiniLM, and the shapes of Qwen2.5-0.5B, T5-base and BERT-base on Linux x86-64
(benchmarks/plan.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.inspection.footprint import CHUNK_TOKENS, Footprint
from edgellm.package.manifest import EncoderDecoderFacts, EncoderFacts, Manifest, is_of
from edgellm_export.exporters.contract import Outline
from edgellm_export.exporters.decoder import WEIGHTS_TOKENS
from edgellm_export.float_run.divergence import SLICE
from edgellm_export.quantize.calibrated import SPREAD_COLUMNS
from edgellm_export.quantize.pieces import PIECE_ELEMENTS
from edgellm_export.verification import decoder, encoder, encoder_decoder

MIB = 2**20
LIBRARIES = 31 * MIB  # buffers of numpy's linear algebra
FREED = 54 * MIB  # what a layer left and was not given back: as much as it took, at most this
COMPARING = 21 * MIB
LAYER_COPIES = 3  # of a layer's weights in float32: as read, as ONNX Runtime packs them, and on the way
MATRIX_COPIES = 5  # of a matrix while it is rounded
INPUT_COPIES = 2  # of the longest inputs: in one piece, and each token of length 1
MOMENTS_COPIES = 5  # of columns x columns in float64, where errors are spread
PIECE_COPIES = 6
SESSION = 10 * MIB
LOGITS_COPIES = 2.1  # of a chunk's logits, when the package is run
COMPARED_COPIES = 3  # of a slice of all logits, when they are compared
ENCODER_COPIES = 5  # of its tokens by the widest layer
EMBEDDING_COPIES = 3  # in float32, of an encoder: others read the rows that the text needs
OUTPUTS_COPIES = 2.1, 4.2  # of an encoder's numbers for the vocabulary: of a run, and of a text that is compared


@dataclass(frozen=True)
class WorkMatrix:
    """A matrix of the package; `reads` names the value that it multiplies, which others may read too. `expert`: which
    one's it is, or nothing. `share`: of the tokens, that go through it."""

    layer: str
    expert: str
    rows: int
    columns: int
    reads: str
    share: float

    @property
    def elements(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True)
class Work:
    """What an export has to do."""

    manifest: Manifest
    matrices: Sequence[WorkMatrix]
    package: Footprint
    widest: int
    calibrates: bool
    verifies: bool

    @classmethod
    def of(cls, outline: Outline, package: Footprint, *, verifies: bool) -> Work:
        matrices = []
        for projection in outline.projections:
            match = re.match(r"(?P<layer>.*?\.\d+)/(?P<expert>.*/experts\.\d+/)?", projection.name)
            if match is not None:
                rows, columns = projection.weight.shape
                expert, reads = match["expert"] or "", str(projection.x.name)
                matrices.append(WorkMatrix(match["layer"], expert, rows, columns, reads, projection.share))
        widest = max((max(matrix.rows, matrix.columns) for matrix in matrices), default=0)
        return cls(outline.manifest, matrices, package, widest, outline.calibrates, verifies)

    @property
    def layers(self) -> dict[str, list[WorkMatrix]]:
        found: dict[str, list[WorkMatrix]] = {}
        for matrix in self.matrices:
            found.setdefault(matrix.layer, []).append(matrix)
        return found

    @property
    def layer_weights(self) -> int:
        """The most that a layer has at once, whose experts come one after the other."""
        most = 0
        for layer in self.layers.values():
            pieces: dict[str, int] = {"": 0}
            for matrix in layer:
                pieces[matrix.expert] = pieces.get(matrix.expert, 0) + matrix.elements
            most = max(most, pieces.pop("") + max(pieces.values(), default=0))
        return most

    @property
    def multiplied(self) -> float:
        """How many weights a token is multiplied by."""
        return sum(matrix.share * matrix.elements for matrix in self.matrices)

    @property
    def embedding(self) -> int:
        """About how many weights the embedding has."""
        return self.manifest.vocab_size * self.hidden

    @property
    def hidden(self) -> int:
        """Channels between the layers."""
        return min((matrix.columns for matrix in self.matrices), default=0)

    @property
    def spreads(self) -> int:
        """The most columns of a matrix whose errors are spread."""
        limit = SPREAD_COLUMNS if self.manifest.weights.precision == "int8" else self.widest
        return max((matrix.columns for matrix in self.matrices if matrix.columns <= limit), default=0)


def _texts(work: Work) -> int:
    """The most channels, of all tokens, that a layer's matrices read."""
    read = [{m.reads: m.share * m.columns for m in layer} for layer in work.layers.values()]
    return int(max((sum(each.values()) for each in read), default=0))


def peaks(work: Work, base: int) -> dict[str, int]:
    """The bytes that the process takes at each step. `base`: what it has before the first."""
    steps = {"writing weights": _writing(work)}
    if work.calibrates:
        steps["calibrating"] = _calibrating(work)
    if work.verifies:
        steps["running the package"] = _running(work)
        steps["comparing"] = _comparing(work)
    return {step: base + extra for step, extra in steps.items()}


def _writing(work: Work) -> int:
    largest = max([matrix.elements for matrix in work.matrices] + [work.embedding], default=0)
    return 4 * PIECE_COPIES * min(PIECE_ELEMENTS, largest)


def _calibrating(work: Work) -> int:
    weights = work.layer_weights
    inputs = _texts(work)
    columns = max((matrix.columns for matrix in work.matrices), default=0)
    largest = max((matrix.elements for matrix in work.matrices), default=0)
    text = WEIGHTS_TOKENS * (inputs + INPUT_COPIES * columns)
    rounding = 4 * (LAYER_COPIES * weights + MATRIX_COPIES * largest + text) + 8 * MOMENTS_COPIES * work.spreads**2
    taken = max(rounding, _embedding(work))
    return LIBRARIES + min(FREED, taken) + taken


def _running(work: Work) -> int:
    package, manifest = work.package, work.manifest
    if isinstance(manifest.model, EncoderFacts):
        run = 4 * ENCODER_COPIES * encoder.TOKENS * work.widest + _outputs(manifest)[0]
    else:
        run = int(4 * LOGITS_COPIES * min(CHUNK_TOKENS, _text_length(manifest)) * manifest.vocab_size)
    return package.tokenizer + package.weights + SESSION + max(package.loading, run)


def _comparing(work: Work) -> int:
    manifest = work.manifest
    layer = 4 * LAYER_COPIES * work.layer_weights
    if isinstance(manifest.model, EncoderFacts):
        return COMPARING + layer + _embedding(work) + _outputs(manifest)[1]
    entries = min(SLICE, manifest.vocab_size)
    logits = 4 * COMPARED_COPIES * compared_rows(manifest) * entries
    return COMPARING + max(layer, logits + 4 * LAYER_COPIES * entries * work.hidden)


def _embedding(work: Work) -> int:
    """The bytes of an encoder's embedding, of which the others read only rows."""
    return 4 * EMBEDDING_COPIES * work.embedding if isinstance(work.manifest.model, EncoderFacts) else 0


def _outputs(manifest: Manifest) -> tuple[int, int]:
    """The bytes of an encoder's numbers for the vocabulary, while the package runs and while it is compared."""
    if manifest.task != "fill-mask":
        return 0, 0
    text = encoder.LENGTH * manifest.vocab_size
    running, comparing = OUTPUTS_COPIES
    return int(4 * running * max(encoder.RUN, text)), int(4 * comparing * text)


def _text_length(manifest: Manifest) -> int:
    if is_of(manifest, EncoderDecoderFacts):
        return encoder_decoder.pair_length(manifest, encoder_decoder.LENGTH) + 1
    return decoder.text_length(manifest)


def scratch(work: Work) -> int:
    """The bytes of disk that the comparison takes beside the package, until it is done."""
    return 4 * compared_rows(work.manifest) * compared_outputs(work.manifest) if work.verifies else 0


def compared_outputs(manifest: Manifest) -> int:
    """How many numbers of each token are compared, where they are many."""
    generates = not isinstance(manifest.model, EncoderFacts)
    return manifest.vocab_size if generates or manifest.task == "fill-mask" else 0


def compared_rows(manifest: Manifest) -> int:
    """Tokens of text and of continuations."""
    if is_of(manifest, EncoderDecoderFacts):
        return encoder_decoder.compared_tokens(manifest)
    return encoder.compared_tokens(manifest) if is_of(manifest, EncoderFacts) else decoder.compared_tokens(manifest)
