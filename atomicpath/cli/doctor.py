"""The command `doctor`: tries at a location what a commit needs, and says what works and what it costs."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import typer

import atomicpath

from . import arguments as given
from . import documents
from .commands import command
from .exits import ExitCode, code_of, hint_for, parent_of
from .screen import Stopped, hint, print_document, print_table, say

if TYPE_CHECKING:
    from atomicpath import Guarantee

__all__ = ["add"]

P = ParamSpec("P")
T = TypeVar("T")

_PACKAGES = ("atomicpath", "fsspec", "s3fs", "aiobotocore", "gcsfs", "adlfs", "sshfs")


def add(app: typer.Typer) -> None:
    """Add this command to the command line."""

    @command(app, "doctor")
    def doctor(
        url: given.Url,
        guarantee: given.Assert = None,
        option: given.StorageOption = None,
        options_file: given.OptionsFile = None,
        as_json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        """Try what a commit needs beside URL.

        It commits one small directory of a random name beside URL, reads it, lists it and removes it. Nothing that is
        there is touched.
        """
        examination = Examination(url, given.storage_options(option, options_file), given.guarantees(guarantee))
        if not quiet:
            say(f"trying one small directory of a random name in {parent_of(url)}, which is removed again")
        examination.run()
        if as_json:
            print_document(examination.document())
        else:
            rows = [
                (one["check"], "ok" if one["ok"] else "FAILED", " ".join(one["detail"].split()))
                for one in examination.checks
            ]
            print_table(("check", "result", "detail"), rows)
        if examination.error is not None:
            hint(hint_for(examination.error, "doctor", url), quiet=quiet)
            raise Stopped(code_of(examination.error) or ExitCode.FAILED)


class Examination:
    """The checks of one location, in their order. After one that fails, those that need it are left out."""

    def __init__(self, url: str, options: dict[str, object], asserted: Guarantee | None) -> None:
        self.url = url
        self.checks: list[documents.Document] = []
        self.error: BaseException | None = None
        self._options = options
        self._asserted = asserted
        self._target = ""
        self._strategy: str | None = None
        self._requests: int | None = None
        self._calls: int | None = None
        self._seconds: float | None = None

    def document(self) -> documents.Document:
        """Return what was found as an object."""
        return {
            "url": self.url,
            "ok": self.error is None,
            "strategy": self._strategy,
            "commit_requests": self._requests,
            "commit_calls": self._calls,
            "commit_seconds": self._seconds,
            "checks": self.checks,
        }

    def run(self) -> None:
        """Make every check. An error of the library ends them; it is kept as `error`."""
        import tempfile

        self._check("software", _software)
        if not self._check("guarantees", self._explain) or not self._check("list", self._list):
            return
        place = parent_of(self.url)
        self._target = f"{'' if place == '.' else place.rstrip('/') + '/'}atomicpath-doctor-{secrets.token_hex(6)}"
        with tempfile.TemporaryDirectory(prefix="atomicpath-doctor-") as directory:
            Path(directory, "file").write_bytes(b"x" * 1024)
            try:
                if self._check("write", lambda: self._write(directory)):
                    self._check("read", self._read)
            finally:
                deleted = self._check("delete", self._delete)
            if deleted and self.error is None:
                self._check("cost", lambda: self._cost(directory))

    def _check(self, name: str, look: Callable[[], str]) -> bool:
        try:
            detail = look()
        except Exception as error:
            if code_of(error) is None:
                raise
            self.error = self.error or error
            self.checks.append({"check": name, "ok": False, "detail": str(error)})
            return False
        self._note(name, detail)
        return True

    def _note(self, name: str, detail: str) -> None:
        self.checks.append({"check": name, "ok": True, "detail": detail})

    def _explain(self) -> str:
        found = atomicpath.explain(self.url, storage_options=self._options, guarantees=self._asserted)
        if found.strategy is None:
            raise atomicpath.GuaranteeError(found.reason)
        self._strategy = found.strategy.__name__
        return f"commits use {self._strategy}: {found.profile.effective}"

    def _list(self) -> str:
        found = atomicpath.attempts(parent_of(self.url), storage_options=self._options)
        return f"{len(found)} unfinished attempts are there" if found else "nothing unfinished is there"

    def _write(self, directory: str) -> str:
        self._put(directory)
        return f"committed {self._target}"

    def _put(self, directory: str) -> None:
        atomicpath.put(directory, self._target, storage_options=self._options, guarantees=self._asserted)

    def _read(self) -> str:
        found = atomicpath.verify(self._target, storage_options=self._options)
        if not found.ok:
            raise atomicpath.IntegrityError(f"{self._target} is not as it was committed: {found}")
        return "it is as it was committed"

    def _delete(self) -> str:
        try:
            atomicpath.remove(self._target, storage_options=self._options, guarantees=self._asserted)
        except atomicpath.NotCommittedError:
            return "nothing was left to remove"
        return "removed it"

    def _cost(self, directory: str) -> str:
        """Commit once more: the first commit in a process also learns about the location."""
        try:
            with _counted() as count:
                begun = time.perf_counter()
                self._put(directory)
                self._seconds = time.perf_counter() - begun
        finally:
            self._delete()
        self._requests, self._calls = count["request"], count["call"]
        took = f"in {self._seconds * 1000:.0f} ms"
        if self._requests:
            return f"a commit of one file sends {self._requests} requests, {took}"
        return f"a commit of one file makes {self._calls} system calls, {took}"


@contextmanager
def _counted() -> Iterator[Counter[str]]:
    """Count the requests and the system calls of the block."""
    from atomicpath._core.environment import use
    from atomicpath.abc import Environment

    count: Counter[str] = Counter()
    lock = threading.Lock()

    def add_one(kind: str) -> None:
        with lock:
            count[kind] += 1

    class Counted(Environment):
        def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
            add_one("call")
            return super().call(function, *args, **kwargs)

        async def request(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
            add_one("request")
            return await super().request(function, *args, **kwargs)

    with use(Counted()):
        yield count


def _software() -> str:
    import importlib.metadata
    import platform

    found = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)
