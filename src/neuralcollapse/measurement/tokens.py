"""Batches of token numbers, as a causal language model takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_TOKENS = "give batches of token numbers: a (B, T) tensor, or a mapping with input_ids, as tokenizers return"


def token_inputs(batch: Any) -> dict[str, Any]:
    """Arguments of the forward pass; labels are left out, as the tokens themselves are the labels."""
    if isinstance(batch, tuple | list) and batch and isinstance(batch[0], Tensor):
        batch = batch[0]
    named = {"input_ids": batch} if isinstance(batch, Tensor) else batch
    if not isinstance(named, Mapping) or not isinstance(named.get("input_ids"), Tensor):
        raise ValueError(f"the token_loader gave a {type(batch).__name__}: {_TOKENS}")
    tokens = named["input_ids"]
    if tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise TypeError(f"input_ids have dtype {tokens.dtype}: expected integers, one token number per position")
    if tokens.ndim != 2 or tokens.shape[1] < 2:
        raise ValueError(f"input_ids have shape {tuple(tokens.shape)}: expected (B, T) with T at least 2")
    return {str(name): value for name, value in named.items() if name != "labels"}
