"""Kill a training job in the middle of a save, on a local disk and on S3, restart it, and compare the ends.

Every part is real but the cloud: the trainer is `train.py` in a process of its own, killed with SIGKILL;
S3 is moto's server on loopback.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import boto3
from rich.console import Console
from rich.table import Table

import atomicpath

TRAIN = Path(__file__).with_name("train.py")
SERVER = Path(__file__).with_name("s3_server.py")
KILL_AT = 200  # the step whose save is interrupted
PATIENCE = 120  # seconds for any one run


@dataclass
class Story:
    """What happened on one target."""

    target: str
    killed: str = ""
    found: str = ""
    then: str = ""
    saved: list[int] = field(default_factory=list)
    resumed: str = ""
    end: str = ""
    uninterrupted: str = ""

    @property
    def identical(self) -> bool:
        """Whether the interrupted run ended as the uninterrupted one did: accuracy and every bit of the parameters."""
        return bool(self.end) and self.end == self.uninterrupted


def command(out: str) -> list[str]:
    """The training command a user would type."""
    return [sys.executable, str(TRAIN), "--out", out]


def run(out: str) -> str:
    """Train to the end; what it printed."""
    done = subprocess.run(command(out), capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        raise SystemExit(f"training on {out} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def run_and_kill(out: str) -> bool:
    """Train, and SIGKILL the trainer in the save of KILL_AT; whether it died in the middle of it."""
    step = f"step_{KILL_AT}"
    trainer = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + PATIENCE
    try:
        while trainer.poll() is None and time.monotonic() < end:
            if any(attempt.final.name == step for attempt in attempts(out)):
                break
            time.sleep(0.0005)
    finally:
        trainer.kill()
        trainer.wait()
    return any(attempt.final.name == step for attempt in attempts(out))


def attempts(out: str) -> list[atomicpath.UnfinishedCommit]:
    """What is under way or left behind below the target."""
    return atomicpath.attempts(out)


def tell(target: str, out: str, reference: str) -> Story:
    """The whole story on one target."""
    story = Story(target)
    story.uninterrupted = run(reference).strip().splitlines()[-1]
    for number in range(1, 6):  # a save takes milliseconds: the kill may come too late, then it is tried again
        place = f"{out}-{number}"
        if run_and_kill(place):
            break
    else:
        raise SystemExit(f"five kills on {target} all missed the save of step {KILL_AT}")
    story.saved = [commit.step or 0 for commit in atomicpath.committed(place)]
    left = next(attempt for attempt in attempts(place) if attempt.final.name == f"step_{KILL_AT}")
    story.killed = f"saving step {KILL_AT}"
    story.found = f"{left.path.name}, {left.record.state.value if left.record else 'record not yet written'}"
    printed = run(place)
    story.resumed = next(
        re.findall(r"resumed from step (\d+)", line)[0] for line in printed.splitlines() if "resumed" in line
    )
    story.then = "taken over" if "took over" in printed else "skipped" if "skipping" in printed else "nothing"
    story.end = next(line for line in printed.splitlines() if line.startswith("accuracy"))
    damaged = [str(commit.path) for commit in atomicpath.committed(place) if not atomicpath.verify(commit.path).ok]
    if damaged:
        raise SystemExit(f"damaged checkpoints: {damaged}")
    return story


@contextmanager
def embedded_s3() -> Iterator[str]:
    """moto's S3 on loopback, with one bucket; its URL."""
    server = subprocess.Popen(
        [sys.executable, str(SERVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        if server.stdout is None:
            raise SystemExit("the S3 server has no output")
        endpoint = server.stdout.readline().strip()
        os.environ |= {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        boto3.client("s3").create_bucket(Bucket="checkpoints")
        yield "s3://checkpoints"
    finally:
        server.kill()
        server.wait()


def main() -> None:
    """Run it on both targets and print what happened."""
    with tempfile.TemporaryDirectory(prefix="atomicpath-demo-") as directory:
        console.print("Training on a local directory, killed and restarted ...")
        stories = [tell("local disk", f"{directory}/run", f"{directory}/reference")]
        with embedded_s3() as bucket:
            console.print("The same on S3 ...")
            stories.append(tell("S3 (moto)", f"{bucket}/run", f"{bucket}/reference"))
    console.print(table(stories))
    if not all(story.identical for story in stories):
        raise SystemExit("an interrupted run did not end like the uninterrupted one")


def table(stories: list[Story]) -> Table:
    """A column for each target."""
    shown = Table(title="A training job, killed with SIGKILL in the middle of a save and restarted", show_lines=True)
    for heading in ("", *(story.target for story in stories)):
        shown.add_column(heading)
    rows = {
        "complete checkpoints at the kill": [", ".join(map(str, story.saved)) for story in stories],
        "the kill fell": [story.killed for story in stories],
        "found on restart, incomplete": [story.found for story in stories],
        "which was": [story.then for story in stories],
        "resumed from step": [story.resumed for story in stories],
        "at the end": [story.end for story in stories],
        "uninterrupted run": [story.uninterrupted for story in stories],
        "bit-equal": ["yes" if story.identical else "NO" for story in stories],
    }
    for name, cells in rows.items():
        shown.add_row(name, *cells)
    return shown


console = Console(width=max(100, Console().width))

if __name__ == "__main__":
    main()
