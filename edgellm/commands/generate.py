"""edgellm generate: continue a prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

import edgellm
from edgellm.commands.options import (
    chosen,
    generation_options,
    json_option,
    package_argument,
    read_text,
    stats_option,
    tell_incomplete,
)
from edgellm.commands.stats import Stats
from edgellm.loading import load_as


@click.command()
@package_argument
@click.argument("prompt")
@generation_options
@stats_option
@json_option
def generate(
    package: Path,
    prompt: str,
    device: Any,
    threads: int | None,
    kv_cache: Any,
    stats: bool,
    as_json: bool,
    **arguments: Any,
) -> None:
    """Continue PROMPT with the package PKG.

    The text is printed as it comes, without the prompt. PROMPT "-" reads standard input (UTF-8; one final line break
    is dropped). Options that are not given are those of the package's generation_config.json.
    """
    text, options = read_text(prompt), chosen(arguments)
    measured = Stats()
    model = load_as(edgellm.Model, package, device=device, threads=threads, kv_cache=kv_cache)
    measured.loaded()
    settled = edgellm.GenerationOptions.create(model.generation_defaults, **options)
    if as_json:
        click.echo(json.dumps(_as_dict(model.generate(text, **options)), ensure_ascii=False))
    elif settled.num_beams == settled.num_return_sequences == 1:
        complete = None
        for piece in measured.timed(model.stream(text, **options)):
            click.echo(piece.text, nl=False)
            complete = piece.complete
        click.echo()
        tell_incomplete(complete)
    else:
        generation = model.generate(text, **options)
        measured.add(generation.timing)
        _print_sequences(generation)
    if stats:
        click.echo(measured.line(), err=True)


def _print_sequences(generation: edgellm.Generation) -> None:
    if len(generation.sequences) == 1:
        click.echo(generation.text)
        tell_incomplete(generation.complete)
        return
    for number, sequence in enumerate(generation.sequences, 1):
        click.echo(f"[{number}] {sequence.text}")


def _as_dict(generation: edgellm.Generation) -> dict[str, Any]:
    timing = generation.timing
    return {
        "text": generation.text,
        "finish_reason": generation.finish_reason,
        "complete": generation.complete,
        "sequences": [
            {
                "text": s.text,
                "tokens": s.tokens,
                "finish_reason": s.finish_reason,
                "complete": s.complete,
                "score": s.score,
            }
            for s in generation.sequences
        ],
        "prompt_tokens": timing.prompt_tokens,
        "dropped_tokens": generation.dropped_tokens,
        "new_tokens": timing.new_tokens,
        "drafted_tokens": timing.drafted_tokens,
        "accepted_tokens": timing.accepted_tokens,
        "time_to_first_token_s": timing.time_to_first_token_s,
        "total_s": timing.total_s,
    }
