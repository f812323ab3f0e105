"""edgellm bench: how fast a package is on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgellm.bench import run_bench
from edgellm.commands.options import device_option, json_option, package_argument, threads_option


@click.command()
@package_argument
@click.option("--prompt-tokens", type=click.IntRange(min=1), default=128, help="Length of the prompt.")
@click.option("--new-tokens", type=click.IntRange(min=2), default=64, help="Tokens to generate.")
@click.option("--repeats", type=click.IntRange(min=1), default=5, help="Timed runs, after one to warm up.")
@device_option
@threads_option
@json_option
def bench(
    package: Path,
    prompt_tokens: int,
    new_tokens: int,
    repeats: int,
    device: Any,
    threads: int | None,
    as_json: bool,
) -> None:
    """Time the package PKG on this machine.

    Loading, the time to the first token, and the time per token, with one prompt, greedy search and nothing cached
    between runs: what a user waits for who streams an answer.
    """
    result = run_bench(
        package, prompt_tokens=prompt_tokens, new_tokens=new_tokens, repeats=repeats, device=device, threads=threads
    )
    if as_json:
        click.echo(json.dumps({**asdict(result), "package": str(package)}))
    else:
        click.echo("\n".join(result.lines()))
