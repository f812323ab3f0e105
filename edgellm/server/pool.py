"""Several packages under their names, loaded when they are first asked for, within a budget of memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgellm.errors import OptionError
from edgellm.loading import AnyModel, load, read_package
from edgellm.models.encoder import EncoderModel
from edgellm.models.generative import GenerativeModel
from edgellm.models.speech import SpeechModel
from edgellm.package.manifest import EncoderFacts, KVCacheChoice, Manifest
from edgellm.server.failures import Refusal
from edgellm.server.settings import ServerSettings
from edgellm.serving import Engine


@dataclass(eq=False)
class Loaded:
    """A model in use. `engine`: of one that generates. `turn`: of an encoder or a model of speech, whose calls come one
    after the other."""

    name: str
    model: AnyModel
    engine: Engine | None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    last_used: float = field(default_factory=time.monotonic)

    @property
    def nbytes(self) -> int:
        return self.model.info.package_bytes

    def generating(self) -> tuple[GenerativeModel[Any], Engine]:
        """Raises Refusal for a model that does not generate."""
        if self.engine is None or not isinstance(self.model, GenerativeModel):
            raise Refusal(400, f"the model {self.name!r} does not generate text: it is for {self.task}", param="model")
        return self.model, self.engine

    def encoding(self) -> EncoderModel:
        """Raises Refusal for a model that is no encoder."""
        if not isinstance(self.model, EncoderModel):
            raise Refusal(400, f"the model {self.name!r} makes no vectors: it is for {self.task}", param="model")
        return self.model

    def hearing(self) -> SpeechModel:
        """Raises Refusal for a model that does not write down speech."""
        if not isinstance(self.model, SpeechModel):
            raise Refusal(400, f"the model {self.name!r} reads no recordings: it is for {self.task}", param="model")
        return self.model

    @property
    def task(self) -> str:
        return self.model.manifest.task


class ModelPool:
    """`packages`: their directories by name. Raises PackageError where one is none, and OptionError where it cannot
    have the cache that is asked for."""

    def __init__(self, packages: Mapping[str, Path], settings: ServerSettings) -> None:
        self.packages = dict(packages)
        self._settings = settings
        self.manifests: dict[str, Manifest] = {}
        for name, path in packages.items():
            manifest = read_package(path)[1]
            self.manifests[name] = manifest.loaded_as(self._kv_cache(manifest))
        self.started = int(time.time())
        self._loaded: dict[str, Loaded] = {}
        self._loading = asyncio.Lock()

    @property
    def loaded(self) -> list[Loaded]:
        return list(self._loaded.values())

    @asynccontextmanager
    async def use(self, name: str | None) -> AsyncIterator[Loaded]:
        """The model of that name; None or "" is the only one. It stays loaded meanwhile. Raises Refusal."""
        found = await self._get(self._known(name))
        found.users += 1
        try:
            yield found
        finally:
            found.users -= 1
            found.last_used = time.monotonic()

    async def load(self, name: str) -> None:
        """Load a model now, if it is not there. Raises EdgellmError."""
        await self._get(name)

    def end_answers(self) -> None:
        """End those that are under way where they are, and take no more."""
        for one in self.loaded:
            if one.engine is not None:
                one.engine.end_answers()

    async def close(self) -> None:
        """Unload all. Answers that are under way end where they are: those that somebody waits for had their time."""
        for name in list(self._loaded):
            await self._unload(name, finish=False)

    def _known(self, name: str | None) -> str:
        if not name and len(self.packages) == 1:
            return next(iter(self.packages))
        if name not in self.packages:
            known = ", ".join(self.packages)
            raise Refusal(
                404, f"the model {name!r} does not exist here; there is {known}", param="model", code="model_not_found"
            )
        return name

    async def _get(self, name: str) -> Loaded:
        if name in self._loaded:
            return self._loaded[name]
        async with self._loading:
            if name not in self._loaded:
                await self._make_room(name)
                self._loaded[name] = await asyncio.to_thread(self._open, name)
            return self._loaded[name]

    def _open(self, name: str) -> Loaded:
        cache = self._kv_cache(self.manifests[name])
        model = load(self.packages[name], threads=self._settings.threads, kv_cache=cache)
        engine = None
        if isinstance(model, GenerativeModel):
            engine = Engine(
                model,
                max_rows=self._settings.max_rows,
                max_cache_bytes=self._settings.cache_bytes,
                max_waiting=self._settings.max_waiting,
            )
        return Loaded(name, model, engine)

    def _kv_cache(self, manifest: Manifest) -> KVCacheChoice:
        """Encoders have none."""
        return "auto" if isinstance(manifest.model, EncoderFacts) else self._settings.kv_cache

    async def _make_room(self, name: str) -> None:
        """Unload what was not used for longest until the package fits. Raises Refusal where all others are in use."""
        budget = self._settings.memory_bytes
        if budget is None:
            return
        wanted = sum(file.stat().st_size for file in self.packages[name].rglob("*") if file.is_file())
        while self._loaded and sum(one.nbytes for one in self.loaded) + wanted > budget:
            idle = [one for one in self.loaded if not one.users]
            if not idle:
                raise Refusal(
                    503, "the memory for models is in use; try again later", code="out_of_memory",
                    headers={"Retry-After": "5"},
                )  # fmt: skip
            await self._unload(min(idle, key=lambda one: one.last_used).name)

    async def _unload(self, name: str, *, finish: bool = True) -> None:
        found = self._loaded.pop(name)
        if found.engine is not None:
            await asyncio.to_thread(found.engine.close, finish=finish)


def names_of(packages: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Packages by their names. Raises OptionError where two have one name."""
    named: dict[str, Path] = {}
    for name, path in packages:
        if name in named:
            raise OptionError(f"two packages are called {name}: {named[name]} and {path}; name one, as NAME=PKG")
        named[name] = path
    return named
