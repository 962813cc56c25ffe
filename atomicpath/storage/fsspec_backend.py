"""The base of plug-ins for protocols that fsspec has a class for, and what serves those without a plug-in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import fsspec

from atomicpath.abc import Backend, Environment
from atomicpath.errors import BackendError, ValidationError
from atomicpath.guarantees import NONE, Guarantee

from .access import PerProcess, configuration
from .fsspec_calls import Instances, check_arguments
from .fsspec_storage import DirectoryMethodStorage, MethodStorage
from .names import flaw_of_key, unusable

__all__ = ["FsspecBackend", "backend_without_plugin"]

_LONGEST = 4095  # bytes, as PATH_MAX; the store itself may allow less
_OURS = ("asynchronous", "loop", "skip_instance_cache")
"""Options of users' own instances, which may live in an event loop of theirs."""

_LAYERS = {
    *("async_wrapper", "asyncwrapper", "blockcache", "cached", "dir", "filecache", "generic", "libarchive"),
    *("reference", "simplecache", "tar", "zip"),
}
_LAYER_CLASSES = {  # by name: older releases of fsspec have no common base of them
    *("AbstractArchiveFileSystem", "AsyncFileSystemWrapper", "CachingFileSystem", "ChainedFileSystem"),
    *("DirFileSystem", "GenericFileSystem", "ReferenceFileSystem"),
}


class FsspecBackend(Backend):
    """Serves protocols of fsspec's through the methods that all its classes have.

    By itself it claims nothing, because those methods promise nothing. A subclass names `protocols`, says in `declared`
    what is documented of every such store, with the evidence, and in `observable` what probes may find out. It
    overrides `mkdir`, `rename` or `create` where the class, or its client, can do what fsspec's own methods do not
    promise; without them the guarantees that these give cannot even be asserted.

    `mkdir`, `rename` and `create` are called in threads, with an instance that makes no other call meanwhile unless its
    class is asynchronous. They block, and raise FileExistsError, FileNotFoundError or PermissionError only where the
    store has said so and has done nothing. Any other error counts as an unknown outcome.
    """

    declared: ClassVar[Mapping[Guarantee, str]] = {}
    """What holds at every such store, and where that is documented."""

    observable: ClassVar[Guarantee] = NONE
    """What holds at some of them, and is found out by probes."""

    renames_between_directories: ClassVar[bool | None] = None
    """See `Declaration`."""

    def mkdir(self, filesystem: Any, path: str) -> None:
        """Make a directory in one that exists (DIRECTORIES). Of many concurrent callers one succeeds.

        Raises:
            FileExistsError: Something is there.
            FileNotFoundError: The directory that it is to be in is missing.
        """
        raise NotImplementedError

    def rename(self, filesystem: Any, source: str, target: str) -> None:
        """Rename a directory in one step, never onto anything (ATOMIC_RENAME, RENAME_NOREPLACE).

        Raises:
            FileExistsError: Something is at the target.
            FileNotFoundError: The source is missing.
        """
        raise NotImplementedError

    def create(self, filesystem: Any, path: str, data: bytes) -> None:
        """Create a file that must not exist, in one request (EXCLUSIVE_CREATE), where `pipe_file` does not do that.

        Raises:
            FileExistsError: Something is there.
        """
        raise NotImplementedError

    def has(self, adapter: str) -> bool:
        """Tell whether a subclass has its own "mkdir", "create", or "rename", which takes a mkdir too."""
        own = getattr(type(self), adapter) is not getattr(FsspecBackend, adapter)
        return own and (adapter != "rename" or self.has("mkdir"))

    def translated(self, error: Exception) -> Exception:
        """Return the builtin error that an error of the client means; the error itself where it means nothing more."""
        return error

    def filesystem_class(self) -> type[Any]:
        """Return the class, by default fsspec's for the first of the protocols.

        Raises:
            ImportError: It is not installed.
        """
        kind: type[Any] = fsspec.get_filesystem_class(self.protocols[0])
        return kind

    def close(self, filesystem: Any) -> None:
        """Close an instance that is not used any more."""

    def native(self, kind: type[Any], path: str) -> str:
        """Return the path as methods of the class take it, by default without the protocol.

        Raises:
            ValidationError: The class takes something else for this path.
        """
        return self.plain(kind, path)

    def plain(self, kind: type[Any], path: str) -> str:
        """Return the path as the class shows it in listings.

        Raises:
            ValidationError: The class takes something else for this path.
        """
        url = self.url(path)
        shown: str = kind._strip_protocol(url)  # noqa: SLF001 - fsspec's own way to ask, which has no public name
        if not f"/{url}".endswith(f"/{shown.lstrip('/')}"):
            raise unusable(url, f"fsspec's {kind.__name__} takes it for {shown!r}: use other names")
        return shown

    def parse_url(self, url: str) -> str:
        path = super().parse_url(url).lstrip("/")
        if flaw := flaw_of_key(path, longest=_LONGEST):
            raise unusable(url, flaw.replace("key", "path"))
        return path

    def normalize(self, url: str, storage_options: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
        given = self._options(storage_options)
        scheme, _, rest = url.partition("://")
        read = self._kind()._get_kwargs_from_urls  # noqa: SLF001 - as above
        if rest.startswith("/") and "host" in read(f"{scheme}://host/path"):  # universal-pathlib leaves the host out
            if not given.get("host"):
                raise unusable(url, f"it names no host: {scheme}://host/path, or storage_options={{'host': ...}}")
            url = f"{scheme}://{_authority(given)}{rest}"
        named: Mapping[str, object] = read(url)
        for name, value in named.items():
            if str(given.get(name, value)) != str(value):
                raise unusable(
                    url, f"it says {name} {value!r}, and storage_options say something else: leave one of them out"
                )
        if named.get("host"):  # a user's name goes into the options, so that one place has one path
            url = f"{scheme}://{_authority(named)}/{url.partition('://')[2].partition('/')[2]}"
        return self.parse_url(url), {**named, **storage_options}

    def identity(self, path: str, storage_options: Mapping[str, object]) -> str:
        options = _plain(self._options(storage_options))
        if not options:
            return self.url(path)
        return f"{self.url(path)} under the options {hashlib.sha256(repr(options).encode()).hexdigest()}"

    def open(self, storage_options: Mapping[str, object], environment: Environment) -> MethodStorage:
        kind, options = self._kind(), self._options(storage_options)
        check_arguments(kind, options)
        made = {"kind": kind, "options": options, "close": self.close}
        opened = DirectoryMethodStorage if self.has("mkdir") else MethodStorage
        return opened(self, kind, PerProcess(Instances, made, under=str(id(kind))), environment)

    def _options(self, given: Mapping[str, object]) -> dict[str, object]:
        options = {**configuration(self.protocols), **given}
        return {name: value for name, value in options.items() if name not in _OURS}

    def _kind(self) -> type[Any]:
        protocol = self.protocols[0]
        try:
            kind = self.filesystem_class()
        except ImportError as error:
            raise BackendError(f"{protocol}:// needs a library that is not installed: {error}") from error
        except ValueError as error:
            raise BackendError(f"fsspec has no class for {protocol}://: install the package that brings it") from error
        if _LAYER_CLASSES & {base.__name__ for base in kind.__mro__ if base.__module__.startswith("fsspec.")}:
            raise _layered(protocol)
        return kind


class _WithoutPlugin(FsspecBackend):
    """Serves a protocol that no plug-in is installed for: everything has to be asserted."""

    def __init__(self, protocol: str) -> None:
        if protocol in _LAYERS:
            raise _layered(protocol)
        self.protocols = (protocol,)  # type: ignore[misc]  # each has its own


def backend_without_plugin(protocol: str) -> FsspecBackend:
    """Return what serves a protocol of fsspec's without a plug-in.

    Raises:
        ValidationError: It lays one file system over another.
    """
    return _WithoutPlugin(protocol)


def _authority(options: Mapping[str, object]) -> str:
    return f"{options['host']}:{options['port']}" if options.get("port") else str(options["host"])


def _plain(value: object) -> object:
    """Return a value whose text is the same in every process, as that of an object by its address is not."""
    if isinstance(value, Mapping):
        return sorted((str(name), _plain(item)) for name, item in value.items())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | bytes | int | float | None) else type(value).__qualname__


def _layered(protocol: str) -> ValidationError:
    return ValidationError(
        f"{protocol}:// lays one file system over another: a cache, an archive or a directory of another one does not"
        " pass on what the store below guarantees. Pass the store's own URL"
    )
