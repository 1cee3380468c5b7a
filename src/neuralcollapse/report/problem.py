"""An unconstrained feature model in words, for the pages about it."""

from __future__ import annotations

from neuralcollapse.ufm import UFM


def facts_of(problem: UFM) -> list[tuple[str, str]]:
    """Name and value of what defines the problem."""
    counts = problem.class_counts.tolist()
    samples = str(counts[0]) if problem.balanced else ", ".join(map(str, counts))
    return [
        ("loss", problem.loss.name.replace("_", " ")),
        ("classes K", str(problem.num_classes)),
        ("samples per class n", samples),
        ("feature dimension d", str(problem.feature_dim)),
        ("weight decay of the classifier λW", f"{problem.lambda_w:g}"),
        ("weight decay of the features λH", f"{problem.lambda_h:g}"),
        ("weight decay of the bias λb", f"{problem.lambda_b:g}"),
    ]
