from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from neuralcollapse import CollapseReport, measure
from neuralcollapse.geometry.collapse import CollapseWarning
from tests.cases import flattened, oracle


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(24, 3),
    )  # fmt: skip


def images(count: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 3
    return torch.randn(count, 1, 8, 8, generator=generator) + labels[:, None, None, None], labels


def loader(batch: int = 7) -> DataLoader:
    return DataLoader(TensorDataset(*images()), batch)


def by_hand(model: nn.Sequential) -> tuple[Tensor, Tensor]:
    """Inputs of the last layer and logits, without hooks."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        features = model[:-1](images()[0])
        return features, model[-1](features)


def test_measures_are_those_of_the_classifiers_input() -> None:
    model = network()
    features, logits = by_hand(model)
    labels = images()[1]
    report = measure(model, loader())
    expected = oracle(features, labels, model[-1].weight.detach(), model[-1].bias.detach())
    for name, value in expected.items():
        assert report.to_dict()[name] == pytest.approx(value, rel=1e-5), name
    assert report.accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    means = torch.stack([features[labels == k].mean(0) for k in range(3)])
    nearest = torch.cdist(features, means).argmin(1)
    assert report.ncc_mismatch == pytest.approx(float((nearest != logits.argmax(1)).float().mean()))
    assert report.classifier == "6"
    torch.testing.assert_close(report.features, features)


def test_nc1_that_streamed_products_would_lose_is_settled_by_the_features() -> None:
    case = flattened(along=1e-6, seed=0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(24, 4))
    batches = list(zip(case.features.split(100), case.labels.split(100), strict=True))
    expected = oracle(case.features, case.labels)["nc1"]
    assert measure(model, batches).metrics.nc1 == pytest.approx(expected, rel=1e-5)
    with pytest.warns(CollapseWarning, match="NC1 is lost in rounding"):  # nothing held
        measure(model, batches, ncc=False)


def test_the_model_is_left_as_it_was() -> None:
    model = network()
    model.train()
    model[1].eval()
    before = copy.deepcopy(model.state_dict())
    flags = [module.training for module in model.modules()]

    def unchanged() -> None:
        assert [module.training for module in model.modules()] == flags
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]), name
        for module in model.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
        assert all(parameter.grad is None for parameter in model.parameters())

    measure(model, loader(), layers=["0", "3"])
    unchanged()
    with pytest.raises(ValueError, match="label 9"):
        measure(model, [(images()[0], torch.full((40,), 9))])
    unchanged()

    class Counting(nn.Module):
        """Writes into a buffer even in evaluation mode."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.seen += len(x)
            return x

    counting = nn.Sequential(Counting(), *network())
    measure(counting, loader())
    assert float(counting[0].seen) == 0


def test_inner_layers_are_pooled_and_measured() -> None:
    model = network()
    report = measure(model, loader(), layers=["0", "4"])
    x, labels = images()
    with torch.no_grad():
        maps = copy.deepcopy(model).eval()[0](x)
    expected = oracle(maps.mean((2, 3)), labels)
    for name, value in expected.items():
        assert report.layers["0"].to_dict()[name] == pytest.approx(value, rel=1e-5), name
    assert report.layers["4"].nc1 == pytest.approx(report.metrics.nc1, rel=1e-6)
    assert "nc1_quotient" in str(report)


def test_hugging_face_batches_and_records() -> None:
    class Output(dict):
        pass

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Linear(5, 2)

        def forward(self, values: Tensor, mask: Tensor) -> Output:
            return Output(logits=self.classifier(values * mask))

    torch.manual_seed(0)
    values, labels = torch.randn(12, 5), torch.arange(12) % 2
    model = Model()
    batches = [{"values": values, "mask": torch.ones(12, 1), "labels": labels}]
    report = measure(model, batches)
    assert report.metrics.nc1 == pytest.approx(oracle(values, labels)["nc1"], rel=1e-5)


def test_token_classification_by_hugging_face_bert() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=3
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config)
    tokens = torch.randint(0, 50, (12, 7))
    batches = [{"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": torch.arange(12) % 3}]
    report = measure(model, batches, layers=["bert.encoder.layer.0"])
    assert report.classifier == "classifier"
    assert report.layers["bert.encoder.layer.0"].nc1 > 0


@pytest.mark.parametrize("bits", [torch.bfloat16, torch.float64])
def test_models_of_any_precision(bits: torch.dtype) -> None:
    model = network().to(bits)
    x, labels = images()
    report = measure(model, [(x.to(bits), labels)])
    expected = oracle(report.features, labels)
    assert report.metrics.nc1 == pytest.approx(expected["nc1"], rel=1e-5)


def test_features_too_many_to_hold_leave_the_mismatch_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import neuralcollapse.measurement.model as module

    monkeypatch.setattr(module, "_RETAINED_BYTES", 1000)
    with pytest.warns(CollapseWarning, match="ncc_mismatch is left out"):
        report = measure(network(), loader())
    assert report.ncc_mismatch is None
    assert measure(network(), loader(), ncc=False).ncc_mismatch is None


def test_missing_class() -> None:
    x, labels = images()
    kept = labels != 1
    with pytest.raises(ValueError, match="1 of 3 classes have no samples: 1"):
        measure(network(), [(x[kept], labels[kept])])
    with pytest.warns(CollapseWarning, match="no samples: 1"):
        report = measure(network(), [(x[kept], labels[kept])], allow_missing=True)
    assert isinstance(report, CollapseReport)


class Highest(nn.Module):
    """Its logits are the largest over positions: no linear function of one feature vector."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x[:, 0]).max(1).values


@pytest.mark.parametrize(
    ("model", "batches", "options", "message"),
    [
        (network, [], {}, "no samples were seen: the loader is empty"),
        (network, [images()[0]], {}, r"the loader gave a Tensor: expected \(inputs, labels\)"),
        (network, [{"x": images()[0]}], {}, "none of them is labels"),
        (network, [images()], {"classifier": "7"}, "classifier='7' is not a layer"),
        (network, [images()], {"layers": ["9"]}, "has no layer '9'"),
        (Highest, [images()], {}, r"input of classifier 'fc' has shape \(40, 8, 8\)"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), [images()], {}, "has a single output"),
    ],
)
def test_bad_input(model, batches: list, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(model(), batches, **options)
