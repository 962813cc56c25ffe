"""Print how large the core is and how far a commit travels through it.

    python benchmarks/structure.py [CHECKOUT ...]

Each checkout is counted in a process of its own, so that two revisions can be compared side by side, such as this one
and a worktree of an earlier one. A border is crossed when a function of one module of `atomicpath` calls, or resumes,
a function of another one. The commit is the second one to the same place, blocking, of one small file to an S3 server
(moto) on loopback.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import s3fs

HERE = Path(__file__).parent.parent


def sizes(checkout: Path) -> dict[str, int]:
    """Count modules, layers, classes, lines and docstrings of the core."""
    core = sorted((checkout / "atomicpath").rglob("*.py"))
    texts = {path: path.read_text() for path in core}
    contracts = tomllib.loads((checkout / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["type"] == "layers")["layers"]
    nodes = [node for text in texts.values() for node in ast.walk(ast.parse(text))]
    return {
        "modules of the core": len(core),
        "of them below 60 lines": sum(text.count("\n") < 60 for text in texts.values()),
        "of them above 350 lines": sum(text.count("\n") > 350 for text in texts.values()),
        "modules and packages in the first row": len(
            {path.relative_to(checkout / "atomicpath").parts[0] for path in core if path.name != "__init__.py"}
        ),
        "layers": len(layers),
        "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
        "lines of the core": sum(text.count("\n") for text in texts.values()),
        "lines of the plug-in for SQLite": lines(checkout / "examples/write_a_backend/src"),
        "lines of the plug-in for WebDAV": lines(checkout / "examples/write_an_fsspec_backend/src"),
    }


def lines(folder: Path) -> int:
    """Count the lines of code of an example: neither blank nor comment nor docstring."""
    total = 0
    for path in folder.rglob("*.py"):
        tree = ast.parse(path.read_text())
        used = {node.lineno for node in ast.walk(tree) if hasattr(node, "lineno")}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                used -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        total += len(used)
    return total


def crossings(top: Path, act: Callable[[], object]) -> int:
    """Count the borders between modules that one call crosses, in whatever thread."""
    count = 0
    inside = str(top / "atomicpath") + os.sep

    def on_call(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        if event == "call":
            here, caller = frame.f_code.co_filename, frame.f_back and frame.f_back.f_code.co_filename
            if here.startswith(inside) and caller and caller.startswith(inside) and caller != here:
                count += 1

    threading.setprofile_all_threads(on_call) if sys.version_info >= (3, 12) else threading.setprofile(on_call)
    sys.setprofile(on_call)
    try:
        act()
    finally:
        sys.setprofile(None)
        threading.setprofile_all_threads(None) if sys.version_info >= (3, 12) else threading.setprofile(None)
    return count


def measure() -> dict[str, int]:
    """Measure the checkout that this process imports."""
    import atomicpath

    top = Path(atomicpath.__file__).parent.parent

    def commit(url: str, options: dict[str, object]) -> None:
        with atomicpath.commit(url, storage_options=options) as path:
            (path / "weights.bin").write_bytes(b"1")

    server = [sys.executable, str(HERE / "examples" / "s3_server.py")]
    with (
        TemporaryDirectory() as scratch,
        subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process,
    ):
        assert process.stdout
        options = {"key": "key", "secret": "secret", "endpoint_url": process.stdout.readline().decode().strip()}
        s3fs.S3FileSystem(**options).mkdir("bench")
        result = {}
        for what, root, used in (("S3", "s3://bench/run", options), ("a disk", scratch, {})):
            commit(f"{root}/step_1", used)
            result[f"borders crossed by a warm commit to {what}"] = crossings(
                top, lambda root=root, used=used: commit(f"{root}/step_2", used)
            )
        process.communicate()
    return result


def main() -> None:
    """Print one column for each checkout."""
    checkouts = [Path(name).resolve() for name in sys.argv[1:]] or [HERE]
    columns = []
    for checkout in checkouts:
        path = os.pathsep.join((str(checkout), str(checkout / "backends")))
        done = subprocess.run(
            [sys.executable, __file__, "--measure"],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        columns.append(sizes(checkout) | json.loads(done.stdout.splitlines()[-1]))
    for what in columns[0]:
        print(f"{what:42}" + "".join(f"{column[what]:>10}" for column in columns))


if __name__ == "__main__":
    if sys.argv[1:] == ["--measure"]:
        print(json.dumps(measure()))
    else:
        main()
