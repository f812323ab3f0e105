"""edgellm doctor: whether this machine is ready, and what to do where it is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import edgellm
from edgellm.commands.options import json_option
from edgellm.doctor import Facts, Finding, examine, read_facts
from edgellm.doctor.package_checks import examine_package

STOPPED = 1
WIDTH = 12  # of a check's name


@click.command()
@click.argument("package", metavar="[PKG]", required=False, type=click.Path(path_type=Path))
@json_option
@click.pass_context
def doctor(context: click.Context, package: Path | None, as_json: bool) -> None:
    """Examine this machine and its Python, and the package PKG if one is given.

    Each line is ok, a note, a warning (slower than it could be, or in danger of failing) or an error (edgellm, or the
    package, does not run here), with what to do about it. Ends with exit code 1 where there is an error. Nothing is
    changed, and nothing is sent anywhere.
    """
    facts = read_facts()
    findings = examine(facts)
    if package is not None:
        findings += examine_package(package, facts)
    click.echo(json.dumps(_json(findings, facts), indent=2) if as_json else "\n".join(_lines(findings)))
    if any(finding.severity == "error" for finding in findings):
        context.exit(STOPPED)


def _lines(findings: Sequence[Finding]) -> list[str]:
    lines = []
    for finding in findings:
        lines.append(f"{finding.severity:8} {finding.check:{WIDTH}} {finding.message}")
        if finding.fix:
            lines.append(f"{'':8} {'':{WIDTH}} -> {finding.fix}")
    return [*lines, "", _verdict(findings)]


def _verdict(findings: Sequence[Finding]) -> str:
    count = {severity: sum(f.severity == severity for f in findings) for severity in ("error", "warning")}
    if count["error"]:
        return f"edgellm {edgellm.__version__} is not ready: {_number(count['error'], 'error')}"
    return f"edgellm {edgellm.__version__} is ready: no error, {_number(count['warning'], 'warning')}"


def _number(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"


def _json(findings: Sequence[Finding], facts: Facts) -> dict[str, Any]:
    return {
        "edgellm": edgellm.__version__,
        "ready": not any(finding.severity == "error" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "facts": _plain(asdict(facts)),
    }


def _plain(value: Any) -> Any:
    """What JSON can hold: sets become sorted lists."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
