"""A checkpoint into MNN's LLM directory: `mnn_convert.py CHECKPOINT OUT BITS`.

llmexport's command does not start, for its modules import each other as if their directory were on the path. MNN's
converter, which it calls, reports each use to its maker, and installs a package for that: here it cannot.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    checkpoint, out, bits = sys.argv[1:]
    sys.modules["MNN.tools.utils.log"] = None  # type: ignore[assignment]  # the import fails, which it takes as "no"
    package = importlib.util.find_spec("llmexport")
    assert package is not None
    assert package.origin is not None
    sys.path.insert(0, str(Path(package.origin).parent))
    sys.argv = ["llmexport", "--path", checkpoint, "--export", "mnn", "--quant_bit", bits, "--dst_path", out]
    os.chdir(out)  # its log
    importlib.import_module("llmexport").main()  # now the module of that name inside the package
