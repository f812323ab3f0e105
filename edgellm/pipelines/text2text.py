"""text2text-generation, summarization and translation: an encoder-decoder's answers to texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from edgellm.models.encoder_decoder import EncoderDecoderModel
from edgellm.pipelines import TRANSLATION
from edgellm.pipelines.base import Pipeline, TruncationChoice, texts_of, truncation_of
from edgellm.pipelines.generation import generation_options, parameters_for
from edgellm.text.encodings import truncated

USUAL = {"num_beams": 4}


class Text2Text(Pipeline):
    """Gives [{"generated_text": text}] for a text, one for each of `num_return_sequences`; for a list of texts, with
    one sequence each, a flat list of them."""

    fits = ("text2text-generation",)
    batch_size = 8
    model: EncoderDecoderModel
    result: ClassVar[str] = "generated"

    def shape(self, inputs: Any, results: list[Any], *, single: bool, given: Mapping[str, Any]) -> Any:
        if single:
            return results[0]
        return [result[0] for result in results] if all(len(result) == 1 for result in results) else results

    def each(
        self,
        items: list[Any],
        *args: Any,
        return_tensors: bool = False,
        return_text: bool | None = None,
        clean_up_tokenization_spaces: bool = False,
        truncation: TruncationChoice | None = False,
        stop_sequence: str | None = None,
        **generate: Any,
    ) -> list[list[dict[str, Any]]]:
        """With `return_tensors` the results are token ids instead of texts. `truncation` cuts texts that are too long.
        The first token of `stop_sequence` ends a text. `generate` are the options of `GenerationOptions`."""
        for_task, prefix = parameters_for(self.task, self.config)
        if stop_sequence is not None:
            generate["eos_token_id"] = self.tokenizer.encode(stop_sequence, add_special_tokens=False)[:1].tolist()
        options = generation_options(generate, for_task=for_task, package=self.model.generation_defaults, usual=USUAL)
        sources = [self._source(prefix + text, truncation) for text in texts_of(items)]
        generations = self.model.generate(sources, **options) if sources else []
        name = f"{self.result}_token_ids" if return_tensors else f"{self.result}_text"

        def written(sequence: Any) -> Any:
            if return_tensors:
                return list(sequence.tokens)
            return self.tokenizer.decode(sequence.tokens, clean_up=clean_up_tokenization_spaces)

        return [[{name: written(sequence)} for sequence in generation.sequences] for generation in generations]

    def _source(self, text: str, truncation: TruncationChoice | None) -> str | list[int]:
        how = truncation_of(truncation)
        if how is None:
            return text
        side = self.tokenizer.truncation_side
        ids: list[int] = truncated(self.tokenizer.encoding(text), self.special.max_length, how, at=side).ids.tolist()
        return ids


class Summarization(Text2Text):
    """Text2Text whose results are called "summary_text"."""

    result = "summary"


class Translation(Text2Text):
    """Text2Text whose results are called "translation_text". Models of many languages take `src_lang` and `tgt_lang`,
    or languages from a task named translation_xx_to_yy."""

    result = "translation"

    def each(self, items: list[Any], *args: Any, **options: Any) -> list[list[dict[str, Any]]]:
        named = TRANSLATION.fullmatch(self.task)
        if named and "src_lang" not in options and "tgt_lang" not in options:
            languages = dict(zip(("src_lang", "tgt_lang"), named.groups(), strict=True))
            options |= {
                name: code
                for name, code in languages.items()
                if {self.tokenizer.id_of(code), self.tokenizer.id_of(f"__{code}__")} & {*self.tokenizer.special_ids}
            }
        return super().each(items, **options)
