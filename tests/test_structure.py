"""What is true of the tree as a whole: packages, imports, names."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import atomicpath
import atomicpath.aio
import atomicpath.errors
from atomicpath._core import layout
from tests.support import tiers
from tests.support.waiting import PATIENCE

TOP = Path(__file__).parent.parent
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())
BACKENDS = sorted(path.name for path in (TOP / "backends").iterdir() if (path / "__init__.py").exists())
CORE = sorted((TOP / "atomicpath").rglob("*.py"))
COMMANDS = sorted((TOP / "atomicpath" / "cli").glob("*.py"))
PLUGINS = sorted((TOP / "backends").rglob("*.py"))

ERRORS = {  # DESIGN.md, "Errors"
    "AtomicPathError": {"Exception"},
    "ValidationError": {"AtomicPathError", "ValueError"},
    "NotCommittedError": {"AtomicPathError", "FileNotFoundError"},
    "CommitError": {"AtomicPathError"},
    "AlreadyCommittedError": {"CommitError", "FileExistsError"},
    "ConflictError": {"CommitError", "FileExistsError"},
    "AbandonedError": {"CommitError"},
    "OutcomeUnknownError": {"CommitError"},
    "IntegrityError": {"AtomicPathError"},
    "GuaranteeError": {"AtomicPathError"},
    "StorageError": {"AtomicPathError", "OSError"},
    "BackendError": {"AtomicPathError"},
    "AccessError": {"BackendError", "PermissionError"},
    "CoordinationError": {"AtomicPathError"},
    "RankFailedError": {"CoordinationError"},
    "CoordinationTimeoutError": {"CoordinationError", "TimeoutError"},
}

PUBLIC = {  # DESIGN.md, "Public names", as far as there are rows for them yet
    *("commit", "put", "get", "resolve", "is_committed", "read_record", "committed", "latest", "verify"),
    *("sweep", "remove", "keep_last", "SweepResult"),
    *("profile", "explain", "select", "aio", "TemporaryPath", "AtomicRenameTemporaryPath", "CommitFileTemporaryPath"),
    *(
        "Snapshot",
        "SnapshotType",
        "FileOptions",
        "Guarantee",
        "Profile",
        "Backend",
        "Storage",
        "Commit",
        "CommitRecord",
    ),
    *("DeferredPath", "DeferredWritableTemporaryPath", "ReadOnlyTemporaryPath", "MetadataStore", "StepMetadata"),
    *("MultiprocessingOptions", "Coordinator", "create_all", "create_all_async", "on_commit_callback"),
    *("Explanation", "Verification", "TMP_DIR_SUFFIX", "COMMIT_SUCCESS_FILE", *ERRORS),
}


def _imports(path: Path) -> set[str]:
    """Absolute names of the modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
            if node.module == "atomicpath":
                found |= {f"atomicpath.{alias.name}" for alias in node.names}
    return found


def _relative(path: Path) -> str:
    return str(path.relative_to(TOP))


def test_every_folder_of_a_backend_is_in_the_wheel_an_entry_point_typed_and_tested() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    points = PROJECT["project"]["entry-points"]["atomicpath.backends"]
    assert BACKENDS
    assert [f"backends/{name}" for name in BACKENDS] == sorted(set(packages) - {"atomicpath"})
    assert sorted(f"atomicpath_{point}" for point in points) == BACKENDS
    assert sorted(value.partition(":")[0] for value in points.values()) == BACKENDS
    for name in BACKENDS:
        assert (TOP / "backends" / name / "py.typed").exists(), name
        tests = TOP / "tests" / name.removeprefix("atomicpath_")
        assert list(tests.glob("test_*.py")), f"no tests in {tests}"
    assert (TOP / "atomicpath" / "py.typed").exists()


@pytest.mark.parametrize("name", BACKENDS)
def test_an_entry_point_names_a_backend_that_is_made_without_arguments(name: str) -> None:
    module, _, kind = PROJECT["project"]["entry-points"]["atomicpath.backends"][
        name.removeprefix("atomicpath_")
    ].partition(":")
    backend = getattr(importlib.import_module(module), kind)()
    assert isinstance(backend, atomicpath.Backend)
    assert backend.protocols


@pytest.mark.parametrize("path", CORE, ids=_relative)
def test_the_core_imports_no_backend(path: Path) -> None:
    assert not [name for name in _imports(path) if name.partition(".")[0] in BACKENDS]


@pytest.mark.parametrize("path", PLUGINS, ids=_relative)
def test_a_backend_imports_only_the_ports_of_the_core(path: Path) -> None:
    allowed = {"atomicpath.abc", "atomicpath.guarantees", "atomicpath.errors", "atomicpath.storage"}
    package = path.relative_to(TOP / "backends").parts[0]
    ours = {name for name in _imports(path) if name.partition(".")[0] in {"atomicpath", *BACKENDS}}
    assert {name for name in ours if name.partition(".")[0] != package} <= allowed


@pytest.mark.parametrize("path", COMMANDS, ids=_relative)
def test_the_command_line_imports_the_public_faces_only(path: Path) -> None:
    ours = {name for name in _imports(path) if name.startswith("atomicpath.")}
    assert {name for name in ours if name.rpartition(".")[2] not in atomicpath.__all__} <= {
        "atomicpath._core.environment",
        "atomicpath.abc",
    }


@pytest.mark.parametrize("path", CORE + PLUGINS, ids=_relative)
def test_no_module_knows_which_event_loop_it_runs_in(path: Path) -> None:
    assert not {name.partition(".")[0] for name in _imports(path)} & {"asyncio", "trio", "sniffio"}


@pytest.mark.parametrize("path", CORE, ids=_relative)
def test_only_the_storage_module_imports_fsspec(path: Path) -> None:
    assert path.parent.name == "storage" or not [name for name in _imports(path) if name.partition(".")[0] == "fsspec"]


@pytest.mark.parametrize("path", CORE + PLUGINS, ids=_relative)
def test_every_module_says_what_it_is_responsible_for(path: Path) -> None:
    if path.read_text():
        assert ast.get_docstring(ast.parse(path.read_text()))


def test_reserved_names_are_written_in_the_layout_module_only() -> None:
    reserved = {getattr(layout, name) for name in layout.__all__ if name.isupper()}
    assert reserved >= {".atomicpath-tmp-", "_commit_record.json", "commit_success.txt", "_CHECKPOINT_METADATA"}
    found = set()
    for path in CORE + PLUGINS:
        tree = ast.parse(path.read_text())
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                found |= {(_relative(path), name) for name in reserved if name in node.value}
    # A backend may not import the layout; its unfinished files have to look like what never counts.
    written = (layout.TMP_DIR_SUFFIX, layout.HOUSEKEEPING, layout.PROBE_PREFIX)
    argued = {("backends/atomicpath_local/names.py", name) for name in written}
    assert {(path, name) for path, name in found if path != "atomicpath/_core/layout.py"} == argued


def test_the_private_name_of_the_local_backend_is_one_that_never_counts_as_committed() -> None:
    names = importlib.import_module("atomicpath_local.names")
    assert layout.is_temporary(f"/run/{names.UNFINISHED}0123")


def test_all_is_sorted_complete_and_there() -> None:
    names = atomicpath.__all__
    assert names == sorted(names, key=_as_ruff_sorts)
    assert set(names) >= PUBLIC
    assert all(hasattr(atomicpath, name) for name in names)
    public = {name for name in vars(atomicpath) if not name.startswith("_")}
    modules = {found.name for found in pkgutil.iter_modules(atomicpath.__path__)}
    assert public - modules - {"TYPE_CHECKING", "annotations", "importlib"} <= set(names)


def test_the_import_itself_loads_nothing_that_takes_long_and_every_public_name_is_found_at_first_use() -> None:
    slow = ("fsspec", "upath", "anyio", "opentelemetry", "asyncio", "atomicpath._core.record")
    code = (
        f"import sys, atomicpath; print([name for name in {slow!r} if name in sys.modules]); print(atomicpath.__all__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    loaded, public = done.stdout.splitlines()
    assert loaded == "[]"
    assert ast.literal_eval(public) == list(atomicpath.__all__)
    with pytest.raises(AttributeError, match="module 'atomicpath' has no attribute 'comit'"):
        _ = atomicpath.comit  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'comit'"):
        from atomicpath import comit  # type: ignore[attr-defined] # noqa: F401


def test_every_other_module_lists_its_public_names_sorted() -> None:
    for path in CORE:
        module = importlib.import_module(
            ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__")
        )
        names = getattr(module, "__all__", None)
        if names is not None:
            assert list(names) == sorted(names, key=_as_ruff_sorts), path
            assert not [name for name in names if not hasattr(module, name)], path


def _as_ruff_sorts(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_the_error_tree_is_that_of_the_design() -> None:
    assert set(atomicpath.errors.__all__) == set(ERRORS)
    for name, bases in ERRORS.items():
        error = getattr(atomicpath, name)
        assert error is getattr(atomicpath.errors, name)
        ancestors = {base.__name__ for base in error.__mro__}
        assert bases <= ancestors
        ours = {base for base in ancestors if base in ERRORS}
        expected = {name}
        for base in bases & ERRORS.keys():
            expected |= {found.__name__ for found in getattr(atomicpath, base).__mro__ if found.__name__ in ERRORS}
        assert ours == expected, f"{name} is also {ours - expected}"
        assert name in (atomicpath.errors.__doc__ or "")


def test_what_is_daily_in_a_long_file_is_there() -> None:
    for name, daily in tiers.LONG.items():
        text = (TOP / "tests" / name).read_text()
        assert [one for one in daily if f"def {one.partition('[')[0]}" not in text] == []


def test_the_tests_of_the_core_import_no_client_and_no_framework() -> None:
    (folders,) = re.findall(r"^CORE_TESTS = (.*)$", (TOP / "Makefile").read_text(), re.MULTILINE)
    script = "import sys, pytest; code = pytest.main(sys.argv[1:]); print(code, *sys.modules); sys.exit(code)"
    command = [sys.executable, "-c", script, "--collect-only", "-qq", "-p", "no:cacheprovider", *folders.split()]
    ended = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    imported = {name.partition(".")[0] for name in ended.stdout.splitlines()[-1].split()}
    assert "atomicpath_local" in imported
    foreign = {
        "adlfs",
        "aiobotocore",
        "asyncssh",
        "azure",
        "boto3",
        "gcsfs",
        "google",
        "jax",
        "mpi4py",
        "s3fs",
        "torch",
    }
    assert imported & foreign == set()
