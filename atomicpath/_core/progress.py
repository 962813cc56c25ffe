"""A progress bar for people, by whichever of rich and tqdm is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from atomicpath.errors import ValidationError

__all__ = ["progress_bar"]


def progress_bar() -> Callable[[int, int], object]:
    """Return a callback that draws a progress bar.

    Raise ValidationError if there is nothing to draw with.
    """
    for make in (_rich, _tqdm):
        try:
            return make()
        except ImportError:
            continue
    raise ValidationError("progress=True needs rich or tqdm: pip install 'atomicpath[progress]', or pass a callback")


def _rich() -> Callable[[int, int], object]:
    progress = importlib.import_module("rich.progress")
    bar = progress.Progress("[progress.description]{task.description}", progress.BarColumn(), progress.DownloadColumn())
    task = bar.add_task("uploading", total=None)

    def show(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)
        if done >= total:
            bar.stop()

    return show


def _tqdm() -> Callable[[int, int], object]:
    bar = importlib.import_module("tqdm").tqdm(desc="uploading", unit="B", unit_scale=True)

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return show
