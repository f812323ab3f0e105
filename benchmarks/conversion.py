"""A model into what each system reads, by the tool its users would take, at that tool's defaults."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgellm.package.manifest import Precision
from environments import CACHE, ENVIRONMENTS, python_of
from gguf_writing import requantize, write_random_qwen2
from models import SMOLLM2_GGUF, Model

# CI turns OpenVINO's telemetry off.
OFFLINE = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "CI": "true"}
# Groups of 64: both models' rows are a multiple of it, not of optimum's 128.
OPENVINO_WEIGHTS = {"int8": ["int8"], "int4": ["int4", "--group-size", "64"]}


def edgellm_package(model: Model, precision: Precision) -> Path:
    """Exported anew each time: what is timed is this code's output."""
    import edgellm_export

    out = CACHE / "compare" / model.name / f"edgellm-{precision}"
    out.parent.mkdir(parents=True, exist_ok=True)
    edgellm_export.export(model.checkpoint(), out, precision=precision, force=True, verify_quality=False)
    return out


def genai_package(model: Model, precision: Precision) -> Path:
    def make(out: Path) -> None:
        builder = [python_of("onnxruntime-genai"), "-m", "onnxruntime_genai.models.builder"]
        names = ["-m", model.name, "-i", str(model.checkpoint()), "-o", str(out), "-c", str(CACHE / "genai")]
        _run([*builder, *names, "-p", precision, "-e", "cpu"])

    return _made(model, "onnxruntime-genai", precision, ["defaults"], make)


def openvino_graph(model: Model, precision: Precision) -> Path:
    options = ["--task", "text-generation-with-past", "--weight-format", *OPENVINO_WEIGHTS[precision]]

    def make(out: Path) -> None:
        optimum = Path(python_of("openvino-convert")).with_name("optimum-cli")
        _run([str(optimum), "export", "openvino", "-m", str(model.checkpoint()), *options, str(out)])

    return _made(model, "openvino-convert", precision, options, make)


def ctranslate2_model(model: Model, precision: Precision) -> Path:
    options = ["--quantization", f"{precision}_float32"]

    def make(out: Path) -> None:
        converter = Path(python_of("ctranslate2")).with_name("ct2-transformers-converter")
        _run([str(converter), "--model", str(model.checkpoint()), *options, "--output_dir", str(out)])

    return _made(model, "ctranslate2", precision, options, make)


def gguf_file(model: Model, precision: Precision) -> Path:
    def make(out: Path) -> None:
        out.mkdir()
        if model.name == "smollm2":
            requantize(SMOLLM2_GGUF, out / "model.gguf", precision)
        else:
            write_random_qwen2(model.checkpoint(), out / "model.gguf", precision)

    return _made(model, "xllamacpp", precision, ["gguf"], make) / "model.gguf"


def repacked_gguf_file(model: Model, precision: Precision) -> Path:
    """The same numbers in ik_llama.cpp's own layout of rows side by side."""

    def make(out: Path) -> None:
        out.mkdir()
        library = "import ik_llama_cpp, pathlib; print(pathlib.Path(ik_llama_cpp.__file__).parent)"
        found = subprocess.run([python_of("ik_llamacpp"), "-c", library], check=True, text=True, stdout=subprocess.PIPE)
        home = Path(found.stdout.strip())
        kind = {"int8": "q8_0", "int4": "q4_0"}[precision]
        files = [str(gguf_file(model, precision)), str(out / "model.gguf")]
        _run([str(home / "bin" / "llama-quantize"), "--repack", *files, kind], LD_LIBRARY_PATH=str(home / "lib"))

    return _made(model, "ik_llamacpp", precision, ["repack"], make) / "model.gguf"


def mnn_directory(model: Model, precision: Precision) -> Path:
    bits = precision.removeprefix("int")

    def make(out: Path) -> None:
        out.mkdir()
        script = Path(__file__).resolve().parent / "peers" / "mnn_convert.py"
        _run([python_of("mnn"), str(script), str(model.checkpoint()), str(out), bits])

    return _made(model, "mnn", precision, [bits], make)


def litert_file(model: Model, precision: Precision) -> Path:
    """With a tokenizer of numbers, for LiteRT-LM takes no token ids, and an end token that no model has."""
    weights = {"int8": "dynamic_wi8_afp32"}[precision]

    def make(out: Path) -> None:
        out.mkdir()
        vocab_size = json.loads((model.checkpoint() / "config.json").read_text())["vocab_size"]
        (out / "tokenizer.json").write_text(json.dumps(_number_words(vocab_size)))
        (out / "metadata.pbtext").write_text(
            f"stop_tokens {{ token_ids {{ ids: {vocab_size} }} }}\n"
            "max_num_tokens: 4096\nllm_model_type { generic_model {} }\n"
        )
        command = [str(Path(python_of("litert-lm")).with_name("litert-torch")), "export_hf"]
        given = {
            "model": model.checkpoint(),
            "output_dir": out,
            "quantization_recipe": weights,
            "tokenizer_path_override": out / "tokenizer.json",
            "litert_lm_llm_metadata_override": out / "metadata.pbtext",
        }
        _run([*command, *(f"--{name}={value}" for name, value in given.items())])

    return _made(model, "litert-lm", precision, [weights], make) / "model.litertlm"


def _number_words(vocab_size: int) -> dict[str, Any]:
    """A tokenizer.json in which token 42 is the word "42"."""
    words = {str(token): token for token in range(vocab_size)}
    return {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "0"},
    }


def float_checkpoint(model: Model, precision: Precision) -> Path:
    """The checkpoint that transformers reads itself, in float32 whatever the precision of the others."""
    return model.checkpoint()


def _made(
    model: Model, environment: str, precision: Precision, options: list[str], make: Callable[[Path], None]
) -> Path:
    """The directory that `make` fills, made again when the environment or the options are others than they were."""
    out = CACHE / "compare" / model.name / f"{environment}-{precision}"
    recipe = json.dumps([ENVIRONMENTS[environment].requirements, options])
    stamp = out.with_name(f"{out.name}.recipe.json")
    if stamp.is_file() and stamp.read_text() == recipe:
        return out
    model.checkpoint()
    out.parent.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    shutil.rmtree(out, ignore_errors=True)
    print(f"converting {model.name} to {precision} for {environment} ...", file=sys.stderr)
    make(out)
    stamp.write_text(recipe)
    return out


def _run(command: list[Any], **variables: str) -> None:
    """From a folder where nothing lies, without a path: transformers takes a kernels/ that Python finds, as this
    repository's, for the package of that name."""
    environment, folder = {**OFFLINE, "PYTHONPATH": "", **variables}, CACHE / "empty"
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command, env=environment, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{' '.join(command)}: status {done.returncode}")
