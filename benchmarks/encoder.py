"""Encoders beside ONNX Runtime's own dynamic INT8 and OpenVINO at its default.

    python benchmarks/encoder.py [--model minilm] [--tokens 128] [--batches 1,8] [--rounds 8] [--threads 2] [--keep]

Models: random weights in BERT-base's shape, or all-MiniLM-L6-v2, which `make model` fetches. Every system is a process
of its own with the same weights, given the same batches, in turns, in an order that changes. Times are in milliseconds
a batch, medians of rounds (a round of small batches is the median of 8); ratios are of the same round. Agreement is
with this project's float32 package: cosine and relative error of the last hidden states of one English text (of random
ids where the weights are random), and for a sentence encoder of how many of 200 sentences the nearest other stays the
same. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from tokenizers import Tokenizer

import edgellm_export
from conversion import OFFLINE
from encoder_checkpoints import BERT_BASE, minilm, write_checkpoint
from environments import CACHE, python_of
from measuring import ratio
from systems import System
from workers import PEERS, Start, Worker

OWN, REFERENCE = "edgellm int8", "edgellm fp32"
STATES = "feature-extraction"
SENTENCES = 200


@dataclass(frozen=True)
class Peer:
    """Which environment's worker runs which file of the model's directory."""

    environment: str
    worker: str
    model: str


SYSTEMS = {
    OWN: Peer("edgellm", "encoder_own.py", "edgellm-int8"),
    REFERENCE: Peer("edgellm", "encoder_own.py", "edgellm-fp32"),
    "ONNX Runtime dynamic INT8": Peer("edgellm", "encoder_ort.py", "bert-int8.onnx"),
    "OpenVINO 2026.4 default": Peer("openvino-genai", "encoder_ov.py", "bert.onnx"),
}


@dataclass(frozen=True)
class Model:
    """A model to measure. `checkpoint` makes its directory, or finds it; packages and peers' graphs lie in `home`. One
    that is `trained` encodes sentences; random weights come with a tokenizer of letters."""

    title: str
    home: Path
    checkpoint: Callable[[], Path]
    trained: bool


@dataclass(frozen=True)
class Measured:
    """One system's figures: `ms` by batch size, a value a round; `nearest`, the share of sentences whose nearest other
    is float32's, None for random weights."""

    ms: Mapping[int, Sequence[float]]
    peak_rss_mib: float
    cosine: float
    error: float
    nearest: float | None


MODELS = {
    "bert-base-random": Model(
        "BERT-base's shape, random weights",
        CACHE / "encoder" / "bert-base-random",
        lambda: write_checkpoint(CACHE / "checkpoints" / "bert-base-random"),
        trained=False,
    ),
    "minilm": Model("all-MiniLM-L6-v2", CACHE / "encoder" / "minilm", minilm, trained=True),
}


def prepare(model: Model, *, keep: bool) -> None:
    """Our packages, exported anew unless `keep`: what is timed is this code's output; and the peers' graphs."""
    checkpoint = model.checkpoint()
    model.home.mkdir(parents=True, exist_ok=True)
    for precision in ("int8", "fp32"):
        out = model.home / f"edgellm-{precision}"
        if not (keep and out.is_dir()):
            edgellm_export.export(checkpoint, out, precision=precision, task=STATES, force=True)  # type: ignore[arg-type]
    if not (model.home / "bert-int8.onnx").is_file():
        command = [
            python_of("onnxruntime-genai"),
            str(PEERS / "bert_onnx.py"),
            str(checkpoint),
            str(model.home / "bert.onnx"),
        ]
        subprocess.run(command, env=OFFLINE, check=True, stdout=sys.stderr)


def text_ids(model: Model, tokens: int) -> list[int]:
    """The tokens of a chapter of Python's documentation, or random ones."""
    if not model.trained:
        return [int(i) for i in np.random.default_rng(0).integers(1000, BERT_BASE["vocab_size"], tokens)]
    return list(tokenizer_of(model).encode(" ".join(topics["assignment"].split())).ids[:tokens])


def sentence_ids(model: Model) -> list[list[int]]:
    """The tokens of sentences from all chapters of Python's documentation; none where the weights are random."""
    if not model.trained:
        return []
    text = " ".join(" ".join(topics[name] for name in sorted(topics)).split())
    found = [sentence for sentence in re.split(r"(?<=[.!?])\s+", text) if 40 < len(sentence) < 300]
    tokenizer = tokenizer_of(model)
    return [list(tokenizer.encode(sentence).ids) for sentence in found[:: len(found) // SENTENCES][:SENTENCES]]


def tokenizer_of(model: Model) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(model.checkpoint() / "tokenizer.json"))
    tokenizer.no_padding()
    return tokenizer


def start(name: str, peer: Peer, home: Path, threads: int) -> Worker:
    system = System(peer.environment, peer.worker, lambda model, precision: Path(), {})
    return Start(name, system, home / peer.model, threads, 512).worker()


def measure(model: Model, batches: Sequence[int], tokens: int, rounds: int, threads: int) -> dict[str, Measured]:
    """Measure every system, after a round that is not recorded."""
    ids, sentences = text_ids(model, tokens), sentence_ids(model)
    times: dict[str, dict[int, list[float]]] = {name: {batch: [] for batch in batches} for name in SYSTEMS}
    peaks: dict[str, float] = {}
    with ExitStack() as stack, tempfile.TemporaryDirectory() as scratch:
        workers = [
            stack.enter_context(closing(start(name, peer, model.home, threads))) for name, peer in SYSTEMS.items()
        ]
        for turn in range(rounds + 1):
            first = turn % len(workers)
            for worker in [*workers[first:], *workers[:first]]:
                for batch in batches:
                    answers = [worker.time_several(tokens, 0, rows=batch, beams=1) for _ in range(1 + runs(batch))]
                    peaks[worker.name] = answers[-1]["peak_rss_mb"]
                    if turn:  # the first run of a turn comes after the others' work, and warms up
                        times[worker.name][batch].append(1000 * statistics.median(a["decode_s"] for a in answers[1:]))
        states = {worker.name: states_of(worker, ids, Path(scratch)) for worker in workers}
        nearest = {
            worker.name: nearest_of([states_of(worker, ids, Path(scratch)).mean(axis=0) for ids in sentences])
            for worker in workers
        }
    return {
        name: Measured(
            times[name],
            peaks[name],
            cosine(states[name], states[REFERENCE]),
            error(states[name], states[REFERENCE]),
            float((nearest[name] == nearest[REFERENCE]).mean()) if sentences else None,
        )
        for name in SYSTEMS
    }


def runs(batch: int) -> int:
    """How many runs a turn has, the warm-up not counted."""
    return max(1, 8 // batch)


def states_of(worker: Worker, ids: Sequence[int], scratch: Path) -> np.ndarray:
    worker.write_logits(ids, scratch / "states.npy")
    found: np.ndarray = np.load(scratch / "states.npy")
    return found


def nearest_of(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """The place of the other vector with the largest cosine, for each: [n]."""
    if not vectors:
        return np.empty(0, np.int64)
    unit = np.stack(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarities = unit @ unit.T
    np.fill_diagonal(similarities, -1)
    found: np.ndarray = similarities.argmax(axis=1)
    return found


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).mean())


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def table(found: Mapping[str, Measured], batches: Sequence[int]) -> str:
    heads = [f"batch {batch}, ms | edgellm is faster by" for batch in batches]
    lines = [
        f"| | {' | '.join(heads)} | cosine to fp32 | error | nearest sentence kept | peak RSS MiB |",
        "|---|" + "---|" * (2 * len(batches) + 4),
    ]
    for name, measured in found.items():
        cells = []
        for batch in batches:
            middle, low, high = ratio(measured.ms[batch], found[OWN].ms[batch])
            cells.append(f"{statistics.median(measured.ms[batch]):.1f}")
            cells.append("" if name == OWN else f"{middle:.2f}x ({low:.2f}-{high:.2f})")
        lines.append(
            f"| {name} | {' | '.join(cells)} | {measured.cosine:.5f} | {measured.error:.2%} | "
            f"{'-' if measured.nearest is None else f'{measured.nearest:.1%}'} | {measured.peak_rss_mib:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Encoders, int8.")
    parser.add_argument("--model", choices=list(MODELS), default="bert-base-random")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="time the packages of the last run, not new exports")
    a = parser.parse_args()
    batches = [int(batch) for batch in a.batches.split(",")]
    model = MODELS[a.model]
    prepare(model, keep=a.keep)
    found = measure(model, batches, a.tokens, a.rounds, a.threads)
    print(f"{model.title}, {a.tokens} tokens, {a.threads} threads, medians of {a.rounds} interleaved rounds\n")
    print(table(found, batches))
    print(json.dumps({name: asdict(measured) for name, measured in found.items()}))


if __name__ == "__main__":
    main()
