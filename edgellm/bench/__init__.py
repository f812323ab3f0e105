"""Benchmarks of a package on this machine.

    from edgellm.bench import run_bench
    result = run_bench("smollm2-int8", prompt_tokens=[128, 512], threads=[1, 2])
    print(result.cases[0].step_ms)

`runner.py` is the whole on one page. Each case runs in a process of its own (`child.py` starts it, `worker.py` is it),
which times the public API (`timing.py`) and watches the machine meanwhile (`energy.py`, `system/sample.py`).
"""

from edgellm.bench.cases import Case
from edgellm.bench.results import BenchResult, CaseResult, Load, Loads, Machine, PackageFacts, Repeat
from edgellm.bench.runner import run_bench
from edgellm.system.bandwidth import Bandwidth
from edgellm.system.disturbance import Conditions
from edgellm.system.memory import peak_memory_bytes

__all__ = [
    "Bandwidth", "BenchResult", "Case", "CaseResult", "Conditions", "Load", "Loads", "Machine", "PackageFacts",
    "Repeat", "peak_memory_bytes", "run_bench",
]  # fmt: skip
