"""edgellm serve: packages behind OpenAI's HTTP interface."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import click

from edgellm.commands.options import SizeType, kv_cache_option, threads_option
from edgellm.errors import MissingDependencyError, OptionError


@click.command()
@click.argument("packages", metavar="[NAME=]PKG...", nargs=-1, required=True)
@click.option("--host", default="127.0.0.1", help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, help="Port to listen at; 0 is any free one.")
@click.option(
    "--api-key", "api_keys", multiple=True, envvar="EDGELLM_API_KEY", help="Ask for this key. May be repeated."
)
@click.option("--allow-host", "hosts", multiple=True, help="Another name that requests may use. May be repeated.")
@click.option("--cors-origin", "origins", multiple=True, help="A web page that may ask; * is any. May be repeated.")
@click.option("--max-rows", type=click.IntRange(1), default=32, help="Sequences of a model that run together.")
@click.option("--max-waiting", type=click.IntRange(1), default=256, help="Requests that wait for a model.")
@click.option("--max-body", type=SizeType(), default="4MiB", help="Largest request.")
@click.option("--max-upload", type=SizeType(), default="25MiB", help="Largest request with a recording.")
@click.option("--max-recording", type=float, default=3600.0, help="Longest recording, in seconds.")
@click.option("--max-seconds", type=float, help="Longest answer.  [default: no limit]")
@click.option("--memory", type=SizeType(), help="For all models that are loaded.  [default: no limit]")
@click.option("--cache-memory", type=SizeType(), help="For each model's keys and values.  [default: a quarter]")
@click.option("--preload/--no-preload", default=True, help="Load the first model when the server starts.")
@click.option("--log-prompts", is_flag=True, help="Write requests to the log; otherwise nothing of them is.")
@threads_option
@kv_cache_option
def serve(
    packages: tuple[str, ...],
    host: str,
    port: int,
    hosts: tuple[str, ...],
    cache_memory: int | None,
    memory: int | None,
    max_body: int,
    max_upload: int,
    max_recording: float,
    preload: bool,
    **given: Any,
) -> None:
    """Serve packages with OpenAI's HTTP interface: /v1/chat/completions, /v1/completions, /v1/embeddings,
    /v1/audio/transcriptions, /v1/audio/translations, /v1/models, and /rerank, /tokenize, /detokenize, /health,
    /metrics, /openapi.json.

    A package has the name of its directory, or NAME. Only programs of this machine are answered unless --host says
    otherwise. SIGTERM lets what runs finish; answers that take longer than 30 seconds then end where they are.
    """
    try:
        from edgellm.server.app import create_app
        from edgellm.server.listening import server_of
        from edgellm.server.pool import names_of
        from edgellm.server.settings import LOOPBACK, ServerSettings
    except ImportError as error:
        raise MissingDependencyError(
            f"edgellm serve needs the extra `serve` ({error.name} is missing): pip install 'edgellm[serve]'"
        ) from error
    known = (*LOOPBACK, host, *hosts) if _is_loopback(host) or hosts else ()
    settings = ServerSettings(
        hosts=known,
        memory_bytes=memory,
        cache_bytes=cache_memory,
        max_body_bytes=max_body,
        max_upload_bytes=max_upload,
        max_recording_seconds=max_recording,
        **given,
    )
    if not known and not given["api_keys"]:
        click.echo("warning: others may use this server: it listens beyond this machine, without --api-key", err=True)
    named = names_of([_named(package) for package in packages])
    app = create_app(named, settings, preload=next(iter(named)) if preload else None)
    server_of(app, host, port, end_answers=app.state.end_answers).run()


def _named(argument: str) -> tuple[str, Path]:
    """A package's name and directory. Raises OptionError."""
    name, equals, path = argument.partition("=")
    if not equals or Path(argument).exists():
        return Path(argument).resolve().name, Path(argument)
    if not name or not path:
        raise OptionError(f"{argument!r} is no package, expected PKG or NAME=PKG")
    return name, Path(path)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
