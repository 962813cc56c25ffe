"""How a probe is carried out: trials at a place, each bounded in time and cleaned up after, and what their errors mean.

A probe works at the target's parent, in the house-keeping directory, under a random name. It removes what it wrote, and
says in one line what it could not.

Everything that a probe does is bounded in time and runs beside the caller's thread (`bounded`), in both faces: a mount
whose server is gone, or one that answers its callers one at a time, keeps nobody waiting for ever. Where no connection
can be made at all (an untrusted certificate, a dead proxy, no route, an unknown name) the first try is the last.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from atomicpath._core.bounded import BoundedEnvironment, NoAnswerError
from atomicpath._core.environment import cleaning_up, current, use
from atomicpath._core.layout import HOUSEKEEPING, PROBE_PREFIX
from atomicpath.abc import DirectoryStorage, EntryKind, LearningStorage, Storage
from atomicpath.errors import AccessError, AtomicPathError, GuaranteeError
from atomicpath.guarantees import Guarantee

from .abilities import make_shared_directory, need, remove_empty
from .contests import NotShown, Refuted, asked, is_lasting, is_unsupported
from .location import Location
from .trials import LEFT, TRIALS

__all__ = ["Probe", "bounded", "probing"]

_LOG = logging.getLogger("atomicpath")
_PATIENCE = 60.0  # seconds for one trial, and for its clean-up: stores under contention take several
_TRIES = 10  # to make a directory in the house-keeping directory, which others remove when it is empty
_VERSIONED = Guarantee.COMPARE_AND_SWAP | Guarantee.CONDITIONAL_DELETE


@dataclass(slots=True)
class _Left:
    """What could not be deleted."""

    urls: list[str] = field(default_factory=list[str])
    reason: str = ""

    def add(self, place: Location, reason: Exception) -> None:
        self.urls.append(str(place))
        self.reason = self.reason or str(reason)

    def tell(self) -> None:
        """Log one line, if there is anything to say."""
        tops = [url for url in self.urls if not any(url.startswith(f"{other}/") for other in self.urls)]
        if tops:
            _LOG.warning(
                "a probe could not delete what it wrote, and left behind what nobody needs: %s (%s). Delete it, or let"
                " sweep(...) do so once it is old",
                ", ".join(tops),
                self.reason,
            )


class Probe:
    """The trials at one place, one after the other."""

    def __init__(
        self,
        storage: Storage,
        environment: BoundedEnvironment,
        base: Location,
        *,
        directories: DirectoryStorage | None,
    ) -> None:
        self.storage, self.base = storage, base
        self.left = _Left()
        self._environment = environment
        self._directories = directories
        self._has_decided = False
        self._unlearnt: str | None = None

    async def learn(self, due: Guarantee) -> None:
        """Let the storage find out in which form it has to be asked for what is due.

        Raises:
            ConnectionError: There was no answer, and so the trials would have none.
            TimeoutError: The same.
        """
        storage = self.storage
        if not due & _VERSIONED or not isinstance(storage, LearningStorage):
            return
        place = self.base.child("learn")
        has_written = True
        try:
            with self._environment.limit():
                has_written = await asked(self._environment, lambda: storage.learn(place.path))
        except (FileNotFoundError, AccessError):
            has_written = False  # the trials will meet the same, and tell more
        except (ConnectionError, TimeoutError) as error:
            has_written = not (isinstance(error, ConnectionError) and is_lasting(error))
            raise
        except OSError as error:
            self._unlearnt = f"it could not be learnt in which form a version is to be named: {error}"
        finally:
            if has_written:
                await self.clean(place)

    async def run(self, guarantee: Guarantee) -> None:
        """Try one guarantee; return if all went well.

        Raises:
            Refuted: It does not hold.
            NotShown: No answer told.
            AccessError: Nothing can be written there at all, and so nothing found out.
            FileNotFoundError: The same.
            ConnectionError: The same.
            TimeoutError: The same.
        """
        if self._unlearnt and guarantee & _VERSIONED:
            raise NotShown(self._unlearnt)
        place = self.base.child((guarantee.name or "").lower())
        failed: Exception | None = None
        try:
            with self._environment.limit():
                await TRIALS[guarantee](self.storage, place.path)
        except Exception as error:  # noqa: BLE001 - judged, and raised
            failed = error
            judged = self._judged(error)
            if guarantee is Guarantee.EXCLUSIVE_MULTIPART and isinstance(error.__cause__, AccessError):
                self.left.add(place, error)  # uploads that were begun and not completed
            raise judged from (error if judged is not error else error.__cause__)
        finally:
            if failed is None or not self._means_nothing_was_written(failed):
                await self.clean(place, *(place.child(name) for name in LEFT.get(guarantee, ())))
        self._has_decided = True

    def _judged(self, error: Exception) -> Exception:
        """Return what an error of a trial means for its guarantee.

        Return the error itself if there is nothing to find out.
        """
        if isinstance(error, Refuted | NotShown):
            self._has_decided = self._has_decided or isinstance(error, Refuted)
            return error
        if isinstance(error, GuaranteeError):
            return Refuted(f"it was refused: {error}")
        if isinstance(error, OSError) and is_unsupported(error):
            return Refuted(f"the storage does not implement it: {error}")
        if isinstance(error, ConnectionError) and is_lasting(error):
            return error
        if isinstance(error, AccessError | FileNotFoundError | ConnectionError | TimeoutError):
            silent = isinstance(error, NoAnswerError)
            return NotShown(str(error)) if silent or self._has_decided else error
        return NotShown(str(error)) if isinstance(error, OSError | AtomicPathError) else error

    def _means_nothing_was_written(self, error: Exception) -> bool:
        if isinstance(error, AccessError):
            return not self._has_decided
        return isinstance(error, ConnectionError) and is_lasting(error)

    async def clean(self, place: Location, *below: Location) -> None:
        """Remove what is at `place`, and `below` it where it cannot be listed.

        What could not be removed is noted.
        """
        with cleaning_up(place), self._environment.limit():
            try:
                if self._directories and await self._directories.kind(place.path) is EntryKind.DIRECTORY:
                    await self._directories.remove_tree(place.path)
                    return
                listed = await self.storage.list(place.path, recursive=True)
            except AccessError:
                found = [*below, place]
            except (OSError, AtomicPathError) as error:
                if not isinstance(error, FileNotFoundError):
                    self.left.add(place, error)
                return
            else:
                found = [*(place.child(entry.name) for entry in listed), place]
            for one in found:
                await self._delete(one)

    async def _delete(self, place: Location) -> None:
        try:
            await self.storage.delete(place.path)
        except FileNotFoundError:
            return
        except (OSError, AtomicPathError) as error:
            try:
                if await self.storage.stat(place.path) is None:
                    return
            except (OSError, AtomicPathError):
                pass  # then it may be there
            self.left.add(place, error)


def bounded(location: Location) -> tuple[Storage, BoundedEnvironment]:
    """Open a location so that everything done there is bounded in time."""
    environment = BoundedEnvironment(current(), seconds=_PATIENCE)
    with use(environment):
        return location.open(), environment


@asynccontextmanager
async def probing(location: Location, *, with_directories: bool) -> AsyncIterator[Probe]:
    """Open the place of a location, bounded in time, with a base of a random name in the house-keeping directory.

    With `with_directories` the base is a directory, which is removed again.
    """
    storage, environment = bounded(location)
    directories = need(storage, DirectoryStorage, Guarantee.DIRECTORIES) if with_directories else None
    nearest = await _nearest_directory(storage, location) if directories else location.parent
    base = nearest.child(HOUSEKEEPING).child(PROBE_PREFIX + environment.token())
    probe = Probe(storage, environment, base, directories=directories)
    try:
        if directories:
            await _make_base(directories, base)
        yield probe
    finally:
        if directories:
            await probe.clean(base)
            with cleaning_up(base), environment.limit():
                await _remove_empty(storage, base.parent)
        probe.left.tell()


async def _make_base(storage: DirectoryStorage, base: Location) -> None:
    for _ in range(_TRIES):
        await make_shared_directory(storage, base.parent.path)
        try:
            await storage.make_directory(base.path, mode=None, durable=False)
        except FileNotFoundError:
            continue  # another attempt or probe that has ended removed the house-keeping directory meanwhile
        return
    raise FileNotFoundError(errno.ENOENT, "it is removed again and again while something is written there", base.path)


async def _remove_empty(storage: Storage, directory: Location) -> None:
    try:
        await remove_empty(storage, directory.path)
    except (OSError, AtomicPathError) as error:
        _LOG.debug("%s stays, which may be empty: %s", directory, error)


async def _nearest_directory(storage: Storage, location: Location) -> Location:
    """Return where the probes go if directories have to exist.

    That is the target's parent, or its nearest ancestor that exists.
    """
    place = location.parent
    while place.path != "/" and "/" in place.path and await storage.kind(place.path) is None:
        place = place.parent
    return place
