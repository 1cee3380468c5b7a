"""``neuralcollapse certify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from neuralcollapse.cli.options import writable, write_json
from neuralcollapse.run_files import CONFIG, SNAPSHOTS
from neuralcollapse.train.config import PATH

if TYPE_CHECKING:
    from neuralcollapse.train.optimality import Optimality


def certify(
    run: Path,
    /,
    *,
    data_root: Annotated[str | None, PATH] = None,
    class_means: bool = False,
    json: Path | None = None,
) -> None:
    """Judge a trained network as a point of the unconstrained feature model: how near is it to a proven optimum?

    The run's classifier, bias and features are put into the model, with the decays that its weight decay implies. The
    command prints the network's value in the model, a lower bound that no point of the model with these decays can
    beat, and its norms and Gram matrices beside those of the optimum. If a run has no checkpoint, the command uses
    the class means of its last snapshot as the features, and treats all classes as equally large.

    It prints the decays first: λW of the classifier, n λH (a feature's decay times the n samples of a class) and λb of
    the bias. Without --feature-decay training does not penalise the features, so λH is estimated from the norms of the
    network. The output says how. In the column of the optimum, a gap or a distance is 0.

    For example:
      neuralcollapse certify runs/digits-mlp-sgd-seed0
      neuralcollapse certify results/reduced/mnist-resnet18-sgd --json numbers.json

    Args:
        run: Run folder made by neuralcollapse train, or by a tracker or callback whose config.yaml has the optimizer
            and weight_decay.
        data_root: Folder of torchvision's data sets, if it is not where the run found it.
        class_means: Use the class means of the last snapshot, even if there is a checkpoint.
        json: Write the numbers to this file as well.
    """
    place = writable(json, "--json")
    from neuralcollapse.train.optimality import certify_run

    try:
        found = certify_run(run, data_root=data_root, class_means=class_means)
    except FileNotFoundError as error:
        if (run / SNAPSHOTS).is_dir() and not class_means and (run / CONFIG).is_file():
            raise FileNotFoundError(f"{error} (--class-means judges the run without its data)") from error
        raise
    _print(run, found)
    write_json(place, found.to_dict())


def _print(run: Path, found: Optimality) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    decays = found.decays
    lambdas = f"λW = {decays.weight:.3g}, n λH = {decays.features:.3g}, λb = {decays.bias:.3g}"
    for line in (f"{run}: {found.features}", f"{lambdas}; fitted: {decays.fitted}", ""):
        console.print(line, markup=False, soft_wrap=True)
    table = Table("", "network", "optimum")
    table.add_row("value f", f"{found.value:.6g}", f"at least {found.lower_bound:.6g} (proved)")
    table.add_row("gap", f"{found.gap:.3g} ({found.gap / found.value:.2%} of the value)", "0")
    for label, name in (("‖W‖", "weight"), ("‖H̄‖, class means", "features"), ("cross-entropy", "loss")):
        table.add_row(label, *(f"{getattr(one, name):.4g}" for one in (found.measured, found.predicted)))
    for label, name in (("WWᵀ", "weight_gram"), ("H̄ᵀH̄", "feature_gram"), ("WH̄", "logits")):
        distance = found.distances[name]
        table.add_row(f"{label}, distance from the optimum's", "–" if distance is None else f"{distance:.3g}", "0")
    console.print(table)
