"""What is attacked: work that writes files, how far it says it is, and how to read back what it left."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from neuralcollapse import CollapseTracker
from neuralcollapse.cli import main
from neuralcollapse.geometry import ClassStatistics
from neuralcollapse.measurement.run_folder import read_metrics
from neuralcollapse.measurement.snapshots import read_snapshot, snapshots
from neuralcollapse.train import TrainConfig, train
from neuralcollapse.train.checkpoint import newest_checkpoint

OLD = b"what was there before"


class Scene(Protocol):
    """Work that can be broken off, and repeated by the same call."""

    name: str

    def prepare(self, folder: Path) -> None:
        """Put down what the work begins with."""

    def act(self, folder: Path) -> None:
        """Do the work, or what is left of it; print ``saved N`` or ``epoch N`` when step N is said to be on disk."""

    def read(self, folder: Path) -> dict[str, str]:
        """All results in the folder by name; ``ValueError`` where one is damaged."""

    def reached(self, folder: Path) -> int:
        """Last step whose result is on disk."""

    def shorter(self) -> list[Scene]:
        """The work up to each of its steps, whose results may be found on the way."""


def digest(content: bytes) -> str:
    """A short name of some bytes."""
    return hashlib.sha256(content).hexdigest()[:12]


def rows_and_snapshots(run: Path) -> dict[str, str]:
    """Rows without the wall clock, and tensors of snapshots, of a run folder."""
    found = {}
    for row in read_metrics(run):
        cells = {name: cell for name, cell in row.items() if name != "seconds"}
        found[f"row {row['epoch']}"] = repr(cells)
    for epoch, path in snapshots(run):
        read_snapshot(path)
        found[f"snapshot {epoch}"] = digest(path.read_bytes())
    return found


def last_row(run: Path) -> int:
    """Epoch of the last row; -1 without rows."""
    rows = read_metrics(run)
    return int(rows[-1]["epoch"]) if rows else -1


@dataclass(frozen=True)
class Training:
    """``neuralcollapse train --resume`` on digits, without its report."""

    name: str = "training"
    epochs: int = 3

    def config(self, folder: Path) -> TrainConfig:
        """Three epochs of a small network."""
        return TrainConfig(
            width=16, samples_per_class=6, test_samples_per_class=3, epochs=self.epochs, batch_size=32, resume=True,
            output=str(folder / "run"),
        )  # fmt: skip

    def prepare(self, folder: Path) -> None:
        """Nothing."""

    def act(self, folder: Path) -> None:
        """Train to the end."""
        train(self.config(folder))

    def read(self, folder: Path) -> dict[str, str]:
        """Rows, snapshots, the configuration, and the weights and optimiser of the last checkpoint."""
        run = folder / "run"
        found = rows_and_snapshots(run)
        if (run / "config.yaml").is_file():
            config = TrainConfig.load(run / "config.yaml").to_dict()
            found["config"] = repr({name: value for name, value in config.items() if name != "output"})
        newest = newest_checkpoint(run)
        if newest is not None:
            epoch = newest[1]["neuralcollapse"]["epoch"]
            found[f"weights {epoch}"] = digest(_bytes(newest[1]["state_dict"]))
            found[f"optimiser {epoch}"] = digest(_bytes(newest[1]["optimizer_states"]))
        return found

    def shorter(self) -> list[Scene]:
        """Fewer epochs."""
        return [Training(epochs=epochs) for epochs in range(1, self.epochs)]

    def reached(self, folder: Path) -> int:
        """A row is written before its checkpoint: the epoch under way may be trained again, no other."""
        newest = newest_checkpoint(folder / "run")
        checkpoint = 0 if newest is None else int(newest[1]["neuralcollapse"]["epoch"])
        return min(last_row(folder / "run"), checkpoint + 1)


def _bytes(value: object) -> bytes:
    if isinstance(value, torch.Tensor):
        return value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return b"".join(str(key).encode() + _bytes(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return b"".join(_bytes(part) for part in value)
    return repr(value).encode()


@dataclass(frozen=True)
class Tracked:
    """A plain training loop with a CollapseTracker; started again, it trains again and records what is missing."""

    name: str = "tracker"
    epochs: int = 6

    def prepare(self, folder: Path) -> None:
        """Nothing."""

    def act(self, folder: Path) -> None:
        """Train a small network, and record each epoch that has no row."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        labels = torch.arange(30) % 3
        data = [(torch.randn(30, 4) + 3 * nn.functional.one_hot(labels, 4), labels)]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        tracker = CollapseTracker(folder / "run", config={"model": "mlp"})
        for epoch in range(1, self.epochs + 1):
            for inputs, wanted in data:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(inputs), wanted)
                loss.backward()
                optimizer.step()
            if epoch > len(tracker.history):
                tracker.measure(model, data, train_loss=loss.item())
                print("saved", epoch, flush=True)

    def read(self, folder: Path) -> dict[str, str]:
        """Rows and snapshots."""
        return rows_and_snapshots(folder / "run")

    def reached(self, folder: Path) -> int:
        """The last row."""
        return last_row(folder / "run")

    def shorter(self) -> list[Scene]:
        """Rows and snapshots stay as they are."""
        return []


@dataclass(frozen=True)
class Statistics:
    """Class statistics of a stream, saved after each block, and continued from the file."""

    name: str = "statistics"
    blocks: int = 5

    def prepare(self, folder: Path) -> None:
        """Nothing."""

    def act(self, folder: Path) -> None:
        """Add the blocks that the file does not hold yet."""
        path, done = folder / "state.safetensors", self.reached(folder)
        stream = ClassStatistics.load(path) if done else ClassStatistics(3, 5)
        for block in range(done, self.blocks):
            features = torch.randn(12, 5, generator=torch.Generator().manual_seed(block))
            stream.update(features, torch.arange(12) % 3)
            stream.save(path)
            print("saved", block + 1, flush=True)

    def read(self, folder: Path) -> dict[str, str]:
        """The state, by the number of its blocks."""
        path = folder / "state.safetensors"
        if not path.exists():
            return {}
        state = ClassStatistics.load(path).state_dict()
        return {f"state {self.reached(folder)}": digest(_bytes(state))}

    def reached(self, folder: Path) -> int:
        """Blocks in the file."""
        path = folder / "state.safetensors"
        return int(ClassStatistics.load(path).state_dict()["counts"].sum()) // 12 if path.exists() else 0

    def shorter(self) -> list[Scene]:
        """Fewer blocks."""
        return [Statistics(blocks=blocks) for blocks in range(1, self.blocks)]


@dataclass(frozen=True)
class Files:
    """A command that replaces files; each is the old one or the new one at every moment."""

    name: str
    words: tuple[str, ...]
    """{} is the folder."""
    outputs: tuple[str, ...]
    source: Path | None = None
    """Folder to begin with."""

    def prepare(self, folder: Path) -> None:
        """The source, and an old file in the place of each output."""
        if self.source is not None:
            shutil.copytree(self.source, folder, dirs_exist_ok=True)
        for name in self.outputs:
            (folder / name).write_bytes(OLD)

    def act(self, folder: Path) -> None:
        """Run the command."""
        main([word.format(folder) for word in self.words])

    def read(self, folder: Path) -> dict[str, str]:
        """Digest of each output; of the arrays in it, for .npz."""
        return {name: self._read(folder / name) for name in self.outputs}

    def _read(self, path: Path) -> str:
        content = path.read_bytes()
        if path.suffix == ".npz" and content != OLD:
            with np.load(path) as arrays:
                return digest(b"".join(arrays[name].tobytes() for name in sorted(arrays)))
        return digest(content.replace(str(path.parent).encode(), b"FOLDER"))

    def reached(self, folder: Path) -> int:
        """Not in steps."""
        return 0

    def shorter(self) -> list[Scene]:
        """Not in steps."""
        return []
