"""Translates what any class of fsspec raises into what `Storage` promises to raise.

fsspec has three errors of its own: FileNotFoundError, FileExistsError and PermissionError. Beside those a class raises
whatever its client does. Of that only the class of the error is shown, since its text may carry credentials; the error
itself is the cause of ours.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from atomicpath.errors import AtomicPathError, GuaranteeError

from .refusals import Refusal, of_the_client

__all__ = ["fsspec_answers", "is_of_the_client"]

_ABSENT = (FileNotFoundError, NotADirectoryError)
_NO_HOST = (ConnectionRefusedError, socket.gaierror)


@contextmanager
def fsspec_answers(
    what: str,
    *,
    about: Sequence[str] | None,
    writes: bool = False,
    translated: Callable[[Exception], Exception] = lambda error: error,
) -> Iterator[None]:
    """Translate the errors that the block raises.

    Args:
        what: The operation, its class and its URL, for messages: "WebdavFileSystem.info of webdav://run/step_1".
        about: The paths that the block names, as the class spells them: a file that is missing elsewhere is a file of
            the client's own. None while a client is made: then every one is.
        writes: The block may have changed something before it failed.
        translated: Turns an error of the class's client into a builtin one, or gives it back as it is.
    """
    try:
        yield
    except AtomicPathError:
        raise
    except Exception as error:
        raise _told(translated(error), what, about, writes) from error


def _told(error: Exception, what: str, about: Sequence[str] | None, writes: bool) -> Exception:
    if isinstance(error, AtomicPathError):
        return error
    if isinstance(error, NotImplementedError):
        return GuaranteeError(f"{what}: the class does not implement it")
    if isinstance(error, (*_ABSENT, PermissionError)) and is_of_the_client(error, about):
        return of_the_client(error, what, sent=writes)
    if isinstance(error, PermissionError):
        return Refusal.RIGHTS.error(what)
    if isinstance(error, _ABSENT):
        return type(error)(error.errno or _number(error), f"{what}: nothing is there, or what it is in is missing")
    if isinstance(error, FileExistsError):
        return FileExistsError(errno.EEXIST, f"{what}: something is there")
    if isinstance(error, IsADirectoryError):
        return IsADirectoryError(errno.EISDIR, f"{what}: it is a directory")
    chain = list(_chain(error))
    if any(isinstance(one, TimeoutError) or type(one).__name__.endswith("Timeout") for one in chain):
        return TimeoutError(errno.ETIMEDOUT, f"{what}: no answer in time ({_name(error)})")
    if any(isinstance(one, _NO_HOST) for one in chain):
        return ConnectionRefusedError(errno.ECONNREFUSED, f"{what}: no connection could be made ({_name(error)})")
    if any(isinstance(one, ConnectionError | EOFError) for one in chain):
        return ConnectionError(errno.ECONNABORTED, f"{what}: the connection was lost ({_name(error)})")
    number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
    reason = os.strerror(number) if number != errno.EIO else f"it failed with {_name(error)}"
    return OSError(number, f"{what}: {reason}")


def _number(error: OSError) -> int:
    return errno.ENOENT if isinstance(error, FileNotFoundError) else errno.ENOTDIR


def is_of_the_client(error: OSError, about: Sequence[str] | None) -> bool:
    """Tell whether an error names a file that is none of those that were asked about, nor a directory above one."""
    if about is None:
        return not isinstance(error, PermissionError) or error.filename is not None
    if not isinstance(error.filename, str):
        return False
    named = error.filename.strip("/")
    return not any(named in path or path.strip("/") in named for path in about)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _name(error: Exception) -> str:
    """Return the class of an error, and the status of the reply that the error is about, if there is one."""
    for attribute in ("status_code", "status", "code"):
        status = getattr(error, attribute, None)
        if isinstance(status, int):
            return f"{type(error).__name__}, status {int(status)}"
    return type(error).__name__
