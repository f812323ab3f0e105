"""What several commands take: the package, where to run it, and how to generate; texts, and messages to the user."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click

from edgellm.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])
STDIN = "-"


class AdapterType(click.ParamType[tuple[str, float]]):
    """A path or hub id, or that, = and a weight; what exists is a path."""

    name = "adapter"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        source, equals, weight = str(value).rpartition("=")
        if not equals or Path(value).exists():
            return str(value), 1.0
        try:
            return source, float(weight)
        except ValueError:
            self.fail(f"{weight!r} is not a weight; expected a number behind =", param, ctx)


class SizeType(click.ParamType[int]):
    """Bytes, as a number with or without a unit."""

    name = "size"
    units: ClassVar[Mapping[str, int]] = {
        "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30
    }  # fmt: skip

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip().lower())
        if match is None or match[2] not in self.units:
            self.fail(f"{value!r} is not a size; expected a number and a unit, like 400MB or 1.5GiB", param, ctx)
        return int(float(match[1]) * self.units[match[2]])


class TextFileType(click.ParamType[str]):
    """The text in a file (UTF-8)."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return Path(value).read_bytes().decode("utf-8-sig")
        except OSError as error:
            self.fail(f"cannot read {value}: {error.strerror}", param, ctx)
        except UnicodeDecodeError as error:
            self.fail(f"{value} is not UTF-8: byte 0x{error.object[error.start]:02X} at {error.start}", param, ctx)


package_argument = click.argument("package", metavar="PKG", type=click.Path(path_type=Path))
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Where to run; auto is what the package was exported for.",
)
threads_option = click.option("--threads", type=int, help="CPU threads.  [default: all usable cores]")
kv_cache_option = click.option(
    "--kv-cache",
    type=click.Choice(["auto", "bfloat16"]),
    default="auto",
    help="Type of the key/value cache; auto is the package's, bfloat16 half of float32's bytes.",
)
adapter_option = click.option(
    "--adapter",
    "adapters",
    multiple=True,
    type=AdapterType(),
    metavar="DIR[=WEIGHT]",
    help="A LoRA adapter, directory or hub id, to merge into the weights; may be repeated.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
stats_option = click.option("--stats", is_flag=True, help="Print times, speed and memory to stderr.")

# Names and meanings are those of edgellm.GenerationOptions; what concerns token ids is left to Python.
GENERATION = [
    click.option("--max-new-tokens", type=int, help="Most new tokens.  [default: the package's, or 256]"),
    click.option("--max-length", type=int, help="Most tokens, the prompt included."),
    click.option("--min-new-tokens", type=int, help="Fewest new tokens."),
    click.option("--min-length", type=int, help="Fewest tokens, the prompt included."),
    click.option("--max-time", type=float, help="Most seconds."),
    click.option("--stop-strings", multiple=True, help="End after this text. May be repeated."),
    click.option("--num-beams", type=int, help="Beam search with this many beams."),
    click.option("--num-return-sequences", type=int, help="Sequences to return."),
    click.option("--length-penalty", type=float, help="Beam search: above 0 favours long sequences."),
    click.option("--early-stopping", type=click.Choice(["true", "false", "never"]), help="Beam search: when to stop."),
    click.option("--num-beam-groups", type=int, help="Beam search: groups that differ from each other."),
    click.option("--diversity-penalty", type=float, help="Beam search: how much groups must differ."),
    click.option("--do-sample/--no-do-sample", default=None, help="Sample instead of taking the likeliest."),
    click.option("--temperature", type=float, help="Sampling: below 1 is more predictable."),
    click.option("--top-k", type=int, help="Sampling: from this many likeliest tokens."),
    click.option("--top-p", type=float, help="Sampling: from the likeliest tokens with this total probability."),
    click.option("--min-p", type=float, help="Sampling: from tokens at least this share as likely as the likeliest."),
    click.option("--typical-p", type=float, help="Sampling: from the most typical tokens with this total probability."),
    click.option("--epsilon-cutoff", type=float, help="Sampling: from tokens at least this likely."),
    click.option("--eta-cutoff", type=float, help="Sampling: like epsilon-cutoff, adapted to the entropy."),
    click.option("--seed", type=int, help="Sampling: makes it repeatable."),
    click.option("--repetition-penalty", type=float, help="Above 1 discourages repeated tokens."),
    click.option("--presence-penalty", type=float, help="Above 0 discourages tokens that were generated."),
    click.option("--frequency-penalty", type=float, help="The same, as often as they were."),
    click.option("--no-repeat-ngram-size", type=int, help="No sequence of this many tokens occurs twice."),
    click.option("--encoder-repetition-penalty", type=float, help="Above 1 favours tokens of the source or prompt."),
    click.option(
        "--encoder-no-repeat-ngram-size", type=int, help="No sequence of this many tokens comes from source or prompt."
    ),
    click.option(
        "--exponential-decay-length-penalty",
        type=(int, float),
        metavar="START FACTOR",
        help="From START new tokens on, the end gets likelier by FACTOR a token.",
    ),
    click.option(
        "--renormalize-logits/--no-renormalize-logits", default=None, help="Beams compare true probabilities."
    ),
    click.option(
        "--overflow",
        type=click.Choice(["error", "truncate", "shift"]),
        help="When the context is full: fail, drop the oldest of the prompt, or drop the older half and go on.",
    ),
    click.option("--overflow-keep", type=int, help="Overflow: leading tokens that always stay."),
    click.option(
        "--prompt-lookup/--no-prompt-lookup", default=None, help="The same text, sooner where it repeats earlier text."
    ),
    click.option("--prompt-lookup-num-tokens", type=int, help="Prompt lookup: most tokens to draft at once."),
    click.option("--max-matching-ngram-size", type=int, help="Prompt lookup: most tokens to look up."),
    click.option("--json-schema", type=TextFileType(), metavar="FILE", help="The text is JSON of this JSON Schema."),
    click.option("--regex", help="The text matches this regular expression."),
    click.option(
        "--grammar", type=TextFileType(), metavar="FILE", help="The text is of this grammar, in Lark's notation."
    ),
    click.option("--choices", multiple=True, help="The text is this, or one of several. May be repeated."),
]


def with_options(options: Sequence[Callable[[Any], Any]]) -> Callable[[F], F]:
    """Adds the options to a command; its help lists them in this order."""

    def added(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return added


# Those of all that generate or judge.
generation_options = with_options([*GENERATION, device_option, threads_option, kv_cache_option])


def chosen(arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of a command's arguments that the user gave."""
    given = {name: value for name, value in arguments.items() if value is not None and value != ()}
    if "early_stopping" in given:
        given["early_stopping"] = {"true": True, "false": False}.get(given["early_stopping"], "never")
    return given


def tell_incomplete(complete: bool | None) -> None:
    """Say on stderr that a text is not what its constraint asks for."""
    if complete is False:
        click.echo("the text was cut off before it was what is asked for; raise --max-new-tokens", err=True)


def read_text(argument: str) -> str:
    """The argument, or for "-" standard input as UTF-8 without its last line break. Raises InputError."""
    if argument != STDIN:
        return argument
    return decode(sys.stdin.buffer.read()).removesuffix("\n")


def decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02X} at position {error.start}"
        raise InputError(f"standard input is not UTF-8: {found}; convert it first, for example with iconv") from error


def one_line(message: str) -> str:
    """The lines of a message, joined. A line that announces the next ones ends with a colon."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    joined = "".join(line + (" " if line.endswith(":") else "; ") for line in lines)
    return joined.removesuffix("; ").strip()
