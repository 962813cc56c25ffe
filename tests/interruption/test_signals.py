"""Signal handlers that raise, exit, or save themselves, at any moment of a save of the blocking face."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.interruption.processes import FULL, run
from tests.support.roots import LocalRoot, Root

_SIGNALS = 400 if FULL else 40

_TERMINATED = """
class Terminated(Exception):
    pass

raised = []
def terminate(number, frame):
    raised.append(Terminated())
    raise raised[-1]

staging = arguments.get("staging")
more = {"staging_dir": staging[0]} if staging else {}
save("first", **more)
began = time.monotonic()
save("second", **more)
usual = time.monotonic() - began
signal.signal(signal.SIGTERM, terminate)
told = []
for number in range(arguments["signals"]):
    name = f"step_{number}"
    raised.clear()
    timer = threading.Timer(random.uniform(0, 1.1) * usual, os.kill, (os.getpid(), signal.SIGTERM))
    said, committed = "returned", None
    try:
        timer.start()
        save(name, **more)
        while not raised:
            time.sleep(0.001)
    except Terminated as error:
        said = "own" if [error] == raised else "another"
        # the emergency save, while the exception is being handled
        committed = there(name)
        if not committed:
            save(name, **more)
            said += ", saved"
    timer.join()
    told.append((said, committed, there(name)))
assert signal.getsignal(signal.SIGTERM) is terminate
for each in told:
    say(*each)
say("held", held())
"""


def test_a_handler_that_raises_ends_a_save_with_its_own_exception_and_leaves_nothing(
    place_of_scripts: Root, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = place_of_scripts
    staging = tmp_path_factory.mktemp("staging")
    more = {} if place.kind == "local" else {"staging": [str(staging)]}
    signals = _SIGNALS if place.kind == "local" else _SIGNALS // 2
    *told, (_, held) = run(_TERMINATED, place.url, place.storage_options, signals=signals, **more)
    assert held == [[], [], []]
    assert len(told) == signals
    assert {said for said, _, _ in told} <= {"own", "own, saved"}
    assert "own, saved" in {said for said, _, _ in told}
    assert all(committed for _, _, committed in told)
    assert len(place.names()) == 2 + signals, "every name is committed, and nothing else is there"
    assert not [*staging.rglob("*")] or place.kind == "local"


_ALARM = """
own = []
def alarm(number, frame):
    own.append(TimeoutError("the alarm"))
    raise own[-1]

save("first", 1)
signal.signal(signal.SIGALRM, alarm)
came = others = 0
for number in range(arguments["signals"]):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.008))
        while not own:
            try:
                save(f"step_{number}", 1)
            except atomicpath.AlreadyCommittedError:
                pass
    except BaseException as error:
        came += 1
        others += error is not own[0] or len(own) > 1
    own.clear()
say(came, others, held())
"""


def test_every_timeout_of_an_alarm_in_a_tiny_save_comes_out_as_that_very_error(local_place: LocalRoot) -> None:
    """It is an `OSError`: inside a protocol it would pass for a failure of the disk."""
    ((came, others, held),) = run(_ALARM, local_place.url, {}, signals=_SIGNALS)
    assert (came, others) == (_SIGNALS, 0)
    assert held == [[], [], []]
    names = local_place.names()
    assert all(name.startswith(("first", "step_")) and "atomicpath" not in name for name in names)


_SAVING = """
saved = []
def save_too(number, frame):
    saved.append(len(saved))
    save(f"from_handler_{len(saved)}")

save("first")
began = time.monotonic()
save("second")
usual = time.monotonic() - began
signal.signal(signal.SIGUSR1, save_too)
for number in range(arguments["signals"]):
    timer = threading.Timer(random.uniform(0, 1) * usual, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    save(f"step_{number}")
    timer.join()
while len(saved) < arguments["signals"]:
    time.sleep(0.001)
say(len(atomicpath.committed(root, storage_options=options)), held())
"""


def test_a_handler_that_saves_itself_works_in_the_middle_of_a_save(place_of_scripts: Root) -> None:
    place, signals = place_of_scripts, _SIGNALS // 4
    ((count, held),) = run(_SAVING, place.url, place.storage_options, signals=signals)
    assert count == 2 + 2 * signals
    assert held == [[], [], []]
    assert len(place.names()) == count


_EXIT = """
def leave(number, frame):
    sys.exit(0)

signal.signal(signal.SIGTERM, leave)
save("first")

class Exiting(atomicpath.AtomicRenameTemporaryPath if not options else atomicpath.CommitFileTemporaryPath):
    async def finalize(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        await anyio.sleep(0)
        await super().finalize()

try:
    save("step", temporary_path_class=Exiting)
finally:
    say(there("step"), held())
"""


def test_a_handler_that_exits_ends_the_process_and_nothing_is_left(place_of_scripts: Root) -> None:
    place = place_of_scripts
    ((committed, held),) = run(_EXIT, place.url, place.storage_options)
    assert not committed
    assert held == [[], [], []]
    assert place.names() == ["first"]


_FLAG = """
seen = []
def note(number, frame):
    seen.append(number)
    signal.signal(signal.SIGUSR1, other)

def other(number, frame):
    seen.append("other")

signal.signal(signal.SIGUSR1, note)

class Signalling(atomicpath.AtomicRenameTemporaryPath if not options else atomicpath.CommitFileTemporaryPath):
    async def finalize(self):
        os.kill(os.getpid(), signal.SIGUSR1)
        await super().finalize()

save("step", temporary_path_class=Signalling)
say(there("step"), len(seen), signal.getsignal(signal.SIGUSR1) is other)
"""


def test_a_handler_that_returns_changes_nothing_and_may_set_another_one(place_of_scripts: Root) -> None:
    assert run(_FLAG, place_of_scripts.url, place_of_scripts.storage_options) == [[True, 1, True]]


_DEAD = """
timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
timer.start()
began = time.monotonic()
try:
    save("step", staging_dir=arguments["staging"][0])
    said = "returned"
except BaseException as error:
    said = type(error).__name__
say(said, time.monotonic() - began < 60, held()[1:])
os._exit(0)
"""


def test_ctrl_c_at_an_endpoint_that_never_answers_comes_back(tmp_path: Path) -> None:
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        dead.listen()
        options = {"endpoint_url": f"http://127.0.0.1:{dead.getsockname()[1]}", "key": "key", "secret": "secret"}
        (said,) = run(_DEAD, "s3://bucket/run", options, staging=[str(tmp_path)])
    assert said == ["KeyboardInterrupt", True, [[], []]]
    assert [*tmp_path.iterdir()] == []


_AGAIN = """
import logging
import atomicpath_s3, atomicpath_s3.storage  # a signal is to meet the save, and not these imports

class Kept(logging.Handler):
    def emit(self, record):
        logged.append(record.getMessage())

logged = []
logging.getLogger("atomicpath").addHandler(Kept())

def in_log(words):
    return any(words in line for line in logged)

for seconds in arguments["after"]:
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    save("step", staging_dir=arguments["staging"][0])
    said = "returned"
except BaseException as error:
    said = type(error).__name__
say(said, in_log("interrupted again"), in_log("could not be cleaned up"))
os._exit(0)
"""


@pytest.mark.parametrize(("after", "left"), [([2.0, 5.0], True), ([2.0, 2.1, 2.2], False)], ids=["again", "at once"])
def test_a_second_ctrl_c_ends_the_wait_for_the_clean_up_and_one_that_was_sent_twice_does_not(
    tmp_path: Path, after: list[float], left: bool
) -> None:
    """A terminal and a launcher both pass Ctrl-C on: a signal that comes twice at the same moment is one wish."""
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        dead.listen()
        options = {"endpoint_url": f"http://127.0.0.1:{dead.getsockname()[1]}", "key": "key", "secret": "secret"}
        (said,) = run(_AGAIN, "s3://bucket/run", options, staging=[str(tmp_path)], after=after)
    assert said == ["KeyboardInterrupt", left, not left]


_TWICE = """
from atomicpath._core import environment

class Twice(environment.Environment):
    # Ctrl-C at the calls of these numbers, of this process to itself, so that each comes exactly there
    def __init__(self, *numbers):
        self.numbers, self.count = numbers, 0

    def call(self, function, /, *args, **kwargs):
        self.count += 1
        if self.count in self.numbers:
            os.kill(os.getpid(), signal.SIGINT)
        return function(*args, **kwargs)

signal.signal(signal.SIGINT, signal.default_int_handler)
world = Twice()
with environment.use(world):
    save("whole")
calls = world.count
for gap in arguments["gaps"]:
    for number in range(1, calls + 1):
        name, said = f"step_{gap}_{number}", "returned"
        world = Twice(number, number + gap)
        try:
            with environment.use(world):
                save(name)
        except KeyboardInterrupt:
            said = "interrupted"
        sent = sum(each <= world.count for each in world.numbers)
        say(said, sent, there(name), sorted(os.listdir(root)), name)
        if there(name):
            atomicpath.remove(f"{root}/{name}")
say("held", held())
"""


def test_a_second_interruption_while_the_first_is_honoured_changes_nothing_about_the_outcome(
    local_place: LocalRoot,
) -> None:
    """The impatient press Ctrl-C twice, at any two calls of a save: nothing is torn, nothing is left, and it ends."""
    *told, (_, held) = run(_TWICE, local_place.url, {}, gaps=[1, 4])
    assert held == [[], [], []]
    assert {(said, sent > 0) for said, sent, *_ in told} <= {("interrupted", True), ("returned", False)}
    assert {(sent, committed) for _, sent, committed, *_ in told} >= {(2, True), (2, False)}
    for _, _, committed, names, name in told:
        assert names == sorted(["whole", name] if committed else ["whole"])
