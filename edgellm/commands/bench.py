"""edgellm bench: how fast a package is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgellm.bench import run_bench
from edgellm.bench.cases import parse_numbers
from edgellm.bench.formats import FORMATS
from edgellm.bench.plot import check_plot, plot
from edgellm.commands.options import device_option, json_option, kv_cache_option, package_argument


@click.command()
@package_argument
@click.option("-p", "--prompt-tokens", default="128", help="Prompt lengths; 0 for none.")
@click.option("-n", "--new-tokens", default="64", help="Tokens to generate; 0 for none.")
@click.option("-b", "--batch-size", default="1", help="Prompts side by side.")
@click.option("--beams", default="1", help="Beams; 1 is greedy search.")
@click.option("-t", "--threads", help="CPU threads.  [default: all usable cores]")
@click.option("-r", "--repeats", type=click.IntRange(min=1), default=5, help="Timed runs, after one to warm up.")
@click.option("--loads", type=click.IntRange(min=0), default=3, help="Cold and warm loads; 0 for none.")
@device_option
@kv_cache_option
@click.option("--profile", is_flag=True, help="Also show the share of decoding that is not ONNX Runtime's.")
@click.option("-o", "--output", type=click.Choice(list(FORMATS)), default="md", help="Format of the result.")
@json_option
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Draw ms per token by context: .png or .svg.")
def bench(
    package: Path,
    prompt_tokens: str,
    new_tokens: str,
    batch_size: str,
    beams: str,
    threads: str | None,
    output: str,
    as_json: bool,
    picture: Path | None,
    **options: Any,
) -> None:
    """Time the package PKG on this machine.

    Loading, the time to the first token, the time per token, memory and energy, with every combination of the lengths,
    batch sizes, beams and threads given: lists such as 128,512 and ranges such as 1-4, 64-256+64 or 64-1024*2. Runs
    that were disturbed by other programs or by heat are marked.
    """
    lengths = parse_numbers(new_tokens, "--new-tokens", at_least=0)
    if picture is not None:
        check_plot(picture, lengths)
    result = run_bench(
        package,
        prompt_tokens=parse_numbers(prompt_tokens, "--prompt-tokens", at_least=0),
        new_tokens=lengths,
        batch_sizes=parse_numbers(batch_size, "--batch-size"),
        beams=parse_numbers(beams, "--beams"),
        threads=None if threads is None else parse_numbers(threads, "--threads"),
        progress=lambda line: click.echo(line, err=True),
        **options,
    )
    click.echo(FORMATS["json" if as_json else output](result))
    if picture is not None:
        plot(result, picture)
