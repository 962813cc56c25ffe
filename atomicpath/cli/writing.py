"""The commands that write a directory or a name for one: put, get, copy, alias."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

import atomicpath

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
Durable = Annotated[bool, typer.Option(help="Sync to the disk before the commit")]
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
        durable: Durable = True,
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
                **_marker(marker),
            )
        _committed(documents.commit(made), as_json=as_json)

    @command(app, "get", writes="directory")
    def get(
        url: given.Url,
        directory: Annotated[Path, typer.Argument(metavar="DIR", help="The new directory on this host")],
        latest: Annotated[
            bool, typer.Option("--latest", help="URL is a root: fetch its newest one, once for each host, below DIR")
        ] = False,
        verify: Annotated[bool, typer.Option(help="Compare with the manifest on the way")] = True,
        option: given.StorageOption = None,
        options_file: given.OptionsFile = None,
        as_json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        """Download a committed directory to DIR.

        DIR must not exist. It appears whole or not at all. With --latest the newest directory below the root URL is
        fetched into DIR, under its own name; if this host has it there already, its path is printed at once.
        """
        options = given.storage_options(option, options_file)
        with progress("reading", quiet=quiet) as show:
            if latest:
                fetched = atomicpath.fetch_latest(url, directory, storage_options=options)
                if fetched is None:
                    raise atomicpath.NotCommittedError(f"nothing is committed right below {url}")
            else:
                fetched = atomicpath.get(url, directory, verify=verify, progress=show, storage_options=options)
        if as_json:
            print_document({"url": url, "local_dir": str(fetched)})
        else:
            print_line(str(fetched))

    @command(app, "copy", reads="source", writes="url")
    def copy(
        source: Annotated[str, typer.Argument(metavar="SOURCE", help="A committed directory, or an alias")],
        url: given.Url,
        exists: Exists = IfThere.ERROR,
        checksums: Checksums = False,
        metadata: given.Metadata = None,
        marker: Marker = None,
        durable: Durable = True,
        staging_dir: StagingDir = None,
        guarantee: given.Assert = None,
        source_option: Annotated[
            list[str] | None,
            typer.Option("--source-option", metavar="KEY=VALUE", parser=given.pair, help="As -o, for SOURCE"),
        ] = None,
        source_options_file: Annotated[
            Path | None, typer.Option("--source-options-file", metavar="FILE", help="As --options-file, for SOURCE")
        ] = None,
        option: given.StorageOption = None,
        options_file: given.OptionsFile = None,
        as_json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        """Copy a committed directory to URL.

        Every file is compared with the manifest on the way, and the metadata travels. Without options of its own SOURCE
        has those of URL, if both have one protocol.
        """
        with progress("copying", quiet=quiet) as show:
            made = atomicpath.copy(
                source,
                url,
                exists=exists.value,
                checksums=checksums,
                metadata=given.metadata_of(metadata),
                durable=durable,
                staging_dir=staging_dir,
                guarantees=given.guarantees(guarantee),
                source_options=given.storage_options(source_option, source_options_file, variable=given.SOURCE_VARIABLE)
                or None,
                storage_options=given.storage_options(option, options_file),
                progress=show,
                **_marker(marker),
            )
        _committed(documents.commit(made), as_json=as_json)

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
        options = given.storage_options(option, options_file)
        atomicpath.alias(url, target, guarantees=given.guarantees(guarantee), storage_options=options)
        if as_json:
            print_document({"url": url, "target": target})
        else:
            print_line(f"{url} -> {target}")


def _marker(name: str | None) -> dict[str, Any]:
    """Return the argument of that name: none if the library is to choose, and None for no marker."""
    return {} if name is None else {"marker": name or None}


def _committed(document: documents.Document, *, as_json: bool) -> None:
    if as_json:
        print_document(document)
    else:
        print_line(f"committed {document['url']}: {document['file_count']} files, {documents.size(document['bytes'])}")
