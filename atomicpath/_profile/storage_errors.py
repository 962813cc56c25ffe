"""The border at which an error of a storage comes out of this library: as an `AtomicPathError`, in its words.

Every function that users call passes through it. Inside, an error of a storage is an `OSError`, by whose class the
protocols decide. What a user's own code raises within a call, such as a callback or a strategy, is not touched.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from atomicpath.abc import TemporaryPath
from atomicpath.errors import AccessError, AtomicPathError, StorageError

from .location import PathLike, locate

__all__ = ["at_final", "at_root", "at_url", "is_the_callers", "of_the_caller", "reported", "reporting"]

P = ParamSpec("P")
T = TypeVar("T")

_OWN = "_atomicpath_is_the_callers"
_FULL = "Free some, then call again"
_REFUSED = "Look at the permissions, or the credentials, then call again"
_TOO_MANY = "Close some files, or raise the limit (ulimit -n), then call again"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "It is read-only: use another place",
    errno.EACCES: _REFUSED,
    errno.EPERM: _REFUSED,
    errno.EMFILE: _TOO_MANY,
    errno.ENFILE: _TOO_MANY,
    errno.ENAMETOOLONG: "Shorten the path",
    errno.ENOTDIR: "Part of the path is a file: use another place",
    errno.ELOOP: "Links in the path lead nowhere: repair them, or use another place",
}


@contextmanager
def reporting(doing: str, where: Callable[[], object]) -> Iterator[None]:
    """Raise an `OSError` of the block as an error of ours that says what could not be done, and what to do next.

    Args:
        doing: What failed, such as "cannot list {}", with the place in it.
        where: Gives that place, in a text without credentials. It is asked only after an error.
    """
    try:
        yield
    except OSError as error:
        if (told := _in_our_words(error, doing, where)) is None:
            raise
        raise told from error


def reported(
    doing: str, where: Callable[..., object]
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Decorate a coroutine function with `reporting`.

    `where` is called with the arguments of that function.
    """

    def decorate(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @functools.wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:  # not `with reporting`, which takes longer: a commit passes here four times
                return await function(*args, **kwargs)
            except OSError as error:
                if (told := _in_our_words(error, doing, functools.partial(where, *args, **kwargs))) is None:
                    raise
                raise told from error

        return call

    return decorate


def at_url(url: PathLike, *_: object, **options: Any) -> object:
    """Return the place of a function whose first argument is a URL."""
    return locate(url, options.get("storage_options"))


def at_root(root: PathLike, *_: object, **options: Any) -> object:
    """Return the place of a function whose first argument is a URL that it calls a root."""
    return at_url(root, **options)


def at_final(temporary_path: TemporaryPath, *_: object, **__: object) -> object:
    """Return the final path of an attempt, for its own methods and for functions that take an attempt."""
    return locate(temporary_path.get_final())


class of_the_caller:  # noqa: N801 - read as a word: `with of_the_caller()`
    """Mark what the block raises as the caller's own, by a callback or a strategy: it comes out as it is."""

    __slots__ = ()

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and not isinstance(error, AtomicPathError):
            setattr(error, _OWN, True)


def is_the_callers(error: BaseException) -> bool:
    """Tell whether an error was raised by the caller's own code."""
    return getattr(error, _OWN, False) is True


def _in_our_words(error: OSError, doing: str, where: Callable[[], object]) -> OSError | None:
    if isinstance(error, AtomicPathError) or is_the_callers(error):
        return None
    return _told(f"{doing.format(_shown(where))}: {_reason(error)}. {_advice(error)}", error)


def _shown(where: Callable[[], object]) -> str:
    try:
        return str(where())
    except Exception:  # noqa: BLE001 - the error that led here is the one that counts
        return "the place that was named"


def _reason(error: OSError) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _advice(error: OSError) -> str:
    return _ADVICE.get(error.errno or 0, "Look at the storage, then call again")


def _told(text: str, cause: OSError) -> OSError:
    """Return an error of ours that is also of the builtin class of `cause`, with its number, names and notes."""
    error = _rebuilt(text, _builtin(cause), cause.errno, cause.strerror, cause.filename, cause.filename2)
    for note in getattr(cause, "__notes__", ()):
        error.add_note(note)
    return error


def _builtin(error: OSError) -> type[OSError]:
    return next(kind for kind in type(error).__mro__ if kind.__module__ == OSError.__module__)


_made: dict[type[OSError], type[OSError]] = {}


def _both(builtin: type[OSError]) -> type[OSError]:
    """Return the class for what a storage raised as a builtin error, always the same class."""
    ours: type[OSError] = AccessError if issubclass(builtin, PermissionError) else StorageError
    bases = (ours,) if issubclass(ours, builtin) else (ours, builtin)
    methods = {"__str__": StorageError.__str__, "__reduce__": _reduced, "__module__": ours.__module__}
    return _made.setdefault(builtin, type(ours.__name__, bases, methods | {"__doc__": ours.__doc__}))


def _reduced(error: OSError) -> tuple[Callable[..., OSError], tuple[object, ...], dict[str, object]]:
    details = (error.errno, error.strerror, error.filename, error.filename2)
    return _rebuilt, (str(error), _builtin(error), *details), error.__dict__


def _rebuilt(text: str, builtin: type[OSError], *details: Any) -> OSError:
    error = _both(builtin)(text)
    error.errno, error.strerror, error.filename, error.filename2 = details
    return error
