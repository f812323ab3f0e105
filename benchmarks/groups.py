"""One of each group of models beside its best peers: speech, sentence encoders, mixtures of experts.

    python benchmarks/groups.py [--groups speech,encoder,mixture] [--sizes full] [--rounds 7] [--threads 2] [--keep]
        [--update-readme]

Random weights in the shapes of Whisper base, of ModernBERT-base and of four of OLMoE's layers (a GGUF file, which
edgellm and llama.cpp both read); with `--sizes tiny` much smaller, to see that all works. Every system is a process of
its own with the same weights and the same number of threads, given the same requests, in turns, in an order that
changes; what ends a text is ignored. Times are in milliseconds, medians of rounds; ratios are of the same round. Prints
a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edgellm_export
from conversion import OFFLINE
from environments import CACHE, ENVIRONMENTS, python_of
from gguf_writing import write_random_olmoe
from measuring import ratio
from rendering import README, processor
from systems import System
from workers import PEERS, Start, Worker

OWN = "edgellm int8"
BEGIN, END = "<!-- begin groups -->", "<!-- end groups -->"
CONTEXT = 512  # tokens of a prompt and its answer, at most
MODELS = "transformers-4"  # the environment in which models are made
SIZES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "full": {
        "whisper": {
            "d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8,
            "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048,
        },
        "modernbert": {
            "hidden_size": 768, "num_hidden_layers": 22, "num_attention_heads": 12, "intermediate_size": 1152,
        },
        "olmoe": {
            "block_count": 4, "context_length": 4096, "embedding_length": 2048, "feed_forward_length": 1024,
            "attention.head_count": 16, "attention.head_count_kv": 16, "expert_count": 64, "expert_used_count": 8,
        },
    },
    "tiny": {
        "whisper": {
            "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128,
        },
        "modernbert": {
            "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 96,
        },
        "olmoe": {
            "block_count": 2, "context_length": 4096, "embedding_length": 256, "feed_forward_length": 128,
            "attention.head_count": 8, "attention.head_count_kv": 8, "expert_count": 8, "expert_used_count": 2,
        },
    },
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """`length`: tokens of the prompt, or seconds of sound. `rows`: of a batch, 0 for one prompt. What is timed is
    `part` of the answer, `divided`; each round takes the median of `repeats`."""

    title: str
    length: int
    new_tokens: int = 0
    rows: int = 1
    part: str = "decode_s"
    divided: int = 1
    repeats: int = 1

    def ms(self, worker: Worker) -> float:
        answers = [self._ask(worker) for _ in range(self.repeats)]
        return 1000 * statistics.median(answer[self.part] for answer in answers) / self.divided

    def _ask(self, worker: Worker) -> Mapping[str, float]:
        if not self.rows:
            return worker.time(self.length, self.new_tokens)
        return worker.time_several(self.length, self.new_tokens, rows=self.rows, beams=1)


@dataclass(frozen=True)
class Peer:
    """Whose worker of which environment runs which of the files that `prepare` makes."""

    environment: str
    worker: str
    file: str


@dataclass(frozen=True)
class Group:
    """`prepare(home, sizes)` puts the checkpoint and the peers' files into `home`, unless they are there, and gives
    what edgellm exports."""

    title: str
    prepare: Callable[[Path, Mapping[str, Any]], Path]
    model: str
    systems: Mapping[str, Peer]
    requests: Sequence[Request]


def speech(home: Path, sizes: Mapping[str, Any]) -> Path:
    checkpoint = _checkpoint("whisper", home, sizes)
    options = ["--quantization", "int8_float32", "--copy_files", "tokenizer.json", "preprocessor_config.json"]

    def convert(out: Path) -> None:
        command = Path(python_of("ctranslate2")).with_name("ct2-transformers-converter")
        _run([str(command), "--model", str(checkpoint), "--output_dir", str(out), *options])

    _made(home / "ctranslate2", "ctranslate2", [sizes, options], convert)
    return checkpoint


def encoder(home: Path, sizes: Mapping[str, Any]) -> Path:
    checkpoint = _checkpoint("modernbert", home, sizes)
    command = [python_of("openvino-convert"), str(PEERS / "ov_convert.py"), str(checkpoint)]
    _made(home / "openvino", "openvino-convert", [sizes], lambda out: _run([*command, str(out)]))
    return checkpoint


def mixture(home: Path, sizes: Mapping[str, Any]) -> Path:
    return _made(home / "model.gguf", "xllamacpp", [sizes], lambda out: write_random_olmoe(out, sizes))


def _checkpoint(kind: str, home: Path, sizes: Mapping[str, Any]) -> Path:
    command = [python_of(MODELS), str(PEERS / "group_models.py"), kind]
    return _made(home / "checkpoint", MODELS, [sizes], lambda out: _run([*command, str(out), json.dumps(dict(sizes))]))


def _made(out: Path, environment: str, options: Sequence[Any], make: Callable[[Path], None]) -> Path:
    """What `make` makes, made again when the environment or the options are others than they were."""
    recipe = json.dumps([ENVIRONMENTS[environment].requirements, *options])
    stamp = out.with_name(f"{out.name}.recipe.json")
    if not stamp.is_file() or stamp.read_text() != recipe:
        print(f"making {out} ...", file=sys.stderr)
        shutil.rmtree(out, ignore_errors=True)
        make(out)
        stamp.write_text(recipe)
    return out


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, env=OFFLINE, check=True, stdout=sys.stderr)


GROUPS = {
    "speech": Group(
        "Whisper base", speech, "whisper",
        {
            OWN: Peer("edgellm", "speech_own.py", "edgellm-int8"),
            "faster-whisper 1.2, CTranslate2 4.8 int8": Peer("faster-whisper", "speech_faster.py", "ctranslate2"),
        },
        [Request("30 s of sound, 64 tokens", 30, 64)],
    ),
    "encoder": Group(
        "ModernBERT-base", encoder, "modernbert",
        {
            OWN: Peer("edgellm", "encoder_own.py", "edgellm-int8"),
            "sentence-transformers 6.2": Peer("transformers-5", "encoder_st.py", "checkpoint"),
            "OpenVINO 2026.4 default": Peer("openvino-genai", "encoder_ov.py", "openvino/openvino_model.xml"),
        },
        [
            Request("a text of 128 tokens", 128, repeats=5),
            Request("8 texts of 128 tokens", 128, rows=8),
        ],
    ),
    "mixture": Group(
        "OLMoE, 4 layers", mixture, "olmoe",
        {
            OWN: Peer("edgellm", "own.py", "edgellm-int8"),
            "llama.cpp Q8_0": Peer("xllamacpp", "llamacpp.py", "model.gguf"),
        },
        [
            Request("128 tokens of a prompt", 128, 2, rows=0, part="first_token_s"),
            Request("a new token", 128, 65, rows=0, divided=64),
        ],
    ),
}  # fmt: skip


def prepare(name: str, sizes: str, *, keep: bool) -> Path:
    """The group's directory, with our package exported anew unless `keep`: what is timed is this code's output."""
    group, home = GROUPS[name], CACHE / "groups" / f"{name}-{sizes}"
    home.mkdir(parents=True, exist_ok=True)
    source, out = group.prepare(home, SIZES[sizes][group.model]), home / "edgellm-int8"
    if not (keep and out.is_dir()):
        edgellm_export.export(source, out, precision="int8", force=True, verify_quality=False)
    return home


def start(title: str, peer: Peer, home: Path, threads: int) -> Worker:
    system = System(peer.environment, peer.worker, lambda model, precision: Path(), {})
    return Start(title, system, home / peer.file, threads, CONTEXT).worker()


def measure(group: Group, home: Path, rounds: int, threads: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds by request and system, a value a round, after one that is not recorded."""
    found: dict[str, dict[str, list[float]]] = {
        request.title: {title: [] for title in group.systems} for request in group.requests
    }
    with ExitStack() as stack:
        workers = [
            stack.enter_context(closing(start(title, peer, home, threads))) for title, peer in group.systems.items()
        ]
        for turn in range(rounds + 1):
            first = turn % len(workers)
            for request in group.requests:
                for worker in [*workers[first:], *workers[:first]]:
                    ms = request.ms(worker)
                    if turn:
                        found[request.title][worker.name].append(ms)
    return found


def table(found: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> str:
    lines = [
        f"| model | request | {OWN}, ms | peer | ms | edgellm is faster by |",
        "|---|---|---|---|---|---|",
    ]
    for name, requests in found.items():
        for request, times in requests.items():
            for peer in (title for title in times if title != OWN):
                own, other = (statistics.median(times[title]) for title in (OWN, peer))
                middle, low, high = ratio(times[peer], times[OWN])
                lines.append(
                    f"| {GROUPS[name].title} | {request} | {own:.1f} | {peer} | {other:.1f} | "
                    f"{middle:.2f}x ({low:.2f}-{high:.2f}) |"
                )
    return "\n".join(lines)


def update_readme(text: str, readme: Path = README) -> None:
    """Put the text between the two comments that are kept for it."""
    page = readme.read_text()
    before, begins, rest = page.partition(BEGIN)
    _, ends, after = rest.partition(END)
    if not (begins and ends):
        raise SystemExit(f"{readme} has no place for this table: {BEGIN} ... {END}")
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", default=",".join(GROUPS))
    parser.add_argument("--sizes", choices=list(SIZES), default="full")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="time the packages of the last run, not new exports")
    parser.add_argument("--update-readme", action="store_true", help="put the table into benchmarks/README.md")
    a = parser.parse_args()
    names = a.groups.split(",")
    if unknown := [name for name in names if name not in GROUPS]:
        parser.error(f"no group {unknown[0]}; there are {', '.join(GROUPS)}")
    if a.update_readme and (a.sizes != "full" or set(names) != {*GROUPS}):
        parser.error("the page's table is of all groups in full sizes")
    homes = {name: prepare(name, a.sizes, keep=a.keep) for name in names}
    found = {name: measure(GROUPS[name], homes[name], a.rounds, a.threads) for name in names}
    rounds = f"medians of {a.rounds} interleaved rounds"
    what = f"Random weights, {a.sizes} sizes, {a.threads} threads, {processor()}, {rounds}."
    text = f"{what}\n\n{table(found)}"
    print(f"{text}\n")
    print(json.dumps({"sizes": a.sizes, "rounds": a.rounds, "threads": a.threads, "ms": found}))
    if a.update_readme:
        update_readme(text)


if __name__ == "__main__":
    main()
