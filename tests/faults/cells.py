"""The cells of the table, and how densely the everyday run tries each of them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .faults import FAULTS, Fault
from .operations import OPERATIONS, Operation
from .places import PLACES, Setting, s3_setting
from .runner import Cell, Density, run_cell

__all__ = ["WHOLE", "Cell", "Key", "keys", "run", "run_whole"]

WHOLE = os.environ.get("ATOMICPATH_FAULTS") == "all"
_TURNS = 9


def _density(fault: str) -> Density | None:
    """Return which points are tried every day: one in each cell, near the change; which, the faults take in turns."""
    if WHOLE:
        return None
    number = [one.name for one in FAULTS].index(fault)
    return Density(None, None, before=2 - number % _TURNS)


@dataclass(frozen=True)
class Key:
    """A cell by its names, to be handed to another process; `endpoint` is that of the server, for S3."""

    operation: str
    setting: str
    fault: str
    endpoint: str | None = None

    def found(self) -> tuple[Operation, Setting, Fault]:
        """Return the entries of the three tables."""
        settings = [*PLACES, *([s3_setting(self.endpoint)] if self.endpoint else [])]
        return (
            next(one for one in OPERATIONS if one.name == self.operation),
            next(one for one in settings if one.name == self.setting),
            next(one for one in FAULTS if one.name == self.fault),
        )


def keys(endpoint: str | None = None) -> list[Key]:
    """Return every cell that there is."""
    settings = [*PLACES, *([s3_setting(endpoint)] if endpoint else [])]
    return [
        Key(operation.name, setting.name, fault.name, endpoint)
        for setting in settings
        for operation in OPERATIONS
        for fault in FAULTS
        if operation.runs_in(setting) and (fault.kind != "kill" or setting.survives)
    ]


def run(key: Key) -> Cell:
    """Run a cell: at every point with ATOMICPATH_FAULTS=all, else at some."""
    return run_cell(*key.found(), _density(key.fault))


def run_whole(key: Key) -> Cell:
    """Run a cell at every point."""
    return run_cell(*key.found())
