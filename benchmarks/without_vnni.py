"""A package on an emulated processor without VNNI, beside the same package here: right, and how much slower.

    python benchmarks/without_vnni.py PACKAGE [--cpu Haswell]

Needs qemu-x86_64 (Debian's qemu-user). The emulator shows programs the real machine's flags, so the check for such
processors is answered by this script; `--as-others` answers it as if there were VNNI, to see what that does. What is
lost in speed is measured on this processor, with the kernels that the others get.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from edgellm import Model

TOKENS = 24
ROUNDS = 7


def run(package: Path, out: Path, *, careful: bool, timed: bool) -> None:
    """Logits of a few tokens, and seconds per prompt of 128 tokens and per decoded token where `timed`."""
    from decoders import load_decoder

    with patch("edgellm.ort.loaded_graph.adds_int8_products_in_16_bits", lambda: careful):
        model = load_decoder(package, threads=2)
    ids = np.random.default_rng(0).integers(300, 20000, 128)
    times = [_times(model, ids) for _ in range(ROUNDS)][1:] if timed else [(0.0, 0.0)]
    prefill, decode = np.median(np.array(times), axis=0)
    np.savez(out, logits=model.logits(ids[:TOKENS]), prefill=prefill, decode=decode)


def _times(model: Model, ids: npt.NDArray[np.int64]) -> tuple[float, float]:
    model.reset()
    start = time.perf_counter()
    pieces = model.stream(ids, max_new_tokens=33, eos_token_id=[], do_sample=False)
    next(pieces)
    first = time.perf_counter()
    count = sum(1 for _ in pieces)
    return first - start, (time.perf_counter() - first) / count


def compare(name: str, found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    difference = np.sqrt(np.mean(np.square(found - expected)) / np.mean(np.square(expected)))
    agreement = np.mean(found.argmax(-1) == expected.argmax(-1))
    print(f"{name:44} relative RMS of logits {difference:.2e}, top-1 agreement {agreement:.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--cpu", default="Haswell", help="of qemu-x86_64 -cpu help")
    parser.add_argument("--as-others", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--careful", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--timed", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run(arguments.package, arguments.child, careful=arguments.careful, timed=arguments.timed)
        return
    with tempfile.TemporaryDirectory() as directory:

        def child(name: str, *flags: str, emulator: tuple[str, ...] = ()) -> dict[str, npt.NDArray[np.float32]]:
            out = Path(directory) / f"{name}.npz"
            command = [*emulator, sys.executable, __file__, str(arguments.package), "--child", str(out), *flags]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL if emulator else None)
            with np.load(out) as file:
                return dict(file)

        here = child("here", "--timed")
        careful = child("careful", "--careful", "--timed")
        compare("here, as without VNNI", careful["logits"], here["logits"])
        for key in ("prefill", "decode"):
            print(f"{'':44} {key} {careful[key] / here[key]:.2f} times as long")
        flags = () if arguments.as_others else ("--careful",)
        emulated = child("emulated", *flags, emulator=("qemu-x86_64", "-cpu", arguments.cpu))
        compare(f"emulated {arguments.cpu}", emulated["logits"], here["logits"])


if __name__ == "__main__":
    main()
