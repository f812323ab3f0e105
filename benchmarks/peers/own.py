"""Worker: edgellm, through its public stream. Arguments: package, threads."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from protocol import serve


def load():
    import edgellm

    model = edgellm.load(sys.argv[1], threads=int(sys.argv[2]))

    def generate(ids: list[int], new_tokens: int) -> Iterator[object]:
        model.reset()  # no prefix of the last prompt
        return model.stream(ids, max_new_tokens=new_tokens, eos_token_id=None, do_sample=False)

    return generate


if __name__ == "__main__":
    serve(load)
