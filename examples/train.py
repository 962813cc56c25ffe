"""Train a small neural network on scikit-learn's digits, saving a checkpoint every few steps, on any URL.

    python examples/train.py --out runs/digits
    python examples/train.py --out s3://bucket/digits

Run it again after any interruption, a SIGKILL in the middle of a save included: it resumes from the last
complete checkpoint and ends with the very same parameters, bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import logging

import numpy as np
from sklearn.datasets import load_digits

import atomicpath

Arrays = dict[str, np.ndarray]

# ---- the checkpointing: all there is to paste into a script of your own --------------------------------------


def save(root: str, step: int, state: Arrays) -> None:
    """Publish a checkpoint: readers see all of it or none of it."""
    with atomicpath.commit(f"{root}/step_{step}", metadata={"step": step}) as path:
        np.savez(path / "state.npz", **state)


def restore(root: str) -> tuple[int, Arrays] | None:
    """The newest complete checkpoint, or None to start afresh."""
    newest = atomicpath.latest(root)
    if newest is None:
        return None
    with (newest.path / "state.npz").open("rb") as file, np.load(file) as arrays:
        return newest.step or 0, dict(arrays)


# ---- the training, which could be any ------------------------------------------------------------------------

HIDDEN, BATCH, RATE, MOMENTUM = 2048, 64, 0.05, 0.9


def begin(seed: int) -> Arrays:
    """Parameters, and one velocity for each."""
    random = np.random.default_rng(seed)
    state = {
        "w1": random.normal(0, 0.05, (64, HIDDEN)),
        "b1": np.zeros(HIDDEN),
        "w2": random.normal(0, 0.05, (HIDDEN, 10)),
        "b2": np.zeros(10),
    }
    return state | {f"v_{name}": np.zeros_like(value) for name, value in state.items()}


def advance(state: Arrays, x: np.ndarray, y: np.ndarray) -> None:
    """One step of gradient descent with momentum, in place."""
    hidden = np.maximum(x @ state["w1"] + state["b1"], 0)
    error = probabilities(hidden @ state["w2"] + state["b2"])
    error[np.arange(len(y)), y] -= 1
    error /= len(y)
    back = (error @ state["w2"].T) * (hidden > 0)
    gradients = {"w1": x.T @ back, "b1": back.sum(0), "w2": hidden.T @ error, "b2": error.sum(0)}
    for name, gradient in gradients.items():
        state[f"v_{name}"] = MOMENTUM * state[f"v_{name}"] - RATE * gradient
        state[name] = state[name] + state[f"v_{name}"]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax of each row."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def accuracy(state: Arrays, x: np.ndarray, y: np.ndarray) -> float:
    """The share of digits that are recognised."""
    hidden = np.maximum(x @ state["w1"] + state["b1"], 0)
    return float(np.mean((hidden @ state["w2"] + state["b2"]).argmax(1) == y))


def main() -> None:
    """Train from the last complete checkpoint to the end."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", required=True, help="a directory or URL for the checkpoints")
    arguments.add_argument("--steps", type=int, default=400)
    arguments.add_argument("--every", type=int, default=50, help="steps between two checkpoints")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")

    x, y = load_digits(return_X_y=True)
    x, order = x / 16, np.random.default_rng(options.seed).permutation(len(x))
    train, test = order[:1400], order[1400:]

    step, state = restore(options.out) or (0, begin(options.seed))
    print(f"resumed from step {step}" if step else "starting afresh", flush=True)
    while step < options.steps:
        # The batch depends on the step alone, so a resumed run sees what an uninterrupted one sees.
        batch = np.random.default_rng([options.seed, step]).choice(train, BATCH, replace=False)
        advance(state, x[batch], y[batch])
        step += 1
        if step % options.every == 0 or step == options.steps:
            save(options.out, step, state)
            print(f"saved step {step}", flush=True)
    digest = hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state))).hexdigest()
    print(f"accuracy {accuracy(state, x[test], y[test]):.4f} parameters {digest[:16]}")


if __name__ == "__main__":
    main()
