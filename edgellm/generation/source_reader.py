"""What encoder-decoders are asked for, read: sources, and what their targets begin with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from edgellm.decoding import Beginning, SequencePlan
from edgellm.errors import OptionError, nearest
from edgellm.generation.call import ChatArguments, Options
from edgellm.generation.overflow import Fitted, fit_source
from edgellm.generation.reader import Reader, Settled
from edgellm.package.manifest import EncoderDecoderFacts, Manifest
from edgellm.text.prompts import encode_prompt, encode_source
from edgellm.types import IntArray

LANGUAGE = re.compile("(?P<own>[a-z]{2,3}_[A-Z][A-Za-z]{1,3})|__(?P<inner>[a-z]{2,3})__")  # en_XX, eng_Latn; __en__


@dataclass(frozen=True)
class SourceReader(Reader):
    """The reader of an encoder-decoder, whose options have a few more names: `decoder_start_token_id`,
    `decoder_input_ids`, `src_lang` and `tgt_lang`."""

    manifest: Manifest[EncoderDecoderFacts]

    def source(self, source: Any, language: str | None = None, *, any_length: bool = False) -> IntArray:
        """A source's tokens [length]. `language`: what its code is replaced with. Raises InputError or OptionError."""
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

    def target(self, target: Any) -> IntArray:
        """A target's tokens [length]: token ids as they are, a text behind the start token."""
        if not isinstance(target, str):
            return encode_prompt(target, self.tokenizer, self.manifest)
        return np.concatenate([self._start(), encode_prompt(target, self.tokenizer, self.manifest)])

    def _settle(self, given: Options) -> Settled:
        options = dict(given)
        first, forced = options.pop("decoder_start_token_id", None), options.pop("decoder_input_ids", None)
        source_language, language = options.pop("src_lang", None), options.pop("tgt_lang", None)
        if language is not None:
            if options.get("forced_bos_token_id") is not None:
                raise OptionError("tgt_lang and forced_bos_token_id both say what to begin with; leave out one")
            options["forced_bos_token_id"] = self._language(language, "tgt_lang")
        if options.get("prompt_lookup") or options.get("prompt_lookup_num_tokens"):
            raise OptionError("prompt_lookup is for text-generation; leave it out")
        if options.get("reasoning_budget") is not None:
            raise OptionError("reasoning_budget is for text-generation; leave it out")
        if options.get("overflow") == "shift" or options.get("overflow_keep") is not None:
            raise OptionError(
                'overflow="shift" and overflow_keep are for text-generation: a source is read whole; '
                'overflow="truncate" cuts its end'
            )
        settled = replace(self._options(options), prompt_lookup=False, reasoning_budget=None)
        return Settled(settled, self._start(first, forced), source_language)

    def _check_together(self, settled: Sequence[Settled]) -> None:
        starts = sorted({len(one.start) for one in settled if one.start is not None})
        if len(starts) > 1:
            raise OptionError(
                f"targets begin with {starts[0]} and with {starts[-1]} tokens, expected as many of each: give sources "
                "with decoder_input_ids of other lengths in another call"
            )

    def _fit(self, prompt: Any, settled: Settled, chat: ChatArguments | None) -> Fitted:
        tokens = self.source(prompt, settled.language, any_length=settled.options.overflow == "truncate")
        return fit_source(tokens, settled.options, self.manifest.model.source_length, self.tokenizer)

    def _begin(self, fitted: Fitted, settled: Settled, plan: SequencePlan) -> Beginning:
        assert settled.start is not None
        limit = settled.options.limit(len(settled.start), self.manifest.context_length)
        return Beginning(settled.start, plan, limit, source=fitted.tokens)

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

    @cached_property
    def _languages(self) -> dict[str, int]:
        """The ids of the tokenizer's language codes, which M2M100's are without their underscores."""
        if self.tokenizer is None:
            return {}
        found = {i: LANGUAGE.fullmatch(self.tokenizer.token_of(i)) for i in sorted(self.tokenizer.special_ids)}
        return {match["own"] or match["inner"]: i for i, match in found.items() if match}

    def _language(self, code: str, option: str) -> int:
        if code not in self._languages:
            known = nearest(code, self._languages) if self._languages else "this model has no language codes"
            raise OptionError(f"{option} is {code!r}, which this model does not know; {known}")
        return self._languages[code]
