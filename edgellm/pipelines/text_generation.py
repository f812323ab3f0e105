"""text-generation: texts and chats continued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.errors import ContextOverflowError, OptionError
from edgellm.models.decoder import Model
from edgellm.pipelines.base import Pipeline, TruncationChoice, truncation_of
from edgellm.pipelines.generation import generation_options, parameters_for
from edgellm.text.encodings import Truncation, truncated
from edgellm.text.messages import lengthened
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import IntArray

USUAL = {"do_sample": True, "temperature": 0.7}


@dataclass(frozen=True)
class PromptReading:
    """How an input becomes a prompt. `prefix`: what stands before a text; None is what the checkpoint says."""

    prefix: str | None
    add_special_tokens: bool
    truncation: Truncation | None
    continues: bool | None


@dataclass(frozen=True)
class Writing:
    """How a generated sequence is given back."""

    tokenizer: Tokenizer
    full_text: bool
    skip_special_tokens: bool
    clean_up: bool | None
    continues: bool | None

    def tokens(self, item: Any, prompt: IntArray, tokens: Sequence[int]) -> dict[str, Any]:
        return {"generated_token_ids": [*prompt.tolist(), *tokens]}

    def text(self, item: Any, prompt: IntArray, tokens: Sequence[int]) -> dict[str, Any]:
        """The decoded text is cut where the prompt's own ends: what a token reads depends on those before it."""
        before = prompt.tolist()
        text = self._decode([*before, *tokens])[len(self._decode(before)) :]
        return {"generated_text": continued(item, text, self.continues) if self.full_text else text}

    def _decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=self.skip_special_tokens, clean_up=self.clean_up)


class TextGeneration(Pipeline):
    """Gives [{"generated_text": text}] for a text, one for each of `num_return_sequences`; for a chat, which is a list
    of messages, the same with the messages and the answer as one more."""

    input_name = "text_inputs"

    fits = ("text-generation",)
    batch_size = 8
    model: Model

    def is_single(self, inputs: Any, options: Mapping[str, Any]) -> bool:
        return super().is_single(inputs, options) or (bool(inputs) and isinstance(inputs[0], Mapping))

    def each(
        self,
        items: list[Any],
        *args: Any,
        return_full_text: bool | None = None,
        return_text: bool | None = None,
        return_tensors: bool | None = None,
        clean_up_tokenization_spaces: bool | None = None,
        skip_special_tokens: bool = True,
        prefix: str | None = None,
        add_special_tokens: bool = True,
        continue_final_message: bool | None = None,
        handle_long_generation: str | None = None,
        stop_sequence: str | None = None,
        truncation: TruncationChoice | None = None,
        padding: object = None,
        **generate: Any,
    ) -> list[list[dict[str, Any]]]:
        """With `return_tensors`, {"generated_token_ids": tokens, the prompt's included} instead of texts. With
        `handle_long_generation` "hole", a prompt that leaves no room for the new tokens loses its beginning;
        `truncation` cuts one that is too long at its end. Any token of `stop_sequence` ends the text. `generate` are
        the options of `GenerationOptions`; `padding` has no effect."""
        _check_returned(return_full_text, return_text, return_tensors)
        options = self._generation_options(generate, stop_sequence)
        reading = PromptReading(prefix, add_special_tokens, truncation_of(truncation), continue_final_message)
        prompts = [self._prompt(item, reading) for item in items]
        if handle_long_generation is not None:
            prompts = [self._shortened(prompt, options, handle_long_generation) for prompt in prompts]
        generations = self.model.generate(prompts, **options) if prompts else []
        full = return_full_text is not False
        write = Writing(self.tokenizer, full, skip_special_tokens, clean_up_tokenization_spaces, continue_final_message)
        record = write.tokens if return_tensors else write.text
        found = zip(items, prompts, generations, strict=True)
        return [[record(item, prompt, s.tokens) for s in generation.sequences] for item, prompt, generation in found]

    def _generation_options(self, given: dict[str, Any], stop_sequence: str | None) -> dict[str, Any]:
        if stop_sequence is not None:
            given["eos_token_id"] = self.tokenizer.encode(stop_sequence, add_special_tokens=False).tolist()
        for_task, _ = parameters_for(self.task, self.config)
        return generation_options(given, for_task=for_task, package=self.model.generation_defaults, usual=USUAL)

    def _prompt(self, item: Any, reading: PromptReading) -> IntArray:
        if not isinstance(item, str):
            return self._encode_chat(item, reading.continues)
        _, usual = parameters_for(self.task, self.config)
        text = (usual if reading.prefix is None else reading.prefix) + item
        if reading.truncation is None:
            return self.tokenizer.encode(text, add_special_tokens=reading.add_special_tokens)
        encoding = self.tokenizer.encoding(text)
        kept = encoding if reading.add_special_tokens else encoding.take(~encoding.special)
        return truncated(kept, self.special.max_length, reading.truncation, at=self.tokenizer.truncation_side).ids

    def _encode_chat(self, messages: Any, continues: bool | None) -> IntArray:
        ends_open = _continues(messages, continues)
        text = self.model.chat_template.render(
            messages, add_generation_prompt=not ends_open, continue_final_message=ends_open
        )
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _shortened(self, prompt: IntArray, options: Mapping[str, Any], how: str) -> IntArray:
        if how != "hole":
            raise OptionError(f"handle_long_generation is {how!r}, expected None or 'hole'")
        context = self.special.max_length
        new_tokens = options.get("max_new_tokens") or (options.get("max_length") or 0) - len(prompt)
        if new_tokens < 0:
            raise OptionError("handle_long_generation needs to know how many tokens will be new: set max_new_tokens")
        if len(prompt) + new_tokens <= context:
            return prompt
        if new_tokens >= context:
            raise ContextOverflowError(
                f"{new_tokens} new tokens leave no room for a prompt in the model's context of {context}; ask for fewer"
            )
        return prompt[new_tokens - context :]


def _check_returned(full_text: bool | None, text: bool | None, tensors: bool | None) -> None:
    if full_text is not None and (text is not None or tensors is not None):
        raise OptionError("return_full_text goes with neither return_text nor return_tensors: leave those out")


def continued(item: Any, text: str, continues: bool | None = None) -> Any:
    """The input with what was generated: a text with more of it, or messages with an answer or, where `continues`
    (None: if it is the assistant's), with more of the last one."""
    if isinstance(item, str):
        return item + text
    *earlier, last = item
    if _continues(item, continues) and (longer := lengthened(last.get("content"), text)):
        return [*earlier, {"role": last["role"], "content": longer[0]}]
    return [*item, {"role": "assistant", "content": text}]


def _continues(messages: Any, continues: bool | None) -> bool:
    if continues is not None:
        return continues
    last = messages[-1] if isinstance(messages, Sequence) and messages else None
    return isinstance(last, Mapping) and last.get("role") == "assistant"
