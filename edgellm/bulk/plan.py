"""What it takes to answer lines, as a value that another process can be given, and what answers them there."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgellm.bulk.encoding import Encoding, classification, embedding
from edgellm.bulk.forms import Form, Kind
from edgellm.bulk.generating import Generating, Settings
from edgellm.bulk.lines import Line, Outcome
from edgellm.errors import OptionError, TaskError
from edgellm.loading import load
from edgellm.models.encoder import EncoderModel
from edgellm.models.speech import SpeechModel
from edgellm.ort.library import DeviceChoice
from edgellm.package.files import read_errors, sha256_of
from edgellm.package.manifest import KVCacheChoice, Manifest

KINDS: Mapping[str, Kind] = {
    "text-generation": "text",
    "text2text-generation": "text",
    "feature-extraction": "embedding",
    "text-classification": "classification",
}
RETRIES = 2


class Work(Protocol):
    """What answers lines. `tokens`: of prompts that were read so far, and new ones, those of lines included that have
    not ended."""

    @property
    def tokens(self) -> tuple[int, int]: ...

    def run(self, lines: Iterator[Line]) -> Generator[Outcome | None]:
        """The outcomes as they come; None: nothing came for a while. Closing it drops what is under way."""


@dataclass(frozen=True)
class Plan:
    """A package, what lines ask of it, and how it answers them. `encoder`: prompt_name and truncation."""

    package: Path
    form: Form
    settings: Settings
    encoder: Mapping[str, Any]
    device: DeviceChoice = "auto"
    threads: int | None = None
    kv_cache: KVCacheChoice = "auto"

    def start(self, *, standing: bool = False) -> Generating | Encoding:
        """Load the package. `standing`: for several runs, which may be at the same time. Raises TaskError, OptionError,
        and what `load` raises."""
        model = load(self.package, device=self.device, threads=self.threads, kv_cache=self.kv_cache)
        if isinstance(model, SpeechModel):
            raise TaskError("a package of speech reads no lines of text; transcribe recordings with `edgellm run`")
        if not isinstance(model, EncoderModel):
            return Generating(model, self.form, self.settings, standing=standing)
        if model.manifest.task == "text-classification":
            encode = classification(model, truncation=self.encoder["truncation"])
        else:
            encode = embedding(model, **self.encoder)
        return Encoding(self.form, encode, self.settings.retries)


def given_of(
    asked: Mapping[str, Any], encoder: Mapping[str, Any], kv_cache: KVCacheChoice, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What a caller said of how lines are answered, as far as answers depend on it."""
    given = {**{name: value for name, value in {**asked, **encoder}.items() if value}, **options}
    return given if kv_cache == "auto" else {**given, "kv_cache": kv_cache}


def check_fits(package: Path, manifest: Manifest, given: Mapping[str, Any], retries: int) -> None:
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
    if type(retries) is not int or retries < 0:
        raise OptionError(f"retries is {retries!r}, expected a whole number from 0")


def identity_of(package: Path, manifest: Manifest) -> str:
    """sha256 over names and hashes of the package's files. They are the manifest's; where it is another tool's
    directory, which has none, they are computed now."""
    digest = hashlib.sha256()
    with read_errors(package):
        for name, entry in sorted(manifest.files.items()):
            digest.update(f"{name}\n{entry.sha256 or sha256_of(package / name)}\n".encode())
    return digest.hexdigest()
