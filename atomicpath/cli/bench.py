"""The command `bench`: measures commits at a location beside a plain copy of the same files."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import atomicpath

from . import arguments as given
from . import documents
from .commands import command
from .screen import print_document, print_table, say

if TYPE_CHECKING:
    from upath import UPath

__all__ = ["add"]

_UNITS = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3}
_MOST = 10 * 1000**3  # bytes
_PIECE = 1 << 20
_COMPARED = {
    "plain copy there": "plain copy there",
    "put": "plain copy there",
    "plain copy back": "plain copy back",
    "get": "plain copy back",
}
"""What is measured, and what each is compared with."""


def add(app: typer.Typer) -> None:
    """Add this command to the command line."""

    @command(app, "bench", reads="root")
    def bench(
        root: given.Root,
        size: Annotated[
            str, typer.Option("--size", metavar="BYTES", help="Of all files together: 500k, 64M, 1G")
        ] = "32M",
        files: Annotated[int, typer.Option("--files", min=1, max=10_000, help="How many files")] = 4,
        repeat: Annotated[int, typer.Option("--repeat", min=1, max=20, help="How often; the median is shown")] = 3,
        durable: Annotated[bool, typer.Option(help="Sync to the disk before the commit")] = True,
        guarantee: given.Assert = None,
        option: given.StorageOption = None,
        options_file: given.OptionsFile = None,
        as_json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        """Measure commits below ROOT beside a plain copy.

        Files of random bytes are written below ROOT under random names, and removed again: by a plain copy with
        fsspec, which promises nothing, and by put and get.
        """
        import tempfile

        count = _bytes(size)
        options, asserted = given.storage_options(option, options_file), given.guarantees(guarantee)
        if not quiet:
            say(f"writing {documents.size(count)} below {root} {2 * repeat + 1} times, under random names")
        writing = {"storage_options": options, "guarantees": asserted}
        with tempfile.TemporaryDirectory(prefix="atomicpath-bench-") as directory:
            _fill(Path(directory, "source"), count, files)
            found = _measure(root, Path(directory), writing, repeat=repeat, durable=durable)
        rows: list[documents.Document] = [
            {
                "operation": operation,
                "seconds": found[operation],
                "bytes_per_second": count / found[operation],
                "ratio": found[operation] / found[plain],
            }
            for operation, plain in _COMPARED.items()
        ]
        if as_json:
            print_document({"root": root, "bytes": count, "files": files, "repeat": repeat, "rows": rows})
        else:
            speeds = [one["bytes_per_second"] / 1e6 for one in rows]
            table = [
                (one["operation"], f"{one['seconds']:.3f}", f"{speed:.1f}", f"{one['ratio']:.2f}")
                for one, speed in zip(rows, speeds, strict=True)
            ]
            print_table(("operation", "seconds", "MB/s", "ratio"), table, right=("seconds", "MB/s", "ratio"))


def _measure(root: str, directory: Path, writing: dict[str, Any], *, repeat: int, durable: bool) -> dict[str, float]:
    """Return the median of the seconds of each operation. All that is written at the location is removed again."""
    import shutil
    import statistics

    source, back = directory / "source", directory / "back"
    options = {"storage_options": writing["storage_options"]}
    times: dict[str, list[float]] = {operation: [] for operation in _COMPARED}
    for number in range(-1, repeat):  # the first commit in a process also learns about the location
        url = f"{root.rstrip('/')}/atomicpath-bench-{secrets.token_hex(6)}"
        with _removed(url, writing):
            begun = time.perf_counter()
            made = atomicpath.put(source, url, durable=durable, **writing)
            put = time.perf_counter() - begun
            if number < 0:
                continue
            times["put"].append(put)
            with _timed(times["get"]):
                atomicpath.get(url, back / "get", **options)
            _copy_plainly(made.path, source, back / "plain", times)
        shutil.rmtree(back)
    return {operation: statistics.median(seconds) for operation, seconds in times.items()}


def _copy_plainly(path: UPath, source: Path, back: Path, times: dict[str, list[float]]) -> None:
    """Copy the source beside a committed directory and back, by fsspec, and remove the copy."""
    from atomicpath import StorageError

    files, plain = path.fs, path.parent.joinpath(f"{path.name}-plain").path
    try:
        try:
            with _timed(times["plain copy there"]):
                files.put(f"{source}/", f"{plain}/", recursive=True)
            with _timed(times["plain copy back"]):
                files.get(f"{plain}/", f"{back}/", recursive=True)
        finally:
            if files.exists(plain):
                files.rm(plain, recursive=True)
    except Exception as error:
        raise StorageError(f"the plain copy to {path.name}-plain failed: {type(error).__name__}") from error


@contextmanager
def _removed(url: str, writing: dict[str, Any]) -> Iterator[None]:
    """Remove what was committed in the block, if it was."""
    try:
        yield
    finally:
        with suppress(atomicpath.NotCommittedError):
            atomicpath.remove(url, **writing)


@contextmanager
def _timed(times: list[float]) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    times.append(time.perf_counter() - begun)


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)([kMG]?)B?", text.strip())
    count = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < count <= _MOST:
        raise typer.BadParameter(f"--size {text!r} must be a number with k, M or G, such as 64M, and 10G at most")
    return count


def _fill(directory: Path, count: int, files: int) -> None:
    directory.mkdir()
    for number in range(files):
        left = count // files + (number < count % files)
        with (directory / f"part-{number:05}").open("wb") as file:
            while left:
                left -= file.write(os.urandom(min(left, _PIECE)))
