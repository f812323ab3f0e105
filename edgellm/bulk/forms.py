"""What the lines of a file ask for, and what the output says of their answers: OpenAI's batch lines, or columns with a
prompt, messages or a text."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal, Protocol

from edgellm.bulk import openai
from edgellm.bulk.inputs import Input
from edgellm.bulk.lines import Ask, Line, Outcome
from edgellm.errors import InputError, MissingDependencyError, OptionError
from edgellm.generation.call import ChatArguments

FIELD = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
MISSING = object()
Kind = Literal["text", "embedding", "classification"]  # what the package's answers are
COLUMNS: Mapping[Kind, Mapping[str, str]] = {  # of the answers, and what they hold
    "text": {"answer": "text", "finish_reason": "text", "error": "text"},
    "embedding": {"embedding": "vector", "error": "text"},
    "classification": {"label": "text", "score": "number", "error": "text"},
}
URLS: Mapping[str, Kind] = {"/v1/chat/completions": "text", "/v1/completions": "text", "/v1/embeddings": "embedding"}


def failure(line: Line, error: Exception) -> Outcome:
    """The outcome of a line that failed."""
    status, content = openai.described(error)
    return Outcome(line, None, content, status)


class Form(Protocol):
    """`columns`: what the output has of an answer, and what each column holds; None where it has nothing else."""

    @property
    def columns(self) -> Mapping[str, str] | None: ...

    def ask(self, line: Line) -> Ask:
        """Raises InputError."""

    def answer(self, line: Line, results: Sequence[Any], stops: Sequence[str]) -> dict[str, Any]:
        """What is kept of the results of a line's inputs. Raises InputError where the line cannot have them so."""

    def row(self, line: Line, outcome: Outcome) -> dict[str, Any]:
        """What the output has for a line, beside the line's own columns where there are `columns`."""


@dataclass(frozen=True)
class Requests:
    """OpenAI's batch lines: {"custom_id", "method", "url", "body"}. `job`: a name for the ids of responses.
    `readers`: of bodies, by url."""

    kind: Kind
    package: str
    job: str
    readers: Mapping[str, Callable[[Mapping[str, Any]], Ask]]
    columns = None

    @classmethod
    def of(cls, kind: Kind, package: str, job: str) -> Requests:
        """Raises MissingDependencyError."""
        try:
            from edgellm.bulk.bodies import READERS
        except ImportError as error:
            raise MissingDependencyError(
                f"lines in OpenAI's form need the extra `batch` ({error.name} is missing): pip install 'edgellm[batch]'"
            ) from error
        return cls(kind, package, job, READERS)

    def ask(self, line: Line) -> Ask:
        url, body = line.values.get("url"), line.values.get("body")
        if not isinstance(line.values.get("custom_id"), str):
            raise InputError(f"custom_id is {line.values.get('custom_id')!r}, expected a text")
        if line.values.get("method", "POST") != "POST":
            raise InputError(f"method is {line.values['method']!r}, expected 'POST'")
        if not isinstance(url, str) or url not in URLS:
            raise InputError(f"url is {url!r}, expected one of {', '.join(URLS)}")
        if URLS[url] != self.kind:
            fitting = [name for name, of in URLS.items() if of == self.kind]
            raise InputError(f"{url} is not for this package; for it there is {' and '.join(fitting) or 'none'}")
        if not isinstance(body, Mapping):
            raise InputError(f"body is a {type(body).__name__}, expected an object")
        return self.readers[url](body)

    def answer(self, line: Line, results: Sequence[Any], stops: Sequence[str]) -> dict[str, Any]:
        body = line.values["body"]
        model = body.get("model") if isinstance(body.get("model"), str) else self.package
        if line.values["url"] == "/v1/embeddings":
            return openai.embedding_list(body, model, results)
        prefix = "chatcmpl" if line.values["url"] == "/v1/chat/completions" else "cmpl"
        label = openai.Label(f"{prefix}-{self._id(line)}", model, int(time.time()))
        if prefix == "chatcmpl":
            return openai.chat_completion(label, results[0])
        return openai.text_completion(label, results, stops)

    def row(self, line: Line, outcome: Outcome) -> dict[str, Any]:
        body = outcome.answer if outcome.answer is not None else {"error": outcome.error}
        response = {"status_code": outcome.status, "request_id": f"req_{self._id(line)}", "body": body}
        name = line.values.get("custom_id")
        return {"id": f"batch_req_{self._id(line)}", "custom_id": name, "response": response, "error": None}

    def _id(self, line: Line) -> str:
        return f"{self.job}{line.number:012x}"


@dataclass(frozen=True)
class Columns:
    """Lines with columns of any kind, one or several of which are the prompt or the text.

    `template`: the prompt, with {names} of columns. `column`: the one that is the prompt. With neither, it is the
    column "prompt", or "messages", for an encoder "text" (and "text_pair"). `chat`: the prompt is what a user says,
    behind `system`. `prefix`: what stands before the names of the answers' columns.
    """

    kind: Kind
    template: str | None = None
    column: str | None = None
    chat: bool = False
    system: str | None = None
    prefix: str = ""

    @property
    def columns(self) -> Mapping[str, str]:
        return {self.prefix + name: kind for name, kind in COLUMNS[self.kind].items()}

    def ask(self, line: Line) -> Ask:
        taken = next((name for name in self.columns if name in line.values), None)
        if taken is not None:
            raise InputError(f"there is a column {taken!r} already; {PREFIX_ADVICE}")
        if self.template is None and self.column is None and "messages" in line.values and self.kind == "text":
            return Ask([self._behind_system(line.values["messages"])], chat=ChatArguments())
        if self.kind == "text":
            prompt = self._text(line)
            if not self.chat:
                return Ask([prompt])
            return Ask([self._behind_system([{"role": "user", "content": prompt}])], chat=ChatArguments())
        text, pair = self._text(line), line.values.get("text_pair")
        if pair is None or self.template or self.column or self.kind != "classification":
            return Ask([text])
        return Ask([{"text": text, "text_pair": pair}])

    def answer(self, line: Line, results: Sequence[Any], stops: Sequence[str]) -> dict[str, Any]:
        (result,) = results
        if self.kind == "text":
            return {"answer": result.text, "finish_reason": result.finish_reason}
        if self.kind == "embedding":
            return {"embedding": list(result.vector)}
        return {"label": result.label, "score": result.score}

    def row(self, line: Line, outcome: Outcome) -> dict[str, Any]:
        answer = outcome.answer or {}
        values = {**answer, "error": None if outcome.error is None else outcome.error["message"]}
        return {self.prefix + name: values.get(name) for name in COLUMNS[self.kind]}

    def _text(self, line: Line) -> str:
        if self.template is not None:
            return filled(self.template, line.values)
        name = self.column or ("prompt" if self.kind == "text" else "text")
        value = found(line.values, name)
        if value is MISSING:
            raise InputError(
                f"there is no column {name!r}, found {', '.join(line.values) or 'none'}; say with --column which one "
                "is the text, or with --template what to make of them"
            )
        if not isinstance(value, str):
            raise InputError(f"{name} is a {type(value).__name__}, expected text")
        return value

    def _behind_system(self, messages: Any) -> Any:
        if self.system is None or not isinstance(messages, list):
            return messages
        return [{"role": "system", "content": self.system}, *messages]


PREFIX_ADVICE = "name the answers' columns otherwise with --prefix, such as --prefix model_"


def filled(template: str, values: Mapping[str, Any]) -> str:
    """The template with values for its {names}; {{ and }} are braces. Raises InputError where one is not there."""

    def fill(field: re.Match[str]) -> str:
        if field[1] is None:
            return field[0][0]
        value = found(values, field[1])
        if value is MISSING or value is None:
            raise InputError(f"the template asks for {{{field[1]}}}, and there are {', '.join(values) or 'no columns'}")
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

    return FIELD.sub(fill, template)


def found(values: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or MISSING; "user.name" is also the field name of an object in the column user."""
    if name in values:
        return values[name]
    first, dot, rest = name.partition(".")
    inner = values.get(first)
    return found(inner, rest) if dot and isinstance(inner, Mapping) else MISSING


def holds_requests(source: Input) -> bool:
    """Whether the lines are OpenAI's: the first that is an object says so."""
    if source.columns is not None:
        return False
    first = next((line for line in source.lines() if line.values), None)
    return first is not None and {"custom_id", "body"} <= first.values.keys()


def check_columns(form: Columns, source: Input) -> None:
    """Raises OptionError where columns of the input and of the answers have one name, or where a column that is asked
    for is not there."""
    if source.columns is None:
        first = next((line for line in source.lines() if line.values), None)
        check_free(form, source.path, () if first is None else tuple(first.values))
    else:
        check_names(form, source.path, source.columns)


def check_free(form: Columns, where: PathLike[str] | str, columns: Sequence[str]) -> None:
    taken = next((name for name in form.columns if name in columns), None)
    if taken is not None:
        raise OptionError(f"{where} has a column {taken!r} already; {PREFIX_ADVICE}")


def check_names(form: Columns, where: PathLike[str] | str, columns: Sequence[str]) -> None:
    """`check_columns` for lines that all have these columns."""
    check_free(form, where, columns)
    usual = "prompt" if form.kind == "text" else "text"
    wanted = [field[1] for field in FIELD.finditer(form.template or "") if field[1]]
    wanted = wanted if form.template is not None else [form.column or usual]
    for name in wanted:
        if name not in columns and name.partition(".")[0] not in columns:
            if name == usual and form.template is None and form.column is None and "messages" in columns:
                continue
            raise OptionError(
                f"{where} has no column {name!r}, found {', '.join(columns)}; say with --column which one is the "
                "text, or with --template what to make of them"
            )
