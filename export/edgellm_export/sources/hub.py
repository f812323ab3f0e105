"""Hub ids: list the repository, then download what an export reads and nothing else."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from edgellm.errors import CheckpointError, CheckpointNotFoundError, MissingDependencyError
from edgellm.package.sentence import module_paths
from edgellm.package.sentence_steps import MODEL_CONFIG, MODULES, SENTENCE_CONFIGS, TOKEN_HEAD_FILES
from edgellm.text.template_files import MORE_TEMPLATES, OLD_TEMPLATE
from edgellm_export.checkpoint.json_file import read_json
from edgellm_export.sources.adapter import ADAPTER_CONFIG, ADAPTER_PYTORCH, ADAPTER_WEIGHTS, refuse_adapter
from edgellm_export.sources.choice import CONFIG, find_weights
from edgellm_export.sources.gguf_choice import SUFFIX, choose, gguf_choices, is_only_gguf
from edgellm_export.sources.reading import shard_names, step_weights
from edgellm_export.tokenizer.effective import TOKENIZER
from edgellm_export.tokenizer.files import ANCESTORS, CARRIED, INSTEAD
from edgellm_export.tokenizer.settings import ADDED


@dataclass(frozen=True)
class Snapshot:
    """A downloaded revision: the directory and the commit it is. `absent`: its weights' files that are not there.
    `gguf`: the GGUF file that was downloaded in their place."""

    path: Path
    revision: str
    absent: tuple[str, ...] = ()
    gguf: str | None = None


def fetch(
    repo: str, *, revision: str | None, cache_dir: Path | None, weights: bool = True, tag: str | None = None
) -> Snapshot:
    """Download the config, tokenizer and weights of `repo` into the hub cache, or find them there. Without
    `weights` those are left where they are. `tag`: which of its GGUF files to download in their place; where there is
    nothing else that is done without it.

    Raises CheckpointNotFoundError, CheckpointError or MissingDependencyError.
    """
    hub, errors = _import_hub()
    with _explained(repo, revision):
        api = hub.HfApi()
        try:
            info = api.model_info(repo, revision=revision)
        except (errors.OfflineModeIsEnabled, *_connection_errors()) as error:
            return _from_cache(hub, repo, revision, cache_dir, error)

        def download(name: str, commit: str | None = revision) -> Path:
            return Path(api.hf_hub_download(repo, name, revision=commit, cache_dir=cache_dir))

        names = {sibling.rfilename for sibling in info.siblings}
        if ADAPTER_CONFIG in names:
            raise refuse_adapter(read_json(download(ADAPTER_CONFIG)), repo, beside_model=CONFIG in names)
        if tag is not None or is_only_gguf(names):
            files = choose(repo, gguf_choices(names), tag).files
            known = hub.try_to_load_from_cache(repo, files[0], cache_dir=cache_dir, revision=info.sha)
            if not weights and not isinstance(known, str):
                raise _undownloaded(repo, files[0])
            return _gguf_files(files, download)
        if CONFIG not in names:
            raise CheckpointNotFoundError(f"{repo} has no {CONFIG}; it is not a Transformers model")
        # By the name that was asked for, so that the cache knows it; the others by the commit that this gave.
        snapshot = download(CONFIG).parent
        pinned = partial(download, commit=snapshot.name)
        large = _weight_files(repo, names, pinned)
        _download_all(names, large if weights else [], pinned)
    return Snapshot(snapshot, snapshot.name, tuple(name for name in large if not (snapshot / name).is_file()))


def _download_all(names: set[str], weights: Sequence[str], download: Callable[[str], Path]) -> None:
    """`weights`, and all small files that an export reads."""
    for name in [*_text_files(names), *weights]:
        download(name)
    for name in _sentence_files(names, download(MODULES)) if MODULES in names else []:
        download(name)


def _gguf_files(files: Sequence[str], download: Callable[..., Path]) -> Snapshot:
    """All of one commit, which the first gives."""
    first, *others = files
    snapshot = download(first).parents[first.count("/")]
    for name in others:
        download(name, snapshot.name)
    return Snapshot(snapshot, snapshot.name, gguf=first)


def fetch_adapter(repo: str, *, cache_dir: Path | None, weights: bool = True) -> Snapshot:
    """Download an adapter's config, tensors and tokenizer as `fetch` does with a model's."""
    hub, errors = _import_hub()
    with _explained(repo, None):
        api = hub.HfApi()
        try:
            info = api.model_info(repo)
        except (errors.OfflineModeIsEnabled, *_connection_errors()) as error:
            return _from_cache(hub, repo, None, cache_dir, error)
        names = {sibling.rfilename for sibling in info.siblings}
        if ADAPTER_CONFIG not in names:
            raise CheckpointNotFoundError(f"{repo} has no {ADAPTER_CONFIG}; it is not an adapter that PEFT saved")
        snapshot = Path(api.hf_hub_download(repo, ADAPTER_CONFIG, cache_dir=cache_dir)).parent
        large = [name for name in (ADAPTER_WEIGHTS, ADAPTER_PYTORCH) if name in names][:1]
        _download_all(
            names,
            large if weights else [],
            lambda name: Path(api.hf_hub_download(repo, name, revision=snapshot.name, cache_dir=cache_dir)),
        )
    return Snapshot(snapshot, snapshot.name, tuple(name for name in large if not (snapshot / name).is_file()))


def fetch_headers(repo: str, snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    """The headers of the files of weights that `snapshot` lacks, by file: each tensor's dtype, shape and data_offsets.
    Asks the hub for the beginnings of the files only. Raises CheckpointError."""
    hub, errors = _import_hub()
    headers = {}
    with _explained(repo, snapshot.revision):
        for name in snapshot.absent:
            if not name.endswith(".safetensors"):
                raise _undownloaded(repo, name)
            try:
                found = hub.HfApi().parse_safetensors_file_metadata(repo, name, revision=snapshot.revision)
            except (errors.SafetensorsParsingError, AttributeError, TypeError, ValueError, struct.error) as error:
                raise CheckpointError(f"{repo}: {name} is not a SafeTensors file ({error})") from error
            headers[name] = {
                tensor: {"dtype": info.dtype, "shape": info.shape, "data_offsets": list(info.data_offsets)}
                for tensor, info in found.tensors.items()
            }
    return headers


def _undownloaded(repo: str, name: str) -> CheckpointError:
    named = f" {name}" if name.endswith(SUFFIX) else ""
    return CheckpointError(
        f"{repo} has its weights in {name}, whose beginning does not say what is in it; "
        f"download it first (`hf download {repo}{named}`), and plan then"
    )


def _import_hub() -> tuple[Any, Any]:
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # read when huggingface_hub is imported
    try:
        import huggingface_hub
        from huggingface_hub import constants, errors
    except ImportError as error:
        raise MissingDependencyError(
            "downloading from the hub needs huggingface_hub; run `pip install 'edgellm[export]'`"
        ) from error
    constants.HF_HUB_DISABLE_TELEMETRY = True  # if someone imported it before
    return huggingface_hub, errors


def _text_files(names: set[str]) -> list[str]:
    wanted = [*CARRIED, OLD_TEMPLATE, ADDED]
    if TOKENIZER not in names or any(names.issuperset(files) for files in INSTEAD):
        wanted += ANCESTORS
    templates = [name for name in sorted(names) if PurePosixPath(name).match(f"{MORE_TEMPLATES}/*.jinja")]
    return [*(name for name in wanted if name in names), *templates]


def _sentence_files(names: set[str], modules: Path) -> list[str]:
    """What a sentence encoder has besides its model: each step's config, and its weights, which are small."""
    steps = module_paths(modules.read_bytes())
    weights = filter(None, (step_weights(step, names.__contains__) for step in steps))
    configs = [name for name in (MODEL_CONFIG, *SENTENCE_CONFIGS, *(f"{s}/{CONFIG}" for s in steps)) if name in names]
    return [*configs, *weights, *(name for name in TOKEN_HEAD_FILES if name in names)]


def _weight_files(repo: str, names: set[str], download: Callable[[str], Path]) -> list[str]:
    """The files of weights that an export reads; an index is downloaded to see which."""
    file = find_weights(repo, names, read_json(download(CONFIG)))
    if not file.is_index:
        return [file.name]
    shards = shard_names(download(file.name))
    if absent := [name for name in shards if name not in names]:
        raise CheckpointNotFoundError(f"{repo} lacks {', '.join(absent)}, which its {file.name} names")
    return shards


def _from_cache(hub: Any, repo: str, revision: str | None, cache_dir: Path | None, cause: Exception) -> Snapshot:
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        path = Path(hub.snapshot_download(repo, revision=revision, cache_dir=cache_dir, local_files_only=True))
    except LocalEntryNotFoundError:
        raise CheckpointNotFoundError(
            f"{repo} is not in the hub cache and the hub cannot be reached ({type(cause).__name__}); "
            "connect once, or give a local directory"
        ) from cause
    return Snapshot(path, path.name)


def _connection_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub's HTTP library raises when there is no connection: requests before 1.0, then httpx."""
    names = (("requests", "ConnectionError"), ("requests", "Timeout"), ("httpx", "TransportError"))
    return tuple(getattr(sys.modules[module], name) for module, name in names if module in sys.modules)


@contextmanager
def _explained(repo: str, revision: str | None) -> Iterator[None]:
    """Turns the hub's errors into ours, which say what to do."""
    from huggingface_hub import errors

    at = f" at revision {revision}" if revision else ""
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointError(f"the download of {repo}{at} was interrupted; run the same command again") from error
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{repo} is gated: accept its terms on its page, then run `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointNotFoundError(f"{repo} has no revision {revision!r}; look at its branches and tags") from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointNotFoundError(
            f"the hub has no model {repo}{at}; check the spelling, or run `hf auth login` if it is private, "
            "or give an existing local path"
        ) from error
    except errors.HfHubHTTPError as error:
        raise CheckpointError(f"the hub refused {repo}{at}: {error}; try again later") from error
    except errors.HFValidationError as error:
        raise CheckpointNotFoundError(f"{repo} is not a hub id ({error})") from error
    except _connection_errors() as error:
        raise CheckpointError(f"the download of {repo}{at} broke off ({error}); run the same command again") from error
