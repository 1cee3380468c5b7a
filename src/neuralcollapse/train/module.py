"""The network with its normalisation, and the Lightning module that trains it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from neuralcollapse.measurement.outputs import logits_of
from neuralcollapse.nn import build_backbone, find_classifier, fix_classifier, multiply_small_maps, set_feature_dim
from neuralcollapse.train.config import TrainConfig
from neuralcollapse.train.datasets import ImageData, Split
from neuralcollapse.train.graphs import CapturedStep, can_capture
from neuralcollapse.train.seeds import mix, seed_generators

_log = logging.getLogger(__name__)

_STATISTICS_BATCH = 2048
"""Images per batch when batch normalisation's statistics are computed after an epoch of L-BFGS."""

_STATISTICS_STREAM = 1 << 32
"""Stands in for the rank in the seeds of that pass; no rank is as large."""


class ImageNetwork(nn.Module):
    """A backbone behind the normalisation of whole uint8 batches, on the device."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, mean: Tensor, std: Tensor, channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = channels
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None])

    def normalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Normalise with these channel moments, as shares of 255, from now on.

        Raises:
            ValueError: if there are not as many as channels, or one, or a deviation is not positive.
        """
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, self.channels):
                raise ValueError(f"{name} has {len(values)} values for {self.channels} channels: give one, or one each")
        if not min(std) > 0:
            raise ValueError(f"std={min(std)} must be positive")
        self.mean, self.std = (self.mean.new_tensor(values)[:, None, None] for values in (mean, std))

    def forward(self, pixels: UInt8[Tensor, "B C H W"]) -> Tensor:
        """Logits of images; one grey channel is repeated for a backbone of three."""
        images = (pixels.float() / 255 - self.mean) / self.std
        images = images.expand(-1, self.channels, -1, -1)
        return logits_of(self.backbone(images.contiguous(memory_format=torch.channels_last)))


def build_network(config: TrainConfig, data: ImageData) -> ImageNetwork:
    """The untrained network of a run; its weights follow from the seed.

    Raises:
        ValueError: if the model is unknown or does not fit the images.
    """
    channels, height, width = data.image_shape
    if config.model not in ("mlp", "convnet"):
        channels = 3
    torch.manual_seed(config.seed)
    backbone = build_backbone(
        str(config.model), len(data.classes), (channels, height, width), width=config.width, stem=config.stem
    )
    if config.feature_dim is not None:
        set_feature_dim(backbone, config.feature_dim)
    if config.head == "etf":
        fix_classifier(backbone)
    network = ImageNetwork(multiply_small_maps(backbone), *data.channel_moments(), channels)
    check_fit(network, data, str(config.model))
    if config.optimizer == "lbfgs":  # torch's L-BFGS flattens gradients, which needs them contiguous
        return network
    return network.to(memory_format=torch.channels_last)


@torch.no_grad()
def check_fit(network: ImageNetwork, data: ImageData, name: str) -> None:
    """Run two images through an untrained network, before anything long begins.

    Raises:
        ValueError: if it does not take images of this size, or has another number of classes.
    """
    network.eval()
    try:
        logits = network(data.train.pixels[:2])
    except Exception as error:  # whatever the network raises, the images are what it does not fit
        shape = "x".join(map(str, data.image_shape))
        raise ValueError(f"model {name!r} does not take {shape} images ({error}): try another image_size") from error
    finally:
        network.train()
    if logits.shape[1:] != (len(data.classes),):
        raise ValueError(f"model {name!r} gives {tuple(logits.shape[1:])} logits for {len(data.classes)} classes")


class ClassifierModule(L.LightningModule):
    """Cross-entropy with weight decay, by the paper's three optimizers (Zhu et al., Section 4)."""

    def __init__(self, network: ImageNetwork, config: TrainConfig) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self._features: Tensor | None = None
        if config.feature_decay is not None:
            find_classifier(network)[1].register_forward_pre_hook(self._keep_features)
        self._captured: CapturedStep | None = None
        self._replayed = False
        self._evaluated = False
        self._loss_sum: Tensor | float = 0.0
        self._losses_seen = 0

    def _keep_features(self, classifier: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0]

    def on_train_start(self) -> None:
        """Capture the steps, where that is asked for and the device can."""
        if not self.config.capture:
            return
        if not can_capture(self.device):
            _log.warning(
                "capture=True has no effect on %s: steps are captured on CUDA and ROCm alone", self.device.type
            )
            return
        assert self.trainer.train_dataloader is not None
        images = len(self.trainer.train_dataloader.dataset)
        self._captured = CapturedStep(self._losses, self.network, min(int(self.config.batch_size or 1), images))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits."""
        return self.network(pixels)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of a batch; the optimizer adds the weight decay, except for L-BFGS."""
        pixels, labels = batch
        # Each batch draws from its own seed: a resumed run continues as the unbroken one would, and L-BFGS,
        # which comes back to a batch in its line search, finds the same function there.
        seed_generators(mix(self.config.seed, self.current_epoch, batch_idx, self.global_rank), self.device)
        if self.config.augment:
            pixels = pad_crop_flip(pixels)
        self._replayed = self._captured is not None and len(labels) == self._captured.batch_size
        losses = self._captured if self._captured is not None and self._replayed else self._losses
        total, loss = losses(pixels, labels)
        if not self._evaluated:  # L-BFGS comes back to a batch at trial points, most of which it then leaves
            self._loss_sum = self._loss_sum + loss.detach() * len(labels)
            self._losses_seen += len(labels)
        self._evaluated = True
        return total

    def _losses(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What is minimised, and the cross-entropy in it."""
        loss = total = cross_entropy(self.network(pixels), labels)
        if self.config.feature_decay is not None:
            # Figure 6: the features that enter the classifier, averaged over the batch.
            assert self._features is not None
            total = loss + self.config.feature_decay / 2 * self._features.square().flatten(1).sum(1).mean()
            self._features = None
        if self.config.optimizer == "lbfgs":
            squares = torch.stack([parameter.square().sum() for parameter in self._decayed()])
            total = total + float(self.config.weight_decay or 0) / 2 * squares.sum()
        return total, loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Gradients of a step; those of a replayed one exist already."""
        if self._replayed:
            assert self._captured is not None
            self._captured.set_gradients()
        else:
            super().backward(loss, *args, **kwargs)

    def _decayed(self) -> list[nn.Parameter]:
        """Parameters that weight decay falls on: all, or with feature decay the classifier's."""
        owner = self.network if self.config.feature_decay is None else find_classifier(self.network)[1]
        return list(owner.parameters())

    def on_train_batch_end(self, outputs: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """After the last batch, log the epoch's loss; for L-BFGS, compute batch normalisation's statistics anew.

        L-BFGS's line search runs the network at trial points that it then leaves, and each of these would stay in
        the running averages that evaluation uses. The statistics are those over all training data.
        """
        self._evaluated = False
        if not self.trainer.is_last_batch:
            return
        mean, seen = self._loss_sum / self._losses_seen, self._losses_seen
        self._loss_sum, self._losses_seen = 0.0, 0
        # Once per epoch: Lightning's own mean costs a small network much of each step.
        self.log("train_loss", mean, on_step=False, on_epoch=True, sync_dist=True, batch_size=seen)
        if self.config.optimizer == "lbfgs":
            assert self.trainer.train_dataloader is not None
            torch.optim.swa_utils.update_bn(self._all_batches(self.trainer.train_dataloader.dataset), self.network)

    def _all_batches(self, split: Split) -> Iterator[Tensor]:
        """All training images, augmented as in training, in batches of nearly equal size."""
        parts = -(-len(split) // max(int(self.config.batch_size or 1), _STATISTICS_BATCH))
        for index, rows in enumerate(torch.arange(len(split)).tensor_split(parts)):
            pixels = split.pixels[rows].to(self.device)
            seed_generators(mix(self.config.seed, self.current_epoch, index, _STATISTICS_STREAM), self.device)
            yield pad_crop_flip(pixels) if self.config.augment else pixels

    def configure_optimizers(self) -> Any:
        """SGD or Adam with a step schedule, or L-BFGS with strong Wolfe line search."""
        config = self.config
        rate, decay = float(config.learning_rate or 0), float(config.weight_decay or 0)
        if config.optimizer == "lbfgs":
            return torch.optim.LBFGS(
                self.network.parameters(),
                lr=rate,
                max_iter=config.lbfgs_iterations,
                history_size=config.lbfgs_memory,
                line_search_fn="strong_wolfe",
            )
        decayed = self._decayed()
        chosen = {id(parameter) for parameter in decayed}
        free = [parameter for parameter in self.network.parameters() if id(parameter) not in chosen]
        groups = [{"params": decayed, "weight_decay": decay}, {"params": free, "weight_decay": 0.0}]
        parameters = [group for group in groups if group["params"]]
        optimizer: torch.optim.Optimizer
        if config.optimizer == "sgd":
            optimizer = torch.optim.SGD(parameters, lr=rate, momentum=config.momentum, fused=True)
        else:
            optimizer = torch.optim.Adam(parameters, lr=rate, fused=True)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, config.lr_decay_every, gamma=0.1)
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def pad_crop_flip(pixels: UInt8[Tensor, "B C H W"], margin: int = 4) -> UInt8[Tensor, "B C H W"]:
    """Pad with black, crop each image at random, flip half of them: one gather for the batch."""
    batch, _, height, width = pixels.shape
    device = pixels.device
    # Drawn on the host, so that the same seed gives the same images on every device.
    top, left = torch.randint(0, 2 * margin + 1, (2, batch, 1)).to(device)
    flip = (torch.rand(batch, 1) < 0.5).to(device)
    rows = top + torch.arange(height, device=device)
    columns = torch.arange(width, device=device).expand(batch, -1)
    columns = left + torch.where(flip, width - 1 - columns, columns)
    padded = pad(pixels, (margin,) * 4).permute(0, 2, 3, 1)
    index = torch.arange(batch, device=device)[:, None, None]
    return padded[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
