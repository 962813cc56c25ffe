"""The environment that counts every call through the seam, and lets a fault happen at one of them."""

from __future__ import annotations

import inspect
import itertools
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from atomicpath._core.environment import Environment
from atomicpath._core.layout import TMP_DIR_SUFFIX

__all__ = ["Later", "Point", "Seam"]

P = ParamSpec("P")
T = TypeVar("T")

_NEVER_FAIL = ("time", "geteuid(", "getegid(", "getpid(")  # calls of a process about itself


@dataclass(frozen=True)
class Point:
    """One call through the seam: which method of the environment was asked, and for what."""

    number: int
    method: str
    function: str

    @property
    def is_of_the_storage(self) -> bool:
        """Return True for what a storage can refuse; clocks, tokens and sleeping are the process's own."""
        return self.method in ("call", "step", "request") and not self.function.startswith(_NEVER_FAIL)

    @property
    def is_a_sync(self) -> bool:
        """Return True for a sync of a file or a directory."""
        return self.method == "call" and self.function.startswith("fsync(")

    def __str__(self) -> str:
        return f"{self.method} {self.function} (point {self.number})"


class Seam(Environment):
    """The real world, except that sleeping takes no time and that `fire` is called at the point `at`.

    The fault happens before the call is made, or, with `after`, once it was: then its result, or its error, is lost.
    `watch` is called after each point, with the point.
    """

    def __init__(
        self,
        at: int | None = None,
        fire: Callable[[], object] | None = None,
        *,
        after: bool = False,
        watch: Callable[[Point], object] | None = None,
    ) -> None:
        self.at = at
        self.fire = fire
        self.after = after
        self.watch = watch
        self.slept: list[float] = []
        self.fired: Point | None = None
        self.points = 0
        self.synced_again = False
        """The fault was in a sync, and what was not synced was written anew, or is a directory, and synced later."""
        self._not_synced = ""
        self._numbers = itertools.count()  # atomic, so that a signal handler may come by at any moment

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._at("call", _shown(function, args), partial(function, *args, **kwargs))

    async def step(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._at_async("step", _shown(function, args), partial(super().step, function, *args, **kwargs))

    async def request(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        made = partial(super().request, function, *args, **kwargs)
        return await self._at_async("request", _shown(function, args), made)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)  # the clocks move by it, see `_counted`
        await self._at_async("sleep", f"{seconds:.3f} s", partial(super().sleep, 0))

    def _at(self, method: str, function: str, make: Callable[[], T]) -> T:
        point = self._arrive(method, function)
        closes = function.startswith("close(")  # Linux frees a descriptor even if closing it fails
        synced = _synced(function) if function.startswith("fsync(") else ""
        if point.number == self.at:
            self._not_synced = synced
        if point.number == self.at and not (self.after or closes):
            self._happen(point)
        try:
            result = make()
        except Exception:
            if point.number == self.at and self.after:
                self._happen(point)
            raise
        if point.number == self.at and (self.after or closes):
            self._happen(point, result)
        self.synced_again = self.synced_again or bool(synced and self.fired and synced == self._not_synced)
        if self.watch is not None:
            self.watch(point)
        return result

    async def _at_async(self, method: str, function: str, make: Callable[[], Awaitable[T]]) -> T:
        point = self._arrive(method, function)
        if point.number == self.at and not self.after:
            self._happen(point)
        try:
            result = await make()
        except Exception:
            if point.number == self.at and self.after and self.fired is None:
                self._happen(point)
            raise
        if point.number == self.at and self.after:
            self._happen(point, result)
        if self.watch is not None:
            self.watch(point)
        return result

    def _arrive(self, method: str, function: str) -> Point:
        number = next(self._numbers)
        self.points = max(self.points, number + 1)
        return Point(number, method, function)

    def _happen(self, point: Point, result: object = None) -> None:
        self.fired = point
        assert self.fire is not None
        try:
            self.fire()
        except BaseException:
            _let_go(result, point)
            raise


def _synced(function: str) -> str:
    """Return what a sync is of, if a later sync makes up for it: a directory, or a file without a name as yet.

    A file that has failed to be synced is not made durable by another sync of it: the kernel reports the loss once.
    """
    path = os.readlink(f"/proc/self/fd/{function.partition('(')[2].rstrip(')')}")
    above, _, name = path.rpartition("/")
    if name.startswith(TMP_DIR_SUFFIX):
        return f"{above}/{TMP_DIR_SUFFIX}"
    return path if os.path.isdir(path) else ""


def _let_go(result: object, point: Point) -> None:
    """Give back what a call returned that its caller will never see: the test must not leak in its place."""
    if point.function.startswith("open(") and isinstance(result, int):
        os.close(result)
        return
    for name in ("release", "close"):
        end = getattr(result, name, None)
        if callable(end):
            end()
            return


def _counted(name: str) -> Callable[..., Any]:
    """A clock, or a source of tokens, of the real environment, as a point; clocks move by what was slept."""
    real = getattr(Environment, name)
    if inspect.iscoroutinefunction(real):

        @wraps(real)
        async def ask_async(self: Seam, *args: Any, **kwargs: Any) -> Any:
            return await self._at_async(name, _shown(real, args), partial(real, self, *args, **kwargs))

        return ask_async

    @wraps(real)
    def ask(self: Seam, *args: Any, **kwargs: Any) -> Any:
        value = self._at(name, _shown(real, args), partial(real, self, *args, **kwargs))
        passed = sum(self.slept)
        if not passed or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return value + int(passed * 1e9)
        return value + passed if isinstance(value, float) else value

    return ask


# Every other public method, so that one that is added to the environment is a point from its first day.
for _name, _member in list(vars(Environment).items()):
    if inspect.isfunction(_member) and not _name.startswith("_") and _name not in vars(Seam):
        setattr(Seam, _name, _counted(_name))


class Later(Seam):
    """The same after all leases have run out: what has no holder that could be asked is to be had then."""

    lease = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.slept.append(2 * Environment.lease)

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        result = super().call(function, *args, **kwargs)
        if function is time.time_ns:  # with which a local disk tells how old its files are
            return result + int(self.slept[0] * 1e9)  # type: ignore[operator, return-value]
        return result


def _shown(function: object, args: tuple[object, ...]) -> str:
    while isinstance(function, partial):
        function, args = function.func, (*function.args, *args)
    if args and callable(args[0]) and not isinstance(args[0], type):  # a wrapper, such as one that translates errors
        return _shown(args[0], args[1:])
    name = getattr(function, "__qualname__", None) or type(function).__name__
    shown = ", ".join(text for arg in args if (text := _argument(arg)))
    return f"{name.rpartition('.<locals>.')[2]}({shown})"


def _argument(arg: object) -> str:
    if isinstance(arg, str | os.PathLike):
        text = os.fspath(arg)
        return repr(text if len(text) <= 90 else f"…{text[-89:]}")
    if isinstance(arg, int):
        return repr(arg)
    return ""
