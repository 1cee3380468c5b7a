"""The last layer of a network as one epoch left it: classifier, bias and class means."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from neuralcollapse.geometry.etf import lowest_frame_distance
from neuralcollapse.measurement.snapshots import read_snapshot, snapshots


@dataclass(frozen=True)
class Snapshot:
    """W, b and class means; the means are centred, and the bias takes over what W makes of the global mean.

    The logits are the network's own: W h + b = W (h - h_G) + (b + W h_G).
    """

    epoch: int
    weight: Float[np.ndarray, "K d"]
    means: Float[np.ndarray, "K d"]
    """Class means less their mean."""
    bias: Float[np.ndarray, " K"]
    """b + W h_G. With classes of equal size its norm is NC4, whose h_G is the mean over samples."""
    centre: Float[np.ndarray, " d"]
    """h_G here: the mean of the class means."""
    absent: tuple[int, ...] = ()
    """Classes without samples."""

    @property
    def lowest(self) -> float:
        """What NC2 and NC3 cannot be below: 0 unless the classes outnumber the dimensions."""
        classes, dim = self.weight.shape
        return lowest_frame_distance(classes - len(self.absent), dim)

    @classmethod
    def of(cls, epoch: int, weight: np.ndarray, bias: np.ndarray, means: np.ndarray, centre: np.ndarray) -> Snapshot:
        """From the network's own W, b, class means and global mean."""
        weight, bias, means, centre = (array.astype(np.float64) for array in (weight, bias, means, centre))
        return cls(epoch, weight, means - centre, bias + weight @ centre, centre)

    @classmethod
    def read(cls, path: Path) -> Snapshot:
        """From ``snapshots/epoch-NNNN.safetensors`` of a run.

        Raises:
            ValueError: if the file is damaged.
        """
        held = read_snapshot(path)
        parts = [held[name].numpy() for name in ("weight", "bias", "class_means", "global_mean")]
        absent = (held["present"] == 0).nonzero().flatten().tolist() if "present" in held else ()
        return dataclasses.replace(cls.of(int(path.stem.rpartition("-")[2]), *parts), absent=tuple(absent))


def last_snapshot(folder: Path) -> Snapshot:
    """The snapshot of the last measured epoch.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged.
    """
    found = list(snapshots(folder))
    if not found:
        raise FileNotFoundError(f"{folder} has no snapshots: is it the folder of a run?")
    return Snapshot.read(found[-1][1])
