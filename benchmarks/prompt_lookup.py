"""Prompt lookup on and off, in turns: how much sooner each answer comes, and whether it is the same.

    python benchmarks/prompt_lookup.py smollm2-int8

Copy-heavy prompts ask for edits and quotations of a text that they hold; the others ask for something new. Greedy and
sampled answers, to their natural end but of 16 tokens at least. A ratio is the median time per token without prompt
lookup over that with it, the first token left out. Exit code 1 where tokens differ in a package in which they must not.
"""

from __future__ import annotations

import argparse
import pydoc_data.topics
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import edgellm
from decoders import load_decoder

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "seed": 1},
}
TOPICS = ["assert", "with", "naming", "while", "import", "try", "del", "global"]  # chapters of Python's documentation
REQUESTS = {
    "edit": "Correct the spelling of this text. Write the whole corrected text.\n\n{}",
    "quote": "Summarise this text by quoting its most important sentences.\n\n{}",
}
QUESTIONS = [
    "Is a whale a fish? Explain at length.",
    "Write a story about a lighthouse keeper and a storm.",
    "Write an email to my landlord about a broken heater.",
    "What is the difference between a list and a tuple in Python?",
    "Write a Python class for a bank account with deposits, withdrawals and a history.",
    "List twenty countries with their capitals.",
    "Write a JSON array of ten people with name, age and city.",
    "Why is the sky blue?",
]


@dataclass(frozen=True)
class Case:
    """A question, and how its answer begins. `copies`: whether the answer holds parts of the question."""

    name: str
    question: str
    beginning: str
    copies: bool


@dataclass(frozen=True)
class Outcome:
    """What one case and one way to choose gave. `agreed` counts the leading tokens that are the same with and
    without."""

    case: Case
    way: str
    ratio: float
    tokens: int
    agreed: int
    same: bool
    drafted: int
    accepted: int

    @property
    def bound(self) -> float:
        return self.tokens / (self.tokens - self.accepted)

    def line(self) -> str:
        same = "the same" if self.same else f"the same for {self.agreed}"
        return (
            f"{self.case.name:<12} {self.way:<8} {self.ratio:5.2f}x of {self.bound:5.2f}x   "
            f"{self.tokens:4} tokens, {same}; {self.drafted} drafted, {self.accepted} accepted"
        )


def cases() -> list[Case]:
    """The answers of copying cases begin with the first sentence to copy: small models need that to understand."""
    texts = {topic: _paragraphs(topic) for topic in TOPICS}
    copying = [
        Case(f"{kind} {topic}", request.format(text), _first_sentence(text), copies=True)
        for topic, text in texts.items()
        for kind, request in REQUESTS.items()
    ]
    return copying + [Case(f"new {i}", question, "", copies=False) for i, question in enumerate(QUESTIONS, 1)]


def _paragraphs(topic: str, chars: int = 1200) -> str:
    """The first paragraphs of a chapter of Python's documentation, without its heading."""
    text = pydoc_data.topics.topics[topic].split("\n\n", 1)[1].strip()
    return text[:chars].rsplit("\n\n", 1)[0]


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.:])\s", text, maxsplit=1)[0]


def prompt_of(case: Case, model: edgellm.Model) -> list[int]:
    assert model.tokenizer is not None
    text = model.chat_template.render([{"role": "user", "content": case.question}]) + case.beginning
    tokens: list[int] = model.tokenizer.encode(text, add_special_tokens=False).tolist()
    return tokens


def measure(model: edgellm.Model, case: Case, way: str, new_tokens: int, repeats: int) -> Outcome:
    prompt = prompt_of(case, model)
    answers: dict[bool, edgellm.Generation] = {}
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(repeats):
        for lookup in (False, True) if turn % 2 else (True, False):
            model.reset()
            options = {**WAYS[way], "min_new_tokens": 16, "max_new_tokens": new_tokens}
            answers[lookup] = model.generate(prompt, prompt_lookup=lookup, **options)
            seconds[lookup].append(1 / answers[lookup].timing.tokens_per_second)
    plain, found = (answers[lookup].tokens for lookup in (False, True))
    agreed = next((i for i, pair in enumerate(zip(plain, found, strict=False)) if pair[0] != pair[1]), len(plain))
    timing = answers[True].timing
    ratio = statistics.median(seconds[False]) / statistics.median(seconds[True])
    return Outcome(case, way, ratio, len(found), agreed, plain == found, timing.drafted_tokens, timing.accepted_tokens)


def rounds_alike(model: edgellm.Model) -> bool:
    """Whether several tokens are rounded as one is, or so nearly that tokens do not change; see docs/limits.md."""
    return model.info.precision in ("fp32", "fp16") or model.manifest.model.cache.dtype == "int8"


def summary(outcomes: Sequence[Outcome]) -> list[str]:
    lines = []
    for copies, name in ((True, "copy-heavy"), (False, "others")):
        for way in WAYS:
            found = [o for o in outcomes if o.case.copies == copies and o.way == way]
            ratios = [o.ratio for o in found]
            middle, bound = statistics.median(ratios), statistics.median(o.bound for o in found)
            lines.append(
                f"{name:<12} {way:<8} {middle:5.2f}x median, {min(ratios):.2f} to {max(ratios):.2f}; "
                f"bound {bound:.2f}x median"
            )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", help="a package of a chat model")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: all usable cores")
    arguments = parser.parse_args()
    model = load_decoder(arguments.package, threads=arguments.threads)
    model.generate("warm up", max_new_tokens=16, prompt_lookup=True)
    outcomes = []
    for case in cases():
        for way in WAYS:
            outcomes.append(measure(model, case, way, arguments.new_tokens, arguments.repeats))
            print(outcomes[-1].line(), flush=True)
    print("\n".join(["", *summary(outcomes)]))
    differ = [outcome for outcome in outcomes if not outcome.same]
    print(f"{len(outcomes) - len(differ)} of {len(outcomes)} answers have the same tokens with and without")
    return 1 if differ and rounds_alike(model) else 0


if __name__ == "__main__":
    sys.exit(main())
