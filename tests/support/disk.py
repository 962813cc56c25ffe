"""A strict model of a disk: after a power cut anything that was not synced may be there, or not.

`Disk` is an environment that lets every call through and remembers, at each fsync, what it made durable:
of a file its bytes, of a directory its names. What a power cut leaves is then any mixture, inode by inode,
of what was durable and of what was only in memory, for kernels write when they like.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from atomicpath._core.environment import Environment

__all__ = ["Disk"]

P = ParamSpec("P")
T = TypeVar("T")
Content = bytes | dict[str, int]
"""Of a file its bytes, of a directory its names and their inodes."""


class Disk(Environment):
    """All that is below `root` at first is durable. `judge` is given the files at `final` after each possible cut."""

    def __init__(self, root: Path, final: Path, judge: Callable[[dict[str, bytes] | None], None]) -> None:
        self.root, self.final = str(root), str(final)
        self.judge = judge
        self.cuts = 0
        self._closed = False
        self.synced: list[str] = []
        self._durable: dict[int, Content] = {}
        self._pinned: dict[int, int] = {}  # open, so that the number of a deleted inode is not given again
        self._judged: set[tuple[tuple[str, bytes], ...] | None] = set()
        self._top = os.stat(root).st_ino
        for inode, content in self._in_memory().items():
            self._durable[inode] = content

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:  # what is let go of later, by a finalizer, is judged no more
            return function(*args, **kwargs)
        result = self.perform(function, *args, **kwargs)
        self.cut()
        return result

    def perform(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make the call; a broken variant overrides this."""
        result = function(*args, **kwargs)
        if function is os.fsync and isinstance(args[0], int):
            self.flushed(args[0])
        return result

    def flushed(self, fd: int) -> None:
        """Remember what a sync of this descriptor made durable."""
        path = f"/proc/self/fd/{fd}"
        target = os.readlink(path)
        if target != self.root and not target.startswith(f"{self.root}/"):
            return  # all above it is durable
        self.synced.append(target)
        status = os.fstat(fd)
        self._pin(status.st_ino, path)
        self._durable[status.st_ino] = self._content(path, status)

    def cut(self, *, judge: Callable[[dict[str, bytes] | None], None] | None = None) -> None:
        """Judge everything that a power cut now may leave."""
        memory = self._in_memory()
        everything = {*memory, *self._durable}
        open_questions = [inode for inode in everything if self._lost(inode, memory) != memory.get(inode)]
        questions = [inode for inode in open_questions if inode in memory]
        for kept in itertools.product((False, True), repeat=len(questions)):
            chosen = dict(zip(questions, kept, strict=True))
            found = self._files_at_final(
                {inode: memory[inode] if chosen.get(inode) else self._lost(inode, memory) for inode in everything}
            )
            self.cuts += 1
            known = None if found is None else tuple(sorted(found.items()))
            if judge is not None:
                judge(found)
            elif known not in self._judged:
                self.judge(found)
                self._judged.add(known)

    def close(self) -> None:
        self._closed = True
        for fd in self._pinned.values():
            os.close(fd)

    def _lost(self, inode: int, memory: dict[int, Content]) -> Content:
        if inode in self._durable:
            return self._durable[inode]
        return b"" if isinstance(memory[inode], bytes) else {}

    def _in_memory(self) -> dict[int, Content]:
        found: dict[int, Content] = {}
        waiting = [self.root]
        while waiting:
            path = waiting.pop()
            status = os.lstat(path)
            content = self._content(path, status)
            found[status.st_ino] = content
            if isinstance(content, dict):
                waiting.extend(f"{path}/{name}" for name in content)
        return found

    def _content(self, path: str, status: os.stat_result) -> Content:
        if not stat.S_ISDIR(status.st_mode):
            return Path(path).read_bytes()
        with os.scandir(path) as entries:
            names = {entry.name: entry.inode() for entry in entries}
        for name, inode in names.items():
            self._pin(inode, f"{path}/{name}")
        return names

    def _pin(self, inode: int, path: str) -> None:
        if inode not in self._pinned:
            self._pinned[inode] = os.open(path, os.O_PATH)

    def _files_at_final(self, disk: dict[int, Content]) -> dict[str, bytes] | None:
        inode = self._top
        for part in Path(self.final).relative_to(self.root).parts:
            names = disk[inode]
            if not isinstance(names, dict) or part not in names:
                return None
            inode = names[part]
        return dict(self._walk(disk, inode, ""))

    def _walk(self, disk: dict[int, Content], inode: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        content = disk.get(inode, {})
        if isinstance(content, bytes):
            yield prefix[:-1], content
            return
        for name, below in content.items():
            yield from self._walk(disk, below, f"{prefix}{name}/")
