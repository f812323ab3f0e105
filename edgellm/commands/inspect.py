"""edgellm inspect: what a package says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgellm.commands.options import json_option, package_argument
from edgellm.commands.quality import quality_lines, read_report
from edgellm.loading import read_package
from edgellm.manifest import CacheLayout, Encoder, Manifest
from edgellm.package_files import check_files

LABELS = 8  # shown


@click.command()
@package_argument
@click.option("--verify", is_flag=True, help="Compare every file with the sha256 in the manifest.")
@click.option("--report", "report_only", is_flag=True, help="Print the quality report alone.")
@json_option
def inspect(package: Path, verify: bool, report_only: bool, as_json: bool) -> None:
    """Show what the package PKG says of itself.

    Model, precision, sizes, files and the quality report, all without loading the model.
    """
    package, manifest = read_package(package)
    report = read_report(package)
    if verify:
        check_files(package, manifest)
    if as_json:
        content = {"report": report} if report_only else {"manifest": manifest.to_dict(), "report": report}
        click.echo(json.dumps(content, indent=2))
        return
    lines = [] if report_only else _facts(package, manifest, verified=verify)
    if manifest.has_hashes:
        lines += quality_lines(report)
    click.echo("\n".join(lines))


def _facts(package: Path, manifest: Manifest, *, verified: bool) -> list[str]:
    tokens = manifest.tokens
    checked = "all as exported" if verified else "hashes not checked (--verify)"
    size = sum(entry.size for entry in manifest.files.values())
    files = [f"  {name}  {_size(entry.size)}" for name, entry in sorted(manifest.files.items())]
    return [
        f"path         {package}",
        f"model        {manifest.model_type}, {manifest.task}, from {_source(manifest)}",
        f"weights      {manifest.weights.precision} ({manifest.weights.scheme}), for {manifest.target}",
        f"context      {manifest.context_length} tokens, vocabulary {manifest.vocab_size}",
        *_source_lines(manifest),
        *_cache_line(manifest.cache),
        *_encoder_lines(manifest.encoder),
        f"tokens       bos {tokens.bos}, eos {', '.join(map(str, tokens.eos)) or None}, pad {tokens.pad}",
        f"made with    {_pairs(manifest.versions)}",
        f"files        {_size(size)}, {checked if manifest.has_hashes else 'made by another tool, no hashes'}",
        *files,
    ]


def _source_lines(manifest: Manifest) -> list[str]:
    """Of an encoder-decoder, whose context is that of its targets."""
    if manifest.cross_cache is None:
        return []
    longest = "of any length" if manifest.source_length is None else f"of up to {manifest.source_length} tokens"
    per_token = _size(manifest.cross_cache.bytes_per_token())
    return [f"source       {longest}, {per_token} per token in the decoder's layers"]


def _cache_line(cache: CacheLayout | None) -> list[str]:
    if cache is None:
        return []
    return [
        f"cache        {_size(cache.bytes_per_token())} per token: {cache.num_layers} layers, "
        f"{cache.num_kv_heads} heads of {cache.head_dim}, {cache.dtype}"
    ]


def _encoder_lines(encoder: Encoder | None) -> list[str]:
    if encoder is None:
        return []
    embedding, lines = encoder.embedding, []
    if encoder.labels:
        shown = ", ".join(encoder.labels[:LABELS]) + (", ..." if len(encoder.labels) > LABELS else "")
        lines.append(f"labels       {len(encoder.labels)}: {shown}")
    if embedding is not None:
        unit = ", unit vectors" if embedding.normalize else ""
        lines.append(f"embedding    {embedding.pooling} of the tokens{unit}, texts of {embedding.max_tokens} tokens")
    return lines


def _pairs(values: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "unknown"


def _source(manifest: Manifest) -> str:
    revision = manifest.source.get("revision")
    return f"{manifest.source.get('name', 'unknown')}{f' at {revision}' if revision else ''}"


def _size(count: int) -> str:
    for unit, limit in (("B", 2**10), ("KiB", 2**20), ("MiB", 2**30)):
        if count < limit:
            return f"{count * 2**10 / limit:.{0 if unit == 'B' else 1}f} {unit}"
    return f"{count / 2**30:.2f} GiB"
