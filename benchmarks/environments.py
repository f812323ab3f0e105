"""One virtual environment per peer, made on first use and reused: peers never enter the project's own."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"


@dataclass(frozen=True)
class Environment:
    """What is installed, and what of its dependencies is removed again."""

    requirements: tuple[str, ...]
    without: tuple[str, ...] = ()


TORCH = ("torch==2.13.0", "transformers==4.57.6", "safetensors==0.8.0")
ENVIRONMENTS = {
    # The model builder of onnxruntime-genai 0.18 imports classes that only transformers 5 has.
    "onnxruntime-genai": Environment(
        ("onnxruntime-genai==0.18.0", "torch==2.13.0", "transformers>=5.20,<6", "onnx", "onnx-ir")
    ),
    "openvino-genai": Environment(("openvino-genai==2026.4.1.0", "openvino==2026.4.1", "numpy")),
    # Makes OpenVINO's graphs; runs nothing. The registry's torchvision does not fit a torch for the CPU.
    "openvino-convert": Environment(
        (
            "optimum-intel==2.2.0",
            "nncf==3.4.0",
            "openvino==2026.4.1",
            "openvino-tokenizers==2026.4.1.0",
            "torch==2.13.0",
        ),
        without=("torchvision",),
    ),
    "xllamacpp": Environment(("xllamacpp==2026.10.11549", "numpy")),
    "ctranslate2": Environment(("ctranslate2==4.8.5", *TORCH)),
    "transformers": Environment(TORCH),
}


def python_of(peer: str) -> str:
    """The interpreter of the peer's environment. "edgellm" is the one this runs in."""
    if peer == "edgellm":
        return sys.executable
    environment, home = ENVIRONMENTS[peer], CACHE / "venvs" / peer
    wanted = json.dumps(asdict(environment))
    python, stamp = home / "bin" / "python", home / "requirements.json"
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"making the environment of {peer} ...", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", *environment.requirements], check=True)
        if environment.without:
            subprocess.run([*pip, "uninstall", "--yes", *environment.without], check=True)
        stamp.write_text(wanted)
    return str(python)
