"""What may be an account, a container and a blob's name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from atomicpath.errors import ValidationError
from atomicpath.storage import flaw_of_key, unusable

__all__ = ["DIRECTORY_LENGTH", "KEY_LENGTH", "Address", "split"]

KEY_LENGTH = 1024
"""The longest name of a blob ("Naming and Referencing Containers, Blobs, and Metadata"), counted here in UTF-8."""

DIRECTORY_LENGTH = 900
"""The longest name of a directory: leaves room for the names of its files, ours and probes'."""

_CONTAINER = re.compile(r"\$?[a-z0-9](?:-?[a-z0-9]){0,62}")
_ACCOUNT = re.compile(r"([a-z0-9]{3,24})\.(?:blob|dfs)\.core\.windows\.net", re.IGNORECASE)
_SIGNATURE = re.compile(r"[?&]sig=", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Address:
    """Where something is: `account` is "" unless the URL itself names it; `key` is "" for the container."""

    account: str
    container: str
    key: str

    @property
    def path(self) -> str:
        """Return the backend's path of the address: one text for all URLs that mean this address."""
        top = f"{self.container}@{self.account}.dfs.core.windows.net" if self.account else self.container
        return f"{top}/{self.key}" if self.key else top


def split(path: str, *, longest: int = KEY_LENGTH) -> Address:
    """Return the parts of a path. ValidationError says why no blob can have this path."""
    if _SIGNATURE.search(path):
        raise ValidationError(
            "an Azure URL must not carry a shared access signature: pass sas_token= in storage_options"
        )
    top, _, key = path.partition("/")
    container, separator, host = top.partition("@")
    url = f"abfs://{path}"
    found = _ACCOUNT.fullmatch(host)
    if separator and not found:
        raise unusable(
            url,
            f"{host!r} is no account of the form ACCOUNT.dfs.core.windows.net (for other clouds and endpoints, write"
            " abfs://container/path and pass account_name= and account_host= in storage_options)",
        )
    if not _CONTAINER.fullmatch(container):
        raise unusable(url, f"{container!r} is no container's name")
    if key and (flaw := flaw_of_key(key, longest=longest) or _flaw(key)):
        raise unusable(url, flaw)
    return Address(found[1].lower() if found else "", container, key)


def _flaw(key: str) -> str | None:
    """Return what Azure's rules forbid in a key or advise against, or None.

    Azure advises against a name that its services do not keep apart from another.
    """
    if "\\" in key:
        return "its key has a '\\' in it, which Azure takes for '/'"
    if any(part.endswith(".") for part in key.split("/")):
        return "a part of its key ends with '.', which Azure does not keep"
    return None
