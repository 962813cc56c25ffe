"""What one rank sends and reads in a key-value store, and when each key is deleted again."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence

from atomicpath.errors import CoordinationError

from .key_value_store import KeyValues

__all__ = ["KeyValueTransport"]

_KEPT = 1000  # published values that not every rank is known to have read; older ones are deleted all the same


class KeyValueTransport:
    """All calls block, in worker threads; several may be in it at once. `run` is asked for when the ranks have met."""

    def __init__(self, values: KeyValues, run: Callable[[], str], readers: int) -> None:
        self._values, self._run, self._readers = values, run, readers
        self._lock = threading.Lock()
        self._published: OrderedDict[str, int] = OrderedDict()  # by name: how many ranks have still to read the value
        self._read: dict[int, deque[str]] = {}  # names read here, by the publisher, which has not been told yet
        self._garbage: list[str] = []

    def publish(self, key: str, name: str, value: bytes) -> None:
        """Publish a value for all ranks; CoordinationError if the name has another value already."""
        if self.create(name, value) != value:
            raise CoordinationError(f"the key {key!r} was used before in this job: every call needs one of its own")

    def create(self, name: str, value: bytes, *, keep: bool = True) -> bytes:
        """Create a value under the name, and return the value that all ranks find there from now on.

        With `keep`, the value stays until all ranks have told this rank that they read it. Without `keep`, rank 0
        tracks the value instead, if rank 0 comes.
        """
        found = self._values.create(self._at(name), b"=" + value)[1:]
        if not keep:
            return found
        with self._lock:
            self._published.setdefault(name, self._readers)
            while len(self._published) > _KEPT:
                self._garbage.append(self._published.popitem(last=False)[0])
        self._tidy_if_crowded()
        return found

    def read(self, name: str, publisher: int, seconds: float, waited: float) -> bytes | None:
        """Return what was published under the name.

        The next message to the publisher tells it that the value was read.
        """
        found = self._values.collect([self._at(name)], seconds, waited).get(self._at(name))
        if found is None:
            return None
        with self._lock:
            self._read.setdefault(publisher, deque(maxlen=_KEPT)).append(name)
        return found[1:]

    def send(self, name: str, to: int, value: bytes) -> None:
        """Send a message to one rank. The message also says which of that rank's own values were read here."""
        with self._lock:
            read = json.dumps([*self._read.pop(to, ())]).encode()
        self._values.put(self._at(name), len(read).to_bytes(4, "big") + read + value)
        self._tidy_if_crowded()

    def receive(self, names: Sequence[str], seconds: float, waited: float) -> Mapping[str, bytes]:
        """Return the messages that were sent to this rank, by name, waiting at most `seconds` for all of them."""
        keys = {self._at(name): name for name in names}
        found = self._values.collect([*keys], seconds, waited)
        return {keys[key]: self._unpack(data) for key, data in found.items()}

    def seen(self, names: Sequence[str], seconds: float, waited: float) -> set[str]:
        """Return which of these messages are there, whichever rank they were sent to."""
        keys = {self._at(name): name for name in names}
        return {keys[key] for key in self._values.collect([*keys], seconds, waited)}

    def discard(self, names: Sequence[str]) -> None:
        """Have messages that nobody needs any more deleted at some later call."""
        with self._lock:
            self._garbage += names

    def tidy(self) -> None:
        """Delete what was discarded: at a moment at which others are waited for anyway."""
        with self._lock:
            garbage, self._garbage = self._garbage, []
        for name in garbage:
            self._values.delete(self._at(name))

    def _tidy_if_crowded(self) -> None:
        if len(self._garbage) > _KEPT:
            self.tidy()

    def _unpack(self, data: bytes) -> bytes:
        """Return a message's content, and mark for deletion what every rank has read by now."""
        end = 4 + int.from_bytes(data[:4], "big")
        with self._lock:
            for read in json.loads(data[4:end]):
                if read in self._published:
                    self._published[read] -= 1
                    if not self._published[read]:
                        del self._published[read]
                        self._garbage.append(read)
        return data[end:]

    def _at(self, name: str) -> str:
        return f"{self._run()}/{name}"
