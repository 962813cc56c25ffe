"""How a storage is made to lie: an honest one under another name, of which a lie changes one thing."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from atomicpath._profile.abilities import need
from atomicpath.abc import Backend, Declaration, DirectoryStorage, EntryKind, Environment, Storage
from atomicpath.guarantees import NONE, Guarantee

__all__ = ["FaultyStorage", "Lying", "faulty"]


class FaultyStorage(Storage):
    """The honest storage `inner` under another name; each lie changes one thing. Made by `faulty`."""

    about: Guarantee = NONE
    """The guarantees that do not hold because of it."""

    def __init__(self, inner: Storage, state: dict[str, object]) -> None:
        super().__init__(inner.environment)
        self.inner = inner
        self.state = state  # kept by the backend, because a storage is opened many times

    @property
    def directories(self) -> DirectoryStorage:
        """Return the honest storage, for a lie about directories."""
        return need(self.inner, DirectoryStorage, self.about)

    async def kind(self, path: str) -> EntryKind | None:
        return await self.inner.kind(path)


def faulty(lie: type[FaultyStorage], inner: Storage, state: dict[str, object]) -> FaultyStorage:
    """Return a storage that tells a lie, with just the abilities of the honest one; what is no lie it passes on."""
    abilities = [base for base in type(inner).__mro__ if base.__module__.startswith("atomicpath.abc.")]
    methods = {name for ability in abilities for name in getattr(ability, "__abstractmethods__", ())}
    honest = {name: _passed_on(name) for name in methods if _is_open(lie, name)}
    told = {name: getattr(inner, name) for name in ("is_local", "largest_single") if hasattr(inner, name)}
    made = types.new_class(lie.__name__, (lie, *abilities), exec_body=lambda body: body.update(honest | told))
    storage: FaultyStorage = made(inner, state)
    return storage


def _is_open(lie: type[FaultyStorage], name: str) -> bool:
    return getattr(getattr(lie, name, None), "__isabstractmethod__", not hasattr(lie, name))


def _passed_on(name: str) -> Callable[..., Awaitable[object]]:
    async def method(self: FaultyStorage, *args: object, **kwargs: object) -> object:
        return await getattr(self.inner, name)(*args, **kwargs)

    return method


class Lying(Backend):
    """A backend whose storages tell one lie.

    It claims what the honest one claims. With `admits` it declares nothing of what the lie is about and
    leaves it to the probes: an endpoint that nobody has documented.
    """

    def __init__(self, inner: Backend, lie: type[FaultyStorage], *, admits: bool = False) -> None:
        self.protocols = inner.protocols  # type: ignore[misc]  # the protocols of this instance
        self._inner, self._lie, self._admits = inner, lie, admits
        self._state: dict[str, object] = {}

    def parse_url(self, url: str) -> str:
        return self._inner.parse_url(url)

    def url(self, path: str) -> str:
        return self._inner.url(path)

    def identity(self, path: str, storage_options: Mapping[str, object]) -> str:
        return self._inner.identity(path, storage_options)

    def open(self, storage_options: Mapping[str, object], environment: Environment) -> Storage:
        storage = faulty(self._lie, self._inner.open(storage_options, environment), self._state)
        return faulty(_Admitting, storage, self._state) if self._admits else storage


class _Admitting(FaultyStorage):
    async def declare(self, path: str) -> Declaration:
        told = await self.inner.declare(path)
        about = told.declared & self.inner.about if isinstance(self.inner, FaultyStorage) else NONE
        return replace(told, declared=told.declared & ~about, observable=told.observable | about)
