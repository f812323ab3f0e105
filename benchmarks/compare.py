"""The same model, prompts, threads and token counts through edgellm and its peers, interleaved in one run.

    python benchmarks/compare.py [--rounds 7] [--threads 2]

Each system is a process of its own that stays loaded; round by round each answers the same request, in an order that
changes, so that the machine's drift meets all alike. Prints medians and the ratio to edgellm with its spread, and one
JSON
line. ONNX Runtime's telemetry is off for every arm.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import CACHE, python_of
from hf_checkpoint import write_hf_checkpoint

PEERS = Path(__file__).resolve().parent / "peers"
GGUF = CACHE / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
LENGTHS = (128, 512)
NEW_TOKENS = 64
ENVIRONMENT = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}


@dataclass
class Worker:
    """One system, loaded in its own process."""

    name: str
    process: subprocess.Popen[str]
    load_s: float

    @classmethod
    def start(cls, name: str, peer: str, script: str, model: Path, threads: int) -> Worker:
        command = [python_of(peer), str(PEERS / script), str(model), str(threads)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        return cls(name, process, json.loads(_line(process, name))["load_s"])

    def ask(self, prompt_length: int, new_tokens: int) -> dict[str, float]:
        assert self.process.stdin is not None
        print(
            json.dumps({"prompt_length": prompt_length, "new_tokens": new_tokens}), file=self.process.stdin, flush=True
        )
        answer: dict[str, float] = json.loads(_line(self.process, self.name))
        return answer

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def _line(process: subprocess.Popen[str], name: str) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{name} ended with status {process.wait()}; its messages are above")
    return line


def own_package() -> Path:
    """SmolLM2 as an int8 package of ours, exported anew: what is timed is this code's output."""
    import edgellm_export

    out = CACHE / "packages" / "compare-edgellm-int8"
    edgellm_export.export(GGUF, out, precision="int8", force=True, verify_quality=False)
    return out


def genai_package() -> Path:
    """The same weights through onnxruntime-genai's own builder, int8 for the CPU at its defaults."""
    out = CACHE / "packages" / "compare-genai-int8"
    if not (out / "genai_config.json").is_file():
        checkpoint = write_hf_checkpoint(GGUF, CACHE / "checkpoints" / "smollm2-135m")
        builder = [python_of("onnxruntime-genai"), "-m", "onnxruntime_genai.models.builder"]
        options = [
            "-m",
            "smollm2",
            "-i",
            str(checkpoint),
            "-o",
            str(out),
            "-p",
            "int8",
            "-e",
            "cpu",
            "-c",
            str(CACHE / "genai"),
        ]
        subprocess.run([*builder, *options], check=True, env=ENVIRONMENT, stdout=sys.stderr)
    return out


def measure(workers: list[Worker], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Samples in tokens per second: {system: {"prefill 128": [...], "decode after 128": [...], ...}}. One warm-up
    round."""
    samples: dict[str, dict[str, list[float]]] = {w.name: {} for w in workers}
    for turn in range(rounds + 1):
        for length in LENGTHS:
            for worker in workers if turn % 2 else reversed(workers):
                answer = worker.ask(length, NEW_TOKENS)
                if turn:
                    rows = samples[worker.name]
                    rows.setdefault(f"prefill {length}", []).append(length / answer["first_token_s"])
                    rows.setdefault(f"decode after {length}", []).append((NEW_TOKENS - 1) / answer["decode_s"])
                    rows["peak rss MB"] = [answer["peak_rss_mb"]]
        print(f"round {turn} of {rounds}", file=sys.stderr)
    return samples


def summary(workers: list[Worker], samples: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Medians of each system, and edgellm's ratio to it, round by round: median, lowest and highest."""
    own = samples[workers[0].name]
    result: dict[str, Any] = {}
    for worker in workers:
        rows = samples[worker.name]
        medians = {"load s": worker.load_s, **{key: statistics.median(values) for key, values in rows.items()}}
        ratios = {}
        for key, values in rows.items():
            pairs = sorted(a / b for a, b in zip(own[key], values, strict=True))
            ratios[key] = [statistics.median(pairs), pairs[0], pairs[-1]]
        result[worker.name] = {"medians": medians, "edgellm_over_it": ratios}
    return result


def table(result: dict[str, Any]) -> str:
    """Markdown: tokens per second, and in brackets edgellm's ratio over the peer (lowest to highest of the rounds)."""
    columns = list(next(iter(result.values()))["medians"])
    lines = ["| system | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, rows in result.items():
        cells = []
        for column in columns:
            text = f"{rows['medians'][column]:.2f}" if column == "load s" else f"{rows['medians'][column]:.0f}"
            ratio = rows["edgellm_over_it"].get(column)
            if ratio and name != "edgellm int8" and "rss" not in column:
                text += f" ({ratio[0]:.2f}x, {ratio[1]:.2f}-{ratio[2]:.2f})"
            cells.append(text)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if not GGUF.is_file():
        raise SystemExit(f"{GGUF} is missing; `make model` fetches it")
    workers = [
        Worker.start("edgellm int8", "edgellm", "own.py", own_package(), arguments.threads),
        Worker.start(
            "onnxruntime-genai 0.18 int8", "onnxruntime-genai", "genai.py", genai_package(), arguments.threads
        ),
    ]
    result = summary(workers, measure(workers, arguments.rounds))
    for worker in workers:
        worker.stop()
    print(
        f"SmolLM2-135M, {arguments.threads} threads, {processor()}, "
        f"medians of {arguments.rounds} interleaved rounds, tokens/s\n"
    )
    print(table(result))
    print(
        json.dumps(
            {"threads": arguments.threads, "rounds": arguments.rounds, "processor": processor(), "systems": result}
        )
    )


if __name__ == "__main__":
    main()
