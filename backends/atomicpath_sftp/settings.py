"""The options of SSH connections, and which server a name leads to: resolved once, for place and connection."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from glob import glob
from itertools import chain
from pathlib import Path, PurePath
from typing import Any, TypeAlias

import asyncssh
from asyncssh.config import ConfigParseError, SSHClientConfig

from atomicpath.errors import ValidationError
from atomicpath.storage import check_names, names_of, surroundings

from .address import Address
from .spellings import in_asyncssh_words

__all__ = ["OF_FSSPEC", "Settings", "resolve", "server_of"]

Options: TypeAlias = dict[str, Any]

OF_FSSPEC = frozenset(
    {
        *("asynchronous", "loop", "skip_instance_cache", "use_listings_cache", "listings_expiry_time", "max_paths"),
        *("batch_size", "timeout", "max_sessions", "pool_type", "sftp_client_kwargs"),
    }
)
"""Options of sshfs that are none of asyncssh's."""

_VARIABLES = ("SSH_AUTH_SOCK", "HOME", "USER", "LOGNAME", "LNAME", "USERNAME")
_DEFAULT = "~/.ssh/config"
_KNOWN = (names_of(asyncssh.connect, asyncssh.SSHClientConnectionOptions.prepare) | OF_FSSPEC) - {
    "last_config",
    "reload",
}
_INCLUDE = re.compile(r"\s*include(?=[\s=])[\s=]*(.*)", re.IGNORECASE)
_WAYS = ("tunnel", "proxy_command")  # options by which one host name may lead to different servers
_SAID_WAYS = ("ProxyCommand", "ProxyJump")  # the same in a configuration file


@dataclass(frozen=True, slots=True)
class Settings:
    """What options lead to: those of asyncssh and sshfs, and a text that changes with the process's environment."""

    surroundings: str
    options: Mapping[str, object] = field(repr=False)


def resolve(storage_options: Mapping[str, object]) -> Settings:
    """Read the options and the environment as they are now. ValidationError if one is unknown or cannot be read."""
    options = in_asyncssh_words(storage_options)
    check_names(options, _KNOWN, "sshfs, which passes them to asyncssh.connect")
    return Settings(surroundings=_state(options), options=options)


def server_of(address: Address, storage_options: Mapping[str, object]) -> tuple[Address, str]:
    """Return the server that an address leads to by the user's SSH configuration, and a digest of the way there.

    The digest is "" if no proxy or tunnel is on the way. It is a digest because a command may have a secret in it.

    Raises:
        ValidationError: A configuration file cannot be read.
    """
    options = in_asyncssh_words(storage_options)
    ways = {name: repr(options[name]) for name in _WAYS if options.get(name)}
    found = _configured(address, _paths(options), _state(options))
    host, user, port = (found.get(name) for name in ("Hostname", "User", "Port"))
    ways |= {name: repr(found[name]) for name in _SAID_WAYS if found.get(name)}
    server = Address(
        host=str(host or address.host),
        username=address.username or str(user or ""),
        port=address.port or str(port or ""),
    )
    return server, hashlib.sha256(repr(ways).encode()).hexdigest()[:12] if ways else ""


@lru_cache(maxsize=64)
def _configured(address: Address, paths: tuple[str, ...], _state: str) -> Mapping[str, object]:
    port: object = int(address.port) if address.port else ()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    try:
        found = SSHClientConfig.load(None, paths, False, False, False, user, address.username or (), address.host, port)
    except (OSError, ConfigParseError, UnicodeDecodeError, RecursionError) as error:  # the last: a file includes itself
        raise ValidationError(f"the SSH configuration {', '.join(paths)} cannot be used: {error}") from None
    return {name: found.get(name) for name in ("Hostname", "User", "Port", *_SAID_WAYS)}


def _paths(options: Options) -> tuple[str, ...]:
    """Return the configuration files that asyncssh would read, in its order."""
    given = options.get("config", ())
    if given == ():
        default = os.path.expanduser(_DEFAULT)
        return (default,) if os.access(default, os.R_OK) else ()
    if given is None:
        return ()
    several = [given] if isinstance(given, str | PurePath) else list(given)
    return tuple(os.path.expanduser(str(path)) for path in several)


def _state(options: Options) -> str:
    return surroundings(_VARIABLES, _read(_paths(options)))


def _read(paths: Iterable[str]) -> list[str]:
    """Return the configuration files and those that they include, at any depth.

    The condition that an `Include` stands under does not matter.

    A name without a directory is one of `~/.ssh`, as ssh_config(5) says.
    """
    found: list[str] = []
    waiting = list(paths)
    while waiting:
        path = waiting.pop(0)
        if path in found:
            continue
        found.append(path)
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
            included = [shlex.split(match[1]) for match in map(_INCLUDE.match, lines) if match]
        except (OSError, ValueError):  # asyncssh, which reads it next, says so
            continue
        for pattern in chain.from_iterable(included):
            absolute = os.path.join(os.path.expanduser("~/.ssh"), os.path.expanduser(pattern))
            waiting += sorted(glob(absolute, recursive=True, include_hidden=True))
    return found
