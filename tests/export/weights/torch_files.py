"""PyTorch files made by hand, so that what torch would not write can be written too."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping


def zip_of(data: bytes, storages: Mapping[str, bytes] | None = None, **others: bytes) -> bytes:
    """A torch file with the pickle `data`. `storages` by their keys, `others` by the rest of their names."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", b"3\n")
        for key, content in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", content)
        for name, content in others.items():
            archive.writestr(f"archive/{name}", content)
    return made.getvalue()


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def whole(value: int) -> bytes:
    raw = value.to_bytes(20, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def named(name: str) -> bytes:
    module, _, rest = name.rpartition(".")
    return f"c{module}\n{rest}\n".encode()


def several(*items: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(items) + b"t"


def storage(kind: str = "torch.FloatStorage", key: str = "0", items: int = 4) -> bytes:
    return several(text("storage"), named(kind), text(key), text("cpu"), whole(items)) + b"Q"


def tensor(*arguments: bytes, function: str = "torch._utils._rebuild_tensor_v2") -> bytes:
    """Of 2 rows and 2 columns, where no arguments say otherwise."""
    given = arguments or (storage(), whole(0), several(whole(2), whole(2)), several(whole(2), whole(1)))
    hooks = named("collections.OrderedDict") + b")R"
    return named(function) + several(*given, b"\x89", hooks) + b"R"


def state(value: bytes, name: bytes = text("w")) -> bytes:
    """A pickle of a dictionary with one entry."""
    return b"\x80\x02}" + name + value + b"s."
