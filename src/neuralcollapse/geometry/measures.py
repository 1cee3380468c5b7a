"""The registry of measures: name, formula, source, ideal value, direction, range and meaning of each.

Tables, column heads, plots, documentation and ``--help`` take their words from here. It imports no torch, so that it
costs nothing where only names are needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Group = Literal["within-class", "means", "classifier", "alignment", "decision"]

GROUPS: tuple[Group, ...] = ("within-class", "means", "classifier", "alignment", "decision")
"""In the order in which tables show them."""

_ZHU = "Zhu et al. 2021 (arXiv 2105.02375)"
_PAPYAN = "Papyan, Han and Donoho 2020 (PNAS 117)"
_PAIRS = "O(K²d): one sweep over all pairs of classes"


@dataclass(frozen=True)
class Measure:
    """What one measure is, and how to read its value."""

    name: str
    """Key in dictionaries, CSV columns and options."""
    title: str
    """Heading in tables and plots."""
    group: Group
    """What it describes."""
    formula: str
    """Definition in LaTeX."""
    source: str
    """Paper and equation or figure."""
    meaning: str
    """One sentence in plain English."""
    ideal: float = 0.0
    """Value at complete collapse."""
    direction: Literal["lower", "higher"] = "lower"
    """Which values mean more collapse."""
    range: tuple[float, float] = (0.0, math.inf)
    """Least and greatest possible value."""
    cost: str = "O(Kd)"
    """Work beyond the class moments: K classes, N samples, d features, r between-class directions."""

    @property
    def label(self) -> str:
        """Short name for narrow columns: NC1 to NC4 in capitals, the others as they are."""
        return self.name.upper() if self.name in HEADLINE else self.name


HEADLINE = ("nc1", "nc2", "nc3", "nc4")
"""The four measures of the paper's figures."""

_ALL = (
    Measure(
        name="nc1",
        title="NC1: within-class variability",
        group="within-class",
        formula=r"\tfrac1K \operatorname{tr}(\Sigma_W \Sigma_B^\dagger)",
        source=f"{_ZHU}, equation (7)",
        meaning="How far samples spread around their class mean, in units of the distances between the means.",
        cost="O(Ndr) for features in memory, O(d²r) for a stream that kept the d x d scatter",
    ),
    Measure(
        name="nc1_balanced",
        title="NC1 with equal weight per class",
        group="within-class",
        formula=r"\tfrac1K \operatorname{tr}\bigl(\tfrac1K \sum_k \Sigma_k \, \Sigma_B^\dagger\bigr)",
        source=f"{_ZHU}, equation (7), with the covariances averaged over classes",
        meaning="NC1 in which a small class counts as much as a large one; equal to NC1 for classes of equal size.",
        cost="O(Ndr); not defined for a stream of unequal classes",
    ),
    Measure(
        name="nc1_quotient",
        title="Within-class over between-class variance",
        group="within-class",
        formula=r"\operatorname{tr}\Sigma_W / \operatorname{tr}\Sigma_B",
        source="Tirer, Huang and Niles-Weed 2023 (ICML)",
        meaning="Total spread within classes divided by the total spread of the class means.",
    ),
    Measure(
        name="cdnv",
        title="Class-distance normalised variance",
        group="within-class",
        formula=r"\operatorname*{mean}_{i \ne j} \frac{\operatorname{tr}\Sigma_i + \operatorname{tr}\Sigma_j}"
        r"{2 \lVert \mu_i - \mu_j \rVert^2}",
        source="Galanti, György and Hutter 2022 (ICLR)",
        meaning="Spread of two classes divided by the squared distance of their means, averaged over all pairs.",
        cost=_PAIRS,
    ),
    Measure(
        name="nc2_means",
        title="NC2 of the class means",
        group="means",
        formula=r"\Bigl\lVert \frac{\bar H^\top \bar H}{\lVert \bar H^\top \bar H \rVert_F}"
        r" - \frac{1}{\sqrt{K-1}} \bigl(I - \tfrac1K 11^\top\bigr) \Bigr\rVert_F",
        source=f"{_ZHU}, equation (8), applied to the class means",
        meaning="How far the centred class means are from a simplex ETF.",
        range=(0.0, math.sqrt(2)),
        cost="O(Kd²), or O(K²d) near collapse",
    ),
    Measure(
        name="geometry_means",
        title="Class means to the target",
        group="means",
        formula=r"\Bigl\lVert \frac{\bar H^\top \bar H}{\lVert \bar H^\top \bar H \rVert_F}"
        r" - \frac{\bar H_*^\top \bar H_*}{\lVert \bar H_*^\top \bar H_* \rVert_F} \Bigr\rVert_F",
        source=f"{_ZHU}, equation (8), against the optimum for the given class sizes",
        meaning="How far the centred class means are from the geometry that these class sizes imply.",
        range=(0.0, 2.0),
        cost="O(K²d); only with a target",
    ),
    Measure(
        name="equinorm_means",
        title="Equal norms of the class means",
        group="means",
        formula=r"\operatorname{std}_k \lVert \bar h_k \rVert / \operatorname{mean}_k \lVert \bar h_k \rVert",
        source=f"{_PAPYAN}, Figure 2",
        meaning="How much the centred class means differ in length.",
    ),
    Measure(
        name="equiangularity_means",
        title="Equal angles of the class means",
        group="means",
        formula=r"\operatorname{std}_{i \ne j} \cos(\bar h_i, \bar h_j)",
        source=f"{_PAPYAN}, Figure 3",
        meaning="How much the angles between centred class means differ.",
        range=(0.0, 1.0),
        cost="O(Kd²), or O(K²d) near collapse",
    ),
    Measure(
        name="max_equiangularity_means",
        title="Maximal angles of the class means",
        group="means",
        formula=r"\operatorname*{mean}_{i \ne j} \bigl\lvert \cos(\bar h_i, \bar h_j) + \tfrac{1}{K-1} \bigr\rvert",
        source=f"{_PAPYAN}, Figure 4",
        meaning="How far the angles between centred class means are from the largest that K equal ones can be.",
        range=(0.0, 2.0),
        cost=_PAIRS,
    ),
    Measure(
        name="nc2",
        title="NC2: classifier to simplex ETF",
        group="classifier",
        formula=r"\Bigl\lVert \frac{W W^\top}{\lVert W W^\top \rVert_F}"
        r" - \frac{1}{\sqrt{K-1}} \bigl(I - \tfrac1K 11^\top\bigr) \Bigr\rVert_F",
        source=f"{_ZHU}, equation (8)",
        meaning="How far the classifier's weight vectors are from a simplex ETF.",
        range=(0.0, math.sqrt(2)),
        cost="O(Kd²), or O(K²d) near collapse",
    ),
    Measure(
        name="geometry_weights",
        title="Classifier to the target",
        group="classifier",
        formula=r"\Bigl\lVert \frac{W W^\top}{\lVert W W^\top \rVert_F}"
        r" - \frac{W_* W_*^\top}{\lVert W_* W_*^\top \rVert_F} \Bigr\rVert_F",
        source=f"{_ZHU}, equation (8), against the optimum for the given class sizes",
        meaning="How far the classifier's weight vectors are from the geometry that these class sizes imply.",
        range=(0.0, 2.0),
        cost="O(K²d); only with a target",
    ),
    Measure(
        name="equinorm_weights",
        title="Equal norms of the classifier",
        group="classifier",
        formula=r"\operatorname{std}_k \lVert w_k \rVert / \operatorname{mean}_k \lVert w_k \rVert",
        source=f"{_PAPYAN}, Figure 2",
        meaning="How much the classifier's weight vectors differ in length.",
    ),
    Measure(
        name="equiangularity_weights",
        title="Equal angles of the classifier",
        group="classifier",
        formula=r"\operatorname{std}_{i \ne j} \cos(w_i, w_j)",
        source=f"{_PAPYAN}, Figure 3",
        meaning="How much the angles between the classifier's weight vectors differ.",
        range=(0.0, 1.0),
        cost="O(Kd²), or O(K²d) near collapse",
    ),
    Measure(
        name="max_equiangularity_weights",
        title="Maximal angles of the classifier",
        group="classifier",
        formula=r"\operatorname*{mean}_{i \ne j} \bigl\lvert \cos(w_i, w_j) + \tfrac{1}{K-1} \bigr\rvert",
        source=f"{_PAPYAN}, Figure 4",
        meaning="How far the angles between weight vectors are from the largest that K equal ones can be.",
        range=(0.0, 2.0),
        cost=_PAIRS,
    ),
    Measure(
        name="nc3",
        title="NC3: self-duality",
        group="alignment",
        formula=r"\Bigl\lVert \frac{W \bar H}{\lVert W \bar H \rVert_F}"
        r" - \frac{1}{\sqrt{K-1}} \bigl(I - \tfrac1K 11^\top\bigr) \Bigr\rVert_F",
        source=f"{_ZHU}, equation (9)",
        meaning="How far the products of weight vectors and class means are from those of one simplex ETF.",
        range=(0.0, 2.0),
        cost="O(Kd²), or O(K²d) near collapse",
    ),
    Measure(
        name="geometry_duality",
        title="Products of classifier and class means to the target",
        group="alignment",
        formula=r"\Bigl\lVert \frac{W \bar H}{\lVert W \bar H \rVert_F}"
        r" - \frac{W_* \bar H_*}{\lVert W_* \bar H_* \rVert_F} \Bigr\rVert_F",
        source=f"{_ZHU}, equation (9), against the optimum for the given class sizes",
        meaning="How far the products of weight vectors and class means are from those that these class sizes imply.",
        range=(0.0, 2.0),
        cost="O(K²d); only with a target",
    ),
    Measure(
        name="self_duality",
        title="Distance of classifier and class means",
        group="alignment",
        formula=r"\bigl\lVert W / \lVert W \rVert_F - \bar H^\top / \lVert \bar H \rVert_F \bigr\rVert_F^2",
        source=f"{_PAPYAN}, Figure 5",
        meaning="How far the classifier is from the class means, once both are scaled to length one.",
        range=(0.0, 4.0),
    ),
    Measure(
        name="nc4",
        title="NC4: bias collapse",
        group="alignment",
        formula=r"\lVert b + W h_G \rVert_2",
        source=f"{_ZHU}, equation (10)",
        meaning="What the bias leaves of the logits of the mean feature, in the units of the logits.",
    ),
    Measure(
        name="nc4_relative",
        title="NC4 relative to the logits",
        group="alignment",
        formula=r"\lVert b + W h_G \rVert_2 \big/ \bigl(\lVert W \bar H \rVert_F / \sqrt K\bigr)",
        source=f"{_ZHU}, equation (10), in units of the network's own logits",
        meaning="NC4 divided by the typical length of a class's logits, so that networks compare.",
        cost="O(Kd²)",
    ),
    Measure(
        name="bias_spread",
        title="Spread of the bias",
        group="alignment",
        formula=r"\operatorname{std}_k b_k",
        source=f"{_ZHU}, Theorem 3.1",
        meaning="How much the entries of the bias differ; they are equal at the optimum.",
        cost="O(K)",
    ),
    Measure(
        name="ncc_mismatch",
        title="Decisions unlike the nearest class centre",
        group="decision",
        formula=r"\tfrac1N \sum_i \bigl[\hat y_i \ne \arg\min_k \lVert h_i - \mu_k \rVert\bigr]",
        source=f"{_PAPYAN}, Figure 7 (their NC4)",
        meaning="Share of samples that the network does not assign to the class with the nearest mean.",
        range=(0.0, 1.0),
        cost="O(NKd)",
    ),
    Measure(
        name="accuracy",
        title="Accuracy",
        group="decision",
        formula=r"\tfrac1N \sum_i [\hat y_i = y_i]",
        source="the share of right decisions",
        meaning="Share of the measured samples that the network classifies correctly.",
        ideal=1.0,
        direction="higher",
        range=(0.0, 1.0),
        cost="O(NK)",
    ),
)

MEASURES: dict[str, Measure] = {measure.name: measure for measure in _ALL}
"""Every measure by name, group by group."""


def measure_named(name: str) -> Measure:
    """The record of a measure.

    Raises:
        ValueError: if there is none of that name.

    >>> measure_named("nc1").source
    'Zhu et al. 2021 (arXiv 2105.02375), equation (7)'
    """
    if name not in MEASURES:
        raise ValueError(f"measure {name!r} is unknown: choose one of {', '.join(MEASURES)}")
    return MEASURES[name]
