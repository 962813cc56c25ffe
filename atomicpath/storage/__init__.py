"""What backends are built with: access through fsspec, and what every object store needs of a file, a name and a date.

Part of the plug-in surface, with `atomicpath.abc`, `guarantees` and `errors`.
"""

from atomicpath._core.concurrency import in_threads

from .access import (
    AsyncFilesystem,
    FsspecStorage,
    IOLoop,
    PerProcess,
    client_class,
    forget_cached,
    io_loop,
    is_known_to_fsspec,
)
from .budget import CONNECTIONS, memory_for
from .checksums import CRC32, CRC32C, Checksum
from .contact import Link, missing_link
from .fsspec_backend import FsspecBackend, backend_without_plugin
from .many import together
from .names import UNFINISHED, flaw_of_key, unusable
from .options import (
    LEFT_OUT,
    Spelling,
    as_flag,
    as_text,
    as_url,
    check_names,
    configured,
    names_of,
    surroundings,
    translated,
)
from .parts import send_parts
from .ranges import CHUNK, RangeRequest, receive_in_ranges
from .refusals import Refusal, Watch, foreign_answer, of_the_client, refusal_of
from .replies import Answer, Paging
from .sessions import bounds_lookups, repeats_nothing
from .silence import WatchedBytes, WatchedFile, silence_for, watched_pieces
from .source import Source
from .target import age_of, check_length, receive

__all__ = [
    "CHUNK",
    "CONNECTIONS",
    "CRC32",
    "CRC32C",
    "LEFT_OUT",
    "UNFINISHED",
    "Answer",
    "AsyncFilesystem",
    "Checksum",
    "FsspecBackend",
    "FsspecStorage",
    "IOLoop",
    "Link",
    "Paging",
    "PerProcess",
    "RangeRequest",
    "Refusal",
    "Source",
    "Spelling",
    "Watch",
    "WatchedBytes",
    "WatchedFile",
    "age_of",
    "as_flag",
    "as_text",
    "as_url",
    "backend_without_plugin",
    "bounds_lookups",
    "check_length",
    "check_names",
    "client_class",
    "configured",
    "flaw_of_key",
    "foreign_answer",
    "forget_cached",
    "in_threads",
    "io_loop",
    "is_known_to_fsspec",
    "memory_for",
    "missing_link",
    "names_of",
    "of_the_client",
    "receive",
    "receive_in_ranges",
    "refusal_of",
    "repeats_nothing",
    "send_parts",
    "silence_for",
    "surroundings",
    "together",
    "translated",
    "unusable",
    "watched_pieces",
]
