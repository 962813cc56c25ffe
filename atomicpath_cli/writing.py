"""The commands that write a directory or a name for one: put, get, alias."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

from . import arguments as given
from . import documents
from .commands import command
from .screen import print_document, print_line, progress

__all__ = ["add"]


class IfThere(enum.StrEnum):
    """What to do if a committed directory is at the URL already."""

    ERROR = "error"
    KEEP = "keep"
    REPLACE = "replace"


Exists = Annotated[
    IfThere, typer.Option("--exists", help="What to do if a committed directory is there; keep: succeed with that one")
]

Checksums = Annotated[bool, typer.Option("--checksums", help="Add the SHA-256 of every file to the record")]
StagingDir = Annotated[
    Path | None, typer.Option("--staging-dir", metavar="DIR", help="Where files are staged on this host")
]
Marker = Annotated[
    str | None,
    typer.Option("--marker", metavar="NAME", help='A file that tells other tools that it is complete; "" for none'),
]


def add(app: typer.Typer) -> None:
    """Add these commands to the command line."""

    @command(app, "put")
    def put(
        directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory on this host")],
        url: given.Url,
        exists: Exists = IfThere.ERROR,
        checksums: Checksums = False,
        metadata: given.Metadata = None,
        marker: Marker = None,
        allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Commit a directory without files")] = False,
        durable: Annotated[bool, typer.Option(help="Sync to the disk before the commit")] = True,
        staging_dir: StagingDir = None,
        guarantee: given.Assert = None,
        option: given.StorageOption = None,
        options_file: given.OptionsFile = None,
        as_json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        """Commit a local directory at URL.

        A copy of DIR is committed: readers see all of it or nothing. DIR stays as it is.
        """
        import atomicpath

        more: dict[str, Any] = {} if marker is None else {"marker": marker or None}
        with progress("writing", quiet=quiet) as show:
            made = atomicpath.put(
                directory,
                url,
                exists=exists.value,
                checksums=checksums,
                metadata=given.metadata_of(metadata),
                allow_empty=allow_empty,
                durable=durable,
                staging_dir=staging_dir,
                guarantees=given.guarantees(guarantee),
                storage_options=given.storage_options(option, options_file),
                progress=show,
                **more,
            )
        _committed(documents.commit(made), as_json=as_json)

    @command(app, "get", writes="directory")
    def get(
        url: given.Url,
        directory: Annotated[Path, typer.Argument(metavar="DIR", help="The new directory on this host")],
        verify: Annotated[bool, typer.Option(help="Compare with the manifest on the way")] = True,
        option: given.StorageOption = None,
        options_file: given.OptionsFile = None,
        as_json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        """Download a committed directory to DIR.

        DIR must not exist. It appears whole or not at all.
        """
        import atomicpath

        options = given.storage_options(option, options_file)
        with progress("reading", quiet=quiet):
            local = atomicpath.get(url, directory, verify=verify, storage_options=options)
        if as_json:
            print_document({"url": url, "local_dir": str(local)})
        else:
            print_line(str(local))

    @command(app, "alias")
    def alias(
        url: Annotated[str, typer.Argument(metavar="URL", help="The alias, such as s3://bucket/run/best")],
        target: Annotated[str, typer.Argument(metavar="TARGET", help="A name in the same directory, or its URL")],
        guarantee: given.Assert = None,
        option: given.StorageOption = None,
        options_file: given.OptionsFile = None,
        as_json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        """Have URL lead to a committed directory.

        An alias that is there already moves in one step. Readers follow it, and nothing removes its target.
        """
        import atomicpath

        options = given.storage_options(option, options_file)
        atomicpath.alias(url, target, guarantees=given.guarantees(guarantee), storage_options=options)
        if as_json:
            print_document({"url": url, "target": target})
        else:
            print_line(f"{url} -> {target}")


def _committed(document: documents.Document, *, as_json: bool) -> None:
    if as_json:
        print_document(document)
    else:
        print_line(f"committed {document['url']}: {document['file_count']} files, {documents.size(document['bytes'])}")
