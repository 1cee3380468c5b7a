"""Corrupted inputs: each is refused with a sentence of the package's own, or measured rightly where it is harmless."""

from __future__ import annotations

import math
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from neuralcollapse import ClassStatistics, collapse_metrics, etf_distance, measure_features, nearest_etf, simplex_etf
from neuralcollapse.geometry import Moments, ncc_mismatch


def _with(value: torch.Tensor, entry: float) -> torch.Tensor:
    return value.flatten().index_fill(0, torch.tensor(0), entry).view(value.shape)


def _rotten(rng: np.random.Generator, value: torch.Tensor) -> Any:
    """Something that is no such tensor."""
    choices: list[Callable[[], Any]] = [
        lambda: None,
        lambda: "features",
        lambda: value[None],
        lambda: value[..., None],
        lambda: value[:0],
        lambda: value[1:],
        lambda: value.to(torch.complex64),
        lambda: value.bool(),
        lambda: value.to("meta"),
        lambda: value.to_sparse(),
        lambda: [[1.0], [2.0, 3.0]],
        lambda: np.array(["a", "b"]),
        lambda: np.array([object()]),
        lambda: object(),
        lambda: {"features": value},
        lambda: 3.0,
        lambda: value.float().to(torch.float8_e4m3fn),
        lambda: _with(value, math.nan) if value.is_floating_point() else -value,
        lambda: _with(value, math.inf) if value.is_floating_point() else 10**12,
        lambda: -1 - value if not value.is_floating_point() else value.transpose(0, -1),
        lambda: value + 10**12 if not value.is_floating_point() else value.int(),
    ]
    return choices[rng.integers(len(choices))]()


def refusals_of(seed: int) -> list[str]:
    """Calls with one rotten argument that neither raise our own ValueError or TypeError nor give a sound answer."""
    rng = np.random.default_rng([seed, 2])
    x = torch.tensor(rng.standard_normal((12, 4)))
    y = torch.arange(12) % 3
    w, b = torch.tensor(rng.standard_normal((3, 4))), torch.tensor(rng.standard_normal(3))
    good = ClassStatistics(3, 4)
    good.update(x, y)
    spoilt = good.state()
    name = str(rng.choice(list(spoilt)))
    spoilt[name] = [
        None, spoilt[name][..., None], spoilt[name] - 10**6, spoilt[name].double() * math.nan, spoilt[name].bool(), "x",
    ][rng.integers(6)]  # fmt: skip
    arguments = [x, y, w, b]
    index = int(rng.integers(4))
    arguments[index] = _rotten(rng, arguments[index])
    calls: list[Callable[[], Any]] = [
        lambda: measure_features(*arguments),
        lambda: measure_features(*arguments, num_classes=3, allow_missing=True),
        lambda: Moments.from_features(arguments[0], arguments[1]),
        lambda: collapse_metrics(good, arguments[2], arguments[3]),
        lambda: collapse_metrics(arguments[0]),
        lambda: ClassStatistics(3, 4).update(arguments[0], arguments[1]),
        lambda: ncc_mismatch(arguments[0], arguments[1], good),
        lambda: etf_distance(arguments[2]),
        lambda: nearest_etf(arguments[2]),
        lambda: simplex_etf(int(rng.integers(-2, 6)), int(rng.integers(-2, 6))),
        lambda: simplex_etf(3, 4, dtype=[int, "float", torch.int8, torch.complex64][rng.integers(4)]),
        lambda: ClassStatistics(*[[0, -1, 2.5, "3", None, 4][i] for i in rng.integers(6, size=2)]),
        lambda: ClassStatistics.from_state(spoilt).moments(),
        lambda: good.load_state_dict(spoilt),
        lambda: good.merge(spoilt),
    ]
    faults = []
    for number, call in enumerate(calls):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call()
        except (ValueError, TypeError) as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            if "neuralcollapse/" not in frame.filename:
                faults.append(f"seed {seed} call {number}: {error!r} from {frame.filename}:{frame.lineno}")
        except Exception as error:
            faults.append(f"seed {seed} call {number}: {error!r}")
    return faults
