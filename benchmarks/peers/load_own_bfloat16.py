"""Load worker: edgellm's engine for many requests, with a cache of bfloat16."""

from __future__ import annotations

from functools import partial

from load import serve
from load_own import load

if __name__ == "__main__":
    serve(partial(load, kv_cache="bfloat16"))
