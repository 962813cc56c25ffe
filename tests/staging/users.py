"""Other users of this host, and places that all may write to, as /tmp is."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another user")


def as_user(uid: int, function: Callable[[], object]) -> None:
    """Run it in a child process of that user; AssertionError if it fails there."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the child failed, its error is above"


@contextmanager
def shared_place() -> Iterator[Path]:
    """A directory like /tmp, below it because a test's own directory lets no other user in."""
    with tempfile.TemporaryDirectory(prefix="shared-", dir="/tmp") as name:
        os.chmod(name, 0o1777)
        yield Path(name)
