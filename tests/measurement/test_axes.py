"""The feature axis of every kind of layer, against means taken by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import Permute

from neuralcollapse import CollapseWarning, measure
from tests.cases import oracle

LABELS = torch.arange(12) % 3


def maps(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(12, *shape, generator=generator) + LABELS.reshape(12, *(1 for _ in shape))


def over_positions(output: Tensor, axis: int) -> Tensor:
    rows = output.movedim(axis, -1)
    return rows.flatten(1, -2).mean(1) if rows.ndim > 2 else rows


class Beside(nn.Module):
    """Runs a layer beside a classifier."""

    def __init__(self, layer: nn.Module, before: nn.Module | None = None, *, positions_first: bool = False) -> None:
        super().__init__()
        self.before = before or nn.Identity()
        self.layer = layer
        self.head = nn.Linear(4, 3)
        self.positions_first = positions_first

    def forward(self, x: Tensor) -> Tensor:
        given = x.transpose(0, 1) if self.positions_first else x
        given = self.before(given)
        if isinstance(self.layer, nn.MultiheadAttention):
            self.layer(given, given, given)
        else:
            self.layer(given)
        return self.head(x.flatten(1)[:, :4].float())


def check(model: Beside, x: Tensor, axis: int) -> None:
    kept: dict[str, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple, output: Tensor | tuple) -> None:
        found = output[0] if isinstance(output, tuple) else output
        kept["output"] = found.transpose(0, 1) if model.positions_first else found

    handle = model.layer.register_forward_hook(keep)
    found = measure(model, [(x, LABELS)], layers=["layer"]).layers["layer"].nc1
    handle.remove()
    assert found == pytest.approx(oracle(over_positions(kept["output"], axis), LABELS)["nc1"], rel=1e-4)


CHANNELS = {
    "Conv": lambda n: getattr(nn, f"Conv{n}d")(4, 6, 3),
    "ConvTranspose": lambda n: getattr(nn, f"ConvTranspose{n}d")(4, 6, 3),
    "BatchNorm": lambda n: getattr(nn, f"BatchNorm{n}d")(4),
    "InstanceNorm": lambda n: getattr(nn, f"InstanceNorm{n}d")(4),
    "GroupNorm": lambda n: nn.GroupNorm(2, 4),
    "MaxPool": lambda n: getattr(nn, f"MaxPool{n}d")(2),
    "AdaptiveAvgPool": lambda n: getattr(nn, f"AdaptiveAvgPool{n}d")(2),
}


@pytest.mark.parametrize("kind", CHANNELS)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_maps_with_channels_on_axis_1(kind: str, dims: int) -> None:
    before = nn.Identity() if kind != "InstanceNorm" else nn.LeakyReLU()
    check(Beside(CHANNELS[kind](dims), before), maps(4, *(9, 8, 7)[:dims]).abs(), 1)


@pytest.mark.parametrize(
    "layer", [nn.Linear(9, 6), nn.LayerNorm(9), nn.RMSNorm(9)], ids=lambda layer: type(layer).__name__
)
def test_layers_of_the_last_axis(layer: nn.Module) -> None:
    check(Beside(layer), maps(5, 9), 2)


def test_an_embedding_holds_features_last() -> None:
    check(Beside(nn.Embedding(20, 6)), torch.randint(0, 20, (12, 5)), 2)


SEQUENCES = {
    "LSTM": lambda first: nn.LSTM(8, 6, batch_first=first),
    "GRU": lambda first: nn.GRU(8, 6, bidirectional=True, batch_first=first),
    "RNN": lambda first: nn.RNN(8, 6, batch_first=first),
    "MultiheadAttention": lambda first: nn.MultiheadAttention(8, 2, batch_first=first),
    "TransformerEncoderLayer": lambda first: nn.TransformerEncoderLayer(8, 2, 16, batch_first=first),
}


@pytest.mark.parametrize("kind", SEQUENCES)
@pytest.mark.parametrize("first", [True, False], ids=["samples_first", "positions_first"])
@pytest.mark.parametrize("positions", [5, 12])  # 12: as many as samples, so that shapes do not tell
def test_sequences(kind: str, first: bool, positions: int) -> None:
    check(Beside(SEQUENCES[kind](first), positions_first=not first), maps(positions, 8), 2)


def test_a_layer_inside_positions_first_is_known_by_its_shape_or_refused() -> None:
    model = Beside(SEQUENCES["TransformerEncoderLayer"](False), positions_first=True)
    report = measure(model, [(maps(5, 8), LABELS)], layers=["layer", "layer.norm2"])
    assert report.layers["layer"].nc1 == pytest.approx(report.layers["layer.norm2"].nc1)
    with pytest.raises(ValueError, match=r"'layer.norm2'.*both axis 0 and axis 1 could count the 12 samples"):
        measure(model, [(maps(12, 8), LABELS)], layers=["layer.norm2"])


CARRIED = [
    nn.ReLU(),
    nn.Dropout(),
    nn.Identity(),
    nn.PReLU(6),
    nn.Softmax(1),
    nn.Flatten(2),
    nn.Upsample(scale_factor=2),
]


@pytest.mark.parametrize("layer", CARRIED, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("side", [5, 8])  # 8: maps of 6 x 6 under 6 channels
def test_what_has_no_axis_hands_on_that_of_the_layer_before(layer: nn.Module, side: int) -> None:
    check(Beside(layer, nn.Conv2d(4, 6, 3)), maps(4, side, side), 1)


@pytest.mark.parametrize("side", [7, 8])
def test_permutations(side: int) -> None:
    check(Beside(Permute([0, 2, 3, 1]), nn.Conv2d(4, 6, 3)), maps(4, side, 8), 3)
    check(Beside(Permute([0, 3, 1, 2]), nn.Linear(8, 6)), maps(4, side, 8), 1)


class Block(nn.Module):
    """Functional code after its layers, as in most residual blocks."""

    def __init__(self, ending: str) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.ending = ending

    def forward(self, x: Tensor) -> Tensor:
        found = self.norm(self.conv(x))
        if self.ending == "joined":
            return torch.cat([x, found], 1)
        if self.ending == "view":
            return found.permute(0, 2, 3, 1)
        found = torch.relu(found)
        return found if self.ending == "relu" else found.permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize(("ending", "axis"), [("relu", 1), ("joined", 1), ("view", 3), ("copy", 3)])
def test_containers(ending: str, axis: int) -> None:
    check(Beside(Block(ending)), maps(4, 9, 8), axis)


@pytest.mark.parametrize("ending", ["relu", "copy"])
def test_what_cannot_be_known_is_refused_and_pooling_decides(ending: str) -> None:
    model, batches = Beside(Block(ending)), [(maps(4, 6, 6), LABELS)]
    with pytest.raises(ValueError, match=r"'layer' \(Block\) gives shape \(12, 6, 6, 6\).*pooling=1 or pooling=-1"):
        measure(model, batches, layers=["layer"])
    axis = 1 if ending == "relu" else -1
    with torch.no_grad():
        expected = oracle(over_positions(model.eval().layer(batches[0][0]), axis), LABELS)["nc1"]
    for pooling in (axis, {"layer": axis}, lambda output: over_positions(output, axis)):
        assert measure(model, batches, layers=["layer"], pooling=pooling).layers["layer"].nc1 == pytest.approx(
            expected, rel=1e-5
        )


@pytest.mark.parametrize(
    ("pooling", "choose"),
    [("first", lambda x: x[:, 0]), ("last", lambda x: x[:, -1]), ("flatten", lambda x: x.flatten(1))],
)
def test_pooling_by_rule(pooling: str, choose) -> None:
    model, x = Beside(nn.Linear(8, 2)), maps(3, 8)
    expected = oracle(choose(model.layer(x).detach()), LABELS)["nc1"]
    found = measure(model, [(x, LABELS)], layers=["layer"], pooling=pooling).layers["layer"].nc1
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ("mean", "pooling='mean' is unknown"),
        (7, "pooling=7 is no axis"),
        ({"9": 1}, "pooling names '9'"),
        (lambda x: x, "pooling of layer"),
    ],
)
def test_pooling_that_makes_no_sense(pooling: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(Beside(nn.Linear(8, 2)), [(maps(3, 8), LABELS)], layers=["layer"], pooling=pooling)


def test_an_axis_that_flat_features_do_not_have_is_refused_too() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    batch = [(torch.randn(len(LABELS), 4), LABELS)]
    found, expected = (measure(model, batch, layers=["0"], pooling=axis).layers["0"] for axis in (1, None))
    assert found.nc1 == expected.nc1
    with pytest.raises(ValueError, match="pooling=7 is no axis of layer '0'"):
        measure(model, batch, layers=["0"], pooling=7)
    with pytest.raises(ValueError, match="whose axis 0 counts the samples"):
        measure(model, batch, layers=["0"], pooling=0)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "convnext_atto"])
def test_timm_models_with_channels_last_inside(name: str) -> None:
    timm = pytest.importorskip("timm")
    layer, axis = ("layers.1.blocks.0", 3) if name.startswith("swin") else ("stages.1.blocks.0", 1)
    options = {"img_size": 64, "window_size": 4} if axis == 3 else {}
    model = timm.create_model(name, pretrained=False, num_classes=3, **options).eval()
    kept = {}
    model.get_submodule(layer).register_forward_hook(lambda module, given, output: kept.update(output=output))
    found = measure(model, [(maps(3, 64, 64), LABELS)], layers=[layer]).layers[layer].nc1
    assert found == pytest.approx(oracle(over_positions(kept["output"], axis), LABELS)["nc1"], rel=1e-3)


@pytest.mark.parametrize(("count", "more"), [(3, False), (10, False), (11, True)])
def test_a_layer_that_is_not_there_is_answered_by_ten_names_at_most(count: int, more: bool) -> None:
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(count)))
    listed = "Its layers: 0, 1, 2" if count <= 10 else f"Its {count} layers begin with 0, 1, 2"
    with pytest.raises(ValueError, match=listed) as caught:
        measure(model, [(torch.ones(6, 3), torch.arange(6) % 3)], layers=["elsewhere"])
    assert str(caught.value).endswith(", ...") is more


# ---- what nobody knows the axis of ------------------------------------------------------------------


class Latents(nn.Module):
    """Latent vectors that read a sequence (Perceiver): weights of its own, and no layers."""

    def __init__(self, count: int, width: int, out: int, *, channels_first: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.queries, self.values = nn.Parameter(torch.randn(count, width)), nn.Parameter(torch.randn(width, out))
        self.channels_first = channels_first

    def forward(self, x: Tensor) -> Tensor:
        found = torch.softmax(self.queries @ x.transpose(1, 2), -1) @ (x @ self.values)
        return found.transpose(1, 2).contiguous() if self.channels_first else found


class Shaped(nn.Module):
    """Code without weights."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x)


class Inside(nn.Module):
    """A container whose own code comes after a layer of known axis."""

    def __init__(self, layer: nn.Module, own: nn.Module) -> None:
        super().__init__()
        self.norm = layer
        self.own = own.forward
        for name, parameter in own.named_parameters():
            self.register_parameter(name, parameter)
        self.last = nn.Identity()  # does not run

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self.norm(x))


def merged_tokens(x: Tensor) -> Tensor:
    return torch.cat([x[:, ::2], x[:, 1::2]], 2)


def deep_space(x: Tensor) -> Tensor:
    return torch.cat([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)


UNKNOWN = {
    "latents": (Latents(16, 16, 32), nn.Linear(4, 16), (12, 4)),
    "latents, channels first": (Latents(16, 16, 32, channels_first=True), nn.Linear(4, 16), (12, 4)),
    "as many numbers": (Latents(16, 16, 24), nn.Linear(4, 16), (24, 4)),
    "a custom linear layer over positions": (Latents(5, 16, 16), nn.Linear(4, 16), (12, 4)),
    "a spectrum": (Shaped(lambda x: torch.fft.rfft(x, n=30, dim=1).abs()[..., :9]), nn.Linear(4, 16), (12, 4)),
    "merged tokens": (Shaped(merged_tokens), nn.Linear(4, 16), (32, 4)),
    "space to depth": (Shaped(deep_space), nn.Conv2d(3, 16, 1), (3, 32, 8)),
    "shuffled pixels": (Shaped(lambda x: nn.functional.pixel_shuffle(x, 2)), nn.Conv2d(3, 8, 1), (3, 4, 2)),
}


@pytest.mark.parametrize("kind", UNKNOWN)
@pytest.mark.parametrize("place", ["a layer", "a container", "an activation after it"])
def test_an_axis_that_nobody_knows_is_asked_for(kind: str, place: str) -> None:
    own, before, shape = UNKNOWN[kind]
    if place == "a container":
        model, layer = Beside(Inside(before, own)), "layer"
    elif place == "a layer":
        model, layer = Beside(own, before), "layer"
    else:
        model, layer = Beside(nn.Sequential(own, nn.ReLU()), before), "layer.1"
    batches = [(maps(*shape), LABELS)]
    with pytest.raises(ValueError, match=rf"layer '{layer}' \(.*\) gives shape \(12, .*pooling=1 or pooling=-1"):
        measure(model, batches, layers=[layer])
    found = measure(model, batches, layers=[layer], pooling=-1).layers[layer].nc1
    with torch.no_grad():
        output = model.layer(batches[0][0] if place == "a container" else before(batches[0][0]))
    assert found == pytest.approx(oracle(over_positions(output, -1), LABELS)["nc1"], rel=1e-3)


def test_all_layers_leave_it_out_and_say_why() -> None:
    class Perceiver(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inputs, self.latents, self.head = nn.Linear(4, 16), Latents(16, 16, 32), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.latents(self.inputs(x)).mean(1))

    with pytest.warns(CollapseWarning, match=r"leaves out 'latents': .*gives shape \(12, 16, 32\).*pooling="):
        found = measure(Perceiver(), [(maps(12, 4), LABELS)], layers="all")
    assert list(found.layers) == ["inputs"]


class Scaled(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


KNOWN = {
    "a scale": (Scaled(6), nn.Linear(4, 6), (9, 4), 2),
    "a table of positions": (Scaled(1, 9, 6), nn.Linear(4, 6), (9, 4), 2),
    "a scale of channels": (Scaled(1, 6, 1, 1), nn.Conv2d(3, 6, 1), (3, 9, 8), 1),
    "a pool": (Shaped(lambda x: nn.functional.max_pool2d(x, 2)), nn.Conv2d(3, 6, 1), (3, 8, 10), 1),
    "a token more": (Shaped(lambda x: torch.cat([x[:, :1], x], 1)), nn.Linear(4, 6), (9, 4), 2),
    "rows of a map": (Shaped(lambda x: (x + 1).reshape(12, 3, 3, 6)), nn.Linear(4, 6), (9, 4), 3),
    "tokens of a map": (Shaped(lambda x: (x + 1).flatten(2).transpose(1, 2)), nn.Conv2d(3, 6, 1), (3, 5, 7), 2),
    "a permuted copy": (Shaped(lambda x: x.permute(0, 2, 3, 1).contiguous()), nn.Conv2d(3, 6, 1), (3, 9, 8), 3),
    "more features": (Shaped(lambda x: torch.cat([x, x], 1)), nn.Conv2d(3, 6, 1), (3, 9, 8), 1),
}  # fmt: skip


@pytest.mark.parametrize("kind", KNOWN)
def test_what_code_of_the_user_leaves_known(kind: str) -> None:
    own, before, shape, axis = KNOWN[kind]
    check(Beside(own, before), maps(*shape), axis)


SHUFFLES = {
    "PixelShuffle": (nn.PixelShuffle(2), (8, 4, 2)),
    "PixelUnshuffle": (nn.PixelUnshuffle(2), (2, 8, 4)),
    "ChannelShuffle": (nn.ChannelShuffle(2), (6, 6, 6)),
    "Unfold": (nn.Unfold(2), (3, 5, 5)),
    "Fold": (nn.Fold((5, 5), 2), (12, 16)),
}


@pytest.mark.parametrize("kind", SHUFFLES)
def test_layers_that_move_numbers_between_positions_and_channels(kind: str) -> None:
    layer, shape = SHUFFLES[kind]
    check(Beside(layer), maps(*shape), 1)


# ---- layers by name ----------------------------------------------------------------------------------


class Aliased(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.act, self.fc = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)
        self.trunk = nn.Sequential(self.body, self.act)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.trunk(x))


@pytest.mark.parametrize("name", ["body", "trunk.0"])
def test_every_name_of_a_shared_layer(name: str) -> None:
    model, x = Aliased(), maps(4)
    found = measure(model, [(x, LABELS)], layers=[name]).layers
    assert list(found) == [name]
    assert found[name].nc1 == pytest.approx(oracle(model.body(x).detach(), LABELS)["nc1"], rel=1e-4)
    both = measure(model, [(x, LABELS)], layers=["body", "trunk.0"]).layers
    assert both["body"].nc1 == both["trunk.0"].nc1 == found[name].nc1


@pytest.mark.parametrize("how", ["script", "trace"])
def test_scripted_layers_are_left_out_with_a_reason(how: str) -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    scripted = torch.jit.script(inner) if how == "script" else torch.jit.trace(inner, torch.ones(2, 6))
    model = nn.Sequential(nn.Linear(4, 6), scripted, nn.Linear(6, 5), nn.Linear(5, 3))
    batches = [(maps(4), LABELS)]
    with pytest.raises(ValueError, match=r"layer '1' cannot be measured: it is a .*before it is scripted, or name a"):
        measure(model, batches, layers=["1"])
    with pytest.warns(CollapseWarning, match="leaves out '1': it is a .*which cannot be watched"):
        found = measure(model, batches, layers="all").layers
    assert list(found) == ["0", "2"]
    plain = nn.Sequential(model[0], inner, *model[2:])
    assert found["2"].nc1 == pytest.approx(measure(plain, batches, layers=["2"]).layers["2"].nc1, rel=1e-5)
    around = nn.Sequential(nn.Sequential(model[0], scripted), *model[2:])
    assert math.isfinite(measure(around, batches, layers=["0"]).layers["0"].nc1)
