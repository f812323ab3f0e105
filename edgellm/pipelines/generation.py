"""A pipeline's generation options: the caller's, the checkpoint's for the task, the package's, and the task's usual."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.decoding.options import BEAMS_ONLY, SAMPLING_ONLY, GenerationOptions

NAMES = frozenset(GenerationOptions.__dataclass_fields__)


def generation_options(
    given: Mapping[str, Any], *, for_task: Mapping[str, Any], package: Mapping[str, Any], usual: Mapping[str, Any]
) -> dict[str, Any]:
    """The options to call `generate` with: those `given` by the caller, then `for_task`, the checkpoint's
    task_specific_params, then `package`, its generation_config.json, which `generate` itself reads, and where all are
    silent the task's `usual` ones.

    A `max_length` for the task counts only where the package has one too: Hugging Face's pipelines have 256 new tokens
    otherwise, which wins.
    """
    known = {name: value for name, value in for_task.items() if name in NAMES and value is not None}
    if package.get("max_length") is None:
        known.pop("max_length", None)
    silent = {name: value for name, value in usual.items() if package.get(name) is None}
    settled = {**silent, **known, **given}
    without_effect = set()
    if not _effective("do_sample", settled, package):
        without_effect |= {*SAMPLING_ONLY}
    if (_effective("num_beams", settled, package) or 1) == 1:
        without_effect |= {*BEAMS_ONLY}
    return {name: value for name, value in settled.items() if name in given or name not in without_effect}


def parameters_for(task: str, config: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The options that a checkpoint's config.json has for a task, and the text to put before every input. "translation"
    takes those of the config's first pair of languages."""
    tasks = config.get("task_specific_params")
    tasks = tasks if isinstance(tasks, Mapping) else {}
    if task == "translation":
        task = next((name for name in tasks if name.startswith(task)), task)
    found = tasks.get(task)
    params = found if isinstance(found, Mapping) else {}
    prefix = params.get("prefix", config.get("prefix"))
    return params, prefix if isinstance(prefix, str) else ""


def _effective(name: str, settled: Mapping[str, Any], package: Mapping[str, Any]) -> Any:
    return settled[name] if name in settled else package.get(name)
