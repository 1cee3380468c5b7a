"""Measures of a classifier: its weights, how they agree with the class means, and what it decides."""

from __future__ import annotations

import math

from neuralcollapse.geometry.measures.record import PAIRS, PAPYAN, ZHU, Measure

CLASSIFIER = (
    Measure(
        name="nc2",
        title="NC2: classifier to simplex ETF",
        group="classifier",
        formula=r"\Bigl\lVert \frac{W W^\top}{\lVert W W^\top \rVert_F}"
        r" - \frac{1}{\sqrt{K-1}} \bigl(I - \tfrac1K 11^\top\bigr) \Bigr\rVert_F",
        source=f"{ZHU}, equation (8)",
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
        source=f"{ZHU}, equation (8), against the optimum for the given class sizes",
        meaning="How far the classifier's weight vectors are from the geometry that these class sizes imply.",
        range=(0.0, 2.0),
        cost="O(K²d); only with a target",
    ),
    Measure(
        name="equinorm_weights",
        title="Equal norms of the classifier",
        group="classifier",
        formula=r"\operatorname{std}_k \lVert w_k \rVert / \operatorname{mean}_k \lVert w_k \rVert",
        source=f"{PAPYAN}, Figure 2",
        meaning="How much the classifier's weight vectors differ in length.",
    ),
    Measure(
        name="equiangularity_weights",
        title="Equal angles of the classifier",
        group="classifier",
        formula=r"\operatorname{std}_{i \ne j} \cos(w_i, w_j)",
        source=f"{PAPYAN}, Figure 3",
        meaning="How much the angles between the classifier's weight vectors differ.",
        range=(0.0, 1.0),
        cost="O(Kd²), or O(K²d) near collapse",
    ),
    Measure(
        name="max_equiangularity_weights",
        title="Maximal angles of the classifier",
        group="classifier",
        formula=r"\operatorname*{mean}_{i \ne j} \bigl\lvert \cos(w_i, w_j) + \tfrac{1}{K-1} \bigr\rvert",
        source=f"{PAPYAN}, Figure 4",
        meaning="Mean distance of the cosines between weight vectors from -1/(K-1), the cosine in a simplex.",
        range=(0.0, 2.0),
        cost=PAIRS,
    ),
    Measure(
        name="nc3",
        title="NC3: self-duality",
        group="alignment",
        formula=r"\Bigl\lVert \frac{W \bar H}{\lVert W \bar H \rVert_F}"
        r" - \frac{1}{\sqrt{K-1}} \bigl(I - \tfrac1K 11^\top\bigr) \Bigr\rVert_F",
        source=f"{ZHU}, equation (9)",
        meaning="How far the products of weight vectors and class means are from their values at collapse.",
        range=(0.0, 2.0),
        cost="O(Kd²), or O(K²d) near collapse",
    ),
    Measure(
        name="geometry_duality",
        title="Products of classifier and class means to the target",
        group="alignment",
        formula=r"\Bigl\lVert \frac{W \bar H}{\lVert W \bar H \rVert_F}"
        r" - \frac{W_* \bar H_*}{\lVert W_* \bar H_* \rVert_F} \Bigr\rVert_F",
        source=f"{ZHU}, equation (9), against the optimum for the given class sizes",
        meaning="How far the products of weight vectors and class means are from those that these class sizes imply.",
        range=(0.0, 2.0),
        cost="O(K²d); only with a target",
    ),
    Measure(
        name="self_duality",
        title="Distance of classifier and class means",
        group="alignment",
        formula=r"\bigl\lVert W / \lVert W \rVert_F - \bar H^\top / \lVert \bar H \rVert_F \bigr\rVert_F^2",
        source=f"{PAPYAN}, Figure 5",
        meaning="How far the classifier is from the class means, once both are scaled to length one.",
        range=(0.0, 4.0),
    ),
    Measure(
        name="nc4",
        title="NC4: bias collapse",
        group="alignment",
        formula=r"\lVert b + W h_G \rVert_2",
        source=f"{ZHU}, equation (10)",
        meaning="How far the bias is from cancelling the logits of the mean feature, in the units of the logits.",
    ),
    Measure(
        name="nc4_relative",
        title="NC4 relative to the logits",
        group="alignment",
        formula=r"\lVert b + W h_G \rVert_2 \big/ \bigl(\lVert W \bar H \rVert_F / \sqrt K\bigr)",
        source=f"{ZHU}, equation (10), in units of the network's own logits",
        meaning="NC4 divided by the typical length of a class's logits, so that networks can be compared.",
        cost="O(Kd²)",
    ),
    Measure(
        name="bias_spread",
        title="Spread of the bias",
        group="alignment",
        formula=r"\operatorname{std}_k b_k",
        source=f"{ZHU}, Theorem 3.1",
        meaning="How much the entries of the bias differ; they are equal at the optimum.",
        cost="O(K)",
    ),
    Measure(
        name="ncc_mismatch",
        title="Decisions unlike the nearest class centre",
        group="decision",
        formula=r"\tfrac1N \sum_i \bigl[\hat y_i \ne \arg\min_k \lVert h_i - \mu_k \rVert\bigr]",
        source=f"{PAPYAN}, Figure 7 (their NC4)",
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
