"""Publish a directory of files to any file system as one atomic act.

    with atomicpath.commit("s3://bucket/run/step_100") as path:
        torch.save(state, path / "model.pt")

Readers see the whole directory or nothing. One of two writers wins. After a crash the storage itself tells what was
committed. The functions here block; `atomicpath.aio` has the same functions as coroutines.

Every function takes a URL, a path or a UPath, and `storage_options=` for the file system behind it. Every error is an
`AtomicPathError`, from `atomicpath.errors`. A function that reads raises `StorageError` if the storage fails or cannot
be reached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._public import *  # noqa: F403 - the names are listed there, once
else:
    import importlib
    from concurrent.futures import thread as _thread  # noqa: F401 - it cannot be imported any more when Python ends

    from ._core.forks import unforked as _unforked

    _MODULES = ("abc", "aio", "atomicity", "coordinators", "errors", "guarantees", "storage", "testing")

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used, since fsspec and universal-pathlib take long to import."""
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        with _unforked:
            if name in _MODULES:
                return importlib.import_module(f"{__name__}.{name}")
            public = importlib.import_module(f"{__name__}._public")
        try:
            value = globals()[name] = getattr(public, name)
        except AttributeError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_MODULES, *importlib.import_module(f"{__name__}._public").__all__})
