"""Saving in the background: commits and removals behind a training loop; public at the top level."""

from .background import BackgroundCommit, commit_in_background
from .manager import CheckpointManager

__all__ = ["BackgroundCommit", "CheckpointManager", "commit_in_background"]
