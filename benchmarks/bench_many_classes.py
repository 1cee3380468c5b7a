"""All measures at the size of a language model: seconds and peak memory, each case in a process of its own.

The second case compares the measures of a random GPT-2 with NumPy in float64.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import environment
from rich.console import Console
from rich.table import Table
from torch import Tensor

from neuralcollapse import (
    ClassStatistics,
    cdnv,
    collapse_metrics,
    gnc3,
    hyperspherical_uniformity,
    measure_language_model,
    unc3,
)

RESULTS = Path(__file__).parent / "results" / "many_classes.json"


def main() -> None:
    """Run the cases, print them, and keep them where ``--keep`` asks for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, for a check that it runs")
    parser.add_argument("--keep", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--case", choices=CASES, help="run this one here and print it as JSON")
    chosen = parser.parse_args()
    if chosen.case:
        print(json.dumps(CASES[chosen.case](chosen.quick)))
        return
    found = {}
    for name in CASES:
        command = [sys.executable, __file__, "--case", name, *(["--quick"] if chosen.quick else [])]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    table = Table("case", "quantity", "value", title="Measures of many classes")
    for name, values in found.items():
        for key, value in values.items():
            if not isinstance(value, dict):
                table.add_row(name, key, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
    if chosen.keep:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps({"environment": environment(), "cases": found}, indent=1) + "\n")


def peak_gigabytes() -> float:
    """Largest memory of this process so far, torch included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def vocabulary(quick: bool) -> dict[str, Any]:
    """Two samples of each class in a stream, and everything that is measured of them and a classifier."""
    classes, dim = (3_000, 128) if quick else (50_257, 768)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(classes, dim, generator=generator)
    statistics = ClassStatistics(classes, dim)
    start = time.perf_counter()
    for labels in torch.arange(2 * classes).split(4096):
        rows = weight[labels % classes]
        statistics.update(rows + 0.5 * torch.randn(rows.shape, generator=generator), labels % classes)
    moments = statistics.moments()
    gathered = time.perf_counter() - start
    del statistics
    start = time.perf_counter()
    found = {name: value for name, value in collapse_metrics(moments, weight).to_dict().items() if value is not None}
    centred = moments.centred_means
    spread = hyperspherical_uniformity(centred)
    found |= {
        "cdnv_squared": cdnv(moments, exponent=2),
        "uniformity": spread.energy,
        "uniformity_variation": spread.variation,
        "gnc3": gnc3(weight.double(), moments.means),
        "unc3": unc3(weight.double(), centred, normalize=True),
    }
    return {
        "classes": classes, "dim": dim, "seconds_of_the_stream": gathered,
        "seconds_of_the_measures": time.perf_counter() - start, "peak_gigabytes": peak_gigabytes(), "measures": found,
    }  # fmt: skip


def gpt2(quick: bool) -> dict[str, Any]:
    """A random GPT-2 of two layers over tokens of very unequal frequency, beside the oracle."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokens, size, dim = (6_400, 500, 32) if quick else (200_000, 50_257, 64)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=size, n_positions=129, n_embd=dim, n_layer=2, n_head=2, initializer_range=0.2,
                        bos_token_id=0, eos_token_id=0)  # fmt: skip
    model = GPT2LMHeadModel(config)
    rows = -(-tokens // 128)
    text = torch.multinomial(1 / torch.arange(1.0, size + 1), 129 * rows, True).view(rows, 129)
    start = time.perf_counter()
    report = measure_language_model(model, text.split(4), min_samples=2, progress=False)
    seconds, peak = time.perf_counter() - start, peak_gigabytes()
    expected = oracle(model, text)
    measures = {name: report.to_dict()[name] for name in expected}
    worst = max(abs(measures[name] - value) / abs(value) for name, value in expected.items())
    if not worst < 1e-4:
        raise AssertionError(f"the measures {measures} are not those of the oracle, {expected}")
    return {
        "tokens": 128 * rows, "vocabulary": size, "classes": report.classes, "dim": dim, "seconds": seconds,
        "peak_gigabytes": peak, "largest_relative_difference": worst, "measures": measures, "oracle": expected,
    }  # fmt: skip


def oracle(model: torch.nn.Module, text: Tensor) -> dict[str, float]:
    """The formulas in float64 NumPy, over hidden states that no hook has touched."""
    with torch.no_grad():
        hidden = torch.cat([model.eval().transformer(part).last_hidden_state[:, :-1] for part in text.split(32)])
    h, y = hidden.reshape(-1, hidden.shape[-1]).double().numpy(), text[:, 1:].reshape(-1).numpy()
    weight = model.lm_head.weight.detach().double().numpy()
    counts = np.bincount(y, minlength=len(weight))
    kept = np.flatnonzero(counts >= 2)
    chosen = np.isin(y, kept)
    order = np.argsort(y[chosen], kind="stable")
    ordered, starts = h[chosen][order], np.concatenate([[0], np.cumsum(counts[kept])[:-1]])
    means = np.add.reduceat(ordered, starts) / counts[kept][:, None]
    deviations = ((ordered - np.repeat(means, counts[kept], axis=0)) ** 2).sum(1)
    traces = np.add.reduceat(deviations, starts) / counts[kept]
    centred = means - means.mean(0)
    lengths = np.linalg.norm(centred, axis=1)
    unit = centred / lengths[:, None]
    rows = weight[kept] / np.linalg.norm(weight[kept], axis=1)[:, None]
    cosines = (unit * rows).sum(1)
    sums = np.zeros(3)
    for i in range(0, len(kept), 500):
        away = np.arange(len(kept)) > np.arange(i, min(i + 500, len(kept)))[:, None]
        near = 1 - unit[i : i + 500] @ unit.T
        kernel = -np.log(2 * near[away]) / 2
        squares = (means[i : i + 500] ** 2).sum(1)[:, None] + (means**2).sum(1) - 2 * means[i : i + 500] @ means.T
        ratio = (traces[i : i + 500, None] + traces)[away] / (2 * squares[away] ** 2)
        sums += kernel.sum(), (kernel**2).sum(), ratio.sum()
    pairs = len(kept) * (len(kept) - 1) / 2
    energy, second, variance = sums / pairs
    right = agree = 0
    for x, target in zip(np.array_split(h[chosen], 400), np.array_split(y[chosen], 400), strict=True):
        logits = x @ weight.T
        right += int((logits.argmax(1) == target).sum())
        nearest = ((means**2).sum(1) - 2 * x @ means.T).argmin(1)
        agree += int((logits[:, kept].argmax(1) == nearest).sum())
    return {
        "tokens": int(chosen.sum()), "classes": len(kept), "cdnv_squared": float(variance),
        "equinorm_means": float(lengths.std() / lengths.mean()), "uniformity": float(energy),
        "uniformity_variation": float(np.sqrt(second - energy**2) / abs(energy)), "unc3": float(cosines.var()),
        "duality": float(1 - cosines.mean()), "accuracy": right / int(chosen.sum()),
        "ncc_agreement": agree / int(chosen.sum()),
    }  # fmt: skip


CASES = {"vocabulary": vocabulary, "gpt2": gpt2}

if __name__ == "__main__":
    main()
