"""Reads an argument that names a place: which protocol it means, and by which text a backend finds it.

Every public argument that is a path or a URL is read here and nowhere else, so that no function takes for a local
path what another one takes for a URL. What reads like a URL that was damaged on its way is refused: a directory
`./s3:` that nobody asked for would hold the only copy of a checkpoint.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from upath import UPath

from atomicpath.errors import ValidationError
from atomicpath.storage import is_known_to_fsspec

from .registry import LOCAL, is_local, is_served

__all__ = ["PathLike", "Place", "read"]

PathLike: TypeAlias = str | os.PathLike[str] | UPath

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+")  # at least two letters: one letter and a colon is a drive of Windows
_HOST = re.compile(r"(file|local)://[^/~]", re.IGNORECASE)
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.%]*\]")
_UNREAD = re.compile(r"[?#]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What was passed. `text` is a URL; for a local place it may be a path, which `LocalBackend.path` reads."""

    protocol: str
    text: str = field(repr=False)  # may hold credentials: `str(place)` hides them
    storage_options: Mapping[str, object] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return _shown(self.text)

    @property
    def is_local(self) -> bool:
        """True if the place is on a file system that this host has mounted."""
        return is_local(self.protocol)

    @property
    def is_relative(self) -> bool:
        """True if the current directory decides which place it is."""
        return self.is_local and not self.text.startswith(("/", "~")) and not os.path.isabs(self.text.partition(":")[2])

    def check_read(self) -> None:
        """Raise ValidationError for a query or a fragment.

        No store's URL has one here; as part of a name it is a mistake.
        """
        head, separator, _ = self.text.partition("://")
        if separator and _UNREAD.search(self.text):
            raise ValidationError(
                f"{_shown(self.text)}... has a query or a fragment, which mean nothing in a {head}:// URL here: leave"
                " out what follows '?' or '#', pass options in storage_options, or rename the directory"
            )


def read(place: PathLike) -> Place:
    """Read what place the caller means. No I/O.

    Raise ValidationError for what names no place, or may name two.

    A UPath is believed as it is. Any other path object is a local path, unless it says that it is a URL.
    """
    if not isinstance(place, str) and _is_universal(place):
        text = place.path if is_local(place.protocol or LOCAL) else str(place)  # type: ignore[union-attr]  # see there
        if is_local(place.protocol) and not isinstance(place, pathlib.PurePath):  # type: ignore[union-attr]  # see there
            _refuse_host(place)
        options: Mapping[str, object] = place.storage_options  # type: ignore[union-attr]
    else:
        text, options = _text_of(place), {}
    if not text.strip():
        raise ValidationError("the path is empty: pass a directory or a URL such as s3://bucket/run/step_100")
    if "\0" in text:
        raise ValidationError("a path cannot have a NUL in it")
    if isinstance(place, str) and text != text.strip():
        raise ValidationError(
            f"{_shown(text)!r} begins or ends with white space: strip it, or pass a local path of that name as"
            " pathlib.Path"
        )
    scheme, separator, rest = text.partition("://")
    if not separator or "/" in scheme:
        return Place(protocol=_local_protocol(text), text=text, storage_options=options)
    _refuse_password(scheme, rest)
    _refuse_chain(text)
    if not rest.strip("/") and not is_local(scheme.lower()):
        raise ValidationError(f"{text!r} names no directory: add its path, as in {scheme}://bucket/run/step_100")
    if is_local(scheme.lower()):
        _refuse_eaten(text, rest.split("/"))
    return Place(protocol=scheme.lower(), text=f"{scheme.lower()}://{rest}", storage_options=options)


def _local_protocol(text: str) -> str:
    """Return the protocol of a text that is no URL.

    Raise ValidationError if the text was a URL before a path object changed it.
    """
    first, *others = text.split("/")
    name, colon, _ = first.partition(":")
    _refuse_chain(text)
    _refuse_eaten(text, others)
    if colon and is_local(name.lower()):
        return name.lower()
    if colon and _is_protocol(name):
        raise _eaten(text, name, text.partition(":")[2])
    if first.endswith(":") and _SCHEME.fullmatch(name):
        raise ValidationError(
            f"{_shown(text)!r} is no local path: it reads like a {name}:// URL of which pathlib has eaten a slash, or"
            " like host:/path. Pass a URL as text or UPath, never as pathlib.Path; a local directory of that name is"
            f" ./{first}/..."
        )
    return LOCAL


def _refuse_eaten(text: str, parts: list[str]) -> None:
    """Raise ValidationError if a URL, or "~", stands in the middle of a local path.

    For example, `Path("s3://b/x").absolute()` is such a path.
    """
    for number, part in enumerate(parts):
        name = part[:-1].rpartition("::")[2]
        if part.endswith(":") and _is_protocol(name):
            raise _eaten(text, name, "/".join(parts[number + 1 :]))
        if part == "~":
            raise ValidationError(
                f"{text!r} has '~' in the middle, where nobody expands it: call expanduser() before the path is made"
                " absolute, or pass '~/...' itself"
            )


def _eaten(text: str, name: str, rest: str) -> ValidationError:
    rest = rest.lstrip("/")
    _refuse_password(name, rest)
    url = f"{name.lower()}://{rest}"
    return ValidationError(
        f"{_shown(text)!r} is no local path: pathlib has eaten a slash of {url!r}, or its name was cut. Pass the URL as"
        f" text, {url!r}, or UPath({url!r}); never put it into pathlib.Path or os.path"
    )


def _refuse_chain(text: str) -> None:
    first, chained, _ = _IPV6.sub("", text).partition("::")
    if not chained:
        return
    if "://" in text or _is_protocol(first):
        raise ValidationError(
            f"{_shown(text)!r} is a chained URL, which lays one file system over another: a cache, an archive or a"
            " directory of another one does not pass on what the store below guarantees. Pass the store's own URL"
            + (f", {_shown(text.rpartition('::')[2])!r}" if "://" in text.rpartition("::")[2] else "")
        )


def _refuse_password(protocol: str, rest: str) -> None:
    if _has_password(rest):
        raise ValidationError(f"a {protocol} URL must not carry a password: pass credentials in storage_options")


def _refuse_host(place: object) -> None:
    """Raise ValidationError for a UPath of a URL with a host.

    UPath takes the host in "file://host/x" for the first directory of a relative path.
    """
    made_of = [*getattr(place, "_raw_urlpaths", ()), str(place)]
    with suppress(FileNotFoundError):  # the current directory is gone, and UPath could not have used it either
        made_of[-1] = made_of[-1].replace(f"{os.path.abspath('localhost')}/", "localhost/", 1)
    if any(isinstance(text, str) and _HOST.match(text) for text in made_of):
        raise ValidationError(
            f"UPath takes the host in a file URL for a relative path, {str(place)!r}: pass the path itself"
        )


def _text_of(place: object) -> str:
    if isinstance(place, str):
        return place
    if not isinstance(place, os.PathLike):
        raise ValidationError(
            f"a path is text, an os.PathLike or a UPath, not {type(place).__name__}: pass a directory or a URL such as"
            " s3://bucket/run/step_100"
        )
    if type(place).__module__.partition(".")[0] != "pathlib":  # the standard library's own are local
        elsewhere = next(_said_elsewhere(place), None)
        if elsewhere is not None:  # not asked for its fspath: cloudpathlib would download the file
            raise ValidationError(
                f"a {type(place).__name__} says that it is on {elsewhere}://, and its credentials and its endpoint are"
                " not known here: pass its URL as text, and storage_options"
            )
    text = os.fspath(place)
    if not isinstance(text, str):
        raise ValidationError(f"a path is text, not {type(text).__name__}: pass os.fsdecode(...)")
    shown, separator, _ = str(place).partition("://")
    if separator and _is_protocol(shown) and str(place) != text:
        raise ValidationError(
            f"a {type(place).__name__} is {_shown(str(place))!r} by its text and a local path by its fspath: pass the"
            " one that is meant, as text"
        )
    return text


def _said_elsewhere(place: object) -> Iterator[str]:
    """Yield the protocols of other file systems on which a path object, which is no UPath, says that it is."""
    for name in ("protocol", "scheme", "cloud_prefix"):
        said = getattr(place, name, None)
        protocol = said.partition("://")[0].lower() if isinstance(said, str) else ""
        if protocol and not is_local(protocol):
            yield protocol
    try:
        uri = str(place.as_uri())  # type: ignore[attr-defined]  # asked of whatever it is
    except (AttributeError, ValueError, TypeError):  # has none, or is relative
        return
    protocol, separator, _ = uri.partition("://")
    if separator and not is_local(protocol.lower()):
        yield protocol.lower()


def _is_universal(place: object) -> bool:
    """Tell whether `place` is a UPath, or has the three parts of one and no `os.fspath` of its own."""
    if isinstance(place, UPath):
        return True
    parts = (getattr(place, name, None) for name in ("protocol", "path", "storage_options"))
    return not isinstance(place, pathlib.PurePath | os.PathLike) and all(
        isinstance(part, kind) for part, kind in zip(parts, (str, str, Mapping), strict=True)
    )


def _is_protocol(name: str) -> bool:
    name = name.lower()
    return bool(_SCHEME.fullmatch(name)) and (is_known_to_fsspec(name) or is_served(name))


def _has_password(rest: str) -> bool:
    """Tell whether what follows "://" begins like `user:password@`.

    Secret keys often have a "/" in them.
    """
    user, colon, tail = rest.partition("@")[0].partition(":")
    port, _, _ = tail.partition("/")
    return "@" in rest and bool(colon) and "/" not in user and not port.isdigit()


def _shown(text: str) -> str:
    """Return a text for messages, without what may be a password or a signature."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return text
    if _has_password(rest):
        rest = f"...@{rest.partition('@')[2]}"
    return f"{scheme}://{_UNREAD.split(rest)[0]}"
