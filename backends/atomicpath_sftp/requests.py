"""One SFTP request each, named as `Storage` needs it, with what the server says of a name in our words."""

from __future__ import annotations

from collections.abc import Sequence

from asyncssh import SFTPAttrs, SFTPName

from .connection import Channel
from .server import Server

__all__ = ["chmod", "look", "mkdir", "posix_rename", "publish", "remove", "rename", "rmdir", "scan", "volume"]


async def look(channel: Channel, remote: str) -> SFTPAttrs:
    """Return what is there itself: links are not followed."""
    return await channel.sftp.lstat(remote)


async def volume(channel: Channel, remote: str) -> tuple[Server, int | None]:
    """Return who answers, and the id of the file system that a path is on; None if the server cannot tell."""
    server = channel.server
    return server, (await channel.sftp.statvfs(remote)).fsid if server.statvfs else None


async def scan(channel: Channel, remote: str) -> Sequence[SFTPName]:
    """Return what is in a directory; links are not followed."""
    return await channel.sftp.readdir(remote)


async def mkdir(channel: Channel, remote: str) -> None:
    """Create a directory that must not exist."""
    await channel.sftp.mkdir(remote)


async def chmod(channel: Channel, remote: str, mode: int) -> None:
    """Set a mode, whatever the umask."""
    await channel.sftp.chmod(remote, mode)


async def rename(channel: Channel, remote: str, target: str) -> None:
    """Rename by SSH_FXP_RENAME of version 3, which fails if anything is at the target.

    See draft-ietf-secsh-filexfer-02, 6.5.
    """
    await channel.sftp.rename(remote, target)


async def posix_rename(channel: Channel, remote: str, target: str) -> None:
    """Rename by the extension, which replaces a file at the target in one step. Never for directories."""
    await channel.sftp.posix_rename(remote, target)


async def publish(channel: Channel, remote: str, target: str) -> bool:
    """Give a file another name, which must not exist; whether it still has the old one too.

    By the extension hardlink@openssh.com where that is known to be link(2). OpenSSH's rename of a file would do on most
    disks, but on one without hard links it looks first and then replaces.
    """
    if channel.server.is_openssh:
        await channel.sftp.link(remote, target)
        return True
    await channel.sftp.rename(remote, target)
    return False


async def remove(channel: Channel, remote: str) -> None:
    """Delete what is not a directory."""
    await channel.sftp.remove(remote)


async def rmdir(channel: Channel, remote: str) -> None:
    """Delete an empty directory."""
    await channel.sftp.rmdir(remote)
