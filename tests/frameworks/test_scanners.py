"""Writers of data sets and scanners of checkpoints, as their users run them, on places of ours.

The libraries are the real ones, with their defaults. Only torchtitan's two loops are quoted: the package needs wandb,
tensorboard, datasets and more, which are too much to install for ten lines.
"""

from __future__ import annotations

import glob
import importlib
import importlib.util
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import atomicpath
from tests.support.servers.base import missing

ROWS = [(number, "ab"[number % 2]) for number in range(10)]
NUMBERS = [number for number, _ in ROWS]
LETTERS = [letter for _, letter in ROWS]

Rows = list[tuple[int, str]]


def library(module: str) -> ModuleType:
    """The library, or a skip that names it."""
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        missing(package, f"pip install {package}")
    return importlib.import_module(module)


def _arrow_writes(path: Path) -> None:
    pyarrow, dataset = library("pyarrow"), library("pyarrow.dataset")
    dataset.write_dataset(pyarrow.table({"number": NUMBERS, "letter": LETTERS}), path, format="parquet")


def _arrow_reads(path: Path) -> Rows:
    found = library("pyarrow.dataset").dataset(path).to_table().to_pydict()
    return sorted(zip(found["number"], found["letter"], strict=True))


def _pandas_writes(path: Path) -> None:
    library("pyarrow")
    frame = library("pandas").DataFrame({"number": NUMBERS, "letter": LETTERS})
    frame.to_parquet(path, partition_cols=["letter"])


def _pandas_reads(path: Path) -> Rows:
    frame = library("pandas").read_parquet(path)
    return sorted(zip(frame["number"].tolist(), frame["letter"].astype(str).tolist(), strict=True))


def _polars_writes(path: Path) -> None:
    polars = library("polars")
    polars.DataFrame({"number": NUMBERS, "letter": LETTERS}).write_parquet(polars.PartitionBy(path, key="letter"))


def _polars_reads(path: Path) -> Rows:
    """By the pattern of its own files: read_parquet(directory) refuses every file beside them, see the test below."""
    frame = library("polars").read_parquet(path / "**" / "*.parquet")
    return sorted(frame.select("number", "letter").rows())


WRITERS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Rows]]] = {
    "pyarrow": (_arrow_writes, _arrow_reads),
    "pandas": (_pandas_writes, _pandas_reads),
    "polars": (_polars_writes, _polars_reads),
}


@pytest.fixture(params=sorted(WRITERS))
def writer(request: pytest.FixtureRequest) -> tuple[Callable[[Path], None], Callable[[Path], Rows]]:
    library(request.param)
    return WRITERS[request.param]


@pytest.fixture
def memory() -> Iterator[str]:
    from fsspec.implementations.memory import MemoryFileSystem

    name = f"scanners-{uuid.uuid4().hex}"
    yield f"memory://{name}"
    for path in [path for path in MemoryFileSystem.store if path.startswith(f"/{name}/")]:
        del MemoryFileSystem.store[path]


MARKERS: list[dict[str, Any]] = [{}, {"marker": "_SUCCESS"}]


@pytest.mark.parametrize("marker", MARKERS, ids=["plain", "_SUCCESS"])
def test_a_data_set_written_in_the_block_is_read_as_one(writer: Any, marker: dict[str, Any], tmp_path: Path) -> None:
    write, read = writer
    with atomicpath.commit(tmp_path / "ds", **marker) as path:
        write(Path(path))
    assert read(tmp_path / "ds") == ROWS
    assert (tmp_path / "ds" / "_SUCCESS").exists() == bool(marker)
    assert atomicpath.verify(tmp_path / "ds").ok


@pytest.mark.parametrize("marker", MARKERS, ids=["plain", "_SUCCESS"])
def test_a_data_set_staged_to_a_store_is_read_as_one_after_get(
    writer: Any, marker: dict[str, Any], tmp_path: Path, memory: str
) -> None:
    write, read = writer
    with atomicpath.commit(f"{memory}/ds", **marker) as path:
        write(Path(path))
    assert read(Path(atomicpath.get(f"{memory}/ds", tmp_path / "ds"))) == ROWS


def test_polars_skips_the_record_where_it_is_told_what_is_hidden(tmp_path: Path) -> None:
    polars = library("polars")
    with atomicpath.commit(tmp_path / "ds", marker="_SUCCESS") as path:
        _polars_writes(Path(path))
    frame = polars.scan_parquet(tmp_path / "ds", hidden_file_prefix="_").select("number", "letter").collect()
    assert sorted(frame.rows()) == ROWS


@pytest.mark.parametrize("name", ["_SUCCESS", "_record.json", ".record.json"])
def test_polars_by_default_refuses_a_directory_with_any_other_file_whoever_wrote_it(name: str, tmp_path: Path) -> None:
    """Without atomicpath: no name of the record would help. When this fails, polars has learned to skip such names."""
    polars = library("polars")
    _polars_writes(tmp_path / "ds")
    (tmp_path / "ds" / name).write_text("{}")
    with pytest.raises(polars.exceptions.InvalidOperationError, match="different file extensions"):
        polars.read_parquet(tmp_path / "ds")


def _save(root: Path, name: str) -> None:
    with atomicpath.commit(root / name) as path:
        _fill(Path(path))


def _fill(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"weights")
    (path / ".metadata").write_bytes(b"what torch.distributed.checkpoint writes last")


def test_transformers_rotates_beside_a_live_attempt_and_meets_nothing_of_it(tmp_path: Path) -> None:
    utils = library("transformers.trainer_utils")
    for step in (100, 200):
        _save(tmp_path, f"checkpoint-{step}")
    with atomicpath.commit(tmp_path / "checkpoint-300") as path:
        _fill(Path(path))
        listed = [Path(found).name for found in utils.sort_checkpoints(output_dir=str(tmp_path))]
        assert listed == ["checkpoint-100", "checkpoint-200"]
        assert utils.get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-200")
        utils.rotate_checkpoints(output_dir=str(tmp_path), save_total_limit=1)
        assert sorted(glob.glob("checkpoint-*", root_dir=tmp_path)) == ["checkpoint-200"]
        assert (Path(path) / "model.safetensors").exists()
    assert utils.get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-300")
    assert atomicpath.verify(tmp_path / "checkpoint-300").ok


def _find_load_step(folder: Path) -> int:
    """Quoted: `_find_load_step` of torchtitan 0.3.0, torchtitan/components/checkpointer/dcp.py, on os and os.path."""
    valid_steps = []
    for filename in os.listdir(folder):
        match = re.search(r"step-(\d+)", filename)
        if not match:
            continue
        checkpoint_path = os.path.join(folder, filename)
        is_dcp = os.path.isfile(os.path.join(checkpoint_path, ".metadata"))
        is_hf = os.path.isfile(os.path.join(checkpoint_path, "model.safetensors.index.json"))
        if is_dcp or is_hf:
            valid_steps.append(int(match.group(1)))
    return max(valid_steps) if valid_steps else -1


def _purge_stale_checkpoints(folder: Path, keep_latest_k: int) -> list[str]:
    """Quoted: `_purge_stale_checkpoints` of the same file, which removes in a thread; the names removed."""
    discovered_checkpoints = []
    for filename in os.listdir(folder):
        match = re.search(r"step-(\d+)", filename)
        if match:
            path = os.path.join(folder, filename)
            discovered_checkpoints.append((int(match.group(1)), path))
    discovered_checkpoints.sort()
    to_delete = discovered_checkpoints[: -1 * keep_latest_k]
    for _, path in to_delete:
        shutil.rmtree(path)
    return [os.path.basename(path) for _, path in to_delete]


def test_the_patterns_quoted_from_torchtitan_meet_nothing_of_a_live_attempt(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        _save(tmp_path, f"step-{step}")
    with atomicpath.commit(tmp_path / "step-4") as path:
        _fill(Path(path))
        assert _find_load_step(tmp_path) == 3
        assert _purge_stale_checkpoints(tmp_path, 2) == ["step-1"]
        assert (Path(path) / ".metadata").exists()
    assert _find_load_step(tmp_path) == 4
    assert [commit.step for commit in atomicpath.committed(tmp_path)] == [2, 3, 4]


def test_the_pattern_of_hugging_face_lists_only_what_is_committed(tmp_path: Path) -> None:
    _save(tmp_path, "checkpoint-1")
    with atomicpath.commit(tmp_path / "checkpoint-2") as path:
        _fill(Path(path))
        assert glob.glob("checkpoint-*", root_dir=tmp_path) == ["checkpoint-1"]
        assert [found.name for found in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]
    assert sorted(found.name for found in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]


def test_accelerate_finds_what_is_committed_and_stops_beside_a_live_attempt(tmp_path: Path) -> None:
    """Its scan takes the digits of every name in `checkpoints`: it fails on `.atomicpath`, but opens nothing of it."""
    accelerate, utils = library("accelerate"), library("accelerate.utils")
    project = utils.ProjectConfiguration(project_dir=str(tmp_path), automatic_checkpoint_naming=True)
    with atomicpath.commit(tmp_path / "checkpoints" / "checkpoint_0") as path:
        accelerate.Accelerator(cpu=True).save_state(str(path))
    scanner = accelerate.Accelerator(cpu=True, project_config=project)
    scanner.load_state()
    with atomicpath.commit(tmp_path / "checkpoints" / "checkpoint_1") as path:
        _fill(Path(path))
        with pytest.raises(IndexError):
            scanner.load_state()
        assert (Path(path) / "model.safetensors").exists()
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["checkpoint_0", "checkpoint_1"]
