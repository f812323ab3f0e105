"""The systems of the comparison: adding one is adding a row here, an environment, a conversion and a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import conversion
from edgellm.package.manifest import Precision
from models import Model


@dataclass(frozen=True)
class System:
    environment: str
    worker: str
    convert: Callable[[Model, Precision], Path]
    titles: Mapping[str, str]
    """What the table calls it, for each precision it has."""


OWN = "edgellm"
REFERENCE = "transformers"
SYSTEMS = {
    OWN: System("edgellm", "own.py", conversion.edgellm_package, {"int8": "edgellm int8", "int4": "edgellm int4"}),
    "onnxruntime-genai": System(
        "onnxruntime-genai",
        "genai.py",
        conversion.genai_package,
        {"int8": "onnxruntime-genai 0.18 int8", "int4": "onnxruntime-genai 0.18 int4"},
    ),
    "openvino": System(
        "openvino-genai",
        "ov.py",
        conversion.openvino_graph,
        {"int8": "OpenVINO GenAI 2026.4 int8", "int4": "OpenVINO GenAI 2026.4 int4"},
    ),
    "llama.cpp": System(
        "xllamacpp", "llamacpp.py", conversion.gguf_file, {"int8": "llama.cpp Q8_0", "int4": "llama.cpp Q4_0"}
    ),
    "ik_llama.cpp": System(
        "ik_llamacpp",
        "ik_llamacpp.py",
        conversion.gguf_file,
        {"int8": "ik_llama.cpp 0.1.5 Q8_0", "int4": "ik_llama.cpp 0.1.5 Q4_0"},
    ),
    "ik_llama.cpp-repacked": System(
        "ik_llamacpp",
        "ik_llamacpp.py",
        conversion.repacked_gguf_file,
        {"int8": "ik_llama.cpp 0.1.5 Q8_0_R8", "int4": "ik_llama.cpp 0.1.5 Q4_0_R8"},
    ),
    "ctranslate2": System(
        "ctranslate2", "ct2.py", conversion.ctranslate2_model, {"int8": "CTranslate2 4.8 int8"}
    ),  # no 4-bit weights on a CPU
    "mnn": System("mnn", "mnn_llm.py", conversion.mnn_directory, {"int8": "MNN 3.6 int8", "int4": "MNN 3.6 int4"}),
    "litert-lm": System("litert-lm", "litertlm.py", conversion.litert_file, {"int8": "LiteRT-LM 0.18 int8"}),
    REFERENCE: System(
        "transformers",
        "hf.py",
        conversion.float_checkpoint,
        {"int8": "transformers 4.57 fp32", "int4": "transformers 4.57 fp32"},
    ),
}


def available(precision: str) -> list[str]:
    return [name for name, system in SYSTEMS.items() if precision in system.titles]
