"""The backend for the file systems this host has mounted; only `LocalBackend` is for other packages."""

from .backend import LocalBackend

__all__ = ["LocalBackend"]
