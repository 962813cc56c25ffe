"""The `sftp` backend: what its URLs and options mean, and what a place is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from atomicpath.abc import Backend, Environment
from atomicpath.errors import BackendError

from .address import Address, join, of_url, split
from .spellings import in_asyncssh_words

if TYPE_CHECKING:
    from .storage import SftpStorage

__all__ = ["SftpBackend"]


class SftpBackend(Backend):
    """`sftp://user@host:port/path`, whose path is `user@host:port/path`; the path on the server is absolute.

    `storage_options` are those of `sshfs.SSHFileSystem`, that is of `asyncssh.connect`. One thing differs:
    unless `known_hosts` is given, the server's key must be in the user's known_hosts file.
    """

    protocols = ("sftp", "ssh")

    def parse_url(self, url: str) -> str:
        return join(*of_url(url))

    def normalize(self, url: str, storage_options: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
        address, path = of_url(url)
        left = {
            "known_hosts": (),
            **in_asyncssh_words(storage_options),
        }  # sshfs itself would take any server for the one meant
        given = Address.of_options(left)
        return join(address.merged_with(given, url), path), left

    def open(self, storage_options: Mapping[str, object], environment: Environment) -> SftpStorage:
        _need_sshfs()
        from .settings import resolve
        from .storage import open_sftp

        return open_sftp(resolve(storage_options), environment)

    def identity(self, path: str, storage_options: Mapping[str, object]) -> str:
        _need_sshfs()
        from .settings import server_of

        address, remote = split(path)
        server, way = server_of(address.lower(), storage_options)
        return f"{self.url(join(server.lower(), remote))}{f' by way {way}' if way else ''}"


def _need_sshfs() -> None:
    try:
        import sshfs  # noqa: F401 - the only reason why what follows could fail
    except ImportError as error:
        raise BackendError("sftp:// needs sshfs: pip install 'atomicpath[sftp]'") from error
