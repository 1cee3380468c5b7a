"""The paper's percentages, from the command as a user types it, and memory against sums made by hand."""

import json

import pytest
import torch
from torch import nn

from neuralcollapse import parameter_savings


@pytest.mark.parametrize(
    ("model", "classes", "variant", "before", "after", "percent"),
    [
        ("resnet50", 1000, "fixed head", 25_557_032, 23_509_032, "8.01%"),
        ("densenet169", 1000, "fixed head", 14_149_480, 12_485_480, "11.76%"),
        ("resnet18", 10, "d = K", 11_181_642, 8_867_542, "20.70%"),
        ("resnet50", 10, "d = K", 23_528_522, 22_481_110, "4.45%"),
    ],
)
def test_the_papers_percentages(model, classes, variant, before, after, percent, call, tmp_path):
    done = call("savings", model, "--classes", str(classes), "--json", "savings.json")
    assert done.code == 0, done.err
    assert percent in done.out
    numbers = json.loads((tmp_path / "savings.json").read_text())
    rows = {row["name"]: row for row in numbers["variants"]}
    assert (rows["as it is"]["parameters"], rows[variant]["parameters"]) == (before, after)
    assert f"{rows[variant]['saved']:.2%}" == percent


def test_memory_says_how_far_it_is_and_how_long_it_takes(call):
    done = call("savings", "mlp", "--classes", "3", "--memory", "--image-size", "4")
    assert done.code == 0, done.err
    assert "peak with Adam" in done.out
    lines = done.err.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"memory {place} of 4" for place in (1, 2, 3, 4)]
    assert all("left" in line for line in lines[1:])


def test_memory_by_hand():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(50, 400, bias=False), nn.Linear(400, 20, bias=False))
    x = torch.randn(16, 50)
    savings = parameter_savings(model, inputs=x)
    as_it_is, fixed = savings["as it is"], savings["fixed head"]
    floats = 50 * 400 + 400 * 20
    assert (as_it_is.parameters, as_it_is.gradients, as_it_is.adam_state) == (floats, 4 * floats, 8 * floats)
    # A learned head keeps its input for the gradient of its weight; the fixed head keeps its scale only.
    assert as_it_is.activations - fixed.activations == 4 * 16 * 400 - 4
    # At the peak: weights, gradients, momentum, at least; Adam has one more copy.
    assert as_it_is.sgd_peak >= 3 * 4 * floats
    assert as_it_is.adam_peak >= as_it_is.sgd_peak + 4 * floats
    assert fixed.sgd_peak < as_it_is.sgd_peak
    assert model[1].weight.grad is None
    assert isinstance(model[1], nn.Linear)


def test_memory_of_a_torch_with_another_tracker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed._tools import mem_tracker

    monkeypatch.delattr(mem_tracker.MemTracker, "reset_mod_stats")
    with pytest.raises(ImportError, match=r"no memory tracker .* --memory"):
        parameter_savings(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)), inputs=torch.randn(6, 5))


def test_one_of_two_heads_by_name():
    heads = nn.ModuleDict({"trunk": nn.Linear(4, 8), "left": nn.Linear(8, 3), "right": nn.Linear(8, 5)})
    savings = parameter_savings(heads, classifier="right")
    # trunk 40, left 27, right 45: fixed keeps 5; d = 5 is 40 + 30; both is 40 + 5
    assert [variant.parameters for variant in savings.variants] == [112, 72, 137, 112]
    assert [variant.feature_dim for variant in savings.variants] == [8, 8, 5, 5]


@pytest.mark.parametrize("dim", [0, -1, 3])
def test_a_dimension_that_holds_no_etf_is_refused_before_anything_is_measured(dim: int) -> None:
    with pytest.raises(ValueError, match=f"feature_dim={dim} cannot hold a simplex ETF of 5 classes: pass at least 4"):
        parameter_savings(
            nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 5)),
            feature_dim=dim,
            inputs=torch.randn(6, 4),
            watch=lambda *_: pytest.fail("it was measured"),
        )


def test_features_too_few_for_the_classes():
    savings = parameter_savings(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 20)))
    assert [variant.name for variant in savings.variants] == ["as it is", "d = K", "both"]


def test_a_frozen_model_has_nothing_to_save() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)).requires_grad_(False)
    with pytest.raises(ValueError, match="every parameter of the model is frozen"):
        parameter_savings(model)


def test_memory_of_partly_frozen_models() -> None:
    """Only what is trained has gradients and state; a variant without any is counted and not measured."""
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 3, bias=False))
    whole = parameter_savings(model, inputs=torch.randn(4, 64))["as it is"]
    model[2].requires_grad_(False)
    partly = parameter_savings(model, inputs=torch.randn(4, 64))["as it is"]
    frozen = 4 * (256 * 256 + 256)
    assert partly.gradients == whole.gradients - frozen
    # The layer in the middle keeps its weights alone: no gradient, no two moments, none of the step's temporaries.
    assert 3 * frozen <= whole.adam_peak - partly.adam_peak <= 5 * frozen
    model[0].requires_grad_(False)
    head_only = parameter_savings(model, inputs=torch.randn(4, 64))
    assert head_only["fixed head"].parameters == 0
    assert head_only["fixed head"].sgd_peak is None
    assert "fixed head" in str(head_only)
    assert all(parameter.grad is None for parameter in model.parameters())
