"""Directories of an account with a hierarchical namespace: what only its Data Lake endpoint does."""

from __future__ import annotations

import errno
from typing import Any
from urllib.parse import quote

from azure.core import MatchConditions

from atomicpath.abc import Entry, EntryKind
from atomicpath.errors import ValidationError
from atomicpath.storage import Answer

from .accounts import Account
from .blocks import MARK, version_of
from .errors import Watch
from .names import Address

__all__ = ["check_mode", "list_page", "make", "remove", "rename", "set_mode"]


def check_mode(mode: int) -> str:
    """Return a directory's mode as Azure writes it; ValidationError for bits that Azure does not have."""
    if not 0 <= mode <= 0o1777:
        raise ValidationError(
            f"path_permission_mode {mode:#o} cannot be honoured: Azure has read, write, execute and the sticky bit"
        )
    return f"{mode:04o}"


async def make(account: Account, address: Address, mark: str) -> None:
    """Create a directory that must not exist; the service makes the ancestors it needs ("Path - Create")."""
    condition = MatchConditions.IfMissing
    await _directory(account, address).create_directory(metadata={MARK: mark}, match_condition=condition)


async def set_mode(account: Account, address: Address, mode: str) -> None:
    """Set a directory's mode exactly: at its creation a umask or the parent's default list would change it."""
    await _directory(account, address).set_access_control(permissions=mode)


async def rename(account: Account, source: Address, target: Address, watch: Watch) -> None:
    """Rename a directory to a name that must not exist.

    `If-None-Match: *` is the service's own way to fail rather than overwrite ("Path - Create"), and
    "posix" its default mode: "legacy", which the SDK would ask for, moves into an existing directory.
    """
    # Quoted, because the SDK takes a source's name for quoted: it would look for "a b" instead of "a%20b".
    client = account.lake().get_directory_client(source.container, quote(source.key))
    name = f"{target.container}/{target.key}"
    await client.rename_directory(name, match_condition=MatchConditions.IfMissing, mode="posix")
    if watch.headers.get("x-ms-continuation"):  # only a flat namespace sends this header
        raise OSError(errno.EIO, f"abfs://{source.path} was renamed in part: the account has no hierarchical namespace")


async def remove(account: Account, address: Address) -> None:
    """Delete a directory with all that is below it; the SDK follows the continuations."""
    await _directory(account, address).delete_directory()


async def list_page(
    account: Account, address: Address, *, recursive: bool, size: int, token: str | None
) -> tuple[list[Entry], str | None]:
    """Return one page of what is below a directory, directories included, and the token of the next page."""
    client = account.lake().get_file_system_client(address.container)
    found = client.get_paths(path=address.key or None, recursive=recursive, max_results=size)
    pages: Any = found.by_page(token)
    prefix = len(address.key) + 1 if address.key else 0
    entries = [_entry(item, prefix) async for item in await anext(pages)]
    return entries, pages.continuation_token


def _entry(item: Any, prefix: int) -> Entry:
    if item.is_directory:
        return Entry(name=item.name[prefix:], kind=EntryKind.DIRECTORY)
    found = Answer(f"abfs://{item.name}", "a listing", {"size": item.content_length, "etag": item.etag})
    return Entry(name=item.name[prefix:], size=found.number("size"), version=version_of(found))


def _directory(account: Account, address: Address) -> Any:
    return account.lake().get_directory_client(address.container, address.key)
