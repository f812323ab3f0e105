"""A quantized checkpoint as JSON: {"config": quantization_config, "tensors": {name: [type, shape, bytes or text]}}."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

BITS = {"U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I32": 32, "I64": 64, "F16": 16, "BF16": 16, "F32": 32}
MOST = 1 << 13  # bytes of a tensor
USUAL = bytes(range(1, 250))


def quantized_files(data: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of the directory. Entries that make no tensor are left out."""
    header, content = {}, b""
    tensors = data.get("tensors")
    for name, entry in tensors.items() if isinstance(tensors, dict) else ():
        raw = _content(entry)
        if raw is not None:
            offsets = [len(content), len(content) + len(raw)]
            header[name] = {"dtype": entry[0], "shape": entry[1], "data_offsets": offsets}
            content += raw
    text = json.dumps(header).encode()
    config = {"model_type": "llama", "quantization_config": data.get("config")}
    weights = len(text).to_bytes(8, "little") + text + content
    return {"config.json": json.dumps(config).encode(), "model.safetensors": weights}


def _content(entry: Any) -> bytes | None:
    """As many bytes as a tensor's type and shape need: those that are given, again and again."""
    if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[0], str) or entry[0] not in BITS:
        return None
    if not isinstance(entry[1], list) or not all(type(each) is int and 0 <= each <= MOST for each in entry[1]):
        return None
    count = math.prod(entry[1]) * BITS[entry[0]] // 8
    if count > MOST:
        return None
    given = entry[2]
    if isinstance(given, str):
        raw = given.encode("utf-8", "surrogatepass")
    elif isinstance(given, list) and all(type(each) is int and 0 <= each < 256 for each in given):
        raw = bytes(given)
    else:
        raw = USUAL
    raw = raw or USUAL
    return (raw * (count // len(raw) + 1))[:count]
