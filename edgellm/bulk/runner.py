"""A batch on one page: the input and its journal opened, what is left of it answered, the output made."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from edgellm.bulk.encoding import Encoding, classification, embedding
from edgellm.bulk.forms import Columns, Form, Kind, Requests, check_columns, holds_requests
from edgellm.bulk.generating import Generating, Settings
from edgellm.bulk.inputs import Facts, Input, open_input
from edgellm.bulk.journal import RESTART, Journal, journal_of
from edgellm.bulk.lines import Line, Outcome
from edgellm.bulk.outputs import check_output, write_output
from edgellm.bulk.pace import Pace, Status
from edgellm.errors import BatchError, OptionError, OutputExistsError, TaskError
from edgellm.loading import AnyModel, load, read_package
from edgellm.models.encoder import EncoderModel
from edgellm.models.speech import SpeechModel
from edgellm.ort.library import DeviceChoice
from edgellm.package.files import read_errors, sha256_of
from edgellm.package.manifest import KVCacheChoice, Manifest
from edgellm.serving.engine import MAX_ROWS

KINDS: Mapping[str, Kind] = {
    "text-generation": "text",
    "text2text-generation": "text",
    "feature-extraction": "embedding",
    "text-classification": "classification",
}
RETRIES = 2


@dataclass(frozen=True)
class Summary:
    """What became of a batch: `lines` are `answered` or `failed`; `reused` of them were so since an earlier run. Tokens
    and seconds are this run's."""

    output: Path
    lines: int
    answered: int
    failed: int
    reused: int
    prompt_tokens: int
    new_tokens: int
    seconds: float


class Work(Protocol):
    """What answers lines. `tokens`: of prompts that were read so far, and new ones, those of lines included that have
    not ended."""

    @property
    def tokens(self) -> tuple[int, int]: ...

    def run(self, lines: Iterator[Line]) -> Generator[Outcome | None]: ...


def run_batch(
    package: str | PathLike[str],
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    template: str | None = None,
    column: str | None = None,
    chat: bool = False,
    system: str | None = None,
    prefix: str = "",
    prompt_name: str | None = None,
    truncation: bool = False,
    restart: bool = False,
    retry_errors: bool = False,
    retries: int = RETRIES,
    max_rows: int = MAX_ROWS,
    max_cache_bytes: int | None = None,
    device: DeviceChoice = "auto",
    threads: int | None = None,
    kv_cache: KVCacheChoice = "auto",
    progress: Callable[[Status], None] | None = None,
    **options: Any,
) -> Summary:
    """Answer each line of the file `source` with a package, and write `output`, in the same order.

    Lines are OpenAI's batch lines, or have columns: `template`, `column`, `chat`, `system` and `prefix` are those of
    `Columns`. `prompt_name` and `truncation` are those of `EncoderModel.embed`, for encoders. `options`: of generation,
    for lines that do not say otherwise. A run that was stopped goes on where it was; `restart` forgets it instead, and
    `retry_errors` tries lines again that had failed. `retries`: how often a line is tried again at once, where memory
    was short or the model's run failed. `max_rows`, `max_cache_bytes`: the engine's. `device`, `threads`, `kv_cache`:
    those of `load`.

    A line that fails is no error here: `Summary` counts it, and the output says why. Raises OptionError, InputError,
    TaskError, BatchError, JournalMismatchError, OutputExistsError, and what `load` raises.
    """
    target, lines = Path(output), open_input(Path(source))
    path, manifest = read_package(Path(package))
    settings = Settings(options, max_rows, max_cache_bytes, retries)
    asked = {"template": template, "column": column, "chat": chat, "system": system, "prefix": prefix}
    encoder = {"prompt_name": prompt_name, "truncation": truncation}
    given = {**{name: value for name, value in {**asked, **encoder}.items() if value}, **options}
    if kv_cache != "auto":
        given["kv_cache"] = kv_cache
    _check_fits(path, manifest, given)
    if type(retries) is not int or retries < 0:
        raise OptionError(f"retries is {retries!r}, expected a whole number from 0")
    facts = lines.facts()
    form = _form(KINDS[manifest.task], lines, path, facts, asked)
    check_output(target, lines, form)
    journal_path = journal_of(target)
    if target.exists() and not restart and not journal_path.exists():
        raise OutputExistsError(
            f"{target} is there, and no journal of a batch beside it; give another output, or replace it with --restart"
        )
    identity = {"input": facts.sha256, "package": _identity(path, manifest), "options": given}
    with Journal.opened(journal_path, identity, facts.lines, restart=restart) as journal:
        if retry_errors:
            journal.forget_errors()
        reused = journal.totals.answered + journal.totals.failed
        pace = Pace(facts, facts.lines - reused)
        if journal.complete:
            if not target.exists():
                raise BatchError(f"{target} was written and is gone, and its answers with it; {RESTART}")
            return Summary(target, facts.lines, facts.lines, 0, facts.lines, 0, 0, 0.0)
        if reused < facts.lines:
            work = _work(load(path, device=device, threads=threads, kv_cache=kv_cache), form, settings, encoder)
            _answer(work, lines, journal, pace, lambda: progress and progress(pace.status(journal.totals, reused)))
        write_output(target, lines, form, journal.outcome)
        journal.finish()
        done = journal.totals
        tokens = (pace.prompt_tokens, pace.new_tokens)
        return Summary(target, facts.lines, done.answered, done.failed, reused, *tokens, pace.elapsed_s)


def _answer(work: Work, source: Input, journal: Journal, pace: Pace, report: Callable[[], object]) -> None:
    """Have all lines answered that are not in the journal."""
    lines = pace.through(source.lines(), journal.__contains__)
    try:
        with contextlib.closing(work.run(lines)) as outcomes:
            for outcome in outcomes:
                if outcome is not None:
                    journal.add(outcome)
                    pace.end(outcome)
                journal.sync_if_due()
                if pace.look(*work.tokens):
                    report()
    finally:
        report()


def _form(kind: Kind, source: Input, package: Path, facts: Facts, asked: Mapping[str, Any]) -> Form:
    if holds_requests(source) and not asked["template"] and not asked["column"]:
        if asked["chat"] or asked["system"] or asked["prefix"]:
            raise OptionError(
                f"the lines of {source.path} say all that they ask for; leave chat, system and prefix out"
            )
        return Requests(kind, package.resolve().name, facts.sha256[:12])
    if asked["template"] and asked["column"]:
        raise OptionError("template and column both say what the prompt is; give one of them")
    form = Columns(kind, **{**asked, "chat": bool(asked["chat"] or asked["system"])})
    check_columns(form, source)
    return form


def _work(model: AnyModel, form: Form, settings: Settings, encoder: Mapping[str, Any]) -> Work:
    if isinstance(model, SpeechModel):
        raise TaskError("a package of speech reads no lines of text; transcribe recordings with `edgellm run`")
    if not isinstance(model, EncoderModel):
        return Generating(model, form, settings)
    if model.manifest.task == "text-classification":
        return Encoding(form, classification(model, truncation=encoder["truncation"]), settings.retries)
    return Encoding(form, embedding(model, **encoder), settings.retries)


def _check_fits(package: Path, manifest: Manifest, given: Mapping[str, Any]) -> None:
    """Raises TaskError for a package that answers no lines, OptionError for options that are not for it."""
    if manifest.task not in KINDS:
        raise TaskError(f"{package} is a package for {manifest.task}, and lines are for {', '.join(KINDS)}")
    for_encoders, for_all = {"prompt_name", "truncation"}, {"template", "column", "prefix"}
    if KINDS[manifest.task] == "text":
        wrong = sorted(for_encoders & given.keys())
    else:
        wrong = sorted(given.keys() - for_encoders - for_all)
        if manifest.task == "text-classification":
            wrong += sorted({"prompt_name"} & given.keys())
    if wrong:
        raise OptionError(f"{wrong[0]} has no effect on a package for {manifest.task}; leave it out")


def _identity(package: Path, manifest: Manifest) -> str:
    """sha256 over names and hashes of the package's files. They are the manifest's; where it is another tool's
    directory, which has none, they are computed now."""
    digest = hashlib.sha256()
    with read_errors(package):
        for name, entry in sorted(manifest.files.items()):
            digest.update(f"{name}\n{entry.sha256 or sha256_of(package / name)}\n".encode())
    return digest.hexdigest()
