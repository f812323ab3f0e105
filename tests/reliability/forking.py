"""A program that loads models and then forks: python forking.py HOW DIRECTORY THREADS. Prints what its children say."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import edgellm

PATIENCE = 30  # seconds, after which a child that waits for threads that are not there is killed by an alarm
GREEDY: dict[str, Any] = {"max_new_tokens": 20, "eos_token_id": []}

Calls = Mapping[str, Callable[[], object]]


def calls(directory: Path, threads: int) -> Calls:
    """A call of each kind of model, just loaded."""
    model, encoder_decoder, encoder = (
        edgellm.load(directory / name, threads=threads) for name in ("decoder", "encoder-decoder", "encoder")
    )
    assert isinstance(model, edgellm.Model)
    assert isinstance(encoder_decoder, edgellm.EncoderDecoderModel)
    assert isinstance(encoder, edgellm.EncoderModel)
    stream = model.stream("a stream begun before the fork", **GREEDY)
    next(stream)
    return {
        "generate": lambda: model.generate("hello", **GREEDY).tokens,
        "beams": lambda: model.generate(["hello", "you"], num_beams=2, **GREEDY)[0].tokens,
        "score": lambda: model.score("hello").logprobs,
        "stream": lambda: [piece.tokens for piece in stream],
        "translate": lambda: encoder_decoder.generate("hello", **GREEDY).tokens,
        "classify": lambda: encoder.run(["hello"])[0].logits.tolist(),
    }


def in_child(work: Callable[[], int]) -> int:
    """The exit status of a forked child that leaves as programs do, freeing what it has."""
    child = os.fork()
    if not child:
        signal.alarm(PATIENCE)
        sys.exit(work())
    return os.waitpid(child, 0)[1]


def refusals(made: Calls) -> int:
    """How many of the calls run in this process."""
    ran = 0
    for name, call in made.items():
        try:
            call()
            ran += 1
        except edgellm.ProviderError as error:
            os.write(1, f"{name} {error}\n".encode())  # whole, beside those of other children
    return ran


def idle(directory: Path, threads: int) -> int:
    """The child is refused; the parent goes on."""
    made = calls(directory, threads)
    before = made["generate"]()
    status = in_child(lambda: refusals(made))
    assert made["generate"]() == before
    return status


def busy(directory: Path, threads: int) -> int:
    """The same while other threads are inside."""
    made = calls(directory, threads)

    def work() -> None:
        while True:
            made["beams"]()

    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    return max(in_child(lambda: refusals(made)) for _ in range(3))


def anew(directory: Path, threads: int) -> int:
    """What is loaded in the child works in the child."""
    expected = {name: call() for name, call in calls(directory, threads).items()}

    def load_again() -> int:
        again = calls(directory, threads)
        return sum(again[name]() != result for name, result in expected.items())

    return in_child(load_again)


def untouched(directory: Path, threads: int) -> int:
    """A child that never uses the models that it inherits ends as usual, whether it frees them or not."""
    made = dict(calls(directory, threads))

    def free() -> int:
        made.clear()
        return 0

    return max(in_child(lambda: 0), in_child(free))


def processes(directory: Path, threads: int) -> int:
    """multiprocessing with its method fork."""
    made = calls(directory, threads)
    children = [multiprocessing.get_context("fork").Process(target=_leave, args=(made,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(PATIENCE)
    return max(-1 if child.exitcode is None else child.exitcode for child in children)


def _leave(made: Calls) -> None:
    sys.exit(refusals(made))


HOW = {function.__name__: function for function in (idle, busy, anew, untouched, processes)}


if __name__ == "__main__":
    how, directory, threads = sys.argv[1:]
    signal.alarm(4 * PATIENCE)
    sys.exit(HOW[how](Path(directory), int(threads)) != 0)
