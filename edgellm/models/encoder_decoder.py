"""A loaded package of an encoder-decoder: translation, summarization, whatever turns a text into another.

model = edgellm.load("flan-t5-int8")
print(model.generate("summarize: ...", max_length=50, num_beams=5, early_stopping=True).text)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np

from edgellm.engines.checks import check_graphs, lacks_graphs
from edgellm.engines.concat.encoder_decoder import ConcatEncoderDecoderEngine
from edgellm.engines.concat.encoder_decoder_graphs import open_concat_encoder_decoder
from edgellm.engines.in_place.encoder_decoder import EncoderDecoderEngine
from edgellm.errors import InputError
from edgellm.generation.call import Cancel, Request
from edgellm.generation.results import Generation, Piece, Score
from edgellm.generation.source_reader import SourceReader
from edgellm.models.attentions import (
    Attentions,
    EncoderDecoderResult,
    check_attentions,
    encoder_decoder_pass,
    token_texts,
)
from edgellm.models.generative import GenerativeModel
from edgellm.ort.loaded_graph import LoadedGraph, LoadSettings
from edgellm.package.generation import read_settings
from edgellm.package.manifest import EncoderDecoderFacts, Manifest
from edgellm.text.prompts import Prompt, is_single
from edgellm.text.tokenizer import Tokenizer, open_tokenizer
from edgellm.types import Logits, ProgressHook

ENCODER, DECODER = "encoder", "decoder"


def open_encoder_decoder(
    package: Path, manifest: Manifest[EncoderDecoderFacts], settings: LoadSettings
) -> EncoderDecoderModel:
    """What `edgellm.load` makes of a package for text2text-generation."""
    tokenizer = open_tokenizer(package)
    if manifest.model.cache.growth == "concat":
        graphs = open_concat_encoder_decoder(package, manifest, settings)
        engine = partial(ConcatEncoderDecoderEngine, graphs, manifest)
        return EncoderDecoderModel(package, manifest, tokenizer, graphs.loaded, engine)
    if set(manifest.graphs) != {ENCODER, DECODER}:
        raise lacks_graphs(manifest, "the graphs encoder and decoder")
    opened = {name: settings.open(package / manifest.graphs[name].file) for name in (ENCODER, DECODER)}
    check_graphs(opened, manifest)
    own = partial(EncoderDecoderEngine, opened[ENCODER], opened[DECODER], manifest)
    return EncoderDecoderModel(package, manifest, tokenizer, opened[DECODER], own)


class EncoderDecoderModel(GenerativeModel[EncoderDecoderEngine | ConcatEncoderDecoderEngine]):
    """An encoder-decoder. It may be used from several threads: each call has a cache of its own, and
    ONNX Runtime runs them side by side.

    The last source of a call with a single one stays encoded: generating from it again, with other options, does not
    encode it again; `reset` frees it.
    """

    manifest: Manifest[EncoderDecoderFacts]

    def __init__(
        self,
        package: Path,
        manifest: Manifest[EncoderDecoderFacts],
        tokenizer: Tokenizer | None,
        loaded: LoadedGraph,
        new_engine: Callable[..., EncoderDecoderEngine | ConcatEncoderDecoderEngine],
    ) -> None:
        super().__init__(package, manifest, tokenizer, loaded, new_engine)
        self.generation_defaults = read_settings(package)
        self._reader: SourceReader = SourceReader(manifest, tokenizer, self.generation_defaults)

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
        options: Sequence[Mapping[str, Any]] | None = ...,
        src_lang: str | None = ...,
        tgt_lang: str | None = ...,
        cancel: Cancel | None = ...,
        progress: ProgressHook | None = ...,
        **shared: Any,
    ) -> list[Generation]: ...

    def generate(
        self,
        source: Prompt | Sequence[Prompt],
        *,
        options: Sequence[Mapping[str, Any]] | None = None,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        cancel: Cancel | None = None,
        progress: ProgressHook | None = None,
        **shared: Any,
    ) -> Generation | list[Generation]:
        """What the model makes of a source (text or token ids), or of each of a list of sources.

        src_lang, tgt_lang: language codes of a model of many languages, such as "en_XX"; the first replaces the one
        that the tokenizer puts into the source, the second is forced to be the first token (`forced_bos_token_id`).
        Keywords are the options of `GenerationOptions`, on top of the package's generation_config.json;
        `decoder_start_token_id`, what targets begin with, and `decoder_input_ids`, tokens that all of them go on with.
        As in Hugging Face, `max_length` and `min_length` count these.
        options: of a list of sources, a dict for each source, on top of all these. Each gets what it gets alone.
        cancel: stop early when it is set, also from another thread; what is there by then is returned.
        progress: called when the sources are encoded.
        """
        shared |= {"src_lang": src_lang, "tgt_lang": tgt_lang}
        single = is_single(source)
        prompts: Sequence[Any] = [source] if single else list(source)
        results = self._generations(Request(prompts, shared, cancel, progress, options))
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
        options |= {"src_lang": src_lang, "tgt_lang": tgt_lang}
        return self._stream(Request([source], options, cancel, progress))

    def logits(self, source: Prompt, target: Prompt) -> Logits:
        """[length, vocab] float32: what the model predicts after each token of the target.

        target: token ids as they are, decoder start token included; a text gets the start token put in front.
        """
        return np.concatenate(list(self.logits_in_chunks(source, target)))

    def logits_in_chunks(self, source: Prompt, target: Prompt) -> Iterator[Logits]:
        """`logits` in pieces [chunk, vocab], one behind the other: memory does not grow with vocabulary x length."""
        tokens, ids = self._reader.source(source), self._reader.target(target)
        yield from self._all_logits(ids, tokens)

    def run(self, source: Prompt, target: Prompt, *, output_attentions: bool = False) -> EncoderDecoderResult:
        """One pass over a source and a target: what the model predicts after each token of the target (see `logits`)
        and, from a package exported with --attentions, how much each token looks at each other."""
        tokens, ids = self._reader.source(source), self._reader.target(target)
        both = tuple(tokens.tolist()), tuple(ids.tolist())
        if not output_attentions:
            return EncoderDecoderResult(*both, self.logits(tokens, ids), None, None, None)
        check_attentions(next(iter(self.manifest.graphs.values())))
        with self._engine() as engine:
            assert isinstance(engine, EncoderDecoderEngine)
            logits, seen, own, across = encoder_decoder_pass(*engine.graphs, self.manifest, tokens, ids)
        texts, targets = (token_texts(self.tokenizer, part) for part in both)
        return EncoderDecoderResult(
            *both, logits, Attentions(seen, texts, texts), Attentions(own, targets, targets),
            Attentions(across, targets, texts),
        )  # fmt: skip

    def score(self, source: Prompt, target: Prompt) -> Score:
        """The log-probability of each token of the target behind the decoder start token."""
        tokens, ids = self._reader.source(source), self._reader.target(target)
        if len(ids) < 2:
            raise InputError("score needs a target with a token behind the decoder start token")
        return self._score(ids, tokens)
