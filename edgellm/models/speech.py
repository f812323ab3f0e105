"""A loaded package of a model that writes down speech.

model = edgellm.load("whisper-int8")
print(model.transcribe("meeting.flac").text)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.audio.features import log_mel
from edgellm.audio.samples import Recording, samples_of
from edgellm.decoding import Ends, GenerationOptions
from edgellm.engines.checks import check_graphs, lacks_graphs
from edgellm.engines.in_place.encoder_decoder import EncoderDecoderEngine
from edgellm.errors import InputError, OptionError
from edgellm.generation.call import Cancel
from edgellm.models.info import model_info
from edgellm.ort.loaded_graph import LoadedGraph, LoadSettings
from edgellm.package.generation import read_settings
from edgellm.package.json_data import read_json
from edgellm.package.manifest import Manifest, SpeechFacts
from edgellm.speech.options import WORD, SpeechOptions
from edgellm.speech.results import Segment, Transcription, Word
from edgellm.speech.segments import Clock
from edgellm.speech.text import pieces
from edgellm.speech.tokens import SpeechTokens
from edgellm.speech.transcriber import Transcriber
from edgellm.speech.words import UNSPACED, words_of
from edgellm.text.prompts import encode_prompt
from edgellm.text.tokenizer import Tokenizer, no_tokenizer, open_tokenizer
from edgellm.types import FloatArray, Logits, TokenArray

ENCODER, DECODER = "encoder", "decoder"
PREVIOUS = "<|startofprev|>"
SPEECH_OPTIONS = tuple(SpeechOptions.__dataclass_fields__)
# Options of searches that mean nothing where the source is sound, or that give other than one text.
WITHOUT = ("encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "num_return_sequences", "prompt_lookup",
           "do_sample", "overflow", "reasoning_budget", "json_schema", "regex", "grammar", "choices")  # fmt: skip


def open_speech(package: Path, manifest: Manifest[SpeechFacts], settings: LoadSettings) -> SpeechModel:
    """What `edgellm.load` makes of a package for automatic-speech-recognition."""
    tokenizer = open_tokenizer(package)
    if set(manifest.graphs) != {ENCODER, DECODER}:
        raise lacks_graphs(manifest, "the graphs encoder and decoder")
    opened = {name: settings.open(package / manifest.graphs[name].file) for name in (ENCODER, DECODER)}
    check_graphs(opened, manifest)
    engine = partial(EncoderDecoderEngine, opened[ENCODER], opened[DECODER], manifest)
    return SpeechModel(package, manifest, tokenizer, opened[DECODER], engine)


class SpeechModel:
    """A model that writes down speech. It may be used from several threads: each call has a cache of its own."""

    def __init__(
        self,
        package: Path,
        manifest: Manifest[SpeechFacts],
        tokenizer: Tokenizer | None,
        loaded: LoadedGraph,
        new_engine: Callable[[], EncoderDecoderEngine],
    ) -> None:
        self.manifest = manifest
        self.tokenizer = tokenizer  # None: tokens only
        self.info = model_info(package, manifest, loaded)
        self.generation_defaults = read_settings(package)
        self.tokens = SpeechTokens.of(self.generation_defaults, read_json(package / "config.json"), manifest.vocab_size)
        audio = manifest.model.audio
        per_step = audio.frames // (manifest.model.source_length or audio.frames)
        seconds = audio.hop_length * per_step / audio.sampling_rate
        self.clock = Clock(self.tokens.first_timestamp, per_step, seconds)
        self._new_engine = new_engine
        self._idle: list[EncoderDecoderEngine] = []  # at most one, and only list methods that are atomic

    def transcribe(
        self, recording: Recording, *, sampling_rate: int | None = None, prompt: str | Sequence[int] | None = None,
        cancel: Cancel | None = None, **options: Any,
    ) -> Transcription:  # fmt: skip
        """What is said in a recording of any length: a WAV or FLAC file (its path, or open), an array [samples] of
        floats, or a dict with "array" and "sampling_rate".

        sampling_rate: of an array, in Hertz; None is the model's. prompt: text that comes before, or words to expect.
        cancel: stop early when it is set; what is there by then is returned.
        Keywords are those of `SpeechOptions` and of `GenerationOptions`, on top of the package's
        generation_config.json. Raises InputError, OptionError or MissingDependencyError.
        """
        features, heard = self._heard(recording, sampling_rate)
        return self.transcribe_features(features, heard=heard, prompt=prompt, cancel=cancel, **options)

    def transcribe_features(
        self, features: FloatArray, *, heard: int | None = None, prompt: str | Sequence[int] | None = None,
        cancel: Cancel | None = None, **options: Any,
    ) -> Transcription:  # fmt: skip
        """`transcribe` of what `features` gave. heard: frames without those that fill a short recording up, in which no
        word is said; None is all of them."""
        settings = self._options(features, options)
        heard = features.shape[1] if heard is None else heard
        with self._engine() as engine:
            transcriber = self._transcriber(engine, *settings, (self._frames(features), heard), prompt, cancel)
            language = transcriber.language(features)
            timestamps = bool(settings[0].return_timestamps)
            found = tuple(transcriber.segments(features, language, timestamps=timestamps))
        segments = tuple(map(self._with_text, found))
        text = "".join(segment.text for segment in segments)
        code = self._code(settings[0], language)
        words = self._words(segments, code) if settings[0].return_timestamps == WORD else ()
        return Transcription(text, segments, code, words)

    def stream(
        self, recording: Recording, *, sampling_rate: int | None = None, prompt: str | Sequence[int] | None = None,
        cancel: Cancel | None = None, **options: Any,
    ) -> Iterator[Segment]:  # fmt: skip
        """The segments of `transcribe`, each as soon as it is final: a window is decided on as a whole, so there are no
        smaller pieces."""
        features, heard = self._heard(recording, sampling_rate)
        settings = self._options(features, options)
        return self._segments(features, settings, heard, prompt, cancel)

    def features(self, recording: Recording, *, sampling_rate: int | None = None) -> FloatArray:
        """The spectrogram [mel_bins, frames] float32 of a recording, at least a window long; where the model reads
        samples themselves, these, [1, samples]."""
        return self._heard(recording, sampling_rate)[0]

    def _heard(self, recording: Recording, sampling_rate: int | None) -> tuple[FloatArray, int]:
        """Features, and how many frames of them are of the recording."""
        audio = self.manifest.model.audio
        samples = samples_of(recording, audio.sampling_rate, sampling_rate)
        padded = np.pad(samples, (0, max(0, audio.samples - len(samples))))
        features = padded[None] if audio.raw else log_mel(padded, audio)
        return features, min(features.shape[1], -(-len(samples) // audio.hop_length))

    def logits(self, features: FloatArray, target: Sequence[int] | TokenArray) -> Logits:
        """[length, vocab] float32: what the model predicts after each token of a target, for a window's features."""
        return np.concatenate(list(self.logits_in_chunks(features, target)))

    def logits_in_chunks(self, features: FloatArray, target: Sequence[int] | TokenArray) -> Iterator[Logits]:
        """`logits` in pieces [chunk, vocab], one behind the other."""
        ids = encode_prompt(np.asarray(target, np.int64), None, self.manifest)
        self._check(features, whole=False)
        with self._engine() as engine:
            yield from engine.all_logits(ids, features)

    def continued(self, features: FloatArray, target: TokenArray, count: int) -> TokenArray:
        """A target and what plain greedy search, without a rule, makes of it: at most `count` tokens more."""
        tokens, room = target.tolist(), self.manifest.context_length - len(target)
        with self._engine() as engine:
            logits = engine.prefill([target], [features])
            for _ in range(min(count, room)):
                tokens.append(int(logits[0].argmax()))
                if tokens[-1] in self.manifest.tokens.eos or len(tokens) == self.manifest.context_length:
                    break
                logits = engine.decode(np.array(tokens[-1:]))
        return np.array(tokens, np.int64)

    def prompt_tokens(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        """The tokens that say that a text came before."""
        if not isinstance(prompt, str):
            return tuple(encode_prompt(np.asarray(prompt, np.int64), None, self.manifest).tolist())
        if self.tokenizer is None:
            raise no_tokenizer(why="the prompt is a text", instead="give token ids")
        text = self.tokenizer.encode(f" {prompt.strip()}", add_special_tokens=False).tolist()
        if special := self.tokenizer.special_ids & {*text}:
            raise InputError(f"the prompt has the special token {self.tokenizer.token_of(min(special))}; leave it out")
        previous = self.tokenizer.id_of(PREVIOUS) if self.tokens.previous is None else self.tokens.previous
        return (*([] if previous is None else [previous]), *text)

    def timed(self, tokens: Sequence[int]) -> list[tuple[tuple[float | None, float | None], str]]:
        """The texts between timestamps, and when they are said."""
        if self.tokenizer is None:
            raise no_tokenizer(why="there are texts to be written")
        found = pieces(tokens, self.tokenizer.special_ids, self.clock, self._window)
        return [(span, self._text([tokens[place] for place in places])) for span, places in found]

    def reset(self) -> None:
        """Forget what was read last, and free its memory."""
        self._idle.clear()

    @contextmanager
    def _engine(self) -> Iterator[EncoderDecoderEngine]:
        """An engine of the caller's own. After an error it is dropped: its cache may be half written."""
        try:
            engine = self._idle.pop()
        except IndexError:
            engine = self._new_engine()
        yield engine
        self._idle[:] = [engine]

    def _segments(
        self, features: FloatArray, settings: tuple[SpeechOptions, GenerationOptions], heard: int,
        prompt: str | Sequence[int] | None, cancel: Cancel | None,
    ) -> Iterator[Segment]:  # fmt: skip
        with self._engine() as engine:
            transcriber = self._transcriber(engine, *settings, (self._frames(features), heard), prompt, cancel)
            language, timestamps = transcriber.language(features), bool(settings[0].return_timestamps)
            yield from map(self._with_text, transcriber.segments(features, language, timestamps=timestamps))

    def _options(self, features: FloatArray, given: dict[str, Any]) -> tuple[SpeechOptions, GenerationOptions]:
        """What was asked for, checked. Raises OptionError or InputError."""
        if wrong := [name for name in WITHOUT if given.get(name) is not None]:
            raise OptionError(f"{wrong[0]} is not for speech; leave it out")
        self._check(features, whole=True)
        own = {name: given.pop(name) for name in SPEECH_OPTIONS if name in given}
        options = SpeechOptions.create(self.tokens.usual, own)
        if features.shape[1] > self._frames(features) and not options.return_timestamps:
            if options.return_timestamps is False and own.get("return_timestamps") is False:
                raise OptionError(
                    "return_timestamps is False, and the recording is longer than a window, from one to the next of "
                    "which timestamps lead; leave it out"
                )
            options = SpeechOptions.create(self.tokens.usual, {**own, "return_timestamps": True})
        defaults = {n: v for n, v in self.generation_defaults.items() if n not in (*SPEECH_OPTIONS, *WITHOUT)}
        generation = GenerationOptions.create(defaults, **given).within(self.manifest.vocab_size, given)
        generation.check_vocabulary(self.manifest.vocab_size)
        return options, generation

    def _transcriber(
        self, engine: EncoderDecoderEngine, options: SpeechOptions, generation: GenerationOptions,
        size: tuple[int, int], prompt: str | Sequence[int] | None, cancel: Cancel | None,
    ) -> Transcriber:  # fmt: skip
        """`size`: frames of a window, and of the recording."""
        if prompt is not None and self.manifest.model.audio.raw:
            raise OptionError("this model takes no prompt; leave it out")
        tokens, (frames, heard) = self.manifest.tokens, size
        ends = Ends(eos_token_ids=tokens.eos if generation.eos_token_id is None else generation.eos_token_id)
        return Transcriber(
            engine,
            self.tokens,
            self.clock,
            options,
            generation,
            ends,
            frames=frames,
            longest=self.manifest.context_length,
            vocab_size=self.manifest.vocab_size,
            prompt=() if prompt is None else self.prompt_tokens(prompt),
            cancelled=None if cancel is None else cancel.is_set,
            heard=heard,
            attend=partial(engine.cross_attention, heads=self._heads()) if options.return_timestamps == WORD else None,
        )

    def _heads(self) -> Sequence[tuple[int, int]]:
        """Those that look at what is said. Raises OptionError."""
        known = self.manifest.graphs[DECODER].cross_queries
        if not self.tokens.alignment_heads:
            raise OptionError("return_timestamps is 'word', and the package's generation_config.json names no "
                              "alignment_heads, which words are timed by; ask for True")  # fmt: skip
        if not {layer for layer, _ in self.tokens.alignment_heads} <= known.keys():
            raise OptionError(
                "return_timestamps is 'word', and the package was exported without what words are timed by; export the "
                "checkpoint again"
            )
        return self.tokens.alignment_heads

    def _words(self, segments: Sequence[Segment], language: str | None) -> tuple[Word, ...]:
        """A token is said from the time of the one before it to its own."""
        if self.tokenizer is None:
            raise no_tokenizer(why="there are words to be written")
        tokens = [token for segment in segments for token in segment.tokens]
        times = [0.0, *(round(time, 2) for segment in segments for time in segment.times)]
        found: list[Word] = []
        for _, places in pieces(tokens, self.tokenizer.special_ids, self.clock, self._window):
            part = [tokens[place] for place in places]
            spans = [(times[place], times[place + 1]) for place in places]
            found += words_of(part, spans, self._text, spaced=language not in UNSPACED)
        return tuple(found)

    def _frames(self, features: FloatArray) -> int:
        """Of a window: all of them where the encoder reads any number."""
        audio = self.manifest.model.audio
        return features.shape[1] if audio.raw else audio.frames

    @property
    def _window(self) -> float:
        """Seconds of one."""
        return self.manifest.model.audio.frames * self.clock.seconds_per_frame

    def _text(self, tokens: Sequence[int]) -> str:
        assert self.tokenizer is not None
        return self.tokenizer.decode(tokens, skip_special_tokens=False)

    def _with_text(self, segment: Segment) -> Segment:
        if self.tokenizer is None:
            return segment
        words = [t for t in segment.tokens if not self.clock.is_time(t) and t not in self.tokenizer.special_ids]
        return replace(segment, text=self._text(words))

    def _code(self, options: SpeechOptions, found: int | None) -> str | None:
        token = found if options.language is None else self.tokens.language(options.language)
        return next((code[2:-2] for code, each in self.tokens.languages.items() if each == token), None)

    def _check(self, features: FloatArray, *, whole: bool) -> None:
        """Raises InputError for other features than `features` gives; those of a recording may have more frames than a
        window."""
        audio = self.manifest.model.audio
        bins, frames = features.shape if features.ndim == 2 else (0, 0)
        some, least = whole or audio.raw, audio.frames if audio.raw else 1
        if audio.raw and frames > audio.longest:
            raise InputError(
                f"the recording is {frames / audio.sampling_rate:g} seconds long, and this model reads at most "
                f"{audio.longest / audio.sampling_rate:g} at a time; give it in pieces"
            )
        if bins != audio.mel_bins or frames < least or (not some and frames != audio.frames):
            raise InputError(
                f"features are {list(features.shape)}, expected [{audio.mel_bins}, {audio.frames}"
                f"{' or more' if some else ''}]; model.features makes them of a recording"
            )
