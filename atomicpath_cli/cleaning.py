"""The commands that delete: sweep, rm. Each says with --dry-run what would go, and why."""

from __future__ import annotations

from shlex import quote
from typing import Annotated

import typer

from . import arguments as given
from . import documents
from .commands import command, failed
from .exits import ExitCode, code_of
from .screen import Stopped, confirmed, hint, print_document, print_line, print_table, say

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
        """Delete what dead jobs left below ROOT, and never anything committed. It asks nothing."""
        import atomicpath

        found = atomicpath.sweep(
            root,
            older_than=given.duration(older_than),
            dry_run=dry_run,
            storage_options=given.storage_options(option, options_file),
        )
        items = [documents.swept(one) for one in found]
        if as_json:
            print_document({"root": root, "dry_run": dry_run, "items": items})
        elif items:
            rows = [(one["url"], one["found"], _action(one, dry_run=dry_run), _reason(one)) for one in items]
            print_table(("path", "found", "action", "reason"), rows)
        else:
            say(f"nothing is left over below {root}")
        if dry_run and any(one["action"] != "keep" for one in items):
            hint(f"atomicpath sweep {quote(root)}", quiet=quiet)
        errors = [one.error for one in found if one.error is not None]
        if errors:
            raise Stopped(code_of(errors[0]) or ExitCode.FAILED)

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
        """Remove committed directories: readers see each one whole, or not at all."""
        import atomicpath

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


def _action(item: documents.Document, *, dry_run: bool) -> str:
    if item["action"] == "keep":
        return "kept"
    doing = {"remove": "delete", "mark": "add marker"}[item["action"]]
    return f"would {doing}" if dry_run else doing if item["done"] else f"failed to {doing}"


def _reason(item: documents.Document) -> str:
    return str(item["error"] or item["reason"])
