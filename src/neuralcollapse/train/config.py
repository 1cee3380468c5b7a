"""What a run is: every choice, with the paper's protocol as the default.

Imports nothing heavy, so that the command line can show its help at once.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from cyclopts import ArgumentCollection, CoercionError, Group, Parameter, Token

from neuralcollapse import files
from neuralcollapse.names import BACKBONES

if TYPE_CHECKING:
    from cyclopts import App

_DATA = Parameter(group=Group("Data", sort_key=1))
_MODEL = Parameter(group=Group("Model", sort_key=2))
_TRAINING = Parameter(group=Group("Training", sort_key=3))
_RUN = Parameter(group=Group("Run", sort_key=4))
_MACHINES = Parameter(group=Group("Machines", sort_key=5))
PATH = Parameter(metavar="PATH")
"""Of an option that takes a path as text."""

PLACE_OF_A_RUN = frozenset({"output", "resume", "data_root", "devices", "nodes", "accelerator", "capture", "loggers"})
"""Fields of :class:`TrainConfig` that say where and how a run is made. They do not make another experiment of it."""

Logger = Literal["tensorboard", "wandb"]


def _loggers(_: Any, tokens: Sequence[Token]) -> list[str]:
    """``tensorboard``, ``tensorboard,wandb`` or ``[tensorboard,wandb]``."""
    names = [name for token in tokens for name in token.value.strip("[]").replace(",", " ").split()]
    if unknown := [name for name in names if name not in get_args(Logger)]:
        raise ValueError(f"no logger {unknown[0]!r}: choose {', '.join(get_args(Logger))}")
    return names


@dataclass(frozen=True)
class TrainConfig:
    """Train a classifier and measure its collapse. What is not given follows the data set and optimizer.

    The annotations say in which group the command line's help lists an option.
    """

    dataset: Annotated[str, _DATA] = "digits"
    """The images: digits (embedded), mnist, fashion-mnist, cifar10, cifar100, imagefolder:PATH or hf:ID_OR_PATH."""
    model: Annotated[str | None, _MODEL] = None
    """The network: mlp, convnet, resnet18, resnet50, torchvision:NAME or timm:NAME. By default mlp for digits,
    resnet18 for everything else."""
    head: Annotated[Literal["learned", "etf"], _MODEL] = "learned"
    """The classifier: learned, or a fixed simplex ETF (the paper's Figure 7)."""
    feature_dim: Annotated[int | None, _MODEL] = None
    """Dimension of the features, such as the number of classes. By default the model's own."""
    width: Annotated[int | None, _MODEL] = None
    """Width of mlp's layers (256 by default), or of the first stage of resnet18 and resnet50 (64 by default; the
    paper's Figure 5)."""
    stem: Annotated[Literal["imagenet", "small"], _MODEL] = "imagenet"
    """First layers of resnet18 and resnet50; small is a 3x3 convolution without pooling (the paper's Figure 7)."""
    optimizer: Annotated[Literal["sgd", "adam", "lbfgs"], _TRAINING] = "sgd"
    """The optimizer; the paper compares these three."""
    epochs: Annotated[int | None, _TRAINING] = None
    """Passes over the training data. By default 120 for digits, and the paper's 200 for everything else."""
    samples_per_class: Annotated[int | None, _DATA] = None
    """Train on the first n samples of each class. By default on all."""
    test_samples_per_class: Annotated[int | Literal["all", "auto"], _DATA] = "auto"
    """Test on the first n samples of each class, or on all. By default on all. With --samples-per-class: on
    as many test images per class as training images, but at least 100, so that testing stays quick."""
    random_labels: Annotated[bool, _DATA] = False
    """Train on labels drawn at random, balanced (the paper's Figure 5). --seed does not change them."""
    batch_size: Annotated[int | None, _TRAINING] = None
    """Samples per step, over all devices. By default 128; for lbfgs all samples, up to 2048."""
    learning_rate: Annotated[float | None, _TRAINING, Parameter(alias="--lr")] = None
    """The initial learning rate. By default the paper's: 0.05 for sgd, 0.001 for adam, 0.1 for lbfgs."""
    momentum: Annotated[float, _TRAINING] = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[float | None, _TRAINING] = None
    """L2 penalty on all parameters. By default 0.005 for digits, and the paper's 0.0005 for everything else."""
    feature_decay: Annotated[float | None, _TRAINING] = None
    """Penalty on the features, averaged over the batch; --weight-decay then applies to the classifier alone (the
    paper's Figure 6)."""
    lr_decay_every: Annotated[int, _TRAINING] = 40
    """Epochs after which SGD and Adam divide their learning rate by ten."""
    lbfgs_memory: Annotated[int, _TRAINING] = 10
    """Number of past gradients that L-BFGS keeps."""
    lbfgs_iterations: Annotated[int, _TRAINING] = 4
    """L-BFGS iterations per batch, each with a strong Wolfe line search."""
    augment: Annotated[bool, _DATA] = False
    """Pad training images by 4, crop and flip them at random (the paper's Figure 7)."""
    image_size: Annotated[int | None, _DATA] = None
    """Side to which images are resized. By default 32. Digits keep their size of 8. Folders and data sets of the Hub
    get 64, unless all their images are 32."""
    seed: Annotated[int, _TRAINING] = 0
    """Seed of the initial weights, the order of samples and the augmentation."""
    measure_every: Annotated[int, _RUN] = 1
    """Epochs between measurements."""
    test_every: Annotated[int | None, _RUN] = None
    """Epochs between tests. By default the test accuracy is taken with each measurement."""
    measure_test: Annotated[bool, _RUN] = False
    """Measure the collapse of the test data too, at each test. This adds the columns test_nc1, test_nc2 and so on to
    metrics.csv, and dashed curves to the report."""
    data_root: Annotated[str, _DATA, PATH] = "data"
    """Folder of torchvision's data sets: it holds MNIST/raw, cifar-10-batches-py and so on."""
    output: Annotated[str | None, _RUN, PATH] = None
    """Run folder. By default runs/DATASET-MODEL-OPTIMIZER-seedN."""
    resume: Annotated[bool, _RUN] = False
    """Continue the run in the output folder, if there is one."""
    devices: Annotated[int, _MACHINES] = 1
    """Processes, or accelerators, to train on per machine (DDP)."""
    nodes: Annotated[int, _MACHINES] = 1
    """Machines to train on (DDP). Start the same command on each, with NODE_RANK, MASTER_ADDR and MASTER_PORT set, or
    under srun."""
    accelerator: Annotated[str, _MACHINES] = "auto"
    """Kind of device, as Lightning names it: auto, cpu, gpu, mps, ..."""
    precision: Annotated[Literal["32-true", "bf16-mixed", "16-mixed"], _MACHINES] = "32-true"
    """Arithmetic of the training steps, as Lightning names it. Measures are always taken in single precision."""
    capture: Annotated[bool, _MACHINES] = False
    """Replay the training steps of mlp, convnet, resnet18 and resnet50 as one graph, on a single device of CUDA or
    ROCm, where small networks then train faster. Results can differ from those of the usual steps in rounding."""
    loggers: Annotated[Logger | list[Logger], _RUN, Parameter(converter=_loggers, metavar="NAMES")] = dataclasses.field(
        default_factory=list
    )
    """Write to tensorboard or wandb too, or to both: tensorboard,wandb. metrics.csv is always written."""

    def resolved(self) -> TrainConfig:
        """Every open choice made.

        Raises:
            ValueError: naming the field, its value and the constraint.
        """
        digits = self.dataset == "digits"
        filled: dict[str, Any] = {
            "model": self.model or ("mlp" if digits else "resnet18"),
            "epochs": self.epochs if self.epochs is not None else (120 if digits else 200),
            "batch_size": self.batch_size
            if self.batch_size is not None
            else (2048 if self.optimizer == "lbfgs" else 128),
            "weight_decay": self.weight_decay if self.weight_decay is not None else (5e-3 if digits else 5e-4),
            "learning_rate": self.learning_rate
            if self.learning_rate is not None
            else {"sgd": 0.05, "adam": 1e-3, "lbfgs": 0.1}[self.optimizer],
            "test_every": self.test_every if self.test_every is not None else self.measure_every,
            "loggers": [self.loggers] if isinstance(self.loggers, str) else self.loggers,
        }
        if self.test_samples_per_class == "auto" and self.samples_per_class is None:
            filled["test_samples_per_class"] = "all"
        config = dataclasses.replace(self, **filled)
        if config.output is None:
            words = (config.dataset, config.model, config.optimizer, f"seed{config.seed}")
            name = "-".join(str(word).rpartition(":")[2].strip("./").replace("/", "_") for word in words)
            config = dataclasses.replace(config, output=str(Path("runs") / name))
        # Lightning expands ~ in the folder of its checkpoints: all else of the run must lie there too.
        config = dataclasses.replace(config, output=os.path.expanduser(str(config.output)))
        config._check()
        return config

    def _check(self) -> None:
        for name in ("epochs", "samples_per_class", "test_samples_per_class", "batch_size", "feature_dim", "width",
                     "lr_decay_every", "lbfgs_memory",
                     "lbfgs_iterations", "image_size", "measure_every", "test_every", "devices", "nodes"):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} must lie in [0, 2**63)")
        if not self.learning_rate or not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate={self.learning_rate} must be positive and finite")
        for name in ("momentum", "weight_decay", "feature_decay"):
            if not 0 <= (getattr(self, name) or 0) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must be finite and at least 0")
        resnet = self.model in ("resnet18", "resnet50")
        if self.width is not None and not (resnet or self.model == "mlp"):
            raise ValueError(f"width={self.width} is for model mlp, resnet18 or resnet50, not {self.model}")
        if self.stem != "imagenet" and not resnet:
            raise ValueError(f"stem={self.stem!r} is for model resnet18 or resnet50, not {self.model}")
        if self.optimizer == "lbfgs" and self.devices * self.nodes > 1:
            raise ValueError("optimizer='lbfgs' runs on devices=1, nodes=1: its line search evaluates the whole batch")
        if self.optimizer == "lbfgs" and self.precision == "16-mixed":
            raise ValueError("optimizer='lbfgs' runs at precision='32-true' or 'bf16-mixed': it cannot scale its loss")
        self._check_capture()
        if not str(self.output).strip():
            raise ValueError(f"output={self.output!r} names no folder: give one, such as runs/mine")

    def _check_capture(self) -> None:
        if not self.capture:
            return
        if self.model not in BACKBONES:
            *most, last = BACKBONES
            raise ValueError(f"capture=True is for model {', '.join(most)} or {last}, not {self.model}")
        if self.precision == "16-mixed":  # its scale changes between steps, and a captured backward would not see it
            raise ValueError("capture=True runs at precision='32-true' or 'bf16-mixed', not '16-mixed'")
        if self.devices * self.nodes > 1:
            raise ValueError("capture=True runs on devices=1, nodes=1: no step that waits for others can be captured")

    def to_dict(self) -> dict[str, Any]:
        """Fields by name, plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def load(cls, path: str | Path) -> TrainConfig:
        """Read a config.yaml.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is not a YAML mapping, or has unknown fields or values of the wrong type.
        """
        from cyclopts import App, CycloptsError
        from cyclopts.config import Dict

        from neuralcollapse.measurement.run_folder import read_values

        if not Path(path).is_file():
            raise FileNotFoundError(f"no configuration at {path}: is its folder a run?")
        fields = of_this_version({"test_samples_per_class": None, **read_values(path)})
        try:
            source = Dict(fields, use_commands_as_keys=False, source=str(path))
            app = App(config=(source, whole_numbers), result_action="return_value", help_flags=(), version_flags=())
            app.default(_from_fields)
            config: TrainConfig = app([], exit_on_error=False, print_error=False)
        except CycloptsError as error:
            raise ValueError(f"{path} is not a valid configuration: {error}") from error
        return config

    def save(self, path: str | Path) -> None:
        """Write config.yaml in one step."""
        import yaml

        files.write_text(path, yaml.safe_dump(self.to_dict(), sort_keys=False))


_ALWAYS = {"dataset", "model", "optimizer", "samples_per_class", "lr_decay_every", "lbfgs_memory", "resume"}
"""Fields that every version of the command has written, and no other loop writes all of."""


def made_by_train(values: Mapping[str, Any]) -> bool:
    """Whether ``neuralcollapse train`` wrote this config.yaml, and not a callback or a tracker in another loop."""
    return values.keys() >= _ALWAYS


def _from_fields(*, config: Annotated[TrainConfig, Parameter(name="*")] = TrainConfig()) -> TrainConfig:
    return config


def of_this_version(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields that an older version wrote, as they are written today: to test on all samples was null."""
    if fields.get("test_samples_per_class", "auto") is None:
        return {**fields, "test_samples_per_class": "all"}
    return fields


def whole_numbers(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse 1.5 where a whole number belongs; cyclopts, which calls this before it converts, would round it.

    Raises:
        CoercionError: naming the option.
    """
    for argument in arguments:
        if argument.hint is not int and int not in get_args(argument.hint):
            continue
        choices = {word for part in get_args(argument.hint) for word in get_args(part)}  # int | Literal["all"]
        for token in argument.tokens:
            if token.value and token.value not in choices and not token.value.strip().lstrip("+-").isdecimal():
                raise CoercionError(token=token, argument=argument, target_type=int)
