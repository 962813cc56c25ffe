"""The commands that change nothing: explain, ls, show, latest, watch, verify."""

from __future__ import annotations

import json
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

import atomicpath

from . import arguments as given
from . import documents
from .commands import command
from .exits import ExitCode, parent_of
from .screen import Stopped, hint, print_document, print_line, print_table, progress, say

if TYPE_CHECKING:
    from atomicpath import CommitRecord

__all__ = ["add"]

_COMMIT = ("name", "step", "committed", "files", "size", "writer")
_NUMBERS = ("step", "files", "size")


def add(app: typer.Typer) -> None:
    """Add these commands to the command line."""

    @command(app, "explain")
    def explain(
        url: given.Url,
        probe: Annotated[bool, typer.Option(help="Try what is not documented for the location")] = True,
        guarantee: given.Assert = None,
        option: given.StorageOption = None,
        options_file: given.OptionsFile = None,
        as_json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        """Show what a location guarantees.

        Each guarantee is shown with its evidence, and at the end the strategy that follows.
        """
        found = atomicpath.explain(
            url,
            probe=probe,
            guarantees=given.guarantees(guarantee),
            storage_options=given.storage_options(option, options_file),
        )
        if as_json:
            print_document(documents.explanation(found))
        else:
            for line in str(found).splitlines():
                print_line(line)
        if found.strategy is None:
            raise Stopped(ExitCode.NO_GUARANTEE)

    @command(app, "ls", reads="root")
    def ls(
        root: given.Root = ".",
        unfinished: Annotated[bool, typer.Option("--all", "-a", help="Also list what has not been committed")] = False,
        prefix: given.Prefix = None,
        step: given.Step = None,
        option: given.StorageOption = None,
        options_file: given.OptionsFile = None,
        as_json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        """List the committed directories below ROOT.

        Only those right below it are listed, oldest first; what is incomplete is named on stderr.
        """
        options = given.storage_options(option, options_file)
        found = atomicpath.committed(root, step=step, prefix=prefix, storage_options=options)
        if not found:
            given.check_root(root)
        commits = [documents.commit(one) for one in found]
        begun = None
        if unfinished:
            begun = [documents.attempt(one) for one in atomicpath.attempts(root, storage_options=options)]
        if as_json:
            print_document({"root": root, "commits": commits, "unfinished": begun})
        else:
            if commits:
                print_table(_COMMIT, [documents.shown(one) for one in commits], right=_NUMBERS)
            if begun:
                if commits:
                    print_line("")
                print_table(("unfinished", "for", "begun", "process", "alive"), [_unfinished(one) for one in begun])
        if not commits:
            _say_why_nothing(root, options, asked_for_all=unfinished, quiet=quiet)
        if begun:
            hint(f"atomicpath sweep --dry-run {quote(root)}", quiet=quiet)

    @command(app, "show")
    def show(
        url: given.Url,
        files: Annotated[bool, typer.Option("--files", "-f", help="Also list every file")] = False,
        option: given.StorageOption = None,
        options_file: given.OptionsFile = None,
        as_json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        """Show the record of a committed directory.

        It says who committed the directory and when, its metadata and its files.
        """
        document = documents.record_of(*_standing_at(url, given.storage_options(option, options_file)))
        if as_json:
            print_document(document)
            return
        print_table(("field", "value"), _fields(document))
        if document["files"] is None:
            say("another tool committed it: there is a marker, and no record")
        elif files:
            print_line("")
            rows = [(file["name"], file["size"], file["sha256"]) for file in document["files"]]
            print_table(("file", "bytes", "sha256"), rows, right=("bytes",))

    @command(app, "latest", reads="root")
    def latest(
        root: given.Root,
        prefix: given.Prefix = None,
        step: given.Step = None,
        option: given.StorageOption = None,
        options_file: given.OptionsFile = None,
        as_json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        """Print the path of the newest one below ROOT.

        The exit code is 3 if nothing is committed right below ROOT.
        """
        options = given.storage_options(option, options_file)
        found = atomicpath.latest(root, step=step, prefix=prefix, storage_options=options)
        if found is None:
            given.check_root(root)
            _say_why_nothing(root, options, quiet=quiet)
            raise Stopped(ExitCode.NOT_COMMITTED)
        if as_json:
            print_document(documents.commit(found))
        else:
            print_line(str(found.path))

    @command(app, "watch", reads="root")
    def watch(
        root: given.Root,
        after: Annotated[int | None, typer.Option("--after", metavar="STEP", help="Only greater steps")] = None,
        count: Annotated[int | None, typer.Option("-n", "--count", min=1, metavar="N", help="End after N")] = None,
        timeout: Annotated[
            str | None, typer.Option("--timeout", metavar="TIME", help="End if nothing new comes for so long: 90s, 10m")
        ] = None,
        prefix: given.Prefix = None,
        step: given.Step = None,
        option: given.StorageOption = None,
        options_file: given.OptionsFile = None,
        as_json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        """Print the path of each new directory.

        First come those that are there, then each one below ROOT as it is committed, a line for each. The exit code is
        3 if fewer came than --count asks for, or none, before the --timeout.
        """
        seen = 0
        for found in atomicpath.watch(
            root,
            after=after,
            timeout=given.duration(timeout).total_seconds() if timeout else None,
            prefix=prefix,
            step=step,
            storage_options=given.storage_options(option, options_file),
        ):
            if as_json:
                print_document(documents.commit(found))
            else:
                print_line(str(found.path))
            seen += 1
            if seen == count:
                return
        if seen < (count or 1):
            say(f"atomicpath watch: {seen} came, and then nothing new for {timeout}")
            raise Stopped(ExitCode.NOT_COMMITTED)

    @command(app, "verify")
    def verify(
        url: given.Url,
        checksums: Annotated[bool, typer.Option("--checksums", help="Also read every file and compare")] = False,
        option: given.StorageOption = None,
        options_file: given.OptionsFile = None,
        as_json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        """Compare a directory with its manifest.

        Every file that is missing, altered or extra is named, and the exit code is 4 if there is one.
        """
        options = given.storage_options(option, options_file)
        with progress("verifying", quiet=quiet) as show:
            found = atomicpath.verify(url, checksums=checksums, progress=show, storage_options=options)
        document = documents.verification(url, found, checksums=checksums)
        problems = [(kind, name) for kind in ("missing", "altered", "extra") for name in document[kind]]
        if as_json:
            print_document(document)
        elif problems:
            print_table(("problem", "file"), problems)
        else:
            print_line(f"{url}: as committed")
        if problems:
            hint(f"atomicpath ls {quote(parent_of(url))}", quiet=quiet)
            raise Stopped(ExitCode.DAMAGED)


def _say_why_nothing(root: str, options: dict[str, object], *, asked_for_all: bool = False, quiet: bool) -> None:
    """Say that nothing is below a root, and whether it is a committed directory itself."""
    try:
        is_one = atomicpath.is_committed(root, storage_options=options)
    except atomicpath.AtomicPathError:  # the listing, which says that nothing is there, is the answer
        is_one = False
    if is_one:
        say(f"{root} is a committed directory itself: pass the directory that it is in")
        hint(f"atomicpath show {quote(root)}", quiet=quiet)
    else:
        say(f"nothing is committed right below {root}")
        if not asked_for_all:
            hint(f"atomicpath ls --all {quote(root)}", quiet=quiet)


def _standing_at(url: str, options: dict[str, object]) -> tuple[str, CommitRecord | None]:
    """Return the path of a committed directory and its record; None for the record if another tool committed it."""
    path = str(atomicpath.resolve(url, storage_options=options))
    try:
        return path, atomicpath.read_record(url, storage_options=options)
    except atomicpath.IntegrityError:  # it is committed, and so its record is not damaged
        return path, None


def _unfinished(document: documents.Document) -> tuple[str | None, ...]:
    alive = {True: "yes", False: "no", None: "unknown"}[document["alive"]]
    return (document["url"], document["final"], documents.moment(document["started"]), document["writer"], alive)


def _fields(document: documents.Document) -> list[tuple[str, object]]:
    """Return the record as rows, without the list of files."""
    rows = [
        ("url", document["url"]),
        ("committed", documents.moment(document["committed"])),
        ("begun", documents.moment(document["started"])),
        ("by", document["writer"]),
        ("strategy", document["strategy"]),
        ("token", document["token"]),
        ("marker", document["marker"]),
        ("files", document["file_count"]),
        ("size", documents.size(document["bytes"])),
        *((f"metadata.{name}", json.dumps(value)) for name, value in document["metadata"].items()),
    ]
    return [(name, value) for name, value in rows if value is not None]
