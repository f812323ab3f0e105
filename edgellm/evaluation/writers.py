"""Texts that models generate for an evaluation: prompts from templates, answers without what is around them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.errors import ContextOverflowError, InputError, OptionError
from edgellm.evaluation.evaluator import Generative, tokenizer_of
from edgellm.evaluation.records import Columns, Record
from edgellm.models.decoder import Model
from edgellm.models.encoder_decoder import EncoderDecoderModel
from edgellm.pipelines import pipeline
from edgellm.pipelines.base import Pipeline
from edgellm.pipelines.generation import parameters_for

FIELD = re.compile(r"\{([^{}\s]+)\}")


@dataclass(frozen=True)
class Writer:
    """Asks a model through its pipeline. `template` is the prompt, with {names} for what a record has; with `chat` it
    is what the user says. `options` are those of the pipeline and of generation."""

    model: Generative
    pipeline: Pipeline
    template: str
    chat: bool
    options: Mapping[str, Any]

    @classmethod
    def create(cls, model: Generative, task: str, *, template: str, chat: bool, options: Mapping[str, Any]) -> Writer:
        """`task` names the pipeline of an encoder-decoder; decoders have one. Raises OptionError for what the model
        cannot be asked."""
        if int(options.get("num_return_sequences") or 1) != 1:
            raise OptionError("an evaluation takes one text for each example; leave out num_return_sequences")
        if isinstance(model, EncoderDecoderModel):
            if chat:
                raise OptionError("chat is for decoders with a chat template; leave it out")
            return cls(model, pipeline(task, model), template, False, options)
        usual = {"do_sample": False, "return_full_text": False, "clean_up_tokenization_spaces": False}
        return cls(model, pipeline("text-generation", model), template, chat, {**usual, **options})

    @property
    def settings(self) -> dict[str, Any]:
        """The package's own generation options, and those given."""
        own = {name: value for name, value in self.model.generation_defaults.items() if name != "transformers_version"}
        return {"prompt": self.template, "chat": self.chat, "generation": {**own, **self.options}}

    def prompt(self, record: Record, columns: Columns, template: str | None = None) -> str:
        """The prompt for a record, made with `template` instead of the usual one if it is given. Raises InputError
        where the record lacks what the template names, or where the prompt is too long."""

        def fill(field: re.Match[str]) -> str:
            name = field[1]
            if name in columns.names and columns.has(record, name):
                return columns.text(record, name)
            value = record.values.get(name)
            if value is None:
                known = ", ".join(map(str, record.values))
                raise InputError(f"{record.place}: the prompt asks for {{{name}}}, and there are the columns {known}")
            return str(value)

        text = FIELD.sub(fill, self.template if template is None else template)
        if not text.strip():
            raise InputError(f"{record.place}: the prompt is empty")
        self._check_length(text, record.place)
        return text

    def write(self, prompts: Sequence[str]) -> list[str]:
        """What the model answers to each, without white space at the ends and without the stop string."""
        inputs: list[Any] = [[{"role": "user", "content": p}] for p in prompts] if self.chat else list(prompts)
        results = self.pipeline(inputs, batch_size=len(inputs), **self.options)
        return [self._trimmed(_text(result)) for result in results]

    def _trimmed(self, text: str) -> str:
        stops = self.options.get("stop_strings") or ()
        for stop in (stops,) if isinstance(stops, str) else stops:
            text = text.partition(stop)[0]
        return text.strip()

    def _check_length(self, text: str, place: str) -> None:
        if self.options.get("truncation"):
            return
        model = self.model
        if isinstance(model, EncoderDecoderModel):
            most = model.manifest.model.source_length
        else:
            most = model.manifest.context_length - 1
        length = self._length(text)
        if most is not None and length > most:
            raise ContextOverflowError(
                f"{place}: the prompt has {length} tokens, this model takes at most {most}; shorten it, or cut it with "
                "--truncation"
            )

    def _length(self, text: str) -> int:
        """The prompt's tokens, those included that the chat template or the task put around it. Raises
        ChatTemplateError."""
        tokenizer = tokenizer_of(self.model)
        if self.chat and isinstance(self.model, Model):
            rendered = self.model.chat_template.render([{"role": "user", "content": text}])
            return len(tokenizer.encode(rendered, add_special_tokens=False))
        _, prefix = parameters_for(self.pipeline.task, self.pipeline.config)
        return len(tokenizer.encode(prefix + text))


def _text(result: Any) -> str:
    """The text of a pipeline's result: a record, or a list of one, with one value."""
    record = result[0] if isinstance(result, list) else result
    return str(next(iter(record.values())))
