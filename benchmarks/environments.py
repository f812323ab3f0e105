"""One virtual environment per peer, made on first use and reused: peers never enter the project's own."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
# The model builder of onnxruntime-genai 0.18 imports classes that only transformers 5 has.
REQUIREMENTS: dict[str, list[str]] = {
    "onnxruntime-genai": ["onnxruntime-genai==0.18.0", "torch==2.13.0", "transformers>=5.20,<6", "onnx", "onnx-ir"],
}


def python_of(peer: str) -> str:
    """The interpreter of the peer's environment. "edgellm" is the one this runs in."""
    if peer == "edgellm":
        return sys.executable
    home, wanted = CACHE / "venvs" / peer, json.dumps(REQUIREMENTS[peer])
    python, stamp = home / "bin" / "python", home / "requirements.json"
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"making the environment of {peer} ...", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS[peer]], check=True)
        stamp.write_text(wanted)
    return str(python)
