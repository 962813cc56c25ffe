"""What is known of an SFTP server by what it says of itself. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from atomicpath.abc import Declaration
from atomicpath.guarantees import Guarantee

__all__ = ["Server", "declaration_of"]

_RENAME = Guarantee.ATOMIC_RENAME | Guarantee.RENAME_NOREPLACE
_TESTABLE = _RENAME | Guarantee.EXCLUSIVE_CREATE | Guarantee.LIST_AFTER_WRITE
_NO_SYNC = (
    "SFTP can sync files (atomicpath does, where the server can) but no directories: a power cut of the server may undo"
    " a commit, with durable=True too"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """`software` is its version string without "SSH-2.0-"; the rest, which extensions its SFTP part announced."""

    software: str
    fsync: bool
    hardlink: bool
    posix_rename: bool
    statvfs: bool
    fstatvfs: bool

    @property
    def is_openssh(self) -> bool:
        """Tell whether both the SSH and the SFTP part are OpenSSH's own, on a system with POSIX renames.

        sshd runs any program as its "sftp" subsystem; those on Go's sftp package, such as rclone, do not announce
        all of these extensions (OpenSSH's PROTOCOL, section 4). The port to Windows unlinks before it renames.
        """
        own = self.fsync and self.hardlink and self.posix_rename and self.statvfs and self.fstatvfs
        return own and self.software.startswith("OpenSSH_") and "Windows" not in self.software


def declaration_of(server: Server, file_system: int | None) -> Declaration:
    """Return what holds on a server.

    `file_system` is the id of the file system at the place: zero or None if the server tells none.

    OpenSSH's server refuses to rename a directory to a name that exists. It then calls rename(2), which refuses if a
    directory that is not empty has come there meanwhile (docs/design/0005-sftp.md). That is as good as the file system
    behind the server. SFTP does not name that file system; but Linux leaves the id of FUSE and network mounts zero, and
    FUSE is where renames merge and copy.
    """
    names = f"{server.software or 'the server'}"
    if not server.is_openssh:
        unknown = f"{names}: nothing is known of what this server does"
        return Declaration(
            observable=Guarantee.DIRECTORIES,
            refutable=_TESTABLE,
            evidence=dict.fromkeys(_TESTABLE | Guarantee.ATOMIC_WRITE, unknown) | {Guarantee.SYNC: _NO_SYNC},
        )
    declared = Guarantee.ATOMIC_WRITE | Guarantee.DIRECTORIES
    evidence = {
        Guarantee.ATOMIC_WRITE: f"{names}: files are written under a private name, then linked or renamed",
        Guarantee.DIRECTORIES: f"{names}: the server's file system has them",
        Guarantee.SYNC: _NO_SYNC,
    }
    if file_system:
        return Declaration(declared=declared, observable=_TESTABLE, evidence=evidence)
    behind = f"{names}: the file system behind it tells no id, as network and FUSE mounts do"
    return Declaration(declared=declared, refutable=_TESTABLE, evidence=evidence | dict.fromkeys(_TESTABLE, behind))
