"""Options of a store as its client takes them, whoever named them, and however.

What a place is, what is declared of it and which client asks there are read from one set of options, resolved once.
Here is what that takes on every store: the options that fsspec is configured with, names that other libraries give to
the same thing, names that nobody knows, and what clients read from the process's environment besides.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from atomicpath.errors import ValidationError

from .access import configuration

__all__ = [
    "LEFT_OUT",
    "Spelling",
    "as_flag",
    "as_text",
    "as_url",
    "check_names",
    "configured",
    "names_of",
    "surroundings",
    "translated",
]

LEFT_OUT = object()
"""The result of reading an option that asks for nothing: what it says is so anyway."""

_FSSPEC = frozenset({"skip_instance_cache", "use_listings_cache", "listings_expiry_time", "max_paths"})
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def as_text(value: object) -> object:
    """Read an option that is text. ValueError says what it should be, and does not show what it is."""
    if not isinstance(value, str):
        raise ValueError("must be text")  # noqa: TRY004 - as of every value that cannot be read
    return value


def as_url(value: object) -> object:
    """Read an option that is a URL; a host alone does not say whether its connection is encrypted."""
    if not isinstance(value, str) or "://" not in value:
        raise ValueError("must be a URL such as https://host:9000")
    return value


def as_flag(value: object) -> bool:
    """Read an option that is true or false, or one of these in words."""
    found = _FLAGS.get(str(value).lower())
    if found is None:
        raise ValueError("must be True or False")
    return found


@dataclass(frozen=True, slots=True)
class Spelling:
    """What another library's option is here: its name, with "." before one in a dictionary, and its value.

    `read` turns the value into ours, or into `LEFT_OUT`; its `ValueError` says what the value must be.
    """

    name: str
    read: Callable[[object], object] = as_text


def configured(
    protocols: Sequence[str],
    options: Mapping[str, object],
    in_our_words: Callable[[Mapping[str, object]], dict[str, object]],
) -> dict[str, object]:
    """Return options in our words, and beneath them those that fsspec's configuration has for these protocols.

    One that is given takes the place of one that is configured, whole, as it does for fsspec's own instances.
    """
    return {**in_our_words(configuration(protocols)), **in_our_words(options)}


def translated(
    options: Mapping[str, object], spellings: Mapping[str, Spelling], *, prefixes: Sequence[str] = ()
) -> dict[str, object]:
    """Return options with other libraries' spellings in ours; a name that has none stays as it is.

    `spellings` has names in lower case with "_" between words and without any of the `prefixes`: "AWS_REGION",
    "s3.region" and "awsRegion" are all "region".

    Raises:
        ValidationError: A value cannot be read, or two spellings of one option have different values.
    """
    found: dict[str, object] = {}
    named: dict[str, str] = {}
    for name, value in options.items():
        spelling = spellings.get(_normal(name, prefixes))
        if spelling is None or spelling.name == name:
            found[name] = _copied(value)
            named[name] = name
    for name, value in options.items():
        spelling = spellings.get(_normal(name, prefixes))
        if spelling is None or spelling.name == name or value is None:
            continue
        try:
            read = spelling.read(value)
        except ValueError as error:
            raise ValidationError(f"the option {name!r} of storage_options {error}") from None
        if read is not LEFT_OUT:
            _put(found, named, spelling.name, read, said=name)
    return found


def check_names(options: Iterable[str], known: Iterable[str], library: str) -> None:
    """Raise ValidationError that names the first option that is none of `known`, and those that exist."""
    names = frozenset(known)
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise ValidationError(
                f"{name!r} in storage_options is no option of {library}"
                + (f" (is {near[0]!r} meant?)" if near else "")
                + f"; it has {', '.join(sorted(names))}"
            )


def names_of(*callables: Callable[..., object]) -> frozenset[str]:
    """Return the names of the arguments of functions and of classes, with their bases, and those that fsspec takes."""
    found = set(_FSSPEC)
    for each in callables:
        for one in inspect.getmro(each) if inspect.isclass(each) else (each,):
            for name, parameter in inspect.signature(one.__init__ if inspect.isclass(one) else one).parameters.items():
                if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) and name != "self":
                    found.add(name)
    return frozenset(found)


def surroundings(variables: Iterable[str], files: Iterable[str | None] = ()) -> str:
    """Return a digest of environment variables and of files that a client reads.

    The digest changes when one of them does.

    `variables` are names, or the beginnings of names that end with "_".
    """
    names = tuple(variables)
    prefixes = tuple(name for name in names if name.endswith("_"))
    seen = sorted((name, value) for name, value in os.environ.items() if name in names or name.startswith(prefixes))
    return hashlib.sha256(repr((seen, [_state(file) for file in files])).encode()).hexdigest()


def _state(file: str | None) -> object:
    try:
        found = os.stat(os.path.expanduser(file)) if file else None
    except (OSError, ValueError):  # a client that needs the file reports the error
        return None
    return found and (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _normal(name: str, prefixes: Sequence[str]) -> str:
    plain = _HUMP.sub("_", name) if not name.isupper() else name
    plain = re.sub(r"[.\-]", "_", plain).lower()
    for prefix in prefixes:
        plain = plain.removeprefix(prefix)
    return plain


def _put(found: dict[str, object], named: dict[str, str], target: str, value: object, *, said: str) -> None:
    first, dot, rest = target.partition(".")
    if dot:
        inner = found.setdefault(first, {})
        if inner is None:
            inner = found[first] = {}
        if not isinstance(inner, dict):
            raise ValidationError(f"the option {first!r} of storage_options must be a dictionary")
        _put(inner, named, rest, value, said=said)
    elif found.get(target) not in (None, value):
        other = named.get(target, target)
        raise ValidationError(
            f"the options {other!r} and {said!r} of storage_options are two spellings of one and differ: leave one out"
        )
    else:
        found[target] = value
        named[target] = said


def _copied(value: object) -> object:
    return {name: _copied(item) for name, item in value.items()} if isinstance(value, dict) else value
