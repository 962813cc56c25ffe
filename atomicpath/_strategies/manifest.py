"""From a listing to the manifest of a record: which files count, whether they are finished, and their checksums."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from atomicpath._core.environment import Environment
from atomicpath._core.layout import RECORD_FILE, is_pending, is_reserved, is_unfinished
from atomicpath._core.record import FileEntry
from atomicpath.abc import Entry, EntryKind, Storage
from atomicpath.errors import ValidationError

__all__ = [
    "Stamps",
    "digest",
    "entries_of",
    "expect_content",
    "expect_finished",
    "expect_settled",
    "manifest_of",
    "stamps_of",
    "still_written",
]

Stamps: TypeAlias = "Mapping[str, tuple[int, int | None]]"
"""By name the size and the time of the last change of files."""

_CHUNK = 1 << 20

_WRITERS = (
    # Orbax: TMP_DIR_SUFFIX in orbax/checkpoint/_src/path/temporary_paths.py; a directory or a file
    (re.compile(r"\.orbax-checkpoint-tmp"), "Orbax"),
    # PyTorch: FileSystemWriter.finish in torch/distributed/checkpoint/filesystem.py renames it to ".metadata"
    (re.compile(r"\.metadata\.tmp\Z"), "torch.distributed.checkpoint"),
    # huggingface_hub/file_download.py: a download that has not come to its end
    (re.compile(r"\.incomplete\Z"), "a download of huggingface_hub"),
    # TensorFlow: BundleWriter in core/util/tensor_bundle/tensor_bundle.cc
    (re.compile(r"\.tempstate[0-9]+\Z"), "a TensorFlow checkpoint"),
    # TensorStore: kLockSuffix in tensorstore/kvstore/file/util.h
    (re.compile(r".\.__lock\Z"), "TensorStore"),
    # rclone: --partial-suffix, after eight hexadecimal digits
    (re.compile(r"\.[0-9a-f]{8}\.partial\Z"), "rclone"),
    # the kernel's NFS client: a file that was deleted and is still open (fs/nfs/unlink.c)
    (re.compile(r"\A\.nfs[0-9a-f]{16,24}\Z"), "a process that has a deleted file open"),
)


def expect_finished(name: str, where: str) -> None:
    """Raise ValidationError if another tool has yet to finish the file `name`.

    The names that those tools use for unfinished files tell that.
    """
    for part in name.split("/"):
        for pattern, writer in _WRITERS:
            if pattern.search(part):
                raise ValidationError(
                    f"{name!r} in {where} is a file that {writer} has not finished: nothing was committed. Wait inside"
                    " the block until it has, or delete what a writer that died has left"
                )


def expect_content(files: Iterable[FileEntry], where: str, *, allow_empty: bool) -> None:
    """Raise ValidationError for a directory without any file, unless `allow_empty`."""
    if not (allow_empty or any(True for _ in files)):
        raise ValidationError(
            f"nothing was written to {where}, and an empty directory was not committed: write inside the block, below"
            " the path that it is given; if an empty one is meant, pass allow_empty=True"
        )


def entries_of(
    listing: Iterable[Entry],
    where: str,
    *,
    reserved: Sequence[str | None] = (RECORD_FILE,),
    own: str | None = None,
    allow_unfinished: bool = True,
) -> tuple[FileEntry, ...]:
    """Return the files to record, without `own`, which is there for another reason.

    Raises:
        ValidationError: Something is not a file, has a `reserved` name or another of our own, or, unless
            `allow_unfinished`, was not finished by another tool.
    """
    files = []
    for entry in listing:
        if is_unfinished(entry.name):
            continue
        if entry.kind is not EntryKind.FILE:
            shown = entry.name if len(entry.name) <= 80 else f"{entry.name[:77]}..."
            raise ValidationError(
                f"{shown!r} in {where} is {entry.kind}, which cannot be committed: what it points to or carries"
                " is not part of the directory. Put a file in its place"
            )
        if entry.name in reserved and entry.name != own:
            raise ValidationError(
                f"{entry.name!r} in {where} has a name that atomicpath writes itself: give your own file another name"
            )
        if not allow_unfinished:
            expect_finished(entry.name, where)
        if entry.name != own:
            files.append(FileEntry(name=entry.name, size=entry.size, etag=entry.version))
    return tuple(files)


async def manifest_of(
    storage: Storage,
    directory: str,
    listing: Iterable[Entry],
    *,
    reserved: Sequence[str | None] = (RECORD_FILE,),
    own: str | None = None,
    checksums: bool,
    allow_unfinished: bool = False,
) -> tuple[FileEntry, ...]:
    """Return the manifest of a directory that has just been listed; it is read once more for `checksums`."""
    files = entries_of(listing, directory, reserved=reserved, own=own, allow_unfinished=allow_unfinished)
    if not checksums:
        return files
    if not storage.is_local:
        raise ValidationError("checksums need the files at hand: use staging (direct=False), or leave checksums out")
    environment = storage.environment
    hashes = [await environment.step(digest, environment, f"{directory}/{file.name}") for file in files]
    return tuple(replace(file, sha256=found) for file, found in zip(files, hashes, strict=True))


def stamps_of(listing: Iterable[Entry], *, besides: str | None = None) -> Stamps:
    """Return the size and modification time of each listed file, by which a later change is noticed.

    Files that atomicpath itself writes, and `besides`, are left out.
    """
    return {
        entry.name: (entry.size, entry.modified)
        for entry in listing
        if not (is_reserved(entry.name) or is_unfinished(entry.name) or is_pending(entry.name) or entry.name == besides)
    }


async def expect_settled(storage: Storage, directory: str, before: Stamps, *, besides: str | None = None) -> None:
    """Raise ValidationError if the files of a local directory are no longer those of the manifest.

    Then somebody is still writing. Call this last before the commit.
    """
    after = stamps_of(await storage.list(directory, recursive=True), besides=besides)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise ValidationError(still_written(changed[0], directory))


def still_written(name: str, where: str) -> str:
    """Return the message about a file that changes while its directory is committed."""
    return (
        f"{name!r} in {where} is still being written: it changed, came or went after the block had ended. Nothing was"
        " committed: finish or close it inside the block, and wait there for threads that write"
    )


def digest(environment: Environment, path: str | os.PathLike[str]) -> str:
    """Compute the SHA-256 of a local file, in hexadecimal."""
    state = hashlib.sha256()
    with environment.call(open, path, "rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()
