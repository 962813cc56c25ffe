"""What a local URL means: its path, its place, and access to it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping

from atomicpath.abc import Backend, Environment
from atomicpath.errors import ValidationError

from .storage import LocalStorage

__all__ = ["LocalBackend"]

_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}|[?#]")


class LocalBackend(Backend):
    """Local disks and mounts. Storage options are fsspec's own; nothing here depends on one."""

    protocols = ("file", "local")

    def parse_url(self, url: str) -> str:
        """Return the absolute path of a local path or a `file:` URL (RFC 8089).

        "~" is expanded, and ".." is resolved as the kernel does it. Where a link stands before "..", the link is looked
        up: "link/../x" lies beside what the link points to.
        """
        scheme, colon, rest = url.partition(":")
        path = _path_of(url, rest) if colon and scheme.lower() in self.protocols else url
        if path.startswith("~"):
            path = _expanded(path)
        try:
            path = os.path.abspath(_followed(path)).replace(os.sep, "/")
        except FileNotFoundError as error:
            raise ValidationError(
                f"{url!r} is relative, and the current directory no longer exists: pass an absolute path"
            ) from error
        if path.startswith("//") and os.name == "posix":  # POSIX lets "//x" be another place; Linux, macOS do not
            path = f"/{path.lstrip('/')}"
        if os.path.dirname(path) == path:
            raise ValidationError(f"{url!r} is the root of a file system: name a directory below it")
        return path

    def url(self, path: str) -> str:
        return path

    def open(self, storage_options: Mapping[str, object], environment: Environment) -> LocalStorage:  # noqa: ARG002  see the class
        return LocalStorage(environment)

    def identity(self, path: str, storage_options: Mapping[str, object]) -> str:  # noqa: ARG002  see the class
        return f"file://{platform.node()}{path}"


def _path_of(url: str, rest: str) -> str:
    """Return the path of a `file:` URL, from what follows the colon.

    Raise ValidationError if the URL names another host or none.
    """
    if _ENCODED.search(rest):
        raise ValidationError(
            f"{url!r} has '%', '?' or '#' in it, which RFC 8089 decodes and fsspec does not: pass the path itself"
        )
    if rest.startswith("//"):
        host, _, path = rest[2:].partition("/")
        if host.lower() in ("", "localhost"):
            return f"/{path}"
        raise ValidationError(
            f"{url!r} names the host {host!r}, and a file URL reaches only this one: write file:///path, with three"
            " slashes, or pass the path itself"
        )
    if not rest.startswith("/"):
        raise ValidationError(f"{url!r} has no absolute path in it: write file:///path, or pass the path itself")
    if rest.split("/")[1] == "localhost":
        raise ValidationError(
            f"{url!r} is file://localhost/... of which pathlib has eaten a slash: pass the path itself, {rest[10:]!r}"
        )
    return rest


def _expanded(path: str) -> str:
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        user = path.partition("/")[0]
        raise ValidationError(
            f"{path!r} cannot be expanded: {user!r} has no home directory here. Pass an absolute path, or"
            f" ./{user} for a directory of that name"
        )
    return expanded


def _followed(path: str) -> str:
    """Return the path without "..", as the kernel would walk it. A path that has no ".." is returned unchanged."""
    if os.name != "posix" or ".." not in path.split("/"):
        return path
    walked = "/" if path.startswith("/") else os.getcwd()
    for part in path.split("/"):
        if part == "..":
            walked = os.path.dirname(os.path.realpath(walked) if os.path.islink(walked) else walked)
        elif part not in ("", "."):
            walked = os.path.join(walked, part)
    return walked
