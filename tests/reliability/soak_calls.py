"""What a soak does: calls of many kinds on several models.

A call is made of a seed and nothing else, so that the same call gives the same result, however late it comes and
whatever runs beside it. Where a call's end is a matter of time, its result is None.
"""

from __future__ import annotations

import gc
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import edgellm
from edgellm.errors import ContextOverflowError, InputError, OptionError, SessionError
from edgellm.loading import load_as
from edgellm.pipelines.base import Pipeline

TO_THE_LIMIT: dict[str, Any] = {"eos_token_id": []}


@dataclass(frozen=True)
class Models:
    decoders: tuple[edgellm.Model, ...]  # a float and an int8 cache
    real: edgellm.Model | None  # takes one in ten of the calls that fit its size
    attentions: edgellm.Model
    encoder_decoder: edgellm.EncoderDecoderModel
    classify: Pipeline
    package: Path  # of the first decoder

    def any_decoder(self, draw: Random) -> edgellm.Model:
        """Of any size; the draws are the same whether there is a real one or not."""
        model, real = self.any_tiny(draw), draw.random() < 0.1
        return self.real if real and self.real is not None else model

    def any_tiny(self, draw: Random) -> edgellm.Model:
        return draw.choice(self.decoders)


Call = Callable[[Models, Random], object]


def load(directory: Path, real: Path | None = None) -> Models:
    """The packages that packages.py made, and a real decoder beside the tiny ones."""
    return Models(
        tuple(load_as(edgellm.Model, directory / name) for name in ("decoder", "decoder-int8")),
        load_as(edgellm.Model, real) if real else None,
        load_as(edgellm.Model, directory / "decoder-attentions"),
        load_as(edgellm.EncoderDecoderModel, directory / "encoder-decoder"),
        edgellm.pipeline("text-classification", directory / "encoder"),
        directory / "decoder",
    )


def prompt(draw: Random, *, longest: int = 40) -> str:
    return "".join(draw.choice("abcdefgh ,.") for _ in range(draw.randint(2, longest)))


# Decoders


def greedy(models: Models, draw: Random) -> object:
    return models.any_decoder(draw).generate(prompt(draw), max_new_tokens=draw.randint(1, 16)).tokens


def sampling(models: Models, draw: Random) -> object:
    options: dict[str, Any] = {
        "do_sample": True,
        "top_p": 0.9,
        "temperature": 0.8,
        "seed": draw.randint(0, 99),
        "max_new_tokens": 12,
    }
    generation = models.any_decoder(draw).generate(prompt(draw), num_return_sequences=draw.randint(1, 3), **options)
    return [sequence.tokens for sequence in generation.sequences]


def beams(models: Models, draw: Random) -> object:
    beams = draw.choice([2, 4])
    groups: dict[str, Any] = {"num_beam_groups": 2, "diversity_penalty": 0.5} if draw.random() < 0.3 else {}
    return models.any_decoder(draw).generate(prompt(draw), max_new_tokens=10, num_beams=beams, **groups).tokens


def batch(models: Models, draw: Random) -> object:
    prompts = [prompt(draw) for _ in range(draw.randint(2, 5))]
    return [g.tokens for g in models.any_decoder(draw).generate(prompts, max_new_tokens=8)]


def processors(models: Models, draw: Random) -> object:
    options: dict[str, Any] = {
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 2,
        "min_new_tokens": 4,
        "logprobs": True,
    }
    return models.any_decoder(draw).generate(prompt(draw), max_new_tokens=10, stop_strings="ab", **options).tokens


def streamed(models: Models, draw: Random) -> object:
    stream = models.any_decoder(draw).stream(prompt(draw), max_new_tokens=12)
    return [(piece.text, piece.tokens) for piece in stream]


def closed_stream(models: Models, draw: Random) -> object:
    stream = models.any_decoder(draw).stream(prompt(draw), max_new_tokens=50, **TO_THE_LIMIT)
    found = [next(stream).tokens for _ in range(draw.randint(1, 6))]
    stream.close()  # type: ignore[attr-defined]
    return found


def dropped_stream(models: Models, draw: Random) -> object:
    """Left half-consumed, and forgotten."""
    stream = models.any_decoder(draw).stream(prompt(draw), max_new_tokens=50, **TO_THE_LIMIT)
    return [next(stream).tokens for _ in range(draw.randint(1, 6))]


def cancelled(models: Models, draw: Random) -> object:
    event = threading.Event()
    timer = threading.Timer(draw.uniform(0, 0.01), event.set)
    timer.start()
    generation = models.any_decoder(draw).generate(prompt(draw), max_new_tokens=400, cancel=event, **TO_THE_LIMIT)
    assert generation.finish_reason in ("cancelled", "length")
    timer.join()
    return None


def out_of_time(models: Models, draw: Random) -> object:
    options = {"max_new_tokens": 400, "max_time": draw.uniform(1e-6, 0.01), **TO_THE_LIMIT}
    generation = models.any_decoder(draw).generate(prompt(draw), **options)
    assert generation.finish_reason in ("time", "length")
    return None


def chat(models: Models, draw: Random) -> object:
    """Two turns: the second continues the first one's cache, unless another thread's call came between."""
    model, messages = models.any_decoder(draw), [{"role": "user", "content": prompt(draw)}]
    first = model.chat(messages, max_new_tokens=6).text
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": prompt(draw)}]
    return first, "".join(piece.text for piece in model.stream_chat(messages, max_new_tokens=6))


def score(models: Models, draw: Random) -> object:
    return [round(x, 2) for x in models.any_decoder(draw).score(prompt(draw, longest=200)).logprobs]


def prompt_lookup(models: Models, draw: Random) -> object:
    text = prompt(draw, longest=12) * 5
    return models.any_decoder(draw).generate(text, max_new_tokens=16, prompt_lookup=True).tokens


def long_prompt(models: Models, draw: Random) -> object:
    text = prompt(draw, longest=12) * 20
    return models.any_decoder(draw).generate(text, max_new_tokens=3).tokens


def growing_cache(models: Models, draw: Random) -> object:
    """More tokens than the cache has room for at first."""
    model = models.any_tiny(draw)
    return model.generate(prompt(draw, longest=8), max_new_tokens=draw.randint(260, 300), **TO_THE_LIMIT).tokens


def attention_weights(models: Models, draw: Random) -> object:
    result = models.attentions.run(prompt(draw, longest=60), output_attentions=True)
    assert result.attentions is not None
    return result.attentions.weights.shape


def fresh_start(models: Models, draw: Random) -> object:
    model = models.any_decoder(draw)
    model.reset()
    return model.generate(prompt(draw), max_new_tokens=4).tokens


def loaded_anew(models: Models, draw: Random) -> object:
    """A model of its own, dropped behind the call; now and then with threads of its own."""
    model = load_as(edgellm.Model, models.package, threads=draw.choice([1, 2]))
    return model.generate(prompt(draw), max_new_tokens=4).tokens


def generation_pipeline(models: Models, draw: Random) -> object:
    pipe = edgellm.pipeline("text-generation", models.decoders[0])
    return pipe(prompt(draw), max_new_tokens=6, do_sample=False, return_full_text=False)


# Sessions


def session_turns(models: Models, draw: Random) -> object:
    """Turns of one sequence, a part of it forgotten in between."""
    with models.any_decoder(draw).session() as session:
        text = prompt(draw)
        first = session.generate(text, max_new_tokens=6).tokens
        session.trim(draw.randint(0, 3))
        second = session.generate(text + prompt(draw), max_new_tokens=6).tokens
        return first, second, [piece.tokens for piece in session.stream(text, max_new_tokens=3)]


def session_forks(models: Models, draw: Random) -> object:
    """Several continuations of one beginning; some of the sessions are closed, others dropped."""
    session = models.any_decoder(draw).session(max_bytes=1 << 20)
    text = prompt(draw)
    session.prefill(text)
    forks = [session.fork() for _ in range(draw.randint(1, 3))]
    session.close()
    return [fork.generate(text + letter, max_new_tokens=4).tokens for fork, letter in zip(forks, "abc", strict=False)]


def session_file(models: Models, draw: Random) -> object:
    model, text = models.any_decoder(draw), prompt(draw)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "session"
        with model.session() as session:
            session.prefill(text)
            session.save(file)
        with model.load_session(file) as session:
            return session.generate(text + "a", max_new_tokens=4).tokens


def session_in_use(models: Models, draw: Random) -> object:
    with models.any_decoder(draw).session() as session:
        stream = session.stream(prompt(draw), max_new_tokens=20, **TO_THE_LIMIT)
        first = next(stream).tokens
        try:
            session.generate("Hi")
        except SessionError as error:
            stream.close()  # type: ignore[attr-defined]
            return first, str(error)
    raise AssertionError("no SessionError")


def overflowing(models: Models, draw: Random) -> object:
    model = models.any_tiny(draw)
    longer = [5 + draw.randint(0, 90) for _ in range(model.info.context_length + 20)]
    return model.generate(longer, max_new_tokens=6, overflow=draw.choice(["truncate", "shift"]), **TO_THE_LIMIT).tokens


# The other models


def translated(models: Models, draw: Random) -> object:
    return models.encoder_decoder.generate(prompt(draw), max_new_tokens=10, num_beams=draw.choice([1, 3])).tokens


def translated_batch(models: Models, draw: Random) -> object:
    sources = [prompt(draw) for _ in range(3)]
    return [len(g.tokens) for g in models.encoder_decoder.generate(sources, max_new_tokens=8, **TO_THE_LIMIT)]


def translated_stream(models: Models, draw: Random) -> object:
    stream = models.encoder_decoder.stream(prompt(draw), max_new_tokens=40, **TO_THE_LIMIT)
    return [next(stream).tokens for _ in range(draw.randint(1, 6))]


def target_score(models: Models, draw: Random) -> object:
    return [round(x, 2) for x in models.encoder_decoder.score(prompt(draw), prompt(draw)).logprobs]


def classified(models: Models, draw: Random) -> object:
    found = models.classify([prompt(draw, longest=30) for _ in range(draw.randint(1, 6))], top_k=None)
    return [[(label["label"], round(label["score"], 3)) for label in one] for one in found]


# Errors


def refused(models: Models, draw: Random) -> object:
    """What the door turns away: an option, a prompt, a length."""
    model = models.any_decoder(draw)
    wrong: list[tuple[type[Exception], Callable[[], object]]] = [
        (OptionError, lambda: model.generate("Hi", temperature=-1.0)),
        (OptionError, lambda: model.generate("Hi", no_such_option=1)),
        (InputError, lambda: model.generate([10**9])),
        (InputError, lambda: model.chat([])),
        (ContextOverflowError, lambda: model.generate([5] * (model.info.context_length + 1))),
        (ContextOverflowError, lambda: model.score([5] * (model.info.context_length + 1))),
        (OptionError, lambda: models.classify("Hi", no_such_option=1)),
        (InputError, lambda: models.encoder_decoder.generate([])),
    ]
    error, call = draw.choice(wrong)
    try:
        call()
    except error as found:
        return str(found)
    raise AssertionError(f"no {error.__name__}")


class Stop(Exception):
    """Of a caller's own."""


def failing_hook(models: Models, draw: Random) -> object:
    """An error in the middle of a prompt: its cache is half written."""

    def progress(done: int, total: int) -> None:
        raise Stop

    try:
        models.any_decoder(draw).generate(prompt(draw, longest=300), max_new_tokens=4, progress=progress)
    except Stop:
        return None
    raise AssertionError("the hook was not called")


def collected(models: Models, draw: Random) -> object:
    """Garbage that others left, streams among it, is collected in the middle of the others' calls."""
    gc.collect()
    return greedy(models, draw)


CALLS: tuple[Call, ...] = (
    greedy, sampling, beams, batch, processors, streamed, closed_stream, dropped_stream, cancelled, out_of_time, chat,
    score, prompt_lookup, long_prompt, growing_cache, attention_weights, fresh_start, loaded_anew, generation_pipeline,
    session_turns, session_forks, session_file, session_in_use, overflowing,
    translated, translated_batch, translated_stream, target_score, classified, refused, failing_hook, collected,
)  # fmt: skip
