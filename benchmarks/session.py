"""Time to first token after loading a saved prefix, beside reading it: what a session's file is worth.

    python benchmarks/session.py smollm2-int8

A prefix of `--tokens` tokens of English text, and a question behind it. Each round is a fresh process with the model
loaded: "read" streams prefix and question until the first token; "load" opens the file that holds the prefix, with all
its checks, and streams the same prompt. Rounds take turns; the file is in the page cache, as it is when it was just
written. Exit code 1 where the median of the loads is above 5% of that of the reads, or where the first token differs.
"""

from __future__ import annotations

import argparse
import json
import pydoc_data.topics
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import edgellm
from decoders import load_decoder

LIMIT = 0.05  # of the time to read the prefix
QUESTION = "\n\nWhat is this text about?"


@dataclass(frozen=True)
class Round:
    """Seconds until the first token, `load_s` of them for the file; and that token."""

    way: str
    load_s: float
    first_token_s: float
    token: int


def prompt_of(model: edgellm.Model, tokens: int) -> tuple[list[int], list[int]]:
    """A prefix of so many tokens, and a question."""
    assert model.tokenizer is not None
    text = "\n\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    prefix = model.tokenizer.encode(text[: 12 * tokens])[:tokens]
    assert len(prefix) == tokens, "the text is too short"
    return prefix.tolist(), model.tokenizer.encode(QUESTION, add_special_tokens=False).tolist()


def measure(model: edgellm.Model, way: str, file: Path, tokens: int) -> Round:
    prefix, question = prompt_of(model, tokens)
    model.generate("Warm up.", max_new_tokens=4, eos_token_id=[])
    start = time.perf_counter()
    session = model.load_session(file) if way == "load" else model.session()
    loaded = time.perf_counter()
    piece = next(session.stream([*prefix, *question], max_new_tokens=8, eos_token_id=[]))
    end = time.perf_counter()
    return Round(way, loaded - start, end - start, piece.tokens[0])


def in_a_process(arguments: argparse.Namespace, way: str, file: Path) -> Round:
    command = [sys.executable, __file__, arguments.package, "--tokens", str(arguments.tokens)]
    command += ["--one", way, "--file", str(file)]
    if arguments.threads:
        command += ["--threads", str(arguments.threads)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Round(**json.loads(output))


def save(model: edgellm.Model, file: Path, tokens: int) -> float:
    """Seconds to write the file, without reading the prefix."""
    with model.session() as session:
        session.prefill(prompt_of(model, tokens)[0])
        start = time.perf_counter()
        session.save(file)
        return time.perf_counter() - start


def report(rounds: Sequence[Round], file_bytes: int, save_s: float, tokens: int) -> float:
    """Prints the table. Returns the ratio of the medians."""
    times = {way: [r.first_token_s for r in rounds if r.way == way] for way in ("read", "load")}
    read, load = (statistics.median(values) for values in times.values())
    file_s = statistics.median(r.load_s for r in rounds if r.way == "load")
    each = [a / b for a, b in zip(times["load"], times["read"], strict=True)]
    print(f"prefix of {tokens} tokens, file of {file_bytes / 2**20:.0f} MiB, {len(each)} rounds each, medians\n")
    print("| | ms until the first token | lowest to highest |\n|---|---|---|")
    for way, name in (("read", "reading the prefix"), ("load", "loading the file")):
        low, high = min(times[way]), max(times[way])
        print(f"| {name} | {statistics.median(times[way]) * 1000:.1f} | {low * 1000:.1f} to {high * 1000:.1f} |")
    print(f"| of which opening, checking and copying the file | {file_s * 1000:.1f} | |")
    print(f"| saving it, synced to the disk | {save_s * 1000:.1f} | |")
    print(f"\nloading takes {load / read:.1%} of reading ({min(each):.1%} to {max(each):.1%} in a round)")
    return load / read


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="default: all usable cores")
    parser.add_argument("--one", choices=["read", "load"], help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    model = load_decoder(arguments.package, threads=arguments.threads)
    if arguments.one:
        print(json.dumps(asdict(measure(model, arguments.one, arguments.file, arguments.tokens))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prefix.session"
        save_s = save(model, file, arguments.tokens)
        del model
        ways = ["read", "load"] * arguments.rounds
        rounds = [in_a_process(arguments, way, file) for way in ways]
        ratio = report(rounds, file.stat().st_size, save_s, arguments.tokens)
    same = len({r.token for r in rounds}) == 1
    if not same:
        print("the first tokens differ", file=sys.stderr)
    return 0 if ratio <= LIMIT and same else 1


if __name__ == "__main__":
    sys.exit(main())
