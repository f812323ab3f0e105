"""edgellm inspect: what a package says of itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgellm.commands.export_text import quality_lines
from edgellm.commands.inspect_text import facts, matrix_table
from edgellm.commands.options import json_option, package_argument
from edgellm.inspection.contents import CONTEXT, Inspection, inspect_package
from edgellm.loading import read_package
from edgellm.ort.kernels import UsedKernels, used_kernels
from edgellm.package.files import check_files
from edgellm.package.json_data import read_json
from edgellm.package.report import REPORT_NAME, read_report


@click.command()
@package_argument
@click.option("--verify", is_flag=True, help="Compare every file with the sha256 in the manifest.")
@click.option("--report", "report_only", is_flag=True, help="Print the quality report alone.")
@click.option("--matrices", is_flag=True, help="Also list each matrix: format, shape, size and measured error.")
@click.option("--context", type=click.IntRange(min=1), help="Tokens to estimate the memory for.  [default: 2048]")
@json_option
def inspect(package: Path, verify: bool, report_only: bool, matrices: bool, context: int | None, as_json: bool) -> None:
    """Show what the package PKG says of itself.

    Model, precision, provenance, sizes, memory, the graphs' inputs, outputs and operators, each layer's size, formats
    and error, and the quality report, all without loading the model. PKG may also be a directory of ONNX graphs that
    another tool made.
    """
    package, manifest = read_package(package)
    if verify:
        check_files(package, manifest)
    if report_only:
        click.echo(_dumped(_report(package)) if as_json else "\n".join(quality_lines(read_report(package))))
        return
    found = inspect_package(package, manifest, context or min(CONTEXT, manifest.context_length))
    click.echo(_dumped(_json(found)) if as_json else "\n".join(_lines(found, verify, matrices)))


def _dumped(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2)


def _report(package: Path) -> dict[str, Any]:
    """The file as it is."""
    return {"report": read_json(package / REPORT_NAME) or None}


def _lines(found: Inspection, verified: bool, matrices: bool) -> list[str]:
    quality = quality_lines(found.report) if found.manifest.has_hashes else []
    return [
        *facts(found, _used_kernels(found), verified=verified),
        *quality,
        *(["", *matrix_table(found.matrices)] if matrices else []),
    ]


def _used_kernels(found: Inspection) -> UsedKernels:
    if found.manifest.target != "cpu":
        return UsedKernels(None, 0)
    return used_kernels([found.path / graph.file for graph in found.manifest.graphs.values()])


def _json(found: Inspection) -> dict[str, Any]:
    return {
        "manifest": found.manifest.to_dict(),
        **_report(found.path),
        "written": None if found.written is None else found.written.isoformat(),
        "memory": {**asdict(found.memory), "total": found.memory.total},
        "graphs": {
            name: {
                "inputs": [asdict(port) for port in graph.inputs],
                "optional_inputs": [asdict(port) for port in graph.optional],
                "outputs": [asdict(port) for port in graph.outputs],
                "operators": graph.operators,
            }
            for name, graph in found.graphs.items()
        },
        "kernels": asdict(_used_kernels(found)),
        "layers": [asdict(layer) for layer in found.layers],
        "matrices": [asdict(matrix) for matrix in found.matrices],
    }
