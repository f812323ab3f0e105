"""One virtual environment per peer, made on first use and reused: peers never enter the project's own. For the
benchmarks and for the tests of interchange."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
READERS = (
    "torch==2.13.0",
    "peft==0.21.2",
    "compressed-tensors==0.20.1",
    "sentencepiece==0.2.1",
    "protobuf",
    "h5py",
)
ENVIRONMENTS = {
    # The model builder of onnxruntime-genai 0.18 imports classes that only transformers 5 has.
    "onnxruntime-genai": Environment(
        ("onnxruntime-genai==0.18.0", "torch==2.13.0", "transformers>=5.20,<6", "onnx", "onnx-ir")
    ),
    # Its ONNX side alone, which runs graphs; transformers is the newest that it takes.
    "optimum": Environment(("optimum-onnx==0.1.0", "onnxruntime==1.31.1", *TORCH)),
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
    "ik_llamacpp": Environment(("ik-llama-cpp-python==0.1.5", "numpy")),
    "mnn": Environment(("mnn==3.6.1", "llmexport==0.0.5", *TORCH)),
    # litert-torch imports tensorflow without asking for it.
    "litert-lm": Environment(
        (
            "litert-lm-api==0.18.1",
            "litert-lm-builder==0.18.1",
            "litert-torch==0.10.0",
            "tensorflow-cpu==2.21.0",
            "torch==2.13.0",
            "transformers==5.24.0",
        )
    ),
    "ctranslate2": Environment(("ctranslate2==4.8.5", *TORCH)),
    # Reads what the converter of the one above makes.
    "faster-whisper": Environment(("faster-whisper==1.2.1", "ctranslate2==4.8.5")),
    "transformers": Environment(TORCH),
    # The references of the parity suite: what reads and saves checkpoints, and what they need for all kinds of them.
    "transformers-4": Environment(("transformers==4.57.6", "sentence-transformers==5.1.2", *READERS)),
    "transformers-5": Environment(("transformers==5.24.0", "sentence-transformers==6.2.0", *READERS)),
    # Clients of OpenAI's interface, for the tests of the server.
    "clients": Environment(("litellm==1.110.2", "langchain-openai==1.7.4", "llm==0.36", "openai==3.57.0")),
}


class Unreachable(RuntimeError):
    """An environment is not there yet, and the registry it would come from cannot be reached."""


def python_of(peer: str) -> str:
    """The interpreter of the peer's environment. "edgellm" is the one this runs in. Raises Unreachable."""
    if peer == "edgellm":
        return sys.executable
    environment, home = ENVIRONMENTS[peer], CACHE / "venvs" / peer
    wanted = json.dumps(asdict(environment))
    python, stamp = home / "bin" / "python", home / "requirements.json"
    with _locked(home.with_name(f"{peer}.lock")):
        if not stamp.is_file() or stamp.read_text() != wanted:
            print(f"making the environment of {peer} ...", file=sys.stderr)
            venv.create(home, with_pip=True, clear=True)
            pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
            # Not compiled: few of torch's modules are ever imported, and Python compiles those then.
            install([*pip, "install", "--no-compile", *environment.requirements])
            if environment.without:
                subprocess.run([*pip, "uninstall", "--yes", *environment.without], check=True)
            stamp.write_text(wanted)
    return str(python)


def install(command: Sequence[str]) -> None:
    """Raises Unreachable where pip found no connection, CalledProcessError for what else may fail."""
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if result.returncode and "connection broken by" in result.stderr:
        raise Unreachable(f"no package registry can be reached: {result.stderr.strip().splitlines()[-1]}")
    sys.stderr.write(result.stderr)
    result.check_returncode()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
