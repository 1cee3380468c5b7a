"""``python -m tests.faults.two_runs FOLDER [ray]``: a sweep of two small runs."""

import sys
from pathlib import Path

from neuralcollapse.paper.experiments import Experiment
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.paper.sweep import State, sweep
from neuralcollapse.train.config import TrainConfig


def runs(folder: Path) -> list[Outcome]:
    """Two small runs on digits."""
    return [
        Outcome(
            Experiment(name),
            TrainConfig(
                width=16, samples_per_class=6, test_samples_per_class=4, batch_size=20, epochs=4, seed=seed,
                output=str(folder / name),
            ).resolved(),
        )
        for seed, name in enumerate(("first", "second"))
    ]  # fmt: skip


if __name__ == "__main__":
    jobs = sweep(runs(Path(sys.argv[1])), engine="ray" if "ray" in sys.argv else "local")
    sys.exit(any(job.state is not State.FINISHED for job in jobs))
