"""Keys and values of the beginnings of prompts, so that what many requests begin with is read once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

from edgellm.engines.contract import Known
from edgellm.types import TokenArray

BLOCK = 64  # tokens


class PrefixCache:
    """Blocks of BLOCK tokens, each known by its own tokens and all those before it. The least recently used go first
    where all would take more than `max_bytes`; a block never stays longer than the one before it."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._blocks: OrderedDict[bytes, Known] = OrderedDict()  # the least recently used first

    def find(self, tokens: TokenArray, most: int) -> list[Known]:
        """The keys and values of the longest beginning of tokens [length] that is known, of at most `most` tokens, as
        blocks."""
        known = []
        for key, _, stop in _keys(tokens):
            if key not in self._blocks or stop > most:
                break
            known.append(key)
        self._used(known)
        return [self._blocks[key] for key in known]

    def add(self, tokens: TokenArray, taken: Callable[[int, int], Known]) -> None:
        """Keep the whole blocks of tokens [length]. `taken`: a copy of keys and values from one token to another."""
        chain = [key for key, _, _ in _keys(tokens)]
        known = next((i for i, key in enumerate(chain) if key not in self._blocks), len(chain))
        self._used(chain[:known])
        for i in range(known, len(chain)):
            block = taken(i * BLOCK, (i + 1) * BLOCK)
            if not self._has_room(_nbytes(block), keep=chain[:i]):
                return
            self._blocks[chain[i]] = block
            self.nbytes += _nbytes(block)
            self._used(chain[: i + 1])

    def _has_room(self, nbytes: int, keep: Sequence[bytes]) -> bool:
        """Make room for so many bytes, but not by letting go of what is to be kept."""
        while self.nbytes + nbytes > self.max_bytes:
            oldest = next(iter(self._blocks), None)
            if oldest is None or oldest in keep:
                return False
            self.nbytes -= _nbytes(self._blocks.pop(oldest))
        return True

    def _used(self, keys: Sequence[bytes]) -> None:
        """From the last block to the first, which is the last to go."""
        for key in reversed(keys):
            self._blocks.move_to_end(key)


def _nbytes(block: Known) -> int:
    return sum(array.nbytes for array in block)


def _keys(tokens: TokenArray) -> Iterator[tuple[bytes, int, int]]:
    """The key of each whole block, and where it begins and ends."""
    key = b""
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        key = blake2b(key + tokens[start : start + BLOCK].tobytes(), digest_size=16).digest()
        yield key, start, start + BLOCK
