"""What a run is: every choice, with the paper's protocol as the default.

Imports nothing heavy, so that the command line can show its help at once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class TrainConfig:
    """Train a classifier and measure its collapse. What is not given follows the data set and optimizer."""

    dataset: str = "digits"
    """digits (embedded), mnist, fashion-mnist, cifar10, cifar100, imagefolder:PATH or hf:ID_OR_PATH"""
    model: str | None = None
    """mlp, convnet, resnet18, resnet50, torchvision:NAME or timm:NAME; mlp for digits, otherwise resnet18"""
    head: Literal["learned", "etf"] = "learned"
    """the classifier: learned, or a fixed simplex ETF (the paper's Figure 7)"""
    feature_dim: int | None = None
    """dimension of the features, such as the number of classes; by default the model's own"""
    width: int | None = None
    """of mlp (default 256), or of the first stage of resnet18 and resnet50 (default 64; the paper's Figure 5)"""
    stem: Literal["imagenet", "small"] = "imagenet"
    """of resnet18 and resnet50; small: a 3x3 convolution and no pooling (the paper's Figure 7)"""
    optimizer: Literal["sgd", "adam", "lbfgs"] = "sgd"
    """the paper's three"""
    epochs: int | None = None
    """passes over the training data; 120 for digits, otherwise the paper's 200"""
    samples_per_class: int | None = None
    """train on the first n samples of each class; by default on all"""
    test_samples_per_class: int | None = None
    """test on the first n of each class; by default on all"""
    random_labels: bool = False
    """train on labels drawn at random, balanced (the paper's Figure 5); the seed of the labels is fixed"""
    batch_size: int | None = None
    """over all devices; 128, and for lbfgs all samples up to 2048"""
    learning_rate: float | None = None
    """0.05 for sgd, 0.001 for adam, 0.1 for lbfgs (the paper's)"""
    momentum: float = 0.9
    """of sgd"""
    weight_decay: float | None = None
    """L2 penalty on all parameters; 0.005 for digits, otherwise the paper's 0.0005"""
    feature_decay: float | None = None
    """penalty on the features, averaged over the batch; weight_decay then falls on the classifier alone (Figure 6)"""
    lr_decay_every: int = 40
    """epochs after which sgd and adam divide their learning rate by ten (the paper's)"""
    lbfgs_memory: int = 10
    """past gradients that lbfgs keeps (the paper's)"""
    lbfgs_iterations: int = 4
    """lbfgs iterations a batch, each a strong Wolfe line search"""
    augment: bool = False
    """pad by 4, crop at random, flip at random (the paper's Figure 7)"""
    image_size: int | None = None
    """side to which images are resized; 32, for digits their own 8, for folders and the Hub 64 unless all are 32"""
    seed: int = 0
    """of the initial weights, the order of samples and the augmentation"""
    measure_every: int = 1
    """epochs between measurements"""
    data_root: str = "data"
    """folder of torchvision's data sets (DATA_ROOT/MNIST/raw, ...)"""
    output: str | None = None
    """run folder; by default runs/DATASET-MODEL-OPTIMIZER-seedN"""
    resume: bool = False
    """continue the run in the output folder, if there is one"""
    devices: int = 1
    """processes, or accelerators, of a machine to train on (DDP)"""
    nodes: int = 1
    """machines to train on (DDP); each gives the command with NODE_RANK, MASTER_ADDR and MASTER_PORT, or under srun"""
    accelerator: str = "auto"
    """auto, cpu, gpu, mps, ... as Lightning names them"""
    loggers: Literal["tensorboard", "wandb"] | list[Literal["tensorboard", "wandb"]] = dataclasses.field(
        default_factory=list
    )
    """besides metrics.csv, which is always written: tensorboard, wandb or [tensorboard,wandb]"""

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
            "loggers": [self.loggers] if isinstance(self.loggers, str) else self.loggers,
        }
        config = dataclasses.replace(self, **filled)
        if config.output is None:
            words = (config.dataset, config.model, config.optimizer, f"seed{config.seed}")
            name = "-".join(str(word).rpartition(":")[2].strip("./").replace("/", "_") for word in words)
            config = dataclasses.replace(config, output=str(Path("runs") / name))
        config._check()
        return config

    def _check(self) -> None:
        for name in ("epochs", "samples_per_class", "test_samples_per_class", "batch_size", "feature_dim", "width",
                     "lr_decay_every", "lbfgs_memory",
                     "lbfgs_iterations", "image_size", "measure_every", "devices", "nodes"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} must lie in [0, 2**63)")
        if not self.learning_rate or not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate={self.learning_rate} must be positive and finite")
        for name in ("momentum", "weight_decay", "feature_decay"):
            if not 0 <= (getattr(self, name) or 0) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must not be negative, and finite")
        resnet = self.model in ("resnet18", "resnet50")
        if self.width is not None and not (resnet or self.model == "mlp"):
            raise ValueError(f"width={self.width} is for model mlp, resnet18 or resnet50, not {self.model}")
        if self.stem != "imagenet" and not resnet:
            raise ValueError(f"stem={self.stem!r} is for model resnet18 or resnet50, not {self.model}")
        if self.optimizer == "lbfgs" and self.devices * self.nodes > 1:
            raise ValueError("optimizer='lbfgs' runs on devices=1, nodes=1: its line search evaluates the whole batch")

    def to_dict(self) -> dict[str, Any]:
        """Fields by name, plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def load(cls, path: str | Path) -> TrainConfig:
        """Read a config.yaml.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is not YAML, has unknown fields or values of the wrong type.
        """
        from jsonargparse import ArgumentParser

        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(cls)
        if not Path(path).is_file():
            raise FileNotFoundError(f"no configuration at {path}: is its folder a run?")
        try:
            return cls(**parser.parse_path(str(path)).as_dict())
        except Exception as error:  # whatever the YAML library or the parser objects to is the user's to read
            raise ValueError(f"{path} is not a valid configuration: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write config.yaml."""
        import yaml

        Path(path).write_text(yaml.safe_dump(self.to_dict(), sort_keys=False))
