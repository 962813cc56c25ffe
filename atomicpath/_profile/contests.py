"""Asking a storage in a probe: which replies are answers, which are asked for again, and who has won a race.

A probe judges by what it sees, and a reply may get lost. So a reply that says nothing of the guarantee (a time-out, a
broken connection, 409, 429, 5xx) is asked for again within bounds, and what a race has left is read back: a client that
repeats a write whose reply was lost hears of its own that "something is there", and nobody would seem to have won.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from atomicpath._core.bounded import NoAnswerError
from atomicpath._core.tasks import map_concurrently
from atomicpath.abc import Environment, StaleVersionError, Storage
from atomicpath.errors import AtomicPathError

__all__ = [
    "RACERS",
    "NotShown",
    "Race",
    "Refuted",
    "asked",
    "contest",
    "is_lasting",
    "is_unsupported",
    "names_of",
    "only_winner",
    "race",
]

T = TypeVar("T")

RACERS = 6
_PAUSES = (0.2, 0.4, 0.8)  # seconds before a request is made again: a client has repeated it before, for longer
_OF_NO_USE = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)
_PASSING = (errno.EIO, errno.EBUSY, errno.EAGAIN)
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


class Refuted(Exception):  # noqa: N818 - a finding, not an error
    """The guarantee does not hold; the text says what was seen."""


class NotShown(Exception):  # noqa: N818 - a finding, not an error
    """Nothing was seen that shows the guarantee, and nothing that refutes it; the text says what was heard instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """How a race ended: who was told that he won, and what those heard who were told neither that nor a refusal."""

    won: list[bytes]
    unanswered: list[str]


def is_lasting(error: OSError) -> bool:
    """Tell whether no connection can be made at all.

    Then nothing was sent, and a repetition does not help.
    """
    return isinstance(error, ConnectionError) and error.errno in _OF_NO_USE


def is_unsupported(error: OSError) -> bool:
    """Tell whether the storage says that it does not implement what was asked for."""
    return error.errno in _UNSUPPORTED


def _is_passing(error: Exception) -> bool:
    if isinstance(error, AtomicPathError | NoAnswerError) or not isinstance(error, OSError):
        return False
    return isinstance(error, TimeoutError | ConnectionError) or error.errno in _PASSING


async def asked(environment: Environment, attempt: Callable[[], Awaitable[T]]) -> T:
    """Make one request of a probe, and make it again where the reply is no answer.

    A write that is repeated may meet what an earlier try has written: its caller reads back.

    A write that is repeated may meet what an earlier try has written: its caller reads back.

    Raises:
        OSError: It is an answer; or none came, after all repetitions.
    """
    for pause in _PAUSES:
        try:
            return await attempt()
        except Exception as error:
            if not _is_passing(error) or (isinstance(error, OSError) and is_lasting(error)):
                raise
            if isinstance(error, TimeoutError) and pause != _PAUSES[0]:
                raise  # each try took its full time
        await environment.sleep(pause)
    return await attempt()


async def contest(
    environment: Environment, attempt: Callable[[bytes], Awaitable[object]], racers: int = RACERS
) -> Race:
    """Run several attempts at one thing at once; make each again where its reply is no answer.

    Raises:
        OSError: An attempt was answered neither with success nor with the refusal that the loser of a race hears.
    """
    unanswered: list[str] = []

    async def one(racer: bytes) -> bytes | None:
        doubtful = False

        async def once() -> None:
            nonlocal doubtful
            try:
                await attempt(racer)
            except FileNotFoundError as error:
                if not doubtful:
                    raise
                # the source has gone: an earlier try may have moved it, and the look afterwards tells
                raise FileExistsError(errno.EEXIST, "an earlier try may have succeeded") from error
            except OSError:
                doubtful = True
                raise

        try:
            await asked(environment, once)
        except (FileExistsError, StaleVersionError):
            return None
        except OSError as error:
            if not _is_passing(error) or is_lasting(error):
                raise
            unanswered.append(str(error))
            return None
        return racer

    told = await map_concurrently(names_of(racers), one, at_once=racers)
    return Race(won=[racer for racer in told if racer is not None], unanswered=unanswered)


async def only_winner(storage: Storage, path: str, ended: Race, what: str) -> bytes | None:
    """Return the bytes of the one racer that won, by what `path` holds now.

    Return None if nothing of a racer is there.

    Args:
        storage: Where the race was.
        path: The name that the racers wrote to, each its own bytes.
        ended: What they were told.
        what: They did, as a noun in the plural and a participle: "swaps from one version".

    Raises:
        Refuted: Two were told that they won, or one was, and another's bytes are there.
        NotShown: One was told that it won, and nothing is there.
    """
    if len(ended.won) > 1:
        raise Refuted(f"{len(ended.won)} of {RACERS} concurrent {what} succeeded")
    try:
        found = (await asked(storage.environment, lambda: storage.get(path))).data
    except FileNotFoundError:
        if ended.won:
            raise NotShown(f"one of {RACERS} concurrent {what} succeeded, and nothing was found there") from None
        return None
    if ended.won and found != ended.won[0]:
        raise Refuted(f"the content stored was not that of the one of {RACERS} concurrent {what} that succeeded")
    return found if found in names_of(RACERS) else None


async def race(attempt: Callable[[bytes], Awaitable[object]], racers: int = RACERS) -> list[bytes]:
    """Run several attempts concurrently, and return the racers whose attempts succeeded.

    A refusal is an answer; any other error ends the race.
    """

    async def one(racer: bytes) -> bytes | None:
        try:
            await attempt(racer)
        except (FileExistsError, StaleVersionError):
            return None
        except OSError as error:
            if error.errno == errno.EBUSY:
                return None  # S3 answers 409 to a write that met another under way, and has not done it
            raise
        return racer

    return [racer for racer in await map_concurrently(names_of(racers), one, at_once=racers) if racer is not None]


def names_of(racers: int) -> list[bytes]:
    """Return the names that a race hands to its attempts, all of one length."""
    return [f"racer-{number}".encode() for number in range(racers)]
