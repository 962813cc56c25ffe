"""Arguments that several commands take, and how their text becomes what the library takes.

No message repeats the text of a storage option: it may be a secret.
"""

from __future__ import annotations

import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import atomicpath

if TYPE_CHECKING:
    from atomicpath import Guarantee

__all__ = [
    "SOURCE_VARIABLE",
    "VARIABLE",
    "Assert",
    "DryRun",
    "Json",
    "Metadata",
    "OptionsFile",
    "Prefix",
    "Quiet",
    "Root",
    "Step",
    "StorageOption",
    "Url",
    "Yes",
    "check_root",
    "duration",
    "guarantees",
    "metadata_of",
    "pair",
    "storage_options",
]

VARIABLE = "ATOMICPATH_STORAGE_OPTIONS"
"""The environment variable that holds storage options as a JSON object."""

SOURCE_VARIABLE = "ATOMICPATH_SOURCE_OPTIONS"
"""The same for the source of a copy."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def pair(text: str) -> str:
    """Refuse at once what is no pair, before anything else on the command line is looked at, and repeat none of it."""
    name, separator, value = text.partition("=")
    if not separator or not name.strip() or not value:
        raise typer.BadParameter('pass KEY=VALUE, without white space around "="; an empty text is KEY=\'""\'')
    return text


Url = Annotated[str, typer.Argument(metavar="URL", help="A directory: a path, or a URL such as s3://bucket/run/step_1")]
Root = Annotated[str, typer.Argument(metavar="ROOT", help="The directory that holds the committed ones")]
StorageOption = Annotated[
    list[str] | None,
    typer.Option("-o", "--option", metavar="KEY=VALUE", parser=pair, help="A storage option; the value may be JSON"),
]
OptionsFile = Annotated[
    Path | None,
    typer.Option("--options-file", metavar="FILE", help="Storage options from a JSON or TOML file, by its ending"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs, in place of text for people")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no hints on stderr")]
Prefix = Annotated[
    str | None, typer.Option("--prefix", metavar="TEXT", help="Only names that begin with it, as one series")
]
Step = Annotated[
    str | None,
    typer.Option("--step", metavar="REGEX", help="How a name tells its step: an expression with one group"),
]
Assert = Annotated[
    list[str] | None,
    typer.Option("--guarantee", metavar="NAME", help="A guarantee that you know to hold there; may be repeated"),
]
Metadata = Annotated[
    list[str] | None,
    typer.Option("-m", "--metadata", metavar="KEY=VALUE", parser=pair, help="Metadata; the value may be JSON"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Delete nothing; show what would be deleted, and why")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, even on a terminal")]


def storage_options(pairs: list[str] | None, file: Path | None, *, variable: str = VARIABLE) -> dict[str, object]:
    """Return the storage options of the environment variable, the file and the command line; the later one wins."""
    found: dict[str, object] = {}
    text, source = os.environ.get(variable, ""), f"the environment variable {variable}"
    if text.strip():
        found |= _mapping(_json(text, source), source)
    if file is not None:
        found |= _from_file(file)
    return found | _values(pairs)


def metadata_of(pairs: list[str] | None) -> dict[str, Any] | None:
    """Return metadata as `commit` takes it; None if there is none."""
    return _values(pairs) or None


def guarantees(names: list[str] | None) -> Guarantee | None:
    """Return the guarantees of these names; None without a name."""
    from atomicpath import Guarantee

    found: Guarantee | None = None
    for name in [part.strip().upper() for text in names or () for part in re.split(r"[,|]", text)]:
        if name not in Guarantee.__members__:
            raise typer.BadParameter(f"no guarantee is called {name!r}. There are {', '.join(Guarantee.__members__)}")
        found = Guarantee[name] if found is None else found | Guarantee[name]
    return found


def check_root(root: str) -> None:
    """Raise NotCommittedError if a local root is not there; a store has no directories that could be missing."""
    from upath import UPath

    path = UPath(root).expanduser() if "://" in root else Path(root).expanduser()
    if getattr(path, "protocol", "") in ("", "file", "local") and not path.exists():
        raise atomicpath.NotCommittedError(f"{root} is not there: check the spelling, or the current directory")


def duration(text: str) -> timedelta:
    """Return a duration such as `90s`, `10m`, `24h`, `7d` or `2w`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration: pass a number and a unit (s, m, h, d, w), such as 24h")
    try:
        return timedelta(seconds=float(found[1]) * _SECONDS[found[2]])
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is too long") from None


def _values(pairs: list[str] | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs or ():
        name, _, text = pair.partition("=")
        try:
            found[name.strip()] = json.loads(text)
        except ValueError:
            found[name.strip()] = text
    return found


def _from_file(file: Path) -> dict[str, object]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise typer.BadParameter(f"--options-file {file} cannot be read: {reason}") from None
    kind = file.suffix.lower().removeprefix(".")
    if kind == "json":
        return _mapping(_json(text, f"--options-file {file}"), f"--options-file {file}")
    if kind == "toml":
        import tomllib

        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            where = re.search(r"line \d+", str(error))
            at = f" ({where[0]})" if where else ""
            raise typer.BadParameter(f"--options-file {file} is not readable TOML{at}") from None
    raise typer.BadParameter(f"--options-file {file} is neither JSON nor TOML by its ending: rename it")


def _json(text: str, source: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"{source} is not readable JSON (line {error.lineno}, column {error.colno})") from None


def _mapping(value: object, source: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{source} must hold an object of options, such as {{'anon': true}}".replace("'", '"'))
    return value
