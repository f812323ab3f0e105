"""A loaded package of an encoder-decoder: translation, summarization, whatever turns a text into another.

model = edgellm.load("flan-t5-int8")
print(model.generate("summarize: ...", max_length=50, num_beams=5, early_stopping=True).text)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import numpy as np

from edgellm.decoding import GenerationOptions, Logits, Stopping
from edgellm.engines.checks import check_graphs, lacks_graphs
from edgellm.engines.concat.encoder_decoder import ConcatEncoderDecoderEngine
from edgellm.engines.concat.encoder_decoder_graphs import open_concat_encoder_decoder
from edgellm.engines.in_place.encoder_decoder import EncoderDecoderEngine
from edgellm.errors import InputError, OptionError, nearest
from edgellm.generation.overflow import Fitted, fit_source
from edgellm.generation.results import Generation, Piece, Score
from edgellm.generation.run import Cancel, Run, check_streamable, generations, logprobs_of, model_info, pieces, stopping
from edgellm.models.attentions import (
    Attentions,
    EncoderDecoderResult,
    check_attentions,
    encoder_decoder_pass,
    token_texts,
)
from edgellm.ort import session as ort
from edgellm.ort.session import LoadSettings
from edgellm.package.json_file import read_json
from edgellm.package.manifest import EncoderDecoderFacts, Manifest
from edgellm.text.prompts import Prompt, encode_prompt, encode_source, is_single
from edgellm.text.tokenizer import Tokenizer, open_tokenizer
from edgellm.types import IntArray, ProgressHook

AnyEngine = EncoderDecoderEngine | ConcatEncoderDecoderEngine

ENCODER, DECODER = "encoder", "decoder"
LANGUAGE = re.compile("[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")  # en_XX, eng_Latn


def open_encoder_decoder(
    package: Path, manifest: Manifest[EncoderDecoderFacts], settings: LoadSettings
) -> EncoderDecoderModel:
    """What `edgellm.load` makes of a package for text2text-generation."""
    tokenizer = open_tokenizer(package)
    if manifest.model.cache.growth == "concat":
        graphs = open_concat_encoder_decoder(package, manifest, settings)
        engine = partial(ConcatEncoderDecoderEngine, graphs, manifest)
        return EncoderDecoderModel(package, manifest, tokenizer, graphs.session, engine)
    if set(manifest.graphs) != {ENCODER, DECODER}:
        raise lacks_graphs(manifest, "the graphs encoder and decoder")
    sessions = {name: settings.open(package / manifest.graphs[name].file) for name in (ENCODER, DECODER)}
    check_graphs(sessions, manifest)
    own = partial(EncoderDecoderEngine, sessions[ENCODER], sessions[DECODER], manifest)
    return EncoderDecoderModel(package, manifest, tokenizer, sessions[DECODER], own)


class EncoderDecoderModel:
    """May be used from several threads: each call has a cache of its own, and ONNX Runtime runs them side by side.

    The last source of a call with a single one stays encoded: generating from it again, with other options, does not
    encode it again; `reset` frees it.
    """

    def __init__(
        self,
        package: Path,
        manifest: Manifest[EncoderDecoderFacts],
        tokenizer: Tokenizer | None,
        session: ort.Session,
        new_engine: Callable[[], AnyEngine],
    ) -> None:
        self.manifest = manifest
        self.tokenizer = tokenizer  # None: token ids only
        self.generation_defaults = read_json(package / "generation_config.json")
        self.info = model_info(package, manifest, session)
        self._new_engine = new_engine
        self._idle: list[AnyEngine] = []  # at most one, and only list methods that are atomic

    @overload
    def generate(
        self,
        source: Prompt,
        *,
        src_lang: str | None = ...,
        tgt_lang: str | None = ...,
        cancel: Cancel | None = ...,
        progress: ProgressHook | None = ...,
        **options: Any,
    ) -> Generation: ...

    @overload
    def generate(
        self,
        source: Sequence[Prompt],
        *,
        src_lang: str | None = ...,
        tgt_lang: str | None = ...,
        cancel: Cancel | None = ...,
        progress: ProgressHook | None = ...,
        **options: Any,
    ) -> list[Generation]: ...

    def generate(
        self,
        source: Prompt | Sequence[Prompt],
        *,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        cancel: Cancel | None = None,
        progress: ProgressHook | None = None,
        **options: Any,
    ) -> Generation | list[Generation]:
        """What the model makes of a source (text or token ids), or of each of a list of sources.

        src_lang, tgt_lang: language codes of a model of many languages, such as "en_XX"; the first replaces the one
        that the tokenizer puts into the source, the second is forced to be the first token (`forced_bos_token_id`).
        options: those of `GenerationOptions`, on top of the package's generation_config.json; `decoder_start_token_id`,
        what targets begin with, and `decoder_input_ids`, tokens that all of them go on with. As in Hugging Face,
        `max_length` and `min_length` count these.
        cancel: stop early when it is set, also from another thread; what is there by then is returned.
        progress: called when the sources are encoded.
        """
        single = is_single(source)
        start, settled = self._options(options, tgt_lang)
        fitted = [self._fitted(s, src_lang, settled) for s in ([source] if single else list(source))]
        sources = [fit.tokens for fit in fitted]
        ends = self._stopping(len(sources), len(start), settled, cancel)
        run = Run(ends, progress, [fit.dropped for fit in fitted])
        with self._engine() as engine:
            for _ in run.steps(engine, [start] * len(sources), settled, sources=sources):
                pass
        results = generations(run, sources, self.tokenizer)
        return results[0] if single else results

    def stream(
        self,
        source: Prompt,
        *,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        cancel: Cancel | None = None,
        progress: ProgressHook | None = None,
        **options: Any,
    ) -> Iterator[Piece]:
        """Like `generate` for one source and one sequence, a piece per token. Closing the iterator stops it."""
        if not is_single(source):
            raise InputError("stream takes one source; use generate for a list")
        start, settled = self._options(options, tgt_lang)
        check_streamable(settled)
        fitted = self._fitted(source, src_lang, settled)
        run = Run(self._stopping(1, len(start), settled, cancel), progress, [fitted.dropped])
        return self._pieces(fitted.tokens, start, run, settled)

    def logits(self, source: Prompt, target: Prompt) -> Logits:
        """[length, vocab] float32: what the model predicts after each token of the target.

        target: token ids as they are, decoder start token included; a text gets the start token put in front.
        """
        return np.concatenate(list(self.logits_in_chunks(source, target)))

    def logits_in_chunks(self, source: Prompt, target: Prompt) -> Iterator[Logits]:
        """`logits` in pieces [chunk, vocab], one behind the other: memory does not grow with vocabulary x length."""
        tokens, ids = self._source(source, None), self._target(target)
        with self._engine() as engine:
            yield from engine.all_logits(ids, tokens)

    def run(self, source: Prompt, target: Prompt, *, output_attentions: bool = False) -> EncoderDecoderResult:
        """One pass over a source and a target: what the model predicts after each token of the target (see `logits`)
        and, from a package exported with --attentions, how much each token looks at each other."""
        tokens, ids = self._source(source, None), self._target(target)
        both = tuple(tokens.tolist()), tuple(ids.tolist())
        if not output_attentions:
            return EncoderDecoderResult(*both, self.logits(tokens, ids), None, None, None)
        check_attentions(next(iter(self.manifest.graphs.values())))
        with self._engine() as engine:
            assert isinstance(engine, EncoderDecoderEngine)
            logits, seen, own, across = encoder_decoder_pass(*engine.sessions, self.manifest, tokens, ids)
        texts, targets = (token_texts(self.tokenizer, part) for part in both)
        return EncoderDecoderResult(
            *both, logits, Attentions(seen, texts, texts), Attentions(own, targets, targets),
            Attentions(across, targets, texts),
        )  # fmt: skip

    def score(self, source: Prompt, target: Prompt) -> Score:
        """The log-probability of each token of the target behind the decoder start token."""
        tokens, ids = self._source(source, None), self._target(target)
        if len(ids) < 2:
            raise InputError("score needs a target with a token behind the decoder start token")
        logprobs: list[float] = []
        with self._engine() as engine:
            for logits in engine.all_logits(ids, tokens):
                following = ids[len(logprobs) + 1 : len(logprobs) + 1 + len(logits)]
                logprobs += logprobs_of(logits[: len(following)], following)
        return Score(tuple(ids.tolist()), tuple(logprobs))

    def reset(self) -> None:
        """Forget the last source and free its memory."""
        self._idle.clear()

    def _fitted(self, source: Any, language: str | None, options: GenerationOptions) -> Fitted:
        tokens = self._source(source, language, any_length=options.overflow == "truncate")
        return fit_source(tokens, options, self.manifest.model.source_length, self.tokenizer)

    def _source(self, source: Any, language: str | None, *, any_length: bool = False) -> IntArray:
        tokens = encode_source(source, self.tokenizer, self.manifest, any_length=any_length)
        if language is None:
            return tokens
        known = [*self._languages.values()]
        place = next((i for i in (0, len(tokens) - 1) if tokens[i] in known), None)
        if not isinstance(source, str) or place is None:
            raise OptionError(f"src_lang is {language!r}, but nothing in the source names its language; leave it out")
        changed = tokens.copy()
        changed[place] = self._language(language, "src_lang")
        return changed

    def _target(self, target: Any) -> IntArray:
        if not isinstance(target, str):
            return encode_prompt(target, self.tokenizer, self.manifest)
        return np.concatenate([self._start(), encode_prompt(target, self.tokenizer, self.manifest)])

    @cached_property
    def _languages(self) -> dict[str, int]:
        """The ids of the tokenizer's language codes."""
        if self.tokenizer is None:
            return {}
        codes = {self.tokenizer.token_of(i): i for i in self.tokenizer.special_ids}
        return {code: i for code, i in codes.items() if LANGUAGE.fullmatch(code)}

    def _language(self, code: str, option: str) -> int:
        if code not in self._languages:
            known = nearest(code, self._languages) if self._languages else "this model has no language codes"
            raise OptionError(f"{option} is {code!r}, which this model does not know; {known}")
        return self._languages[code]

    def _options(self, options: dict[str, Any], tgt_lang: str | None) -> tuple[IntArray, GenerationOptions]:
        """What targets begin with, and how to go on."""
        first, given = options.pop("decoder_start_token_id", None), options.pop("decoder_input_ids", None)
        if tgt_lang is not None:
            if options.get("forced_bos_token_id") is not None:
                raise OptionError("tgt_lang and forced_bos_token_id both say what to begin with; leave out one")
            options["forced_bos_token_id"] = self._language(tgt_lang, "tgt_lang")
        if options.get("prompt_lookup") or options.get("prompt_lookup_num_tokens"):
            raise OptionError("prompt_lookup is for text-generation; leave it out")
        if options.get("overflow") == "shift" or options.get("overflow_keep") is not None:
            raise OptionError(
                'overflow="shift" and overflow_keep are for text-generation: a source is read whole; '
                'overflow="truncate" cuts its end'
            )
        settled = replace(GenerationOptions.create(self.generation_defaults, **options), prompt_lookup=False)
        settled.check_vocabulary(self.manifest.vocab_size)
        return self._start(first, given), settled

    def _start(self, first: Any = None, given: Any = None) -> IntArray:
        """The tokens that targets begin with, as Hugging Face settles them."""
        first = self.manifest.tokens.decoder_start if first is None else first
        tokens = [] if given is None else encode_prompt(given, None, self.manifest).tolist()
        if not isinstance(first, int | np.integer) or isinstance(first, bool):
            raise OptionError(
                f"decoder_start_token_id is {first!r}, expected a token id; the package names none"
                if first is None
                else f"decoder_start_token_id is {first!r}, expected a token id"
            )
        return encode_prompt(tokens if tokens[:1] == [first] else [int(first), *tokens], None, self.manifest)

    def _stopping(self, count: int, start: int, options: GenerationOptions, cancel: Cancel | None) -> Stopping:
        return stopping(self.manifest, self.tokenizer, [start] * count, options, cancel, self.manifest.context_length)

    @contextmanager
    def _engine(self) -> Iterator[AnyEngine]:
        """An engine of the caller's own. After an error it is dropped: its cache may be half written."""
        try:
            engine = self._idle.pop()
        except IndexError:
            engine = self._new_engine()
        yield engine
        self._idle[:] = [engine] if engine.held_sources == 1 else []

    def _pieces(self, source: IntArray, start: IntArray, run: Run, options: GenerationOptions) -> Iterator[Piece]:
        with self._engine() as engine:
            yield from pieces(run, run.steps(engine, [start], options, sources=[source]), self.tokenizer)
