"""PyTorch's own files (`pytorch_model.bin`): which tensors they hold and where their numbers lie, without torch.

Since torch 1.6 such a file is a zip archive of uncompressed entries: `NAME/data.pkl`, a pickle of names and tensors,
and `NAME/data/KEY`, the numbers of a storage each. Before, it was five pickles one behind the other (a magic number, a
version, a description of the machine, the names and tensors, the keys of the storages in order), then each storage as
its number of items in eight bytes and the items. Pickles are read by `pickled`, which executes nothing.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edgellm.errors import CheckpointError, TensorError
from edgellm_export.weights.pickled import ForeignError, Pairs, PickleError, Pickles, Storage, StoredTensor
from edgellm_export.weights.strided import StridedTensor
from edgellm_export.weights.values import ITEM_BITS, MAX_ELEMENTS, check_no_pointer

MAX_PICKLE = 1 << 24  # bytes; a thousand tensors take some hundred thousand
MAX_MARK = 64  # bytes of the entry that names the order of bytes
LOCAL_HEADER, LOCAL_SIZE = b"PK\x03\x04", 30
ENCRYPTED = 1
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001  # of the format before torch 1.6
SHOWN = 5
ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError, struct.error)


def read_pytorch(path: Path) -> dict[str, StridedTensor]:
    """The tensors of one file by name. Raises CheckpointError or TensorError."""
    with path.open("rb") as file:
        start = file.read(512)
        check_no_pointer(path, start)
        size = file.seek(0, 2)
        with _explained(path):
            read = _read_zip if start.startswith(LOCAL_HEADER) else _read_pickles
            found, places = read(file, size)
            return {name: _placed(path, name, tensor, places) for name, tensor in _named(found).items()}


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except ForeignError as error:
        raise TensorError(
            f"{path} is not a file of weights alone: {error}. Nothing of it was executed. Save the weights by "
            "themselves, with model.save_pretrained(OUT)"
        ) from error
    except PickleError as error:
        raise CheckpointError(f"{path} is damaged or not a PyTorch file: {error}; download or copy it again") from error


@dataclass(frozen=True)
class Place:
    """Where a storage lies in the file, in bytes."""

    offset: int
    size: int


Found = tuple[Any, Mapping[str, Place]]  # what was pickled, and where the storages are


def _read_zip(file: BinaryIO, size: int) -> Found:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = _entries(archive)
            data = archive.read(entries["data.pkl"])
            order = archive.read(entries["byteorder"]) if "byteorder" in entries else b"little"
    except ZIP_ERRORS as error:
        raise PickleError(f"the zip archive cannot be read ({error})") from error
    if order.strip() != b"little":
        raise ForeignError("its numbers are stored with their high bytes first")
    pickles = Pickles(data)
    found = pickles.load()
    places = {}
    for key in pickles.storages:
        if f"data/{key}" not in entries:
            raise PickleError(f"the storage {key[:40]!r} is not there")
        places[key] = _place(file, entries[f"data/{key}"], size)
    return found, places


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The archive's entries by their names below its one folder, which its first entry tells."""
    infos = archive.infolist()
    root = infos[0].filename.partition("/")[0] if infos else ""
    entries = {info.filename.removeprefix(f"{root}/"): info for info in infos}
    if len(entries) != len(infos):
        raise PickleError("the zip archive has two entries of one name")
    if "constants.pkl" in entries:
        raise ForeignError("it is a TorchScript program, not weights")
    if "data.pkl" not in entries:
        raise PickleError("the zip archive has no data.pkl")
    for name, limit in (("data.pkl", MAX_PICKLE), ("byteorder", MAX_MARK)):
        if name in entries:
            _check_stored(entries[name])
            if entries[name].file_size > limit:
                raise PickleError(f"its {name} has {entries[name].file_size} bytes, more than {limit}")
    return entries


def _check_stored(info: zipfile.ZipInfo) -> None:
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & ENCRYPTED or info.compress_size != info.file_size:
        raise ForeignError(f"its entry {info.filename[:80]!r} is compressed or encrypted, which torch does not write")


def _place(file: BinaryIO, info: zipfile.ZipInfo, size: int) -> Place:
    """Where the content of an entry lies, as the header in front of it says."""
    _check_stored(info)
    header = b""
    if 0 <= info.header_offset <= size:
        file.seek(info.header_offset)
        header = file.read(LOCAL_SIZE)
    if len(header) < LOCAL_SIZE or not header.startswith(LOCAL_HEADER):
        raise PickleError(f"the zip archive's entry {info.filename[:80]!r} has no header")
    start = info.header_offset + LOCAL_SIZE + sum(struct.unpack_from("<HH", header, 26))  # name and extra field
    if start + info.file_size > size:
        raise PickleError(f"the zip archive's entry {info.filename[:80]!r} ends behind the file")
    return Place(start, info.file_size)


def _read_pickles(file: BinaryIO, size: int) -> Found:
    """The format before torch 1.6."""
    file.seek(0)
    pickles = Pickles(file.read(min(size, MAX_PICKLE)))
    if pickles.load() != MAGIC or pickles.load() != VERSION:
        raise PickleError("it begins with another number than torch's")
    pickles.load()  # of the machine that wrote it: its numbers are in one order of bytes whatever that has
    found, keys = pickles.load(), pickles.load()
    if type(keys) is not list or not all(type(key) is str and key in pickles.storages for key in keys):
        raise PickleError("its list of storages has others than its tensors")
    places, offset = {}, pickles.at
    for key in keys:
        storage = pickles.storages[key]
        file.seek(offset)
        if file.read(8) != storage.items.to_bytes(8, "little"):
            raise PickleError(f"the storage {key[:40]!r} has another size than its tensors need")
        places[key] = Place(offset + 8, _bytes(storage))
        offset += 8 + places[key].size
        if offset > size:
            raise PickleError(f"the storage {key[:40]!r} ends behind the file")
    if lost := pickles.storages.keys() - places:
        raise PickleError(f"the storage {min(lost)[:40]!r} is not there")
    return found, places


def _bytes(storage: Storage) -> int:
    return storage.items * ITEM_BITS[storage.dtype] // 8


def _named(found: Any) -> dict[str, StoredTensor]:
    """The tensors by name, if that is all there is."""
    if isinstance(found, Pairs):
        if not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in found.items):
            raise PickleError("its dictionary has entries that are no pairs")
        if not all(type(name) is str for name, _ in found.items):
            raise ForeignError("it has a dictionary whose keys are no names")
        found = dict(found.items)
    if not isinstance(found, dict):
        raise ForeignError(f"it holds a {type(found).__name__}, expected a dictionary of tensors")
    others = [
        str(name)[:40] for name, value in found.items() if type(name) is not str or type(value) is not StoredTensor
    ]
    if others:
        within = [name for name in others if isinstance(found.get(name), dict | Pairs)]
        hint = f"; the weights are perhaps in {within[0]!r}" if within else ""
        raise ForeignError(f"beside tensors it holds {', '.join(others[:SHOWN])}{hint}")
    return found


def _placed(path: Path, name: str, tensor: StoredTensor, places: Mapping[str, Place]) -> StridedTensor:
    place, storage = places[tensor.storage.key], tensor.storage
    if place.size < _bytes(storage) + storage.start * ITEM_BITS[storage.dtype] // 8:
        raise PickleError(f"the storage of {name[:80]!r} has {place.size} bytes, its tensor needs more")
    elements = 1
    for size in filter(None, tensor.shape):
        elements *= size
    if elements > MAX_ELEMENTS:
        raise PickleError(f"{name[:80]!r} has the shape {list(tensor.shape)}")
    offset = place.offset + tensor.offset * ITEM_BITS[tensor.dtype] // 8
    return StridedTensor(name, tensor.shape, tensor.dtype, path, offset, tensor.strides)
