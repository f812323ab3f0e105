"""Memory and the import's time, in processes of their own so that peaks are theirs alone.

    python benchmarks/memory.py

1. Generating: peak RSS after a prompt of 512 tokens and 64 new ones, above that of a process that only imported
   edgellm, against the package plus the cache in use; and what ONNX Runtime's library and the tokenizer take of it,
   whatever the model's size.
2. Importing: seconds of the processor, of edgellm and of numpy alone.
3. Exporting: peak RSS and time of an int8 export, verification included, of a bf16 checkpoint in Qwen2.5-0.5B's shape.

Peak RSS is VmHWM of /proc/self/status: it counts mapped file pages too. Prints a table and one JSON line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from environments import CACHE
from random_checkpoint import QWEN25_05B, write_checkpoint

PEAK = "next(int(l.split()[1]) / 1024 for l in open('/proc/self/status') if l.startswith('VmHWM'))"
IMPORT = f"""
import sys, time
start = time.process_time()
__import__(sys.argv[1])
print(time.process_time() - start, {PEAK})
"""
GENERATE = f"""
import sys, edgellm
model = edgellm.load(sys.argv[1], threads=2)
prompt = [(7 * i) % 40000 + 300 for i in range(512)]
result = model.generate(prompt, max_new_tokens=64, min_new_tokens=64)
cache = (512 + 64) * model.info.cache_bytes_per_token
print({PEAK}, model.info.package_bytes / 2**20, cache / 2**20)
"""
NOW = "next(int(l.split()[1]) / 1024 for l in open('/proc/self/status') if l.startswith('VmRSS'))"
FIXED = f"""
import sys, pathlib, edgellm
from edgellm.ort.library import onnxruntime
from edgellm.text.tokenizer import open_tokenizer
print({NOW})
onnxruntime()
print({NOW})
tokenizer = open_tokenizer(pathlib.Path(sys.argv[1]))
print({NOW})
"""
EXPORT = f"""
import sys, time
start = time.perf_counter()
import edgellm_export
edgellm_export.export(sys.argv[1], sys.argv[2], precision="int8", force=True)
print({PEAK}, time.perf_counter() - start)
"""


def run(code: str, *arguments: str) -> list[float]:
    """The numbers that `code` prints last, in a fresh process."""
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, check=True, env=environment, text=True, stdout=subprocess.PIPE)
    return [float(word) for word in done.stdout.split()]


def importing() -> dict[str, float]:
    """Seconds of the processor, the median of several, for edgellm and for numpy alone, in turns."""
    names = ("edgellm", "numpy")
    rounds = [[run(IMPORT, name)[0] for name in names] for _ in range(9)]
    return {f"{name}_seconds": median(taken) for name, taken in zip(names, zip(*rounds, strict=True), strict=True)}


def generating() -> dict[str, float]:
    package = CACHE / "packages" / "smollm2-135m-int8"
    if not package.is_dir():
        raise SystemExit(f"{package} is missing; `make demo` makes it")
    _, bare = run(IMPORT, "edgellm")
    peak, size, cache = run(GENERATE, str(package))
    before, library, tokenizer = run(FIXED, str(package))
    return {
        "import_mb": bare,
        "peak_mb": peak,
        "package_mb": size,
        "cache_mb": cache,
        "library_mb": library - before,
        "tokenizer_mb": tokenizer - library,
        "ratio": (peak - bare) / (size + cache),
    }


def exporting() -> dict[str, float]:
    checkpoint = write_checkpoint(CACHE / "checkpoints" / "qwen2.5-0.5b-random", QWEN25_05B)
    peak, seconds = run(EXPORT, str(checkpoint), str(CACHE / "packages" / "qwen2.5-0.5b-random-int8"))
    size = sum(path.stat().st_size for path in Path(checkpoint).iterdir()) / 2**20
    return {"peak_mb": peak, "seconds": seconds, "checkpoint_mb": size}


def main() -> None:
    results = {"import": importing(), "generate": generating(), "export": exporting()}
    for title, row in results.items():
        print(f"{title:10s}" + ", ".join(f"{name} {value:.2f}" for name, value in row.items()))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
