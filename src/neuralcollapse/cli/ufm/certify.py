"""``neuralcollapse ufm certify``."""

from __future__ import annotations

from neuralcollapse.cli.ufm.problem import DecayOptions, Decays


def certify(
    point: str,
    /,
    *,
    decays: DecayOptions = Decays(),  # noqa: B008  (it is frozen)
) -> None:
    """Judge a point: how far is it from optimal? The bound comes with a proof.

    For example:
      neuralcollapse ufm solve --output point.npz && neuralcollapse ufm certify point.npz
      neuralcollapse ufm certify point.npz --lambda-w 0.001
      neuralcollapse ufm certify point.npz --loss mse --no-bias

    Args:
        point: File of the point, .npz or .safetensors, with W (K, d), H (d, N), b (K,) and labels (N,).
    """
    import numpy as np

    from neuralcollapse.geometry.inputs import as_labels
    from neuralcollapse.measurement.embeddings import load_tensors
    from neuralcollapse.ufm import UFM, Point

    tensors = load_tensors(point, ("W", "H", "b", "labels"))
    labels = as_labels(tensors.pop("labels"), f"{point}: labels").long().numpy()
    arrays = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    if arrays["W"].ndim != 2:
        raise ValueError(f"{point}: W has shape {arrays['W'].shape}, expected (K, d)")
    num_classes, feature_dim = arrays["W"].shape
    if labels.ndim != 1 or not ((labels >= 0) & (labels < num_classes)).all():
        raise ValueError(f"{point}: labels must be {num_classes} classes from 0, in one dimension")
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=num_classes)
    problem = UFM(num_classes, counts.tolist(), feature_dim, **decays.lambdas())
    if arrays["H"].shape != (feature_dim, len(labels)):
        raise ValueError(f"{point}: H has shape {arrays['H'].shape}, expected ({feature_dim}, {len(labels)})")
    print(problem)
    print(problem.certify(Point(arrays["W"], arrays["H"][:, order], arrays["b"])))
