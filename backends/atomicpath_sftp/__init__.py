"""The backend for SFTP servers; only `SftpBackend` is for other packages."""

from .backend import SftpBackend

__all__ = ["SftpBackend"]
