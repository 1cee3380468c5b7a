"""Measures of the features of a classifier: their spread within classes, and the class means."""

from __future__ import annotations

import math

from neuralcollapse.geometry.measures.record import PAIRS, PAPYAN, ZHU, Measure

FEATURES = (
    Measure(
        name="nc1",
        title="NC1: within-class variability",
        group="within-class",
        formula=r"\tfrac1K \operatorname{tr}(\Sigma_W \Sigma_B^\dagger)",
        source=f"{ZHU}, equation (7)",
        meaning="How far samples spread around their class mean, in units of the distances between the means.",
        cost="O(Ndr) for features in memory, O(d²r) for a stream that kept the d x d scatter",
    ),
    Measure(
        name="nc1_balanced",
        title="NC1 with equal weight per class",
        group="within-class",
        formula=r"\tfrac1K \operatorname{tr}\bigl(\tfrac1K \sum_k \Sigma_k \, \Sigma_B^\dagger\bigr)",
        source=f"{ZHU}, equation (7), with the covariances averaged over classes",
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
        cost=PAIRS,
    ),
    Measure(
        name="nc2_means",
        title="NC2 of the class means",
        group="means",
        formula=r"\Bigl\lVert \frac{\bar H^\top \bar H}{\lVert \bar H^\top \bar H \rVert_F}"
        r" - \frac{1}{\sqrt{K-1}} \bigl(I - \tfrac1K 11^\top\bigr) \Bigr\rVert_F",
        source=f"{ZHU}, equation (8), applied to the class means",
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
        source=f"{ZHU}, equation (8), against the optimum for the given class sizes",
        meaning="How far the centred class means are from the geometry that these class sizes imply.",
        range=(0.0, 2.0),
        cost="O(K²d); only with a target",
    ),
    Measure(
        name="equinorm_means",
        title="Equal norms of the class means",
        group="means",
        formula=r"\operatorname{std}_k \lVert \bar h_k \rVert / \operatorname{mean}_k \lVert \bar h_k \rVert",
        source=f"{PAPYAN}, Figure 2",
        meaning="How much the centred class means differ in length.",
    ),
    Measure(
        name="equiangularity_means",
        title="Equal angles of the class means",
        group="means",
        formula=r"\operatorname{std}_{i \ne j} \cos(\bar h_i, \bar h_j)",
        source=f"{PAPYAN}, Figure 3",
        meaning="How much the angles between centred class means differ.",
        range=(0.0, 1.0),
        cost="O(Kd²), or O(K²d) near collapse",
    ),
    Measure(
        name="max_equiangularity_means",
        title="Maximal angles of the class means",
        group="means",
        formula=r"\operatorname*{mean}_{i \ne j} \bigl\lvert \cos(\bar h_i, \bar h_j) + \tfrac{1}{K-1} \bigr\rvert",
        source=f"{PAPYAN}, Figure 4",
        meaning="Mean distance of the cosines between centred class means from -1/(K-1), the cosine in a simplex.",
        range=(0.0, 2.0),
        cost=PAIRS,
    ),
)
