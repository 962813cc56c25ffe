"""What backends are built with: access through fsspec, and what every object store needs of a file, a name and a date.

Part of the plug-in surface, with `atomicpath.abc`, `guarantees` and `errors`.
"""

from atomicpath.concurrency import in_threads

from .access import AsyncFilesystem, FsspecStorage, IOLoop, io_loop, is_known_to_fsspec, kept, opener
from .contact import Link, missing_link
from .many import together
from .names import UNFINISHED, flaw_of_key, unusable
from .parts import send_parts
from .replies import Answer, Paging
from .sessions import repeats_nothing
from .silence import WatchedBytes, WatchedFile, silence_for, watched_pieces
from .source import Source, bodies
from .target import age_of, check_length, receive

__all__ = [
    "UNFINISHED",
    "Answer",
    "AsyncFilesystem",
    "FsspecStorage",
    "IOLoop",
    "Link",
    "Paging",
    "Source",
    "WatchedBytes",
    "WatchedFile",
    "age_of",
    "bodies",
    "check_length",
    "flaw_of_key",
    "in_threads",
    "io_loop",
    "is_known_to_fsspec",
    "kept",
    "missing_link",
    "opener",
    "receive",
    "repeats_nothing",
    "send_parts",
    "silence_for",
    "together",
    "unusable",
    "watched_pieces",
]
