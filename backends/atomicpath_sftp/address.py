"""Which server, as whom, and which path there: from URLs and options to the backend's own path and back."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import urlsplit

from atomicpath.errors import ValidationError
from atomicpath.storage import flaw_of_key, unusable

__all__ = ["Address", "join", "of_url", "split"]

_PATH_BYTES = 4095  # PATH_MAX without its NUL: Linux's limits.h, and the most that OpenSSH's server takes
_NAME_BYTES = 255  # NAME_MAX, the same
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*)")


@dataclass(frozen=True, slots=True)
class Address:
    """Host, user and port as far as they were given; the user's SSH configuration has the rest."""

    host: str = ""
    username: str = ""
    port: str = ""

    @classmethod
    def of_options(cls, options: dict[str, object]) -> Self:
        """Take the address out of options, and return it."""
        given = {name: options.pop(name, None) for name in ("host", "username", "port")}
        return cls(**{name: str(value) for name, value in given.items() if value not in (None, "")})

    @classmethod
    def of_text(cls, text: str) -> Self:
        user, at, server = text.rpartition("@")
        host, _, port = server.partition(":")
        return cls(host=host, username=user if at else "", port=port)

    def __str__(self) -> str:
        return "".join([f"{self.username}@" if self.username else "", self.host, f":{self.port}" if self.port else ""])

    def lower(self) -> Self:
        """Return the same address, as names of hosts are compared."""
        return replace(self, host=self.host.lower())

    def merged_with(self, other: Address, url: str) -> Address:
        """Return both addresses together; ValidationError if they contradict one another or name no host."""
        chosen = {}
        for name in ("host", "username", "port"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine and theirs and mine != theirs:
                raise unusable(url, f"the URL says {name} {mine!r}, storage_options say {theirs!r}: leave one out")
            chosen[name] = mine or theirs
        merged = Address(**chosen)
        if not merged.host:
            raise unusable(url, "it names no host: sftp://host/path, or storage_options={'host': ...}")
        merged.check(url)
        return merged

    def check(self, url: str) -> None:
        """Raise ValidationError unless the address can be part of a path."""
        if self.host and not _HOST.fullmatch(self.host):
            raise unusable(
                url, f"{self.host!r} is no host's name; an IPv6 address can be given a name in ~/.ssh/config"
            )
        if self.port and not (self.port.isdigit() and 0 < int(self.port) < 65536):
            raise unusable(url, f"{self.port!r} is no port")
        if any(character in self.username for character in "/@:"):
            raise unusable(url, "a user's name with '/', '@' or ':' in it goes into ~/.ssh/config")


def of_url(url: str) -> tuple[Address, str]:
    """Return address and path on the server, "" for its root. ValidationError says why there can be no such place."""
    rest = url.partition("://")[2]
    text, _, path = rest.rstrip("/").partition("/")
    if "?" in rest or "#" in rest:
        raise unusable(url, "fsspec takes what follows '?' or '#' for no part of the path: rename the directory")
    if "[" in text:
        raise unusable(url, "for an IPv6 address, give it a name in ~/.ssh/config")
    try:
        urlsplit(url)
    except ValueError as error:
        raise unusable(url, str(error)) from error
    address = Address.of_text(text)
    address.check(url)
    _check(path, url)
    return address, path


def split(path: str) -> tuple[Address, str]:
    """Return address and path on the server of a backend's path; ValidationError for a name that cannot be there."""
    text, _, remote = path.partition("/")
    address = Address.of_text(text)
    if not address.host:
        raise unusable(f"sftp://{path}", "it names no host: sftp://host/path, or storage_options={'host': ...}")
    _check(remote, f"sftp://{path}")
    return address, remote


def join(address: Address, path: str) -> str:
    """Return the backend's path of an address and a path on the server."""
    return f"{address}/{path}" if path else str(address)


def _check(path: str, url: str) -> None:
    if not path:
        return
    if flaw := flaw_of_key(path, longest=_PATH_BYTES):
        raise unusable(url, flaw.replace("key", "path"))
    longest = max(path.split("/"), key=lambda name: len(name.encode()))
    if len(longest.encode()) > _NAME_BYTES:
        raise ValidationError(
            f"{longest[:40]}... is longer than the {_NAME_BYTES} bytes that a name may have: shorten it"
        )
