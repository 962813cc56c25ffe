"""From what asyncssh raises to what `Storage` promises to raise."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from asyncssh import (
    ChannelOpenError,
    DisconnectError,
    HostKeyNotVerifiable,
    KeyImportError,
    PermissionDenied,
    SFTPConnectionLost,
    SFTPError,
    SFTPFailure,
    SFTPNoConnection,
    SFTPNoSuchFile,
    SFTPOpUnsupported,
    SFTPPermissionDenied,
)

from atomicpath.errors import AccessError, AtomicPathError, GuaranteeError, ValidationError
from atomicpath.storage import of_the_client

__all__ = ["LOST", "Failure", "connecting", "translate_errors"]

LOST = (SFTPConnectionLost, SFTPNoConnection)
"""What a channel raises that has ended."""


FILES = ("SSH_AUTH_SOCK",)
"""Variables of the environment that name a file that a connection may need."""


class Failure(OSError):  # noqa: N818 - SFTP's own word
    """SFTP's SSH_FX_FAILURE: the server has not done it, and does not say why; something in the way is one reason."""


@contextmanager
def translate_errors(path: str) -> Iterator[None]:
    """Translate the errors that the block raises about `path`."""
    url = f"sftp://{path}"
    try:
        yield
    except SFTPNoSuchFile as error:
        raise FileNotFoundError(errno.ENOENT, f"nothing is at {url}") from error
    except SFTPPermissionDenied as error:
        refused = AccessError(f"{url}: the server refused: check the permissions there, and the user")
        refused.errno = errno.EACCES
        raise refused from error
    except SFTPFailure as error:
        raise Failure(
            errno.EIO,
            f"{url}: the server answered {error.reason!r}, which may be a full disk, a quota, or something in the way",
        ) from error
    except SFTPOpUnsupported as error:
        raise GuaranteeError(f"{url}: the server does not implement what this needs: {error.reason}") from error
    except (*LOST, DisconnectError, ChannelOpenError) as error:
        raise ConnectionError(errno.ECONNABORTED, f"{url}: the connection was lost ({type(error).__name__})") from error
    except SFTPError as error:
        raise OSError(errno.EIO, f"{url}: no usable answer ({error.reason})") from error
    except TimeoutError as error:
        raise TimeoutError(errno.ETIMEDOUT, f"{url}: the server did not answer in time") from error
    except AtomicPathError:
        raise
    except (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError) as error:
        raise of_the_client(error, url, sent=True) from error


@contextmanager
def connecting(server: str) -> Iterator[None]:
    """Translate an error in making a connection. Whatever the error is, nothing was done on the server.

    Nothing of a refusal is chained: it may quote options, and those may hold credentials.
    """
    try:
        yield
    except PermissionDenied:
        raise AccessError(f"{server} refused the login: check user, keys and password in storage_options") from None
    except HostKeyNotVerifiable:
        raise AccessError(
            f"the key of {server} is not in known_hosts: compare it with the server's own and add it there, or pass"
            " storage_options={'known_hosts': ...}"
        ) from None
    except AtomicPathError:
        raise
    except KeyImportError as error:
        raise AccessError(f"a key or configuration for {server} cannot be read ({type(error).__name__})") from None
    except (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError) as error:
        raise of_the_client(error, f"a key or configuration for {server}", sent=False, variables=FILES) from None
    except TypeError as error:  # asyncssh's answer to a name it does not have
        raise ValidationError(f"storage_options for {server} are not asyncssh's: {error}") from None
    except ValueError as error:
        raise ValidationError(f"storage_options for {server} cannot be used ({type(error).__name__})") from None
    except TimeoutError:
        raise
    except (DisconnectError, ChannelOpenError, SFTPError) as error:
        raise ConnectionError(
            errno.ECONNABORTED, f"{server}: no connection could be made ({type(error).__name__})"
        ) from error
    except OSError as error:
        kind = type(error) if isinstance(error, ConnectionError) else ConnectionError
        number = errno.EHOSTUNREACH if isinstance(error, socket.gaierror) else error.errno or errno.EHOSTUNREACH
        raise kind(number, f"{server} cannot be reached ({error.strerror}): check host and port") from error
