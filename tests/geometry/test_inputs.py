"""Every public function takes tensors, arrays and lists alike, refuses the rest with a sentence, and keeps no view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralcollapse import (
    NCI,
    NECO,
    ClassStatistics,
    collapse_metrics,
    cosine_grid,
    cosine_tiles,
    effective_rank,
    etf_distance,
    gnc1,
    gnc2,
    gnc3,
    hyperspherical_uniformity,
    measure_features,
    multilabel_metrics,
    nearest_etf,
    numerical_rank,
    one_vs_rest_margin,
    regression_metrics,
    stable_rank,
    unc3,
)
from neuralcollapse.geometry.multilabel import label_set_means
from tests.cases import draw

CASE = draw(sizes=(12, 10, 8), dim=5, dtype=torch.float64)
HOT = torch.eye(3, dtype=torch.int64)[CASE.labels]


def seen() -> ClassStatistics:
    statistics = ClassStatistics(3, 5)
    statistics.update(CASE.features, CASE.labels)
    return statistics


def features_of(call: Callable[[Any], Any]) -> tuple[Callable[[Any], Any], Tensor, str]:
    return call, CASE.features, "features"


CALLS = {
    "measure_features": features_of(lambda x: measure_features(x, CASE.labels).nc1),
    "gnc1": features_of(lambda x: gnc1(x, CASE.labels)),
    "multilabel_metrics": features_of(lambda x: multilabel_metrics(x, HOT).nc1),
    "label_set_means": features_of(lambda x: label_set_means(x, HOT).means),
    "regression_metrics": features_of(lambda x: regression_metrics(x, CASE.features[:, :2]).nrc1),
    "regression targets": (lambda t: regression_metrics(CASE.features, t).stable_rank, CASE.features[:, :2], "targets"),
    "regression weight": (
        lambda w: regression_metrics(CASE.features, CASE.features[:, :3], w).nrc3, CASE.weight, "weight"
    ),
    "multilabel weight": (lambda w: multilabel_metrics(CASE.features, HOT, w).nc3, CASE.weight, "weight"),
    "NECO.score": features_of(lambda x: NECO(seen()).score(x)),
    "NECO.score logits": (lambda z: NECO(seen()).score(CASE.features, z), CASE.features[:, :3], "logits"),
    "NCI.score": features_of(lambda x: NCI(seen(), CASE.weight).score(x)),
    "NCI.score logits": (lambda z: NCI(seen(), CASE.weight).score(CASE.features, z), CASE.features[:, :3], "logits"),
    "NCI": (lambda w: NCI(seen(), w).score(CASE.features), CASE.weight, "weight"),
    "NCI bias": (lambda b: NCI(seen(), CASE.weight, b).score(CASE.features), CASE.bias, "bias"),
    "collapse_metrics": (lambda w: collapse_metrics(seen(), w).nc2, CASE.weight, "weight"),
    "etf_distance": (etf_distance, CASE.weight, "weight"),
    "nearest_etf": (nearest_etf, CASE.weight, "weight"),
    "gnc2": (gnc2, CASE.weight, "weight"),
    "one_vs_rest_margin": (lambda w: one_vs_rest_margin(w, normalize=False).distances, CASE.weight, "weight"),
    "gnc3": (lambda w: gnc3(w, CASE.weight + 1), CASE.weight, "weight"),
    "gnc3 means": (lambda m: gnc3(CASE.weight, m), CASE.weight + 1, "class_means"),
    "unc3": (lambda w: unc3(w, CASE.weight + 1), CASE.weight, "weight"),
    "unc3 means": (lambda m: unc3(CASE.weight, m), CASE.weight + 1, "class_means"),
    "hyperspherical_uniformity": (lambda w: hyperspherical_uniformity(w).energy, CASE.weight, "vectors"),
    "cosine_grid": (cosine_grid, CASE.weight, "vectors"),
    "cosine_tiles": (lambda w: next(cosine_tiles(w)).values, CASE.weight, "vectors"),
    "effective_rank": (effective_rank, CASE.weight, "matrix"),
    "stable_rank": (stable_rank, CASE.weight, "matrix"),
    "numerical_rank": (numerical_rank, CASE.weight, "matrix"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_arrays_and_lists_are_taken_as_tensors_are(name: str) -> None:
    call, given, _ = CALLS[name]
    expected = call(given)
    for other in (given.numpy(), given.numpy()[::-1][::-1], given.numpy().astype(">f8"), given.tolist()):
        torch.testing.assert_close(call(other), expected, rtol=0, atol=0)
    with torch.inference_mode():
        torch.testing.assert_close(call(given.clone()), expected, rtol=0, atol=0)
    torch.testing.assert_close(call(given.clone().requires_grad_()), expected, rtol=0, atol=0)


REFUSED = {
    "sparse": (lambda x: x.to_sparse(), "sparse or nested tensor"),
    "compressed": (lambda x: x.to_sparse_csr() if x.ndim == 2 else x.to_sparse(), "sparse or nested tensor"),
    "nested": (lambda x: torch.nested.nested_tensor([x, x]), "sparse or nested tensor"),
    "meta": (lambda x: x.to("meta"), "meta device"),
    "complex": (lambda x: x + 1j, "dtype torch.complex128"),
    "complex array": (lambda x: x.numpy() + 1j, "dtype torch.complex128"),
    "float8": (lambda x: x.to(torch.float8_e4m3fn), "torch.float8_e4m3fn, too narrow"),
    "boolean": (lambda x: x > 0, "dtype torch.bool"),
    "text": (lambda x: np.full(x.shape, "a"), "expected numbers"),
    "masked": (lambda x: np.ma.masked_greater(x.numpy(), 0.5), "masked array"),
    "ragged": (lambda x: [[1.0], [1.0, 2.0]], "no array of numbers"),
}


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.filterwarnings("ignore:.*Sparse CSR tensor support:UserWarning")
@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("name", CALLS)
def test_what_holds_no_real_numbers_is_refused_by_name(name: str, kind: str) -> None:
    call, given, argument = CALLS[name]
    make, message = REFUSED[kind]
    with pytest.raises(TypeError, match=rf"^{argument} .*{message}"):
        call(make(given))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("name", [name for name in CALLS if name != "regression targets"])
def test_integers_are_refused_where_fractions_are_meant(name: str) -> None:
    call, given, argument = CALLS[name]
    with pytest.raises(TypeError, match=rf"^{argument} .*dtype torch.int64"):
        call((10 * given).long())


@pytest.mark.usefixtures("unchecked_shapes")
def test_integers_are_targets_and_zeros_and_ones_of_any_kind_are_labels() -> None:
    targets = (100 * CASE.features[:, :2]).round()
    assert regression_metrics(CASE.features, targets.long(), CASE.weight[:2]) == regression_metrics(
        CASE.features, targets, CASE.weight[:2]
    )
    expected = multilabel_metrics(CASE.features, HOT)
    for labels in (HOT.bool(), HOT.double(), HOT.numpy(), HOT.tolist(), HOT.bool().tolist(), HOT.to(torch.uint8)):
        assert multilabel_metrics(CASE.features, labels) == expected
    for labels, message in (
        (HOT.to_sparse(), "sparse"),
        (HOT + 0j, "complex"),
        (HOT.to("meta"), "meta"),
        (None, "None"),
    ):
        with pytest.raises(TypeError, match=f"^labels .*{message}"):
            multilabel_metrics(CASE.features, labels)


def test_scores_need_training_features_that_vary() -> None:
    statistics = ClassStatistics(3, 5)
    with pytest.raises(ValueError, match="statistics have seen no samples: update them"):
        NECO(statistics)
    statistics.update(torch.full((30, 5), 0.1), torch.arange(30) % 3)
    with pytest.raises(ValueError, match="do not vary"):
        NECO(statistics)


def test_nothing_is_kept_that_the_caller_can_change() -> None:
    weight, bias, statistics = CASE.weight.clone(), CASE.bias.clone(), seen()
    nci, neco, standard = NCI(statistics, weight, bias), NECO(statistics), NECO(statistics, standardize=True)
    before = [score.score(CASE.features) for score in (nci, neco, standard)]
    weight.zero_()
    bias.zero_()
    statistics.update(-CASE.features, CASE.labels)
    for score, expected in zip((nci, neco, standard), before, strict=True):
        assert torch.equal(score.score(CASE.features), expected)
    features = CASE.features.clone()
    groups = label_set_means(features, HOT)
    kept = groups.means.clone()
    features.zero_()
    assert torch.equal(groups.means, kept)
    frame = nearest_etf(weight := CASE.weight.clone())
    frame.zero_()
    assert torch.equal(weight, CASE.weight)
