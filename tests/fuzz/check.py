"""One fuzzed input against the oracle: measures in memory and streamed, and what must not change."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from neuralcollapse import ClassStatistics, CollapseWarning, Moments, collapse_metrics, etf_distance, measure_features
from neuralcollapse.geometry import ncc_mismatch
from tests.fuzz import oracle
from tests.fuzz.inputs import Input, random_input

_MODES = ("plain", "autocast", "inference", "arrays", "lists")


def faults_of(seed: int) -> list[str]:
    """What is wrong with the answers to the input of this seed; nothing, if all is well."""
    case = random_input(seed)
    rng = np.random.default_rng([seed, 1])
    expected, uncertain = _expected(case)
    before = [None if t is None else t.clone() for t in (case.features, case.labels, case.weight, case.bias)]
    faults = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        direct = _in_mode(case, str(rng.choice(_MODES)))
        moments = _streamed(case, rng).moments()
        through = collapse_metrics(moments, case.weight, case.bias, allow_missing=True).to_dict()
        mismatch = _mismatch(case, moments, rng)
        if mismatch:
            faults.append(mismatch)
    exact = Moments.from_features(case.features, case.labels, num_classes=case.num_classes)
    for path, found, source in (("memory", direct, exact), ("stream", through, moments)):
        for name, value in expected.items():
            if found[name] is None or name in uncertain:
                continue
            allowed = 3e-5 * abs(value) + 1e-12 + uncertain.get(("error", name), 0.0)
            if name == "nc1" and path == "stream":
                allowed += 4 * float(source.within_error @ source.singular_values.reciprocal().square())
            if not abs(found[name] - value) <= allowed:
                faults.append(f"{path} {name}: {found[name]!r}, not {float(value)!r}")
        missing = {name for name in expected if found[name] is None} - {"nc1_balanced"}
        surplus = {name for name, value in found.items() if value is not None} - set(expected)
        if missing or surplus:
            faults.append(f"{path}: lacks {missing}, has {surplus} too many")
    for old, new in zip(before, (case.features, case.labels, case.weight, case.bias), strict=True):
        if old is not None and new is not None and not torch.equal(old, new):
            faults.append("an input was changed")
    if case.weight is not None and case.weight.dtype == torch.float64:
        w = case.weight.double().numpy().astype(oracle.Real)
        if not abs(etf_distance(case.weight) - oracle.frame_distance(w, w)) <= 1e-9:
            faults.append("etf_distance")
    return [f"{case.description}: {fault}" for fault in faults]


def _expected(case: Input) -> tuple[dict, dict]:
    """The oracle's measures; and what is not decided by the input, or less exactly than usual."""
    x, y = case.x, case.y
    size = np.abs(x).max()
    unit = np.ldexp(oracle.Real(1), -int(np.frexp(size)[1]) if size else 0)
    x = x.astype(oracle.Real) * unit
    present = np.unique(y)
    n = np.bincount(y)[present]
    weight = None if case.weight is None else case.weight.double().numpy()[present]
    bias = None if case.bias is None else case.bias.double().numpy()[present]
    with np.errstate(all="ignore"):
        expected = oracle.measures(x, y, weight, None if bias is None else bias.astype(oracle.Real) * unit)
        for name in ("nc4", "bias_spread"):
            if name in expected:
                expected[name] = expected[name] / unit
        means, deviations, _ = oracle.class_moments(case.coordinates.astype(oracle.Real) * unit, y)
        share = dict(zip(present, n, strict=True))
        own = np.array([share[label] for label in y])
        expected["nc1"] = oracle.nc1(means, deviations, np.full(len(y), oracle.Real(1) / len(y)))
        expected["nc1_balanced"] = oracle.nc1(means, deviations, oracle.Real(1) / (own * len(present)))
        return expected, _undecided(case, x, y, n, expected)


def _undecided(case: Input, x: np.ndarray, y: np.ndarray, n: np.ndarray, expected: dict) -> dict:
    """Names that rounding of the features decides, and extra error of those that are ill-conditioned."""
    eps, wide = float(torch.finfo(case.features.dtype).eps), np.finfo(np.float64).eps
    means, _, traces = oracle.class_moments(x, y)
    k, d = means.shape
    largest = float(np.abs(x).max())
    found: dict = {}
    # The rank rule: directions of the means near its floor are counted or not.
    centred = (means - means.mean(0)).astype(np.float64)
    singular = np.linalg.svd(centred, compute_uv=False)[: min(k - 1, d)]
    floor = max(eps / np.sqrt(n.min()), wide) * largest * (np.sqrt(k) + np.sqrt(d))
    rank = np.linalg.matrix_rank(case.coordinates[:, :]) if case.coordinates.shape[1] < d else min(k - 1, d)
    kept = singular[: min(rank, k - 1)]
    if (
        len(kept) == 0
        or kept.min() < 4 * floor
        or (case.coordinates.shape[1] > k - 1 and case.coordinates.shape[1] < d)
    ):
        found |= {"nc1": True, "nc1_balanced": True}
    condition = float(wide * 100 * (largest + np.sqrt(float(traces.max()))) / kept.min()) if len(kept) else 1.0
    for name in ("nc1", "nc1_balanced"):
        found["error", name] = condition * abs(float(expected[name]))
    # Means that are one point to float64, and centred means that are zero to it.
    error = wide * (np.sqrt((means**2).sum(1)) + np.sqrt(traces)) * (1 + np.sqrt(n)) * 20
    gaps = [np.sqrt(((means[i] - means[j]) ** 2).sum()) / (error[i] + error[j]) for i in range(k) for j in range(i)]
    lengths = np.sqrt(((means - means.mean(0)) ** 2).sum(1)) / error
    if min(gaps) < 10:
        found["cdnv"] = True
    found["error", "cdnv"] = float(expected["cdnv"] / max(min(gaps), 1))
    for name in ("equinorm_means", "equiangularity_means", "max_equiangularity_means", "nc2_means", "nc3"):
        found["error", name] = 10 / max(float(lengths.min()), 1.0)
        if lengths.min() < 1e3:
            found[name] = True
    if singular.max() < 4 * floor:
        found |= dict.fromkeys(("nc1_quotient", "nc2_means", "nc3", "nc4_relative", "self_duality", "cdnv"), True)
        found |= dict.fromkeys(("equinorm_means", "equiangularity_means", "max_equiangularity_means"), True)
    return found


def _in_mode(case: Input, mode: str) -> dict:
    x, y, w, b = case.features, case.labels, case.weight, case.bias
    options = {"num_classes": case.num_classes, "allow_missing": True}
    if mode == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return measure_features(x, y, w, b, **options).to_dict()
    if mode == "inference":
        with torch.inference_mode():
            return measure_features(x, y, w, b, **options).to_dict()
    if mode == "arrays" and x.dtype != torch.bfloat16:
        arrays = [None if tensor is None else tensor.numpy() for tensor in (x, y, w, b)]
        return measure_features(*arrays, **options).to_dict()
    if mode == "lists" and x.dtype == torch.float64:
        lists = [None if tensor is None else tensor.tolist() for tensor in (x, y, w, b)]
        return measure_features(*lists, **options).to_dict()
    return measure_features(x, y, w, b, **options).to_dict()


def _streamed(case: Input, rng: np.random.Generator) -> ClassStatistics:
    """The same through batches of random sizes, in several parts that are merged in a random order."""
    parts = [ClassStatistics(case.num_classes, case.features.shape[1]) for _ in range(int(rng.integers(1, 4)))]
    start = 0
    while start < len(case.labels):
        stop = start + int(rng.integers(1, 20))
        part = parts[rng.integers(len(parts))]
        part.update(case.features[start:stop], case.labels[start:stop].to(torch.int32))
        if rng.random() < 0.1:
            _ = part.total  # what is read must not change what follows
        start = stop
    merged = ClassStatistics(case.num_classes, case.features.shape[1])
    for index in rng.permutation(len(parts)):
        merged.merge(ClassStatistics.from_state(parts[index].state()))
    return merged


def _mismatch(case: Input, moments: Moments, rng: np.random.Generator) -> str | None:
    """The share of decisions unlike the nearest centre, where no sample stands half-way."""
    nearest, margin = oracle.nearest(case.x * (1.0 / moments.scale), case.y)
    predictions = np.where(rng.random(len(nearest)) < 0.5, nearest, rng.integers(case.num_classes, size=len(nearest)))
    expected = float((predictions != nearest).mean())
    found = ncc_mismatch(case.features, torch.tensor(predictions), moments)
    if margin.min() > 1e-9 and abs(found - expected) > 1e-12:
        return f"ncc_mismatch: {found}, not {expected}"
    return None
