"""Is the layer that was found the classifier? Models whose outputs are, or are not, what it gives."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from neuralcollapse import CollapseTracker, CollapseWarning, extract_features, measure

LABELS = torch.arange(60) % 3
INPUTS = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) + LABELS[:, None]
BATCHES = [(INPUTS[:25], LABELS[:25]), (INPUTS[25:], LABELS[25:])]


class Ending(nn.Module):
    """A trunk and a linear layer, whose output is changed on its way out."""

    def __init__(self, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.trunk = nn.Linear(8, 6)
        self.head = nn.Linear(6, 3)
        self.change = change

    def forward(self, x: Tensor) -> object:
        return self.change(self.head(self.trunk(x).relu()))


class BareWeight(nn.Module):
    """Its classifier is a parameter, so that the only linear layer is the trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 6)
        self.weight = nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).relu() @ self.weight.T


def as_record(logits: Tensor) -> dict[str, Tensor]:
    return {"loss": logits.mean(), "logits": logits @ torch.randn(3, 5)}


@pytest.mark.parametrize("take", [measure, extract_features])
@pytest.mark.parametrize(
    "model", [BareWeight(), Ending(lambda z: z @ torch.ones(3, 7)), Ending(as_record)], ids=["bare", "mapped", "record"]
)
def test_a_layer_with_another_number_of_outputs_is_not_taken_for_the_classifier(take, model) -> None:
    with pytest.raises(ValueError, match=r"gives \d numbers per sample and the model returns \d.*classifier="):
        take(model, BATCHES)


def test_the_tracker_refuses_it_too(tmp_path) -> None:
    tracker = CollapseTracker(tmp_path / "run")
    with pytest.raises(ValueError, match="does not look like the classifier"):
        tracker.measure(BareWeight(), BATCHES, epoch=1)


def test_a_layer_that_is_named_is_measured_with_a_warning() -> None:
    model = Ending(lambda z: z @ torch.ones(3, 7))
    with pytest.warns(CollapseWarning, match="classifier='head' gives 3 numbers per sample, but the model returns 7"):
        assert measure(model, BATCHES, classifier="head").classifier == "head"


SAME_DECISION = {
    "softmax": lambda z: (20 * z).softmax(1),
    "log": lambda z: z.log_softmax(1),
    "sigmoid": lambda z: (50 * z).sigmoid(),
    "temperature": lambda z: z / 7,
    "bfloat16": lambda z: z.bfloat16(),
    "float64": lambda z: z.double().softmax(1),
    "pair": lambda z: (torch.randn(len(z), 6), z),
    "record": lambda z: {"logits": z, "features": torch.randn(len(z), 9)},
    "auxiliary": lambda z: (z, -z),
    "decision": lambda z: z.argmax(1),
    "one probability": lambda z: z.softmax(1)[:, :1],
    "loss": lambda z: z.logsumexp(1).mean(),
    "nothing": lambda z: None,
}


@pytest.mark.parametrize("change", SAME_DECISION.values(), ids=SAME_DECISION)
def test_logits_that_are_changed_but_decide_alike_are_no_surprise(change: Callable[[Tensor], object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapseWarning)
        assert measure(Ending(change), BATCHES).classifier == "head"


@pytest.mark.parametrize("take", [measure, extract_features])
def test_a_model_that_decides_otherwise_is_reported_with_the_number_of_samples(take) -> None:
    turned = Ending(lambda z: z.roll(1, 1))
    with pytest.warns(CollapseWarning, match=r"layer 'head'.* decides otherwise in 60 of 60 samples"):
        take(turned, BATCHES)
    offset = torch.tensor([0.0, 0.0, 0.3])
    model = Ending(lambda z: z + offset)
    logits = model.head(model.trunk(INPUTS).relu())
    changed = int((logits.argmax(1) != (logits + offset).argmax(1)).sum())
    assert 0 < changed < 60
    with pytest.warns(CollapseWarning, match=f"in {changed} of 60 samples"):
        take(model, BATCHES)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapseWarning)
        take(model, BATCHES, classifier="head")


# ---- samples in another order -----------------------------------------------------------------------


class Sorted(nn.Module):
    """Runs its samples in the order of their first number, as recurrent networks and experts do."""

    def __init__(self, returned: Callable[[Tensor], object] = lambda z: z) -> None:
        super().__init__()
        self.inner = Ending(lambda z: z)
        self.returned = returned

    def forward(self, x: Tensor) -> object:
        order = x[:, 0].argsort()
        return self.returned(self.inner(x[order])[order.argsort()])


RETURNED = {"tensor": lambda z: z, "record": lambda z: {"logits": z}, "pair": lambda z: (z.mean(), z)}


@pytest.mark.parametrize("returned", RETURNED.values(), ids=RETURNED)
def test_a_model_that_sorts_its_samples_is_measured_in_their_own_order(returned) -> None:
    plain = Ending(lambda z: z)
    expected, found = measure(plain, BATCHES), measure(Sorted(returned), BATCHES)
    assert found.metrics.nc1 == pytest.approx(expected.metrics.nc1, rel=1e-5)
    assert (found.accuracy, found.ncc_mismatch) == (expected.accuracy, expected.ncc_mismatch)
    torch.testing.assert_close(extract_features(Sorted(returned), BATCHES).logits, plain(INPUTS).detach())


def test_equal_samples_may_be_sorted_too() -> None:
    twice = [(torch.cat([INPUTS[:9], INPUTS[:9]]), LABELS[:9].repeat(2))]
    assert measure(Sorted(), twice).metrics.nc1 == pytest.approx(measure(Ending(lambda z: z), twice).metrics.nc1)


# ---- models that change what they are given ----------------------------------------------------------


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Ending(lambda z: z)

    def forward(self, x: Tensor) -> object:
        return self.inner(x.sub_(0.5).div_(3))


class OutOfPlace(InPlace):
    def forward(self, x: Tensor) -> object:
        return self.inner((x - 0.5) / 3)


@pytest.mark.parametrize(
    "options", [{}, {"attack": "fgsm", "epsilon": 0.1}, {"layers": ["inner.trunk"]}], ids=["plain", "attack", "layers"]
)
def test_a_model_that_changes_its_inputs_in_place_leaves_the_caller_s_alone(options) -> None:
    batches = [(x.clone(), y) for x, y in BATCHES]
    found, again = (measure(InPlace(), batches, **options) for _ in range(2))
    for (x, _), (original, _) in zip(batches, BATCHES, strict=True):
        assert torch.equal(x, original)
    expected = measure(OutOfPlace(), BATCHES, **options)
    assert found.metrics == again.metrics == expected.metrics
    if "attack" in options:
        assert found.attack.metrics == expected.attack.metrics


def test_dictionaries_and_forward_functions_get_tensors_of_their_own() -> None:
    batches = [{"x": x.clone(), "labels": y} for x, y in BATCHES]
    measure(
        InPlace(),
        batches,
        forward=lambda model, inputs: model(inputs["x"]),
        batch=lambda b: ({"x": b["x"]}, b["labels"]),
    )
    assert all(torch.equal(batch["x"], x) for batch, (x, _) in zip(batches, BATCHES, strict=True))
