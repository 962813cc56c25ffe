"""How the processes of one run find one another in a store that an earlier run may have used.

Rank 0 gives the run a name. Every other rank asks for it with a word that nobody used before, so that the
answer cannot be an earlier run's, and accepts it, so that rank 0 knows that it answered a living process:

    rank r -> 0   hello(word)            what r sends to 0 is numbered, whichever process sends it
    0 -> rank r   welcome/<word>(run)    created, not overwritten: of two ranks 0 one finds the other's
    rank r -> 0   accept(run)

On the way the sizes of the world are compared, and two processes of the same rank are told apart. The last
rank 0 that came to the store stands in it, numbered: whoever waits long looks there, and so a rank of an
earlier run, or one of two ranks 0, learns that nobody will come to it any more.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from atomicpath._core.environment import current
from atomicpath._core.liveness import lives, this_process
from atomicpath._core.record import Writer
from atomicpath.errors import CoordinationError, CoordinationTimeoutError

from .base import SLICE
from .key_value_store import KeyValues

__all__ = ["Rendezvous"]

_AT_ONCE = 16  # ranks for which one look checks whether a second process has come

Message = dict[str, Any]


class Rendezvous:
    """One process's part in the meeting; `run` is what the keys of this run begin with once it `is_over`."""

    def __init__(self, values: KeyValues, rank: int, world_size: int, name: str) -> None:
        self._values, self._rank, self._world_size, self._name = values, rank, world_size, name
        self._lock = threading.Lock()
        self._run = ""
        self._failure = ""
        self._processes: dict[int, Writer] = {}
        self._word = ""  # used by ranks other than 0
        self._position: dict[int, int] = {}  # used by rank 0: the number of the next message of each rank
        self._used: list[str] = []
        self._number = 0  # number of the run, or of the previous run while that of this one is not known
        self.process: Writer | None = None
        self._next_newcomer = 0
        self.is_over = world_size == 1

    @property
    def run(self) -> str:
        return f"{self._name}/{self._run}"

    def missing(self) -> tuple[int, ...]:
        """Return the ranks that have not been met."""
        if self._rank:
            return () if self.is_over else (0,)
        return tuple(rank for rank in range(1, self._world_size) if rank not in self._processes)

    def ended(self, ranks: Iterable[int]) -> Mapping[int, str]:
        """Return which of these ranks ran on this host and have provably ended, as a `Watch` does.

        Raise CoordinationError if rank 0 has failed, or if another rank 0 has begun another run since.
        """
        environment = current()
        self._check_current()
        known = {rank: self._processes[rank] for rank in ranks if rank in self._processes}
        return {rank: f"{who} has ended" for rank, who in known.items() if lives(environment, who) is False}

    def look(self, seconds: float, waited: float) -> bool:
        """Take part in the meeting for one slice of time; return True if it is over.

        Calls from several threads take turns.
        """
        if not self._lock.acquire(timeout=seconds) if seconds else not self._lock.acquire(blocking=False):
            return self.is_over
        try:
            if self._failure:
                raise CoordinationError(self._failure)
            if not self.is_over:
                self.is_over = self._ask(seconds, waited) if self._rank else self._answer(seconds, waited)
            return self.is_over
        finally:
            self._lock.release()

    # The methods below are for every rank but 0.

    def _ask(self, seconds: float, waited: float) -> bool:
        if not self._word:
            self._word = current().token()
            self._number = _number(self._announcement().get("number"))
            self._post("hello", self._word)
        key = f"{self._name}/welcome/{self._word}"
        answer = self._values.collect([key], seconds, waited).get(key)
        if answer is None:
            self._check_current()
            return False
        welcome = json.loads(answer)
        if "refused" in welcome:
            self._fail(welcome["refused"])
        self._post("accept", welcome["run"])
        self._values.delete(key)
        if welcome["world_size"] != self._world_size:
            self._fail(_sizes(0, welcome["world_size"], self._rank, self._world_size))
        self._processes[0] = Writer(**welcome["process"])
        self._run, self._number = welcome["run"], welcome["number"]
        return True

    def _post(self, kind: str, word: str) -> None:
        number = self._values.count(f"{self._name}/sent/{self._rank}")
        if kind == "hello" and number > 1:
            self._check_alone(self._message(self._rank, number - 1), self._rank)
        message = {"kind": kind, "word": word, **self._introduction()}
        self._values.put(self._from(self._rank, number), json.dumps(message).encode())

    # The methods below are for rank 0.

    def _answer(self, seconds: float, waited: float) -> bool:
        if not self._position:
            self._check_alone(self._announcement(), 0)
            self._run = self._run or current().token()
            self._announce()
            positions = self._get(f"{self._name}/positions")
            self._position = {rank: _number(positions.get(str(rank))) or 1 for rank in range(1, self._world_size)}
        while self.missing():
            expected = {self._from(rank, self._position[rank]): rank for rank in self.missing()}
            found = self._values.collect([*expected], seconds, waited)
            if not found:
                self._check_current()
                return False
            for key, data in found.items():
                self._hear(expected[key], json.loads(data))
                self._used.append(key)
        self._values.put(f"{self._name}/positions", json.dumps(self._position).encode())
        for key in self._used:  # not before their number is written down: a later run begins behind it
            self._values.delete(key)
        return True

    def _hear(self, rank: int, message: Message) -> None:
        self._position[rank] += 1
        if message["kind"] == "hello":
            # should another rank 0 have answered already, it is not alive, or one of us two will see the other's number
            self._welcome(message, {"run": self._run, "number": self._number, **self._introduction()})
        elif message["word"] == self._run:
            if message["world_size"] != self._world_size:
                self._fail(_sizes(0, self._world_size, rank, _number(message["world_size"])))
            self._processes[rank] = _process(message)

    def _welcome(self, hello: Message, welcome: Message) -> None:
        self._values.create(f"{self._name}/welcome/{hello['word']}", json.dumps(welcome).encode())

    def look_for_newcomers(self, waited: float) -> None:
        """Refuse a second process of a rank that is here already: it would otherwise wait for nothing.

        The ranks are asked in turn, and only while rank 0 waits longer anyway.
        """
        if self._rank or waited < SLICE or not self._lock.acquire(blocking=False):
            return
        try:
            ranks = [1 + (self._next_newcomer + more) % (self._world_size - 1) for more in range(_AT_ONCE)]
            self._next_newcomer += _AT_ONCE
            expected = {self._from(rank, self._position[rank]): rank for rank in ranks}
            for key, data in self._values.collect([*expected], 0.0, waited).items():
                rank, message = expected[key], json.loads(data)
                if _process(message) == self._processes[rank]:
                    continue  # the same process begins another run: that is for its rank 0 to answer
                self._position[rank] += 1
                if message["kind"] == "hello":
                    self._welcome(message, {"refused": _twice(rank, self._processes[rank])})
                self._values.put(f"{self._name}/positions", json.dumps(self._position).encode())
                self._values.delete(key)
        finally:
            self._lock.release()

    def _announce(self, failure: str = "", missing: Sequence[int] = ()) -> None:
        self._number = self._values.count(f"{self._name}/runs")
        message = {"number": self._number, "failure": failure, "missing": missing, **self._introduction()}
        self._values.put(f"{self._name}/run", json.dumps(message).encode())

    # The methods below are for every rank.

    def give_up(self, message: str, missing: Sequence[int]) -> str:
        """Give the meeting up for now.

        Rank 0 tells the ranks that it has met. Another rank returns, in words, what it sees of a rank 0.
        """
        if self._rank == 0:
            with self._lock:
                self._announce(message, missing)
            return ""
        announced = self._announcement()
        if not announced:
            return ""
        said = f", which said: {announced['failure']}" if announced.get("failure") else ""
        return (
            f". The last rank 0 to come to this store, of this run or an earlier one, was {_process(announced)} "
            f"with world_size={announced['world_size']}{said}"
        )

    def _fail(self, message: str) -> None:
        self._failure = message
        if not self._rank and self._run:
            self._announce(message)
        raise CoordinationError(message)

    def _check_current(self) -> None:
        """Raise an error unless the last rank 0 that came is ours, and has not failed."""
        announced = self._announcement()
        if _number(announced.get("number")) <= self._number:
            return
        ours = self._ourselves() if self._rank == 0 else self._processes.get(0)
        if missing := announced.get("missing"):  # not an end: the missing rank may come to the next call
            self._number = _number(announced["number"])
            raise CoordinationTimeoutError(str(announced["failure"]), tuple(missing))
        if announced.get("failure"):
            self._fail(str(announced["failure"]))
        if ours is not None and _process(announced) != ours:
            self._failure = (
                f"another rank 0, {_process(announced)}, has begun a run since that of {ours}: two processes say that "
                "they are rank 0, or the job was started again and this process is left over from before"
            )
            raise CoordinationError(self._failure)

    def _ourselves(self) -> Writer:
        if self.process is None:
            self.process = this_process(current())
        return self.process

    def _introduction(self) -> Message:
        return {"world_size": self._world_size, "process": self._ourselves().document()}

    def _check_alone(self, last: Message, rank: int) -> None:
        """Raise CoordinationError if another living process of this host has the same rank."""
        if last and (who := _process(last)) != self._ourselves() and lives(current(), who):
            self._failure = _twice(rank, who)
            raise CoordinationError(self._failure)

    def _announcement(self) -> Message:
        return self._get(f"{self._name}/run")

    def _message(self, rank: int, number: int) -> Message:
        return self._get(self._from(rank, number))

    def _from(self, rank: int, number: int) -> str:
        return f"{self._name}/from/{rank}/{number}"

    def _get(self, key: str) -> Message:
        found = self._values.collect([key], 0.0, 0.0).get(key)
        return json.loads(found) if found is not None else {}


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _process(message: Message) -> Writer:
    return Writer(**message["process"])


def _twice(rank: int, other: Writer) -> str:
    return (
        f"two processes say that they are rank {rank}: this one and {other}. Give every process a rank of its own; "
        "a process that was started again cannot join the others of its run: restart the whole job"
    )


def _sizes(one: int, its_size: int, other: int, others_size: int) -> str:
    return (
        f"rank {one} says world_size={its_size}, rank {other} says world_size={others_size}: "
        "all processes must be started with the same"
    )
