"""Private names of other packages: each is listed here with its guard, and the installed packages have it."""

from __future__ import annotations

import ast
import importlib
import os
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import lightning
import pytest
import torch
from torch import nn
from torch.nn.modules import batchnorm, conv, dropout, padding, pooling

SOURCE = Path(__file__).parents[1] / "src" / "neuralcollapse"

BASE_CLASS = "a base class of torch's layers: without it the import fails at once, and this test before it"
NAMES = {
    "_ConvNd": (conv, BASE_CLASS),
    "_NormBase": (batchnorm, BASE_CLASS),
    "_DropoutNd": (dropout, BASE_CLASS),
    "_MaxPoolNd": (pooling, BASE_CLASS),
    "_AvgPoolNd": (pooling, BASE_CLASS),
    "_AdaptiveAvgPoolNd": (pooling, BASE_CLASS),
    "_AdaptiveMaxPoolNd": (pooling, BASE_CLASS),
    "_LPPoolNd": (pooling, BASE_CLASS),
    "_MaxUnpoolNd": (pooling, BASE_CLASS),
    "_ConstantPadNd": (padding, BASE_CLASS),
    "_ReflectionPadNd": (padding, BASE_CLASS),
    "_ReplicationPadNd": (padding, BASE_CLASS),
    "_CircularPadNd": (padding, BASE_CLASS),
    "_buffers": (nn.Module(), "every module has it; test_preserve compares all buffers before and after"),
    "_parameters": (nn.Module(), "every module has it; test_preserve compares all parameters"),
    "_forward_pre_hooks": (nn.Module(), "every module has it; test_metric prunes and normalises a layer"),
    "_fields": (namedtuple("Pair", "a b"), "documented by Python; asked for with hasattr"),
    "_orig_mod": (torch.compile(nn.Linear(1, 1)), "asked of an OptimizedModule alone; test_heads compiles one"),
    "_ops": (torch, "the documented torch.ops has no class of operators; test_layers exports a model"),
    "_tools": (torch.distributed, "MemTracker, guarded: savings() says that memory cannot be followed"),
    "_on_before_batch_transfer": (lightning.LightningModule, "guarded: the public hook stands in for it"),
    "_exit": (os, "documented by Python"),
}
"""Name: where it is, and what holds if it is not."""


def used() -> Iterator[tuple[str, str]]:
    """(name, place) of each private name that the package asks of something else than itself."""
    trees = {path: ast.parse(path.read_text()) for path in SOURCE.rglob("*.py")}
    nodes = [(path, node) for path, tree in trees.items() for node in ast.walk(tree)]
    own = {node.name for _, node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.attr for _, node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    own |= {node.id for _, node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for path, node in nodes:
        names = [node.attr] if isinstance(node, ast.Attribute) else []
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(("neuralcollapse", "__future__")):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr") and len(node.args) > 1:
            names = [node.args[1].value] if isinstance(node.args[1], ast.Constant) else []
        for name in names:
            if name.startswith("_") and not name.startswith("__") and name not in own - NAMES.keys():
                yield name, f"{path.relative_to(SOURCE)}:{node.lineno}"


def test_each_is_listed_with_its_guard_and_none_is_listed_in_vain() -> None:
    found = dict(used())
    unknown = {name: place for name, place in found.items() if name not in NAMES}
    assert not unknown, "a private name of another package needs a guard, a test and a line in NAMES"
    assert found.keys() - {"_parameters"} == NAMES.keys() - {"_parameters"}


@pytest.mark.parametrize("name", NAMES)
def test_the_installed_packages_have_it(name: str) -> None:
    if name == "_tools":
        importlib.import_module("torch.distributed._tools.mem_tracker")
    assert hasattr(NAMES[name][0], name)
