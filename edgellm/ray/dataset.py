"""The rows of a Ray Data dataset answered."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from edgellm.bulk.forms import Columns, check_names
from edgellm.bulk.generating import Settings
from edgellm.bulk.lines import Line
from edgellm.bulk.parquet import column_of
from edgellm.bulk.plan import KINDS, RETRIES, Plan, check_fits, given_of
from edgellm.errors import OptionError
from edgellm.loading import read_package
from edgellm.ort.library import DeviceChoice
from edgellm.package.manifest import KVCacheChoice
from edgellm.ray.library import ray_library
from edgellm.ray.orders import check_counts, order_of
from edgellm.ray.worker import Order, Worker
from edgellm.serving.engine import MAX_ROWS

BATCHES = 2  # of rows that a worker has at once: while one ends, the other keeps its model busy
WAITING = 4  # tasks with a worker; Ray Data asks for another worker where its workers have all that they may


def map(
    dataset: Any,
    package: str | PathLike[str],
    *,
    template: str | None = None,
    column: str | None = None,
    chat: bool = False,
    system: str | None = None,
    prefix: str = "",
    prompt_name: str | None = None,
    truncation: bool = False,
    retries: int = RETRIES,
    max_rows: int = MAX_ROWS,
    max_cache_bytes: int | None = None,
    device: DeviceChoice = "auto",
    threads: int = 1,
    kv_cache: KVCacheChoice = "auto",
    workers: int | tuple[int, int] = 1,
    shared: bool = False,
    **options: Any,
) -> Any:
    """The dataset (`ray.data.Dataset`) with the columns that `edgellm batch` adds: answer and finish_reason, embedding,
    or label and score; and error, for a row that has no answer. It is computed when it is read, as all of Ray Data is:
    blocks that are lost with a node are made again, so that each row is there once. The order is Ray Data's.

    workers: actors, each with a model; (least, most): as many as there is work and room for. threads: CPUs of each.
    shared: every node can read the package at its path; otherwise it is sent to each once, from this process, which
    must live until then. The others are those of `edgellm.bulk.run_batch`.

    Raises OptionError, TaskError, MissingDependencyError, and what reading the package does.
    """
    least, most = workers if isinstance(workers, tuple) else (workers, workers)
    check_counts(workers=least, threads=threads)
    check_counts(workers=most)
    path, manifest = read_package(Path(package))
    asked = {"template": template, "column": column, "chat": chat, "system": system, "prefix": prefix}
    encoder = {"prompt_name": prompt_name, "truncation": truncation}
    check_fits(path, manifest, given_of(asked, encoder, kv_cache, options), retries)
    if template and column:
        raise OptionError("template and column both say what the prompt is; give one of them")
    form = Columns(KINDS[manifest.task], template, column, bool(chat or system), system, prefix)
    schema = dataset.schema(fetch_if_missing=False)
    if schema is not None:
        check_names(form, "the dataset", schema.names)
    data = ray_library("ray.data")
    plan = Plan(path, form, Settings(options, max_rows, max_cache_bytes, retries), encoder, device, threads, kv_cache)
    return dataset.map_batches(
        Answering,
        fn_constructor_args=(order_of(plan, threads, shared=shared),),
        batch_format="pyarrow",
        batch_size=max_rows,
        num_cpus=threads,
        compute=data.ActorPoolStrategy(
            min_size=least,
            max_size=most,
            max_tasks_in_flight_per_actor=WAITING,
            max_concurrent_calls_per_actor=BATCHES,
            enable_true_multi_threading=True,
        ),
    )


class Answering:
    """What Ray Data calls with batches of rows, several at once."""

    def __init__(self, order: Order) -> None:
        assert isinstance(order.plan.form, Columns)
        self._form = order.plan.form
        self._worker = Worker()
        self._worker.load(order)

    def __call__(self, table: Any) -> Any:
        """table: a pyarrow.Table. Returns it with more columns."""
        check_names(self._form, "the dataset", table.column_names)
        lines = [Line(number, f"row {number}", values, 1) for number, values in enumerate(table.to_pylist())]
        found = {outcome.line.number: outcome for outcome in self._worker.answer(lines)}
        rows = [self._form.row(line, found[line.number]) for line in lines]
        for name, kind in self._form.columns.items():
            table = table.append_column(name, column_of(kind, [row[name] for row in rows]))
        return table
