"""Which engine is found in a process, each case in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import textwrap

import pytest

from tests.support.servers.base import missing
from tests.support.waiting import PATIENCE

TORCH = """
    import os, sys, types
    import torch.distributed as distributed
    from atomicpath import coordinators
    from atomicpath.coordinators import initialised
    from atomicpath.errors import CoordinationError, ValidationError

    def begin():
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)

    def error(function, *arguments, **keywords):
        try:
            function(*arguments, **keywords)
        except (CoordinationError, ValidationError) as raised:
            return f"{type(raised).__name__}: {raised}"
        raise AssertionError("no error")
"""


def python(code: str, *, setup: str = "") -> None:
    """Run it in a new interpreter, where every warning is an error."""
    if setup is TORCH and importlib.util.find_spec("torch") is None:
        missing("torch", "pip install 'atomicpath[torch]'")
    program = textwrap.dedent(setup) + textwrap.dedent(code)
    with tempfile.TemporaryDirectory() as directory:
        found = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd=directory,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    assert found.returncode == 0, found.stderr[-4000:]


def test_no_engine_is_imported_to_look_for_one() -> None:
    python("""
        import sys
        import atomicpath
        from atomicpath import coordinators
        assert type(coordinators.initialised()) is coordinators.SingleProcess
        assert not {"torch", "jax", "mpi4py"} & sys.modules.keys()
    """)


@pytest.mark.parametrize(
    ("module", "made", "extra"),
    [
        ("torch.distributed", "TorchStoreCoordinator()", "torch"),
        ("torch.distributed", "GlooCoordinator(None)", "torch"),
        ("jax", "JaxCoordinator()", "jax"),
        ("mpi4py.MPI", "MpiCoordinator()", "mpi"),
    ],
)
def test_a_missing_engine_says_what_to_install(module: str, made: str, extra: str) -> None:
    python(f"""
        import sys
        from atomicpath import coordinators, errors
        sys.modules[{module!r}] = None
        try:
            coordinators.{made}
        except errors.CoordinationError as error:
            assert "pip install 'atomicpath[{extra}]'" in str(error), error
        else:
            raise AssertionError
    """)


def test_torch_is_found_once_anew_after_it_was_begun_anew_and_not_by_a_forked_child() -> None:
    python(
        """
        assert type(initialised()) is coordinators.SingleProcess
        begin()
        first = initialised()
        assert type(first) is coordinators.TorchStoreCoordinator
        assert initialised() is first
        child = os.fork()
        if not child:
            try:
                assert "was forked from rank 0" in error(initialised)
            except BaseException as raised:
                print(raised, file=sys.stderr)
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        distributed.destroy_process_group()
        assert type(initialised()) is coordinators.SingleProcess
        begin()
        assert type(initialised()) is coordinators.TorchStoreCoordinator
        assert initialised() is not first

        # two engines: the first, if they agree
        state = types.SimpleNamespace(client=object(), process_id=0, num_processes=2)
        sys.modules["jax._src.distributed"] = types.SimpleNamespace(global_state=state)
        assert "coordinator=" in error(initialised)
        state.num_processes = 1
        assert type(initialised()) is coordinators.TorchStoreCoordinator
        distributed.destroy_process_group()

        # what cannot be
        assert "init_process_group" in error(coordinators.TorchStoreCoordinator)
        store = distributed.HashStore()
        assert "rank=" in error(coordinators.TorchStoreCoordinator, store)
        assert "ValidationError" in error(coordinators.TorchStoreCoordinator, store, rank=2, world_size=2)
        assert "no torch.distributed.Store" in error(coordinators.TorchStoreCoordinator, 1, rank=0, world_size=2)
        distributed.get_backend_config = lambda group: "cuda:nccl"
        assert "only gloo" in error(coordinators.GlooCoordinator, object())
        """,
        setup=TORCH,
    )


def test_the_stores_of_torch_keep_the_port() -> None:
    python(
        """
        import tempfile, threading
        import anyio
        for number, store in enumerate((distributed.HashStore(), distributed.FileStore(tempfile.mktemp(), 2))):
            ranks = [coordinators.TorchStoreCoordinator(store, rank=rank, world_size=2) for rank in (0, 1)]
            found = []
            async def work(job):
                sent = b"\\x00\\xff" if job.rank == 0 else None
                found.append(await job.broadcast("a/b", sent, timeout=20))
                found.append(await job.gather("a", b"", timeout=20))
                await job.barrier("c", timeout=20)
            threads = [threading.Thread(target=anyio.run, args=(work, rank)) for rank in ranks]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            assert sorted(map(repr, found)) == sorted(map(repr, [b"\\x00\\xff"] * 2 + [None, [b"", b""]])), found
        """,
        setup=TORCH,
    )


def test_two_processes_of_one_rank_are_told_at_once_on_the_same_host() -> None:
    python(
        """
        import tempfile, time
        import anyio
        path = tempfile.mktemp()
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(writer)
            job = coordinators.TorchStoreCoordinator(distributed.FileStore(path, 2), rank=0, world_size=2)
            async def wait():
                with anyio.move_on_after(600):
                    await job.barrier("first", timeout=0.5)
            error(anyio.run, wait)
            os.read(reader, 1)
            os._exit(0)
        os.close(reader)
        store = distributed.FileStore(path, 2)
        while not store.check(["atomicpath/run"]):
            time.sleep(0.01)
        job = coordinators.TorchStoreCoordinator(store, rank=0, world_size=2)
        async def join():
            await job.barrier("first", timeout=600)
        said = error(anyio.run, join)
        os.close(writer)
        os.waitpid(child, 0)
        assert "two processes say that they are rank 0: this one and process" in said, said
        """,
        setup=TORCH,
    )


def test_a_message_larger_than_torchs_store_takes_at_once_arrives() -> None:
    """The manifest of very many files; TCPStore ends the connection of who sends more than 8 MiB in one value."""
    python(
        """
        import threading
        import anyio
        from atomicpath.coordinators import TorchStoreCoordinator

        server = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        client = distributed.TCPStore("127.0.0.1", server.port, is_master=False, wait_for_workers=False)
        large, found = os.urandom(20 << 20), []

        def work(rank, store):
            job = TorchStoreCoordinator(store, rank=rank, world_size=2)
            value = large if rank else b"-"
            found.append(anyio.run(lambda: job.gather("manifest", value, timeout=600)))

        ranks = [threading.Thread(target=work, args=one) for one in enumerate((server, client))]
        for one in ranks:
            one.start()
        for one in ranks:
            one.join()
        assert [b"-", large] in found
        """,
        setup=TORCH,
    )


def test_a_coordinator_is_refused_without_asking_torchs_store() -> None:
    """Rank 0, refused first, may have taken the server with it: to connect would take as long as torch waits for it."""
    python(
        """
        import datetime, time
        server = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        client = distributed.TCPStore(
            "127.0.0.1", server.port, is_master=False, wait_for_workers=False, timeout=datetime.timedelta(seconds=3)
        )
        del server
        asked = []
        class Asked(distributed.PrefixStore):
            def clone(self):
                asked.append(self)
                return super().clone()
        assert "rank=4" in error(coordinators.TorchStoreCoordinator, Asked("", client), rank=4, world_size=4)
        assert not asked
        said = error(coordinators.TorchStoreCoordinator, Asked("", client), rank=1, world_size=4)
        assert asked and "the store of torch.distributed does not answer" in said, said
        """,
        setup=TORCH,
    )


def test_nothing_said_in_a_job_of_several_is_refused_at_once_and_both_ways_are_named() -> None:
    python(
        """
        import atomicpath
        from atomicpath import aio
        from atomicpath.abc import Coordinator

        place = os.path.join(os.getcwd(), "step_1")
        options = atomicpath.MultiprocessingOptions
        engine = types.SimpleNamespace(client=object(), process_id=1, num_processes=2)
        sys.modules["jax._src.distributed"] = types.SimpleNamespace(global_state=engine)
        asked = []
        coordinators.detection.JaxCoordinator = lambda **named: asked.append(named)
        os.mkdir("source")
        for call in (
            lambda: atomicpath.commit(place),
            lambda: atomicpath.commit("memory://run/step_1", coordinator=None),
            lambda: aio.commit(place),
            lambda: atomicpath.put("source", place),
            lambda: atomicpath.create_all([], multiprocessing_options=options(coordinator=None)),
            lambda: atomicpath.create_all_async([], multiprocessing_options=options(coordinator=None)),
            lambda: atomicpath.CompletionSignal("there", multiprocessing_options=options(coordinator=None)),
        ):
            said = error(call)
            assert said.startswith("ValidationError"), said
            for words in ("JAX", "rank 1 of 2", 'coordinator="auto" in every rank', "atomicpath.SingleProcess()"):
                assert words in said, said
        assert not asked, "an engine was asked for what nobody wanted"
        for wrong in ("AUTO", "torch", 1, object()):
            for call in (lambda: atomicpath.commit(place, coordinator=wrong), lambda: options(coordinator=wrong)):
                assert '"auto" or None' in error(call)
        with atomicpath.commit(place, coordinator=atomicpath.SingleProcess()) as path:
            (path / "file").write_text("x")
        assert atomicpath.latest(os.getcwd()).name == "step_1"  # readers, cleaners and get act alone in any job
        atomicpath.get(place, "copy")
        assert atomicpath.keep_last(os.getcwd(), 2) == atomicpath.sweep(os.getcwd()) == []
        atomicpath.remove("copy")

        engine.num_processes = 1
        with atomicpath.commit("alone") as path:
            (path / "file").write_text("x")
        with atomicpath.commit("alone-too", coordinator="auto") as path:
            (path / "file").write_text("x")
        """,
        setup=TORCH,
    )


def test_a_process_group_of_one_is_alone_with_and_without_being_named() -> None:
    python(
        """
        import atomicpath
        begin()
        for number, coordinator in enumerate((None, "auto", coordinators.SingleProcess())):
            with atomicpath.commit(f"step_{number}", coordinator=coordinator) as path:
                (path / "file").write_text("x")
            assert atomicpath.is_committed(f"step_{number}")
        """,
        setup=TORCH,
    )
