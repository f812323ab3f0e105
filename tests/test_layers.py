"""A folder is a floor. What each may import stands in one table, from the lowest floor up; nothing else is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

RUNTIME, EXPORTER = "edgellm", "edgellm_export"
ROOT = Path(__file__).parent.parent
HOME = {RUNTIME: ROOT, EXPORTER: ROOT / "export"}
COMMON = {"edgellm.errors", "edgellm.types"}
MOST_AT_THE_TOP = 8  # modules beside a half's folders, each of which is a floor of its own

# Floors: the floors of the same half that they import / those of the other half. `*` is the module of the half itself.
# All floors may import `COMMON`.
TABLE = {
    RUNTIME: """
        errors types version system package decoding text.sandbox:
        text: system package text.sandbox
        text.answers: text
        ort: system package
        engines: package ort decoding
        engines.in_place: system package ort decoding engines
        engines.concat: package ort decoding engines
        foreign: package engines.concat
        constraints: text decoding
        audio: package
        speech: decoding
        generation: package text text.answers decoding constraints
        sessions: version system package ort text decoding engines generation
        models: package ort text decoding engines engines.in_place engines.concat audio speech generation sessions
        serving: system text decoding engines generation models
        loading: package ort foreign models
        inspection: package
        pipelines: package text decoding speech models loading
        *: version decoding speech generation sessions models loading pipelines
        openai: text.answers generation serving
        bulk: system package ort text text.answers decoding generation models serving loading pipelines openai
        server: version loading models package text text.answers audio speech generation serving openai
        ray: version system package ort loading bulk serving server
        bench: system package ort inspection models loading
        doctor: system package ort inspection loading
        evaluation: version package ort text foreign models loading pipelines / *
        commands: system package ort text generation sessions loading inspection bulk server ray bench doctor evaluation * / architectures planning witness *
        cli: commands *
        __main__: cli
    """,  # noqa: E501
    EXPORTER: """
        checkpoint:
        weights:
        package: checkpoint / package
        tokenizer: checkpoint / package text
        gguf: checkpoint tokenizer / package text
        prequantized: checkpoint
        sources: checkpoint weights prequantized tokenizer gguf / package text
        onnx: checkpoint package / engines
        quantize: checkpoint onnx
        blocks: checkpoint onnx quantize / package
        architectures: checkpoint quantize blocks
        adapters: checkpoint tokenizer sources architectures / package
        adapters: checkpoint tokenizer sources architectures / package
        graphs: onnx blocks architectures / package
        float_run: checkpoint onnx quantize blocks architectures graphs / system text ort
        calibration: checkpoint quantize blocks float_run / package text
        verification: float_run calibration / system package text ort models loading
        witness: sources float_run calibration verification / package text decoding models loading
        exporters: checkpoint package onnx quantize blocks architectures graphs float_run calibration verification / package text
        optimum: checkpoint package tokenizer sources onnx quantize verification exporters / package text foreign models loading
        planning: checkpoint package quantize float_run calibration verification exporters / system package inspection
        pipeline: checkpoint package sources architectures adapters calibration verification exporters optimum planning witness / system package
        *: pipeline
    """,  # noqa: E501
}
# What the exporter takes from the runtime: the contract and facts, and, in these floors only, models to run them.
TAKEN = {"package", "text", "system", "inspection"}
RUN = {
    "float_run": {"ort"},
    "verification": {"ort", "models", "loading"},
    "witness": {"decoding", "models", "loading"},
    "optimum": {"foreign", "models", "loading"},
}
WRITTEN = {"onnx": {"engines"}}  # the small graphs that ship with the runtime are made there


def allowed(half: str) -> dict[str, set[str]]:
    """By floor, the floors that it may import, with their half in front; lower floors first."""
    other = EXPORTER if half == RUNTIME else RUNTIME
    table = {}
    for line in TABLE[half].split("\n"):
        if line.strip():
            floors, _, imports = line.strip().partition(":")
            own, _, foreign = imports.partition("/")
            arrows = {full(half, name) for name in own.split()} | {full(other, name) for name in foreign.split()}
            table.update({full(half, floor): arrows for floor in floors.split()})
    return table


def full(half: str, floor: str) -> str:
    return half if floor == "*" else f"{half}.{floor}"


def modules(half: str) -> dict[str, Path]:
    files = (HOME[half] / half).rglob("*.py")
    return {
        ".".join(file.relative_to(HOME[half]).with_suffix("").parts).removesuffix(".__init__"): file for file in files
    }


MODULES = {half: modules(half) for half in HOME}
ALL = MODULES[RUNTIME] | MODULES[EXPORTER]


def floor_of(module: str) -> str:
    """The folder that a module lies in; the module itself at the top."""
    is_folder = ALL[module].name == "__init__.py"
    return module if is_folder or module.count(".") == 1 else module.rpartition(".")[0]


def imports(module: str) -> Iterator[str]:
    """The modules of both halves that a module imports anywhere in it."""
    for node in ast.walk(ast.parse(ALL[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in ALL)
        if isinstance(node, ast.ImportFrom) and node.module in ALL:
            names = [f"{node.module}.{name.name}" for name in node.names]
            yield from (name if name in ALL else node.module for name in names)


@pytest.mark.parametrize("half", HOME)
def test_each_floor_imports_what_the_table_says_and_no_more(half: str) -> None:
    table = allowed(half)
    found: dict[str, set[str]] = {floor: set() for floor in table}
    for module in MODULES[half]:
        arrows = {floor_of(name) for name in imports(module)} - {floor_of(module)} - COMMON
        found.setdefault(floor_of(module), set()).update(arrows)
    assert found == table


@pytest.mark.parametrize("half", HOME)
def test_imports_go_down(half: str) -> None:
    below: set[str] = set()
    for floor, arrows in allowed(half).items():
        up = {arrow for arrow in arrows if arrow.split(".")[0] == half} - below
        assert not up, f"{floor} imports {up}, which do not lie below it"
        below.add(floor)


def test_the_exporter_takes_the_contract_and_runs_models_only_to_see_what_it_made() -> None:
    for floor, arrows in allowed(EXPORTER).items():
        name = floor.removeprefix(f"{EXPORTER}.")
        taken = {arrow.removeprefix(f"{RUNTIME}.") for arrow in arrows if arrow.split(".")[0] == RUNTIME}
        assert taken <= TAKEN | RUN.get(name, set()) | WRITTEN.get(name, set()), floor


def test_one_floor_imports_onnx_runtime() -> None:
    def mentions(file: Path) -> Iterator[str]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from (name.name for name in node.names)
            if isinstance(node, ast.ImportFrom) and node.module:
                yield node.module

    found = {floor_of(m) for m, file in ALL.items() if any(n.split(".")[0] == "onnxruntime" for n in mentions(file))}
    assert found == {f"{RUNTIME}.ort"}


@pytest.mark.parametrize("half", HOME)
def test_few_modules_are_at_the_top_and_each_floor_says_what_lives_there(half: str) -> None:
    floors = [module for module, file in MODULES[half].items() if file.name == "__init__.py"]
    at_the_top = [module for module in MODULES[half] if module.count(".") == 1 and module not in floors]
    assert len(at_the_top) <= MOST_AT_THE_TOP, at_the_top
    silent = [floor for floor in floors if not ast.get_docstring(ast.parse(ALL[floor].read_text()))]
    assert not silent
