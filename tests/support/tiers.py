"""Marks by file, fixture and parameter: tests that need servers or jobs, and tests too long for every day."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["JOBS", "LONG", "SERVERS", "marks_of"]

TOP = Path(__file__).parent.parent

SERVERS = {"s3", "gcs", "azure", "sftp", "relay", "cluster"}
"""Folders whose tests talk to a server, or import the client of a store."""

_FIXTURES = {
    "server",
    "moto_server",
    "seaweedfs",
    "rclone",
    "gcs_server",
    "fake_gcs",
    "fake_adls",
    "azurite",
    "openssh",
}
_PLACES = {"s3", "moto", "seaweedfs", "rclone", "gcs", "gcs_flat", "gcs_hns", "azure", "adls", "sftp"}
"""Parameters that name a place on a server."""

JOBS = {"many/test_jobs.py", "coordination/test_engines.py", "coordination/test_initialised.py", "frameworks"}
"""Files and folders whose processes import a framework."""

LONG: dict[str, tuple[str, ...]] = {
    # Jobs of real processes: every rank imports its framework. Every day, one engine commits, and one rank dies.
    "many/test_jobs.py": (
        "test_all_ranks_write_into_one_commit[torch-",
        "test_rank_dies_before_its_part_while_others_commit[torch-during-",
        "test_what_no_rank_can_be_is_refused",
        "test_ranks_that_mean_different_places_are_told_so_and_nothing_is_begun",
        "test_the_table_of_the_docs_says_what_is_checked_here",
        "test_every_engine_has_a_size",
    ),
    "coordination/test_engines.py": (),
    "coordination/test_initialised.py": ("test_nothing_said_in_a_job_of_several_is_refused_at_once",),
    # Processes killed at one call after another. Every day, before each request of a commit, and in its block.
    "test_kill.py": (
        "test_killed_at_any_request_a_commit_to_s3_is_whole_or_absent[before]",
        "test_killed_at_any_call_a_local_commit_is_whole_or_absent[before]",
        "test_killed_in_the_block_nothing_is_visible",
        "test_oom_kill_mid_write",
    ),
    "cleaning/test_processes.py": ("test_paused_writer_resumes_after_sweep",),
    # Jobs that end while they save in the background. Every day, two kills, and the end of the script.
    "manager/test_ends.py": (
        "test_a_job_that_ends_while_it_saves[local-kill-before]",
        "test_a_job_that_ends_while_it_saves[moto-kill-after]",
        "test_a_job_that_ends_while_it_saves[moto-exit-queued]",
        "test_the_table_of_the_docs_is_what_is_checked_here",
        "test_at_the_end_of_the_interpreter_ctrl_c_ends_the_wait",
        "test_what_is_begun_at_exit_is_committed",
    ),
    # Eight processes, round after round. Every day on the local disk and on one store.
    "test_race.py": (
        "test_of_eight_processes_on_a_local_disk_exactly_one_wins_each_round",
        "test_of_eight_processes_on_a_store_exactly_one_wins_each_round[moto]",
    ),
    "api/test_alias_races.py": (
        "test_of_eight_writers_one_value_stays_and_there_is_always_one[local-",
        "test_of_eight_writers_one_value_stays_and_there_is_always_one[s3-3]",
    ),
    # Scripts interrupted at one moment after another.
    "interruption/test_ends.py": ("test_the_last_save_works_after_the_main_thread_has_ended",),
    "interruption/test_cancellation.py": ("test_a_cancelled_save_is_committed_or_raises_and_leaves_nothing",),
    "interruption/test_signals.py": ("test_a_handler_that_raises_ends_a_save_with_its_own_exception",),
    # The real program, interrupted on S3 and on a terminal, probes S3 anew each time. Every day, one interruption.
    "cli/test_program.py": (
        "test_help_and_version",
        "test_without_its_extra",
        "test_completion",
        "test_an_interrupted_upload_leaves_nothing[2-130]",
        "test_output_that_nobody_reads",
        "test_a_table_on_a_pipe",
    ),
    # Whole matrices: faults with operations, dialects with operations, and a cluster of two hosts.
    "faults/test_battery.py": (),
    "relay/test_matrix.py": (),
    "relay/test_ambiguity.py": (),
    "cluster/test_gluster.py": (),
    "conformance/test_lies.py": (),
    # Stores that speak S3 as moto does, and examples that train a model. Every day, one commit on SeaweedFS.
    "s3/test_ceph.py": (),
    "s3/test_memory.py": (),
    "s3/test_seaweedfs.py": ("test_a_commit_from_begin_to_end",),
    "test_examples.py": (),
}
"""Files that are not run every day, each with the beginnings of the names of the tests in it that are."""

_KIT_DAILY = {"local", "memory", "moto", "gcs_hns", "azure", "sftp"}
"""Places of the conformance kit: every day one of each backend."""


def marks_of(item: pytest.Item) -> Iterator[str]:
    """The names of the marks that the test has by its file, its fixtures and its parameters."""
    path = item.path.relative_to(TOP) if item.path.is_relative_to(TOP) else item.path
    params: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    named = {value for value in params.values() if isinstance(value, str)}
    if path.parts[0] in SERVERS or _FIXTURES & {*getattr(item, "fixturenames", ())} or _PLACES & named:
        yield "servers"
    if path.as_posix() in JOBS or path.parts[0] in JOBS:
        yield "jobs"
    daily = LONG.get(path.as_posix())
    if (daily is not None and not item.name.startswith(daily)) or _is_long_in_the_kit(params):
        yield "long"


def _is_long_in_the_kit(params: dict[str, Any]) -> bool:
    place = params.get("make_place")
    return place is not None and (place not in _KIT_DAILY or (place == "moto" and params.get("loop") == "trio"))
