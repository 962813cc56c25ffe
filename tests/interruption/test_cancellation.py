"""A save of the async face that is cancelled, in any of the ways there are, is committed or it raises; never both."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from atomicpath._core.environment import shielded, this_run
from atomicpath._core.runner import run_protected
from tests.interruption.processes import FULL, run
from tests.support.roots import Root

_ROUNDS = 200 if FULL else 30

_SCRIPT = """
async def save_async(name):
    async with aio.commit(f"{root}/{name}", storage_options=options) as path:
        write(path)
        await anyio.sleep(0)

async def timed_out(name, delay):
    async with asyncio.timeout(delay):
        await save_async(name)

async def waited_for(name, delay):
    await asyncio.wait_for(save_async(name), delay)

async def task_cancelled(name, delay):
    task = asyncio.create_task(save_async(name))
    await asyncio.sleep(delay)
    task.cancel()
    await task

async def scope_cancelled(name, delay):
    with anyio.fail_after(delay):
        await save_async(name)

async def all_cancelled(name, delay):
    # as a server does that is shut down: every task there is, also those of libraries
    task = asyncio.create_task(save_async(name))
    await asyncio.sleep(delay)
    for other in asyncio.all_tasks() - {asyncio.current_task()}:
        other.cancel()
    await task

WAYS = {"trio": [scope_cancelled]}.get(
    arguments["loop"], [timed_out, waited_for, task_cancelled, scope_cancelled, all_cancelled]
)

async def main():
    await save_async("first")
    began = time.monotonic()
    await save_async("second")
    usual = time.monotonic() - began
    told = []
    for number in range(arguments["rounds"]):
        name, way = f"step_{number}", WAYS[number % len(WAYS)]
        try:
            await way(name, random.uniform(0, 1.1) * usual)
            said = "returned"
        except BaseException as error:
            said = type(error).__name__
        told.append((name, way.__name__, said, await aio.is_committed(f"{root}/{name}", storage_options=options)))
    for name, way, said, at_once in told:
        say(way, said, at_once, await aio.is_committed(f"{root}/{name}", storage_options=options))

anyio.run(main, backend=arguments["loop"])
say("held", held())
"""

_OWN = {
    "timed_out": "TimeoutError",
    "waited_for": "TimeoutError",
    "task_cancelled": "CancelledError",
    "all_cancelled": "CancelledError",
    "scope_cancelled": "TimeoutError",
}


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_cancelled_save_is_committed_or_raises_and_leaves_nothing(place_of_scripts: Root, loop: str) -> None:
    place = place_of_scripts
    *told, (_, held) = run(_SCRIPT, place.url, place.storage_options, loop=loop, rounds=_ROUNDS)
    assert held == [[], [], []]
    assert len(told) == _ROUNDS
    for way, said, at_once, later in told:
        assert said in ("returned", _OWN[way])
        assert at_once == later, f"{way}: {said}, and then it changed"
        if said == "returned":
            assert later, way
        elif way != "scope_cancelled":  # a scope is seen as cancelled also where the save has just been committed
            assert not later, f"{way}: {said}, but it is committed"
    assert {said for _, said, _, _ in told} > {"returned"}
    committed = {"first", "second"} | {f"step_{number}" for number, (*_, later) in enumerate(told) if later}
    left = {name: [*place.read_all(name)] for name in place.names() if name not in committed}
    assert left == {}, "what was given up is gone, and so is what it was written in"


_INTERRUPTED = """
async def main(name):
    async with aio.commit(f"{root}/{name}", storage_options=options) as path:
        write(path)
        await asyncio.sleep(0)
    await asyncio.sleep(60)  # the interrupt comes here at the latest

asyncio.run(aio.is_committed(f"{root}/first", storage_options=options))
save("first")
for number in range(arguments["rounds"]):
    name = f"step_{number}"
    timer = threading.Timer(random.uniform(0.0, 0.15), os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        asyncio.run(main(name))
        said = "returned"
    except BaseException as error:
        said = type(error).__name__
    timer.join()
    at_once = there(name)
    time.sleep(0.05)
    say(said, at_once, there(name))
say("held", held())
"""


def test_ctrl_c_in_asyncio_run_leaves_a_whole_save_or_nothing(place_of_scripts: Root) -> None:
    place = place_of_scripts
    *told, (_, held) = run(_INTERRUPTED, place.url, place.storage_options, rounds=_ROUNDS // 2)
    assert held == [[], [], []]
    assert {said for said, _, _ in told} == {"KeyboardInterrupt"}
    assert all(at_once == later for _, at_once, later in told)
    assert len(place.names()) == 1 + sum(later for _, _, later in told)


_LATE = """
async def main():
    seen = []
    async def save_then_wait():
        async with aio.commit(f"{root}/step", storage_options=options) as path:
            write(path)
            # from now on the end of the block is crossed by a cancellation that comes too late for it
            asyncio.get_running_loop().call_soon(task.cancel) if arguments["late"] else None
        seen.append("committed")
        await asyncio.sleep(30)
        seen.append("slept")
    task = asyncio.create_task(save_then_wait())
    if not arguments["late"]:
        while not there_now():
            await asyncio.sleep(0.001)
        task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        seen.append("cancelled")
    say(*seen)
    say(await aio.is_committed(f"{root}/step", storage_options=options))

def there_now():
    return (Path(root) / "step").exists()

asyncio.run(main())
"""


def test_a_cancellation_that_came_too_late_for_a_save_is_not_lost(local_place: Root) -> None:
    said, committed = run(_LATE, local_place.url, {}, late=False)
    assert (said, committed) == (["committed", "cancelled"], [True])


def test_a_cancellation_that_two_saves_in_turn_are_too_late_for_is_not_lost() -> None:
    """It is asked for again after the first call, meets the second, and is asked for again after that."""
    seen: list[str] = []

    async def main() -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def past_its_commit_point() -> None:
            loop.call_soon_threadsafe(begun.set)
            with shielded():
                while not (run := this_run()) or not run.asked:
                    await anyio.sleep(0.001)

        async def save_twice() -> None:
            for number in range(2):
                await run_protected(past_its_commit_point)
                seen.append(f"saved {number}")
            await asyncio.sleep(30)
            seen.append("slept")

        task = asyncio.create_task(save_twice())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen == ["saved 0", "saved 1"]


_DROPPED = """
async def saving():
    async with aio.commit(f"{root}/step", storage_options=options) as path:
        write(path)
        await asyncio.sleep(30)

async def main():
    coroutine = saving()
    task = asyncio.create_task(coroutine)
    while not (list(Path(root).glob("*")) or arguments["anywhere"]) or task.done():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    say("begun", not task.done())
    return coroutine

warnings.simplefilter("ignore", ResourceWarning)  # the task and its loop are left as they are
loop = asyncio.new_event_loop()
loop.set_exception_handler(lambda *_: None)
coroutine = loop.run_until_complete(main())
coroutine.close()  # as the interpreter does with what nobody cancelled
say("nobody waits")
for _ in range(2000):
    gc.collect()
    if held() == [[], [], []]:
        break
    time.sleep(0.01)
say(there("step"), held())
os._exit(0)
"""


def test_a_coroutine_that_is_dropped_in_the_block_gives_its_attempt_up(place_of_scripts: Root) -> None:
    place = place_of_scripts
    begun, _, (committed, held) = run(_DROPPED, place.url, place.storage_options, anywhere=place.kind != "local")
    assert begun == ["begun", True]
    assert not committed
    assert held == [[], [], []]
    assert place.names() == []
