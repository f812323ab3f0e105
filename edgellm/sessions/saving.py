"""An engine's cache to a file and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.engines.cached import AnyEngine
from edgellm.engines.history import HeldRow
from edgellm.errors import SessionCorruptError, SessionError
from edgellm.generation.overflow import Room
from edgellm.ort.library import version
from edgellm.package.manifest import DecoderFacts, Manifest
from edgellm.sessions.file import SavedFile, write_file
from edgellm.sessions.header import Header
from edgellm.sessions.source import SessionSource
from edgellm.version import __version__


def save_engine(engine: AnyEngine, source: SessionSource, metadata: Mapping[str, Any], path: Path) -> None:
    """Write what an engine holds to a file. Raises SessionError, SessionWriteError, or InputError for metadata that is
    no JSON data."""
    check_savable(source.manifest)
    row, arrays = engine.held() if engine.rows else (HeldRow([], 0, False), _nothing(source.manifest))
    header = Header(
        package=source.identity.package,
        tokenizer=source.identity.tokenizer,
        cache=source.identity.cache,
        tokens=len(row.tokens),
        read=row.read,
        long_table=row.long_table,
        checksums=(),
        metadata=metadata,
        versions={"edgellm": __version__, "onnxruntime": version()},
    )
    write_file(path, header, [np.array(row.tokens, np.int64), *arrays])


def load_into(engine: AnyEngine, file: SavedFile, manifest: Manifest[DecoderFacts], room: Room) -> None:
    """Take over a saved file of this model. Raises SessionCorruptError, or MemoryBudgetError."""
    length = file.header.tokens
    if length > manifest.context_length:  # before anything is read: the file may be a hole of any size
        raise SessionCorruptError(f"it has {length} tokens, and the model's context {manifest.context_length}")
    if length > room.tokens:
        raise room.overflow("the saved session", length, "or load it without a limit")
    tokens = file.read_tokens()
    if not bool(((tokens >= 0) & (tokens < manifest.vocab_size)).all()):
        raise SessionCorruptError("its tokens are not this model's")
    if not length:
        return
    engine.limit(room.tokens)
    with engine.receive(HeldRow(tokens.tolist(), file.header.read, file.header.long_table)) as arrays:
        file.read_into(arrays)


def copy_into(engine: AnyEngine, of: AnyEngine, room: Room) -> None:
    """Take over what another engine holds, in memory of its own."""
    engine.limit(room.tokens)
    if not of.rows:
        return
    row, arrays = of.held()
    with engine.receive(row) as targets:
        for target, array in zip(targets, arrays, strict=True):
            target[...] = array


def check_savable(manifest: Manifest[DecoderFacts]) -> None:
    """Raises SessionError where nothing in the cache can serve again."""
    if manifest.model.rope.changes_with_every_token:
        raise SessionError(
            "the rotary tables of this model change with every token (dynamic scaling), so that nothing in its cache "
            "serves another prompt: keep the text instead of a saved session"
        )


def _nothing(manifest: Manifest[DecoderFacts]) -> list[npt.NDArray[Any]]:
    layout = manifest.model.cache
    empty = np.empty((layout.num_kv_heads, 0, layout.head_dim), layout.array_dtype)
    return [empty] * layout.num_buffers
