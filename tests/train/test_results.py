"""The committed runs: what their files say follows from their configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuralcollapse.measurement.run_folder import read_metrics
from neuralcollapse.train.config import TrainConfig
from tests.conftest import ROOT

RUNS = sorted(path.parent for path in (ROOT / "results").glob("**/metrics.csv"))


def test_there_are_committed_runs() -> None:
    assert len(RUNS) > 4


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_each_row_names_the_rate_that_its_epoch_trained_at(folder: Path) -> None:
    config = TrainConfig.load(folder / "config.yaml").resolved()
    for row in read_metrics(folder):
        epoch = int(row["epoch"])
        if epoch == 0:
            assert row["learning_rate"] == "", "nothing trains before the first epoch"
            continue
        decays = 0 if config.optimizer == "lbfgs" else (epoch - 1) // config.lr_decay_every
        assert float(row["learning_rate"]) == pytest.approx(config.learning_rate * 0.1**decays, rel=1e-9), epoch
