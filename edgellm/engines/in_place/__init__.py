"""Engines whose graphs write into the spare room of a cache that stays where it is."""

from __future__ import annotations

from edgellm.engines.in_place.cache import CHUNK, KVCache
from edgellm.engines.in_place.device_cache import DeviceCache
from edgellm.engines.in_place.host_cache import HostCache
from edgellm.ort.library import Device
from edgellm.package.manifest import CacheLayout


def open_cache(layout: CacheLayout, max_length: int, device: Device, chunk: int = CHUNK) -> KVCache:
    """An empty one, for rows of at most `max_length` tokens, of which a run reads at most `chunk`."""
    if device == "cpu":
        return HostCache(layout, max_length, chunk)
    return DeviceCache(layout, max_length, device, chunk)
