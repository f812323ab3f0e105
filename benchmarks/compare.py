"""The same model, prompts, threads and token counts through edgellm and its peers, interleaved in one run.

    python benchmarks/compare.py [--model smollm2] [--precision int8] [--lengths 128,512] ...

Each system is a process of its own that stays loaded; round by round each answers the same request, in an order that
changes, so that the machine's drift meets all alike. Quality is measured in the same run: each system's logits on
held-out text against float32's. Prints a table of medians with edgellm's ratio over each peer, and one JSON line.
Telemetry is off and nothing reaches for the network; environments and conversions are made on the first run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from measuring import Plan, Samples, measure_rounds, measure_starts
from models import MODELS, Model
from plotting import plot
from quality import measure_quality
from rendering import Run, heading, json_line, processor, table, update_readme
from systems import OWN, REFERENCE, SYSTEMS, available
from workers import Failed, Start, Worker


def main() -> None:
    arguments = parse(sys.argv[1:])
    model = MODELS[arguments.model]
    plan, skipped = planned(arguments, model)
    samples = Samples()
    starts = [start_of(name, model, arguments, plan) for name in arguments.systems]
    if plan.starts:
        measure_starts(starts, plan, samples)
    with ExitStack() as running:
        workers = [w for start in starts if (w := running_worker(start, running, samples)) is not None]
        measure_rounds(workers, plan, samples)
        if model.trained and arguments.quality_tokens:
            reference = next((w for w in workers if w.name == REFERENCE), None)
            reference = reference or running_worker(start_of(REFERENCE, model, arguments, plan), running, samples)
            if reference is not None:
                measure_quality(workers, reference, model, arguments.quality_tokens, samples)
    run = Run(model.name, model.title, arguments.precision, arguments.threads, processor(), skipped, plan, samples)
    report(run, arguments)


def report(run: Run, arguments: argparse.Namespace) -> None:
    print(f"{heading(run)}\n\n{table(run)}\n")
    print(json_line(run))
    if arguments.update_readme:
        update_readme(run)
    if arguments.plot:
        plot(run, arguments.plot)


def start_of(name: str, model: Model, arguments: argparse.Namespace, plan: Plan) -> Start:
    system = SYSTEMS[name]
    given = arguments.package if name == OWN else None
    files = given or system.convert(model, arguments.precision)
    return Start(name, system, files, arguments.threads, max(plan.lengths) + plan.new_tokens)


def running_worker(start: Start, running: ExitStack, samples: Samples) -> Worker | None:
    """Stopped with `running`. None, and a note among the samples, if it cannot be started."""
    try:
        return running.enter_context(closing(start.worker()))
    except Failed as failure:
        samples.fail(start.name, "start", failure)
        return None


def planned(arguments: argparse.Namespace, model: Model) -> tuple[Plan, tuple[int, ...]]:
    """The plan, and the lengths that the model cannot hold."""
    fitting = tuple(n for n in arguments.lengths if n + arguments.new_tokens <= model.context)
    skipped = tuple(n for n in arguments.lengths if n not in fitting)
    for length in skipped:
        print(f"{length} tokens are skipped: {model.title} has a context of {model.context}", file=sys.stderr)
    if not fitting:
        raise SystemExit("no length is left")
    counts = {name: getattr(arguments, name) for name in ("rounds", "long_rounds", "starts", "batch", "beams")}
    return Plan(fitting, arguments.new_tokens, **counts), skipped


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", choices=MODELS, default="smollm2")
    add("--precision", choices=("int8", "int4"), default="int8")
    add("--systems", type=_names, metavar="NAME,...", help=f"default: all that have the precision of {list(SYSTEMS)}")
    add("--lengths", type=_lengths, default=(128, 512), metavar="TOKENS,...", help="of the prompts (128,512)")
    add("--new-tokens", type=_positive, default=64, metavar="N", help="after each prompt (64)")
    add("--rounds", type=_positive, default=7, metavar="N", help="after one warm-up round (7)")
    add("--long-rounds", type=_positive, default=3, metavar="N", help="at most, for prompts beyond 1024 tokens (3)")
    add("--threads", type=_positive, default=2, metavar="N", help="of every system (2)")
    add("--starts", type=int, default=3, metavar="N", help="fresh processes for load time and memory (3), 0 for none")
    add("--batch", type=int, default=4, metavar="N", help="edgellm's batch row (4), 0 for none")
    add("--beams", type=int, default=4, metavar="N", help="edgellm's beam row (4), 0 for none")
    add("--quality-tokens", type=int, default=2048, metavar="N", help="held-out text (2048), 0 for none")
    add("--package", type=Path, metavar="DIR", help="this package as edgellm, instead of one exported now")
    add("--plot", type=Path, metavar="FILE.png", help="ms per token against context; needs matplotlib")
    add("--update-readme", action="store_true", help="put the table into benchmarks/README.md")
    arguments = parser.parse_args(words)
    arguments.systems = arguments.systems or available(arguments.precision)
    missing = [name for name in arguments.systems if name not in available(arguments.precision)]
    if missing:
        parser.error(
            f"no {arguments.precision} arm of {', '.join(missing)}; there are {available(arguments.precision)}"
        )
    return arguments


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(text.split(",")))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _lengths(text: str) -> tuple[int, ...]:
    return tuple(sorted({_positive(word) for word in text.split(",")}))


if __name__ == "__main__":
    main()
