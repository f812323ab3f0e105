"""What a constraint costs per token, beside a step of the model, and how many runs of the model answers take.

    python benchmarks/constraints.py smollm2-int8

Each answer's tokens pass once more through states of their own, and what a step adds is timed: the mask, the scores
behind it, and the step on. The step of the model is that of plain greedy search in the same package; `share` is the one
over the other. The first line is what is paid once, for the vocabulary. Exit code 1 where a share is 5% or more.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import edgellm
from decoders import load_decoder
from edgellm.constraints import Constraints
from edgellm.decoding.constraint import Constraint, constrain

MOST = 0.05  # of a step
TEXT = {"type": "string", "maxLength": 60}
PERSON = {
    "type": "object",
    "properties": {"name": TEXT, "age": {"type": "integer", "minimum": 0}, "city": TEXT},
    "required": ["name", "age", "city"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"name": TEXT, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "required": ["name", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}  # fmt: skip
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "person": ({"json_schema": PERSON}, "Describe Ada Lovelace as JSON."),
    "people": ({"json_schema": {"type": "array", "items": PERSON, "minItems": 3, "maxItems": 5}}, "List scientists."),
    "tree": ({"json_schema": TREE}, "Write a family tree as JSON."),
    "any json": ({"json_schema": True}, "Write some JSON about the weather in Paris."),
    "format": (
        {"json_schema": {"type": "array", "items": {"type": "string", "format": "date"}, "minItems": 8, "maxItems": 8}},
        "List the dates of eight holidays.",
    ),
    "regex": ({"regex": r"([A-Z][a-z]{1,12} ){3,20}\."}, "Write names of towns."),
    "grammar": ({"grammar": 'start: line+\nline: "- " /[^\\n]{1,60}/ "\\n"'}, "Write a shopping list."),
    "choices": ({"choices": [f"{i} apples" for i in range(1000)]}, "How many apples are in a box?"),
}


@dataclass(frozen=True)
class Outcome:
    """`seconds` per token; the 99th percentile of it as well."""

    name: str
    tokens: int
    runs: int
    compile_s: float
    seconds: float
    worst: float

    def line(self, step: float) -> str:
        return (
            f"{self.name:<9} compiled in {self.compile_s * 1e3:6.1f} ms   {self.seconds * 1e6:6.0f} us a token "
            f"(p99 {self.worst * 1e6:6.0f}), share {self.seconds / step:6.2%}   "
            f"{self.tokens:4} tokens in {self.runs:4} runs"
        )


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def costs(constraint: Constraint, tokens: Sequence[int], eos: Sequence[int], vocab_size: int) -> list[float]:
    """Seconds of each token of an answer."""
    state, seconds = constraint.begin(), []
    logits = np.random.default_rng(0).standard_normal((1, vocab_size)).astype(np.float32)
    for token in tokens:
        start = time.perf_counter()
        constrain(logits, logits, [state], eos)
        if token not in eos:
            state.advance(token)
        seconds.append(time.perf_counter() - start)
    return seconds


def measure(model: edgellm.Model, name: str, repeats: int, new_tokens: int) -> Outcome:
    asked, question = CASES[name]
    prompt = model.chat_template.render([{"role": "user", "content": question}])
    answer = model.generate(prompt, **asked, max_new_tokens=new_tokens, do_sample=False)
    tokens, runs = answer.tokens, len(answer.tokens) - answer.timing.accepted_tokens
    fresh, size, eos = Constraints(), model.manifest.vocab_size, model.manifest.tokens.eos
    fresh.of(edgellm.GenerationOptions.create(regex="a"), model.tokenizer, size)
    checked = edgellm.GenerationOptions.create(**asked)
    compile_s, constraint = timed(lambda: fresh.of(checked, model.tokenizer, size))
    found = [one for _ in range(repeats) for one in costs(constraint, tokens, eos, size)]
    return Outcome(name, len(tokens), runs, compile_s, statistics.mean(found), float(np.quantile(found, 0.99)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", help="a package of a chat model")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: all usable cores")
    arguments = parser.parse_args()
    model = load_decoder(arguments.package, threads=arguments.threads)
    plain = [model.generate("Once", max_new_tokens=64, eos_token_id=[]).timing for _ in range(arguments.repeats + 1)]
    step = 1 / statistics.median(timing.tokens_per_second for timing in plain[1:])
    options, size = edgellm.GenerationOptions.create(regex="a"), model.manifest.vocab_size
    vocabulary_s, _ = timed(lambda: Constraints().of(options, model.tokenizer, size))
    print(f"vocabulary of {size} tokens in {vocabulary_s * 1e3:.0f} ms; a step of the model {step * 1e3:.2f} ms")
    shares = []
    for name in CASES:
        outcome = measure(model, name, arguments.repeats, arguments.new_tokens)
        shares.append(outcome.seconds / step)
        print(outcome.line(step), flush=True)
    print(f"the largest share is {max(shares):.2%}")
    return 1 if max(shares) >= MOST else 0


if __name__ == "__main__":
    sys.exit(main())
