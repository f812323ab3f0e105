"""What all pipelines share: inputs one at a time or many, options at the door, batches."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar, Literal

from edgellm.errors import InputError, OptionError, nearest
from edgellm.loading import AnyModel
from edgellm.package.json_data import read_json
from edgellm.package.manifest import Task
from edgellm.pipelines.special import Special
from edgellm.text.encodings import Truncation
from edgellm.text.tokenizer import Tokenizer, check_text, no_tokenizer

TruncationChoice = bool | Literal["longest_first", "only_first", "only_second", "do_not_truncate"]


class Pipeline:
    """A task on a loaded package, called as Hugging Face's pipeline of that name is.

    pipe = edgellm.pipeline("fill-mask", "bert-int8")
    pipe("Paris is the [MASK] of France.")

    A list of inputs gives a list of results; an iterator gives an iterator. Options are given here, or to
    `edgellm.pipeline` for all calls. `batch_size`: inputs per run of the model; results do not depend on it.
    """

    fits: ClassVar[tuple[Task, ...]]  # the tasks of the packages that this can use
    batch_size: ClassVar[int] = 32
    input_name: ClassVar[str] = "inputs"

    def __init__(self, task: str, model: AnyModel, options: Mapping[str, Any]) -> None:
        self.task = task
        self.model = model
        self._options = dict(options)
        self._merged({})
        self.check()

    def __call__(self, *args: Any, **options: Any) -> Any:
        inputs, options = self.read(args, options)
        merged = self._merged(options)
        if isinstance(inputs, Iterator):
            return self._lazily(inputs, merged)
        single = self.is_single(inputs, merged)
        results = self._results([inputs] if single else list(inputs), merged)
        return self.shape(inputs, results, single=single, given=options)

    def check(self) -> None:
        """Raises EdgellmError where the package lacks what the task needs beside the fitting model."""

    def read(self, args: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The inputs and the options of a call."""
        rest = dict(options)
        given = (*args, *([rest.pop(self.input_name)] if self.input_name in rest else []))
        if len(given) != 1:
            raise InputError(f"{self.task} takes one input or one list of them, found {len(given)}; options are named")
        return given[0], rest

    def each(self, items: list[Any], *args: Any, **options: Any) -> list[Any]:
        """A result for each of a batch of inputs."""
        raise NotImplementedError

    def is_single(self, inputs: Any, options: Mapping[str, Any]) -> bool:
        """Whether this is one input and not a list of them."""
        if isinstance(inputs, str | Mapping):
            return True
        if isinstance(inputs, bytes) or not isinstance(inputs, Sequence):
            raise InputError(f"{self.task} takes a text or a list of texts, found {type(inputs).__name__}")
        return False

    def shape(self, inputs: Any, results: list[Any], *, single: bool, given: Mapping[str, Any]) -> Any:
        """What the caller gets: a single input's only result, or the list of results. `given` are this call's own
        options."""
        return results[0] if single else results

    @property
    def tokenizer(self) -> Tokenizer:
        """The package's tokenizer. Raises InputError if it has none."""
        if self.model.tokenizer is None:
            raise no_tokenizer(why=f"{self.task} takes texts")
        return self.model.tokenizer

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The checkpoint's config.json."""
        return read_json(self.model.info.path / "config.json")

    @cached_property
    def special(self) -> Special:
        config = read_json(self.model.info.path / "tokenizer_config.json")
        return Special.create(config, self.tokenizer, self.model.manifest.context_length)

    @cached_property
    def _names(self) -> tuple[frozenset[str], bool]:
        """The options of `each`, and whether it takes others as well."""
        parameters = inspect.signature(self.each).parameters.values()
        names = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        return frozenset({*names, "batch_size"}), any(p.kind is p.VAR_KEYWORD for p in parameters)

    def _merged(self, options: Mapping[str, Any]) -> dict[str, Any]:
        names, others = self._names
        unknown = [] if others else [name for name in (*options, *self._options) if name not in names]
        if unknown:
            raise OptionError(f"{self.task} has no option {unknown[0]!r}; {nearest(unknown[0], names)}")
        return {**self._options, **options}

    def _lazily(self, inputs: Iterator[Any], options: Mapping[str, Any]) -> Iterator[Any]:
        """Results one by one, reading no more inputs than `batch_size` (1) ahead."""
        while batch := list(islice(inputs, options.get("batch_size") or 1)):
            yield from self._results(batch, options)

    def _results(self, items: list[Any], options: Mapping[str, Any]) -> list[Any]:
        size = self.batch_size if options.get("batch_size") is None else options["batch_size"]
        check_counts(batch_size=size)
        rest = {name: value for name, value in options.items() if name != "batch_size"}
        batches = (items[start : start + size] for start in range(0, len(items), size))
        return [result for batch in batches for result in self.each(batch, **rest)]


def check_counts(**counts: Any) -> None:
    """Raises OptionError for an option that is no whole number from 1."""
    for name, value in counts.items():
        if type(value) is not int or value < 1:
            raise OptionError(f"{name} is {value!r}, expected a whole number from 1")


def texts_of(items: Sequence[Any]) -> list[str]:
    """The items, all of them texts. Raises InputError."""
    for item in items:
        check_text(item)
    return list(items)


def truncation_of(choice: Any) -> Truncation | None:
    """How to cut, from one of Hugging Face's ways to say it; None is not at all. Raises OptionError."""
    if choice in (False, None, "do_not_truncate"):
        return None
    if choice is True:
        return "longest_first"
    if choice in ("longest_first", "only_first", "only_second"):
        found: Truncation = choice
        return found
    raise OptionError(
        f"truncation is {choice!r}, expected True, False, 'longest_first', 'only_first', 'only_second' or "
        "'do_not_truncate'"
    )
