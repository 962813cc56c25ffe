#!/usr/bin/env python3
"""Check the model of the commit-file protocol: safe as designed, unsafe without any of its rules, and not empty.

Needs spin and a C compiler. Prints a table and exits with 1 unless every configuration is as expected.
`--quick` leaves out what takes long, which is for a change of the model.
`--trail NAME` prints the shortest way to the violation of one configuration, as changes of the store.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).with_name("commit_file.pml")
SAFE, UNSAFE, REACHED = "safe", "unsafe", "reached"
MEGABYTES, SECONDS = 2500, 600
NAMES = ("data 0", "data 1", "marker", "record", "inner record")


@dataclass(frozen=True)
class Case:
    """One configuration. `bits`: of a search that may miss states (supertrace); 0: every state is visited.

    `long`: it takes more than some twenty seconds, and is left out by `--quick`, as every search that may miss states.
    """

    name: str
    flags: str
    expected: str = SAFE
    bits: int = 0
    long: bool = False

    @property
    def witness(self) -> str:
        found = re.search(r"WITNESS=(\d+)", self.flags)
        return f"({found[1]}!={found[1]})" if found else ""


@dataclass(frozen=True)
class Outcome:
    """What the search found; `states` it stored."""

    verdict: str
    states: int
    seconds: float


CASES = [
    Case("two writers, both cleaners, a loss", "-DSWEEPERS=1 -DREMOVERS=1 -DLOSSES=1", bits=25),
    Case("three writers, a sweeper, a remover", "-DWRITERS=3 -DSWEEPERS=1 -DREMOVERS=1", bits=25),
    Case("three writers, a loss, renewals", "-DWRITERS=3 -DLOSSES=1 -DRENEW", bits=25),
    Case("three writers", "-DWRITERS=3 -DTRIES=1 -DCLAIMS=1", long=True),
    Case("two writers, a remover, a loss", "-DREMOVERS=1 -DLOSSES=1", long=True),
    Case("two writers, two losses", "-DLOSSES=2 -DTRIES=1", long=True),
    Case("two writers, a sweeper", "-DSWEEPERS=1"),
    Case("one writer, both cleaners, two losses", "-DWRITERS=1 -DSWEEPERS=1 -DREMOVERS=1 -DLOSSES=2", long=True),
    Case("one writer, both cleaners, a duplicate", "-DWRITERS=1 -DSWEEPERS=1 -DREMOVERS=1 -DLOSSES=1 -DDUPLICATES"),
    Case("two writers, a loss, renewals", "-DLOSSES=1 -DRENEW"),
    Case("two writers, a loss or duplicate", "-DLOSSES=1 -DDUPLICATES"),
    Case("two writers, a remover", "-DREMOVERS=1"),
    Case("two writers", ""),
    Case("two writers, a copied object", "-DCOPIES=1"),
    Case("two writers, two copied objects, a remover", "-DCOPIES=2 -DREMOVERS=1", long=True),
    Case("two writers, another place inside", "-DNESTED"),
    Case("two writers, another place inside, a remover", "-DNESTED -DREMOVERS=1", long=True),
    Case(
        "one writer, another place, both cleaners, a loss", "-DWRITERS=1 -DNESTED -DSWEEPERS=1 -DREMOVERS=1 -DLOSSES=1"
    ),
    Case("two writers, another place inside, a sweeper", "-DNESTED -DSWEEPERS=1", bits=25),
    Case("timed deletes: two writers, a loss", "-DTIMED -DLOSSES=1"),
    Case(
        "timed deletes: one writer, both cleaners, a loss", "-DTIMED -DWRITERS=1 -DSWEEPERS=1 -DREMOVERS=1 -DLOSSES=1"
    ),
    Case("timed deletes: two writers, a remover", "-DTIMED -DREMOVERS=1"),
    Case("timed deletes: two writers, a sweeper", "-DTIMED -DSWEEPERS=1", long=True),
    Case("timed deletes: two writers, a copied object", "-DTIMED -DCOPIES=1 -DLOSSES=1", long=True),
    Case("timed deletes: two writers, both cleaners, a loss", "-DTIMED -DSWEEPERS=1 -DREMOVERS=1 -DLOSSES=1", bits=25),
    Case("timed deletes: three writers, a loss", "-DTIMED -DWRITERS=3 -DLOSSES=1", bits=25),
    Case("one of two writers commits", "-DPROGRESS"),
    Case("one of three writers commits", "-DWRITERS=3 -DPROGRESS -DCLAIMS=4 -DPUTS=5 -DTRIES=4"),
    Case("without register: a taker", "-DNO_REGISTER", UNSAFE),
    Case("without register: a sweeper", "-DWRITERS=1 -DSWEEPERS=1 -DNO_REGISTER", UNSAFE),
    Case("without swap", "-DNO_SWAP", UNSAFE),
    Case("without exclusive", "-DNO_EXCLUSIVE", UNSAFE),
    Case("without conditional", "-DNO_CONDITIONAL", UNSAFE),
    Case("without conditional, but for the record", "-DNO_CONDITIONAL -DRECORD_CONDITIONAL", UNSAFE),
    Case("without confirm, where owners do not tell", "-DNO_CONFIRM -DNO_OWNER", UNSAFE),
    Case("without confirm, where they do", "-DNO_CONFIRM"),
    Case("without owner: a copied object", "-DCOPIES=1 -DNO_OWNER", UNSAFE),
    Case("without owner: another place inside", "-DNESTED -DNO_OWNER", UNSAFE),
    Case("its own record is known by its words alone", "-DLOSSES=1 -DNO_VERSION", UNSAFE),
    Case("equal bytes have equal versions", "-DLOSSES=1 -DEQUAL_VERSIONS", UNSAFE),
    Case("timed deletes without timed", "-DTIMED -DNO_TIME", UNSAFE),
    Case("timed deletes without tombstone", "-DTIMED -DLOSSES=1 -DNO_TOMBSTONE", UNSAFE),
    Case("timed deletes without settled", "-DTIMED -DLOSSES=1 -DNO_SETTLED", UNSAFE),
    Case("timed deletes: the time counts from a look", "-DTIMED -DLOSSES=1 -DREAD_ANCHOR", UNSAFE),
    Case("timed deletes: two clean at a time", "-DTIMED -DSWEEPERS=1 -DNO_CLEANER", UNSAFE),
    Case("timed deletes: one is sent twice", "-DTIMED -DLOSSES=1 -DTWICE", UNSAFE),
    Case("a take-over, then its commit", "-DWITNESS=1", REACHED),
    Case("timed deletes: a take-over, then its commit", "-DTIMED -DWITNESS=1", REACHED),
    Case("timed deletes: removed, and committed by another", "-DTIMED -DREMOVERS=1 -DWITNESS=6", REACHED),
    Case(
        "timed deletes: a chain of three, and its commit",
        "-DTIMED -DWRITERS=3 -DTRIES=1 -DCLAIMS=1 -DWITNESS=13",
        REACHED,
        long=True,
    ),
    Case("a writer taken over in its upload loses", "-DWITNESS=2", REACHED),
    Case("a lost reply is settled as committed", "-DLOSSES=1 -DWITNESS=3", REACHED),
    Case("a commit is withdrawn", "-DWRITERS=1 -DLOSSES=2 -DTRIES=1 -DWITNESS=4", REACHED),
    Case("an outcome stays unknown", "-DWRITERS=1 -DLOSSES=2 -DTRIES=1 -DWITNESS=5", REACHED),
    Case("removed, and committed by another", "-DREMOVERS=1 -DWITNESS=6", REACHED),
    Case("a listing shows two attempts' objects", "-DWITNESS=7", REACHED),
    Case("a late object is left without a record", "-DLOSSES=1 -DWITNESS=8", REACHED),
    Case("a request arrives after its sender's end", "-DLOSSES=1 -DWITNESS=9", REACHED),
    Case("a marker is missing, and is added", "-DWRITERS=1 -DSWEEPERS=1 -DLOSSES=1 -DWITNESS=10", REACHED),
    Case("a late marker beside another's attempt", "-DREMOVERS=1 -DWITNESS=11", REACHED),
    Case("removed before its writer could ask", "-DWRITERS=1 -DREMOVERS=1 -DLOSSES=1 -DWITNESS=12", REACHED),
    Case("a chain of three, and its commit", "-DWRITERS=3 -DTRIES=1 -DCLAIMS=1 -DWITNESS=13", REACHED, long=True),
    Case("two places that crossed, the inner commits", "-DNESTED -DWITNESS=14", REACHED),
    Case("another's object outlives who gave up", "-DCOPIES=1 -DWITNESS=15", REACHED),
]


def run(*command: str, cwd: str) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.stdout + done.stderr


def build(case: Case, directory: str, *more: str) -> None:
    """The verifier of one configuration, as `pan` in the directory."""
    shutil.copy(MODEL, directory)  # the verifier writes its trail beside the model
    said = run("spin", "-a", *case.flags.split(), MODEL.name, cwd=directory)
    if not Path(directory, "pan.c").exists() or "rror" in said:
        raise RuntimeError(f"{case.name}: spin says\n{said}")
    store = "-DBITSTATE" if case.bits else "-DCOLLAPSE"
    said = run(
        "gcc",
        "-O2" if case.expected == SAFE else "-O0",
        "-w",
        "-DSAFETY",
        "-DNOFAIR",
        store,
        f"-DMEMLIM={MEGABYTES}",
        *more,
        "-opan",
        "pan.c",
        cwd=directory,
    )
    if not Path(directory, "pan").exists():
        raise RuntimeError(f"{case.name}: the compiler says\n{said}")


def check(case: Case) -> Outcome:
    """Search one configuration. An answer that is neither yes nor no is itself the verdict."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        build(case, directory)
        try:
            said = run("./pan", "-n", "-m100000", f"-w{case.bits or 24}", cwd=directory)
        except subprocess.TimeoutExpired:
            return Outcome(f"no answer in {SECONDS} s", 0, time.monotonic() - started)
    states = re.search(r"([\d.e+]+) states, stored", said)
    return Outcome(verdict(case, said), int(float(states[1])) if states else 0, time.monotonic() - started)


def verdict(case: Case, said: str) -> str:
    """What the verifier's words mean. A witness counts only if it is the very assertion that failed."""
    violated = re.search(r"assertion violated (.*)", said)
    if violated:
        if not case.witness:
            return UNSAFE
        return REACHED if case.witness in violated[1] else f"violated before: {violated[1][:60]}"
    if "errors: 0" in said and "not completed" not in said and "too small" not in said and "out of memory" not in said:
        return SAFE
    return "no answer: " + " ".join(said.split())[:100]


def trail(case: Case) -> str:
    """The shortest way to the violation: every change of the store, and by whom."""
    with tempfile.TemporaryDirectory() as directory:
        build(case, directory, "-DBFS")
        run("./pan", "-n", "-w24", cwd=directory)
        said = run("spin", "-t", "-p", "-g", *case.flags.split(), MODEL.name, cwd=directory)
        if "no trail" in said or "cannot find" in said:
            return f"{case.name}: no violation"
        return "\n".join(changes(said))


def changes(said: str) -> list[str]:
    who, store, found = "", [0] * len(NAMES), []
    for line in said.splitlines():
        step = re.search(r"proc\s+(\d+) \((\w+):", line)
        if step:
            who = f"{step[2]} {step[1]}"
        change = re.match(r"\s+store\[(\d)\] = (-?\d+)$", line)
        if change and store[int(change[1])] != int(change[2]):
            number, value = int(change[1]), int(change[2])
            found.append(f"{who}: {NAMES[number]} {words(number, store[number])} -> {words(number, value)}")
            store[number] = value
    return found


def words(number: int, value: int) -> str:
    if value == 0:
        return "none"
    state = ("", " writing", " committed", " discarded")[value >> 2 & 3] if number == 3 else ""
    renewed = f", renewed {value >> 4 & 15} times" if number == 3 and value >> 4 & 15 else ""
    return f"{value & 3}'s{state}{renewed}" + (" (a late copy)" if value & 2048 else "")


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument(
        "--only", default="", metavar="WORDS", help="only configurations with these words in their name"
    )
    arguments.add_argument("--trail", metavar="NAME", help="print the shortest violation of this configuration")
    arguments.add_argument("--quick", action="store_true", help="what is exhaustive and short: some one to two minutes")
    arguments.add_argument("--jobs", type=int, default=2, help=f"searches at once, each of up to {MEGABYTES} MB")
    options = arguments.parse_args()
    missing = [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]
    if missing:
        print(f"{' and '.join(missing)} not found: apt-get install {' '.join(missing)}", file=sys.stderr)
        return 2
    if options.trail:
        named = [case for case in CASES if case.name == options.trail]
        print(trail(named[0]) if named else f"no configuration is named {options.trail!r}")
        return 0 if named else 2
    cases = [case for case in CASES if options.only in case.name and not (options.quick and (case.long or case.bits))]
    fine = bool(cases)
    print(f"{'configuration':50} {'search':10} {'states':>11} {'expected':9} {'found':9} seconds")
    with ThreadPoolExecutor(options.jobs) as pool:
        for case, outcome in zip(cases, pool.map(check, cases), strict=True):
            fine = fine and outcome.verdict == case.expected
            search = "bitstate" if case.bits else "exhaustive" if case.expected == SAFE else "to first"
            print(
                f"{case.name:50} {search:10} {outcome.states:11,} {case.expected:9} {outcome.verdict:9}"
                f" {outcome.seconds:7.1f}" + ("" if outcome.verdict == case.expected else "  <- not as expected"),
                flush=True,
            )
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
