"""Saves at the end of the interpreter, in threads that outlive the main one, and in forked children."""

from __future__ import annotations

import pytest

from tests.interruption.processes import FULL, run
from tests.support.roots import LocalRoot, Root

_FORKS = 100 if FULL else 25

_ATEXIT = """
def last():
    save("last", arguments["files"])
    say(there("last"))

atexit.register(last)
"""

_OUTLIVES = """
def work():
    threading.main_thread().join()
    save("last", arguments["files"])
    say(there("last"))

threading.Thread(target=work).start()
"""


@pytest.mark.parametrize("files", [14, 15, 100])
@pytest.mark.parametrize("script", [_ATEXIT, _OUTLIVES], ids=["atexit", "thread"])
def test_the_last_save_works_after_the_main_thread_has_ended(place_of_scripts: Root, script: str, files: int) -> None:
    place = place_of_scripts
    assert run(script, place.url, place.storage_options, files=files) == [[True]]
    assert len(place.read_all("last")) >= files + 1


def test_put_and_get_work_after_the_main_thread_has_ended(place_of_scripts: Root, tmp_path_factory: object) -> None:
    place = place_of_scripts
    script = """
save("first", 40)
def last():
    copy = atomicpath.get(f"{root}/first", arguments["local"], storage_options=options)
    atomicpath.put(copy, f"{root}/again", storage_options=options, checksums=True)
    say(there("again"))
atexit.register(last)
"""
    local = str(tmp_path_factory.mktemp("local") / "copy")  # type: ignore[attr-defined]
    assert run(script, place.url, place.storage_options, local=local) == [[True]]


_FORK = """
warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
stop = []
def keep_saving():
    number = 0
    while not stop:
        save(f"step_{number}")
        number += 1

thread = threading.Thread(target=keep_saving)
thread.start()
codes = []
for number in range(arguments["forks"]):
    child = os.fork()
    if not child:
        try:
            signal.alarm(120)  # not faulthandler, whose thread the parent has: in a child it waits for it for ever
            save(f"child_{number}")
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.append(True)
thread.join()
say(sorted(set(codes)), sum(there(f"child_{number}") for number in range(arguments["forks"])))
"""


def test_a_child_forked_while_another_thread_saves_can_save_too(place_of_scripts: Root) -> None:
    place = place_of_scripts
    forks = _FORKS if place.kind == "local" else _FORKS // 2
    assert run(_FORK, place.url, place.storage_options, forks=forks) == [[[0], forks]]


_LET_GO = """
import datetime
from upath import UPath
from atomicpath._core.environment import Environment

async def create():
    attempt = atomicpath.AtomicRenameTemporaryPath.from_final(UPath(f"{root}/step"))
    await attempt.create()

anyio.run(create)
gc.collect()
time.sleep(0.01)
swept = atomicpath.sweep(root, older_than=datetime.timedelta(0))
say([one.done for one in swept], os.listdir(root))
"""


def test_an_attempt_that_was_created_and_let_go_of_can_be_swept_by_its_own_process(local_place: Root) -> None:
    ((actions, names),) = run(_LET_GO, local_place.url, {})
    assert actions == [True]
    assert names == []


_IMPORTING = """
class Slowly(importlib.abc.MetaPathFinder):
    # the first import of a module takes so long that another thread can fork in the middle of it
    def find_spec(self, name, path=None, target=None):
        if name != arguments["module"] or under_way.is_set():
            return None
        under_way.set()
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def slowly(module):
            time.sleep(1)
            load(module)
        spec.loader.exec_module = slowly
        return spec

assert arguments["module"] not in sys.modules
under_way = threading.Event()
sys.meta_path.insert(0, Slowly())
thread = threading.Thread(target=there, args=["step_1"])
thread.start()
assert under_way.wait(60)
child = os.fork()
if not child:
    try:
        os._exit(0 if not there("step_1") else 2)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
thread.join()
say(os.waitpid(child, 0)[1])
"""


@pytest.mark.parametrize("module", ["atomicpath_local", "anyio._backends._asyncio"])
def test_a_child_that_is_forked_while_another_thread_makes_the_first_call_works(
    local_place: LocalRoot, module: str
) -> None:
    """Else the child finds a half imported backend, and says that none serves local paths."""
    script = f"import importlib.abc, importlib.util\n{_IMPORTING}"
    assert run(script, local_place.url, {}, module=module) == [[0]]
