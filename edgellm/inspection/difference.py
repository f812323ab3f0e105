"""How two packages differ: what each says of itself, side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import corrupt
from edgellm.inspection.contents import Inspection, multiplies
from edgellm.package.files import sha256_of
from edgellm.package.manifest import MANIFEST_NAME
from edgellm.package.onnx_file import Port
from edgellm.package.report import REPORT_NAME

# What the other sections compare in a finer way.
ELSEWHERE = ("files", "source", "versions")
CONFIGS = ("generation_config.json", "config.json", "tokenizer_config.json", "special_tokens_map.json")
TEXTS = ("chat_template.jinja",)


@dataclass(frozen=True)
class Difference:
    """A thing that is not the same in both. `a`, `b`: the two values, None where there is none. `section`: what the
    name is a name of."""

    section: str
    name: str
    a: Any
    b: Any


def differences(a: Inspection, b: Inspection) -> list[Difference]:
    """What differs: nothing where the packages hold the same, whenever they were written. Raises PackageError where a
    file cannot be read."""
    return [
        *_mappings("manifest", _manifest(a), _manifest(b)),
        *_mappings("provenance", _provenance(a), _provenance(b)),
        *_graphs(a, b),
        *_mappings("matrix", _matrices(a), _matrices(b)),
        *_mappings("report", _report(a), _report(b)),
        *(each for name in CONFIGS for each in _mappings(name, _config(a.path / name), _config(b.path / name))),
        *_texts(a.path, b.path),
        *_files(a, b),
    ]


def _mappings(section: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    names = dict.fromkeys([*a, *b])
    return [Difference(section, name, a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)]


def _manifest(package: Inspection) -> dict[str, Any]:
    return flat({name: value for name, value in package.manifest.to_dict().items() if name not in ELSEWHERE})


def _provenance(package: Inspection) -> dict[str, Any]:
    """A directory of another tool says nothing of it: its source would be its own name."""
    manifest = package.manifest
    if not manifest.has_hashes:
        return {}
    return flat({"source": dict(manifest.source), "versions": dict(manifest.versions)})


def _graphs(a: Inspection, b: Inspection) -> Iterator[Difference]:
    for name in dict.fromkeys([*a.graphs, *b.graphs]):
        if name not in a.graphs or name not in b.graphs:
            yield Difference("graph", name, _nodes(a, name), _nodes(b, name))
            continue
        one, other = a.graphs[name], b.graphs[name]
        yield from _mappings(f"{name} inputs", _ports(one.inputs), _ports(other.inputs))
        yield from _mappings(f"{name} optional inputs", _ports(one.optional), _ports(other.optional))
        yield from _mappings(f"{name} outputs", _ports(one.outputs), _ports(other.outputs))
        yield from _mappings(f"{name} operators", one.operators, other.operators)


def _nodes(package: Inspection, name: str) -> str | None:
    return f"{package.graphs[name].nodes} nodes" if name in package.graphs else None


def _ports(ports: tuple[Port, ...]) -> dict[str, str]:
    return {port.name: f"[{', '.join(map(str, port.shape))}] {port.dtype}" for port in ports}


def _matrices(package: Inspection) -> dict[str, dict[str, Any]]:
    """The matrices by place, whose operator may be another."""
    return {
        f"{each.part}: {each.node}": {"format": each.scheme, "bytes": each.bytes}
        for each in package.matrices
        if multiplies(each.operator)
    }


def _report(package: Inspection) -> dict[str, Any]:
    """Figures of the whole, and the errors of layers and matrices by their names; not what the export took."""
    report = package.report
    if report is None:
        return {}
    parts = ("layers", "matrices", "worst_layers", "plan")
    figures = {name: value for name, value in report.to_dict().items() if name not in parts}
    layers = {f"layer {each.place}": each.error for each in report.layers}
    matrices = {f"matrix {each.node}": each.error for each in report.matrices}
    return {**flat(figures), **layers, **matrices}


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise corrupt(f"{path} cannot be read ({error})", or_copy=True) from error
    return flat(content) if isinstance(content, dict) else {"": content}


def _texts(a: Path, b: Path) -> list[Difference]:
    one, other = ({name: _text(path / name) for name in TEXTS} for path in (a, b))
    return _mappings("text", one, other)


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _files(a: Inspection, b: Inspection) -> list[Difference]:
    one, other = _entries(a), _entries(b)
    found = []
    for name in dict.fromkeys([*one, *other]):
        if name == REPORT_NAME and None not in (a.report, b.report):
            continue  # compared above, without what this very export took
        if one.get(name) != other.get(name):
            found.append(Difference("file", name, one.get(name), other.get(name)))
            continue
        hashes = _sha256(a, name), _sha256(b, name)
        if hashes[0] != hashes[1]:
            found.append(Difference("file", name, {"sha256": hashes[0]}, {"sha256": hashes[1]}))
    return found


def _entries(package: Inspection) -> dict[str, dict[str, int]]:
    files = package.manifest.files
    return {name: {"bytes": entry.size} for name, entry in sorted(files.items()) if name != MANIFEST_NAME}


def _sha256(package: Inspection, name: str) -> str:
    """The manifest's hash or, in a directory without one, that of the content."""
    return package.manifest.files[name].sha256 or sha256_of(package.path / name)


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one: {"a": {"b": 1}} is {"a.b": 1}. Lists are values."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return found
