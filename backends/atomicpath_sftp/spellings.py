"""What other libraries call the options of sshfs and asyncssh, as far as the meaning is certain."""

from __future__ import annotations

from collections.abc import Mapping

from atomicpath.storage import Spelling, configured, translated

__all__ = ["in_asyncssh_words"]

_PROTOCOLS = ("ssh", "sftp")


def in_asyncssh_words(options: Mapping[str, object]) -> dict[str, object]:
    """Return options, with paramiko's spellings turned into asyncssh's own.

    Beneath them are the options that fsspec is configured with.
    """
    return configured(_PROTOCOLS, options, lambda some: translated(some, _SPELLINGS))


def _keys(value: object) -> object:
    return [value] if isinstance(value, str) else value


_SPELLINGS = {
    "hostname": Spelling("host"),
    "user": Spelling("username"),
    "key_filename": Spelling("client_keys", _keys),
    "private_key_file": Spelling("client_keys", _keys),
    "private_key_path": Spelling("client_keys", _keys),
}
