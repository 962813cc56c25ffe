"""The commands that delete: sweep, keep, rm. Each says with --dry-run what would go, and why."""

from __future__ import annotations

import functools
from typing import Annotated

import typer

import atomicpath

from . import arguments as given
from . import documents
from .commands import command, failed
from .exits import ExitCode, code_of
from .screen import Stopped, confirmed, hint, is_interactive, print_document, print_line, print_table, say

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Add these commands to the command line."""

    @command(app, "sweep", reads="root")
    def sweep(
        root: given.Root,
        older_than: Annotated[
            str, typer.Option("--older-than", metavar="TIME", help="Touch nothing younger: 90s, 10m, 24h, 7d, 2w")
        ] = "24h",
        dry_run: given.DryRun = False,
        option: given.StorageOption = None,
        options_file: given.OptionsFile = None,
        as_json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        """Delete what dead jobs left below ROOT.

        Nothing committed is ever deleted, nor an attempt that may be alive. It asks nothing.
        """
        found = atomicpath.sweep(
            root,
            older_than=given.duration(older_than),
            dry_run=dry_run,
            storage_options=given.storage_options(option, options_file),
        )
        if not found:
            given.check_root(root)
        items = [documents.swept(one) for one in found]
        if as_json:
            print_document({"root": root, "dry_run": dry_run, "items": items})
        elif items:
            rows = [(one["url"], one["found"], _action(one, dry_run=dry_run), _reason(one)) for one in items]
            print_table(("path", "found", "action", "reason"), rows)
        else:
            say(f"nothing is left over below {root}")
        if dry_run and any(one["action"] != "keep" for one in items):
            hint("the same command without --dry-run deletes them", quiet=quiet)
        errors = [one.error for one in found if one.error is not None]
        if errors:
            raise Stopped(code_of(errors[0]) or ExitCode.FAILED)

    @command(app, "keep", reads="root")
    def keep(
        root: given.Root,
        last: Annotated[int | None, typer.Option("-n", "--last", metavar="N", help="Keep the newest N")] = None,
        every_n_steps: Annotated[
            int | None, typer.Option("--every-n-steps", metavar="N", help="Keep those whose step is a multiple of N")
        ] = None,
        every: Annotated[
            str | None, typer.Option("--every", metavar="TIME", help="Keep one for each such time: 10m, 6h, 1d")
        ] = None,
        within: Annotated[
            str | None, typer.Option("--within", metavar="TIME", help="Keep those committed so long before the newest")
        ] = None,
        best: Annotated[int | None, typer.Option("--best", metavar="K", help="Keep the best K by --metric")] = None,
        metric: Annotated[str | None, typer.Option("--metric", metavar="NAME", help="A number in the metadata")] = None,
        maximum: Annotated[bool, typer.Option("--max/--min", help="Which value of the metric is the best")] = False,
        protect: Annotated[
            list[str] | None, typer.Option("--protect", metavar="NAME", help="A name that stays; may be repeated")
        ] = None,
        prefix: given.Prefix = None,
        step: given.Step = None,
        dry_run: given.DryRun = False,
        yes: given.Yes = False,
        guarantee: given.Assert = None,
        option: given.StorageOption = None,
        options_file: given.OptionsFile = None,
        as_json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        """Remove the directories that no rule keeps.

        A directory right below ROOT stays if any rule keeps it; the newest complete one always stays. On a terminal it
        asks first.
        """
        retain = functools.partial(
            atomicpath.retain,
            root,
            keep_last=last,
            keep_every_n_steps=every_n_steps,
            keep_every=given.duration(every) if every else None,
            keep_within=given.duration(within) if within else None,
            keep_best=best,
            metric=metric,
            mode="max" if maximum else "min",
            protect=protect or (),
            prefix=prefix,
            step=step,
            guarantees=given.guarantees(guarantee),
            storage_options=given.storage_options(option, options_file),
        )
        if not dry_run and not yes and is_interactive():
            going = [one.commit.name for one in retain(dry_run=True) if not one.kept]
            if going:
                confirmed(f"remove {len(going)} below {root}: {', '.join(going)}?", yes=yes)
        found = retain(dry_run=dry_run)
        if not found:
            given.check_root(root)
        items = [documents.retained(one, dry_run=dry_run) for one in found]
        if as_json:
            print_document({"root": root, "dry_run": dry_run, "items": items})
        elif items:
            rows = [(one["name"], one["step"], _action(one, dry_run=dry_run), one["reason"]) for one in items]
            print_table(("name", "step", "action", "reason"), rows, right=("step",))
        else:
            say(f"nothing is committed right below {root}")
        if dry_run and any(one["action"] == "remove" for one in items):
            hint("the same command without --dry-run removes them", quiet=quiet)

    @command(app, "rm", reads="urls")
    def rm(
        urls: Annotated[list[str], typer.Argument(metavar="URL...", help="Committed directories")],
        dry_run: given.DryRun = False,
        yes: given.Yes = False,
        guarantee: given.Assert = None,
        option: given.StorageOption = None,
        options_file: given.OptionsFile = None,
        as_json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        """Remove committed directories.

        Readers see each one whole, or not at all. On a terminal it asks first.
        """
        options, asserted = given.storage_options(option, options_file), given.guarantees(guarantee)
        if not dry_run:
            confirmed(f"remove {', '.join(urls)}?", yes=yes)
        items: list[documents.Document] = []
        code = ExitCode.OK
        for url in urls:
            item = {"url": url, "action": "remove", "done": False, "reason": "it was named", "error": None}
            try:
                if dry_run:
                    item["url"] = str(atomicpath.resolve(url, storage_options=options))
                else:
                    atomicpath.remove(url, guarantees=asserted, storage_options=options)
                    item["done"] = True
            except atomicpath.AtomicPathError as error:
                item["action"], item["error"] = "keep", str(error)
                code = code or failed(error, "rm", url, quiet=quiet)
            items.append(item)
        if as_json:
            print_document({"dry_run": dry_run, "items": items})
        else:
            for item in items:
                if item["error"] is None:
                    print_line(f"{'would remove' if dry_run else 'removed'} {item['url']}")
        if code:
            raise Stopped(code)


_WORDS = {"remove": ("would remove", "removed", "not removed"), "mark": ("would mark", "marked", "not marked")}


def _action(item: documents.Document, *, dry_run: bool) -> str:
    if item["action"] == "keep":
        return "kept"
    planned, done, failed = _WORDS[item["action"]]
    return planned if dry_run else done if item["done"] else failed


def _reason(item: documents.Document) -> str:
    return str(item["error"] or item["reason"])
