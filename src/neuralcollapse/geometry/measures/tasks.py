"""Measures of samples with several labels, of regression, and of inputs under attack."""

from __future__ import annotations

import math

from neuralcollapse.geometry.measures.record import Measure

_LI = "Li, Wang, Li and Qu 2024 (arXiv 2310.15903)"
_ANDRIOPOULOS = "Andriopoulos et al. 2024 (arXiv 2409.04180)"

MULTILABEL = (
    Measure(
        name="tag_angle",
        title="Tag-wise average: angle to the sum of tags",
        group="label sets",
        formula=r"\operatorname*{mean}_{S : |S| \ge 2} \angle \Bigl(\bar h_S, \sum_{k \in S} \bar h_{\{k\}}\Bigr)",
        source=f"{_LI}, Theorem 1",
        meaning="Angle, in degrees, between the mean of the samples with the same labels and the sum of the means of "
        "these labels alone. The set of all labels is left out, because its sum is zero.",
        range=(0.0, 180.0),
        cost="O(Nd), and the means of all sets of labels that occur",
        family="multilabel",
    ),
    Measure(
        name="set_accuracy",
        title="Accuracy of label sets",
        group="decision",
        formula=r"\tfrac1N \sum_i [\operatorname{top}_{m_i}(W h_i + b) = S_i]",
        source="the share of right decisions, m labels each",
        meaning="Share of samples whose m largest logits are those of their m labels.",
        ideal=1.0,
        direction="higher",
        range=(0.0, 1.0),
        cost="O(NK)",
        family="multilabel",
    ),
)

REGRESSION = (
    Measure(
        name="nrc1",
        title="NRC1: features outside their principal directions",
        group="features",
        formula=r"\tfrac1N \sum_i \lVert \tilde h_i - P_n \tilde h_i \rVert^2",
        source=f"{_ANDRIOPOULOS}, NRC1",
        meaning="Mean share of a feature, centred and of length one, outside the first n principal directions of the "
        "features, n targets.",
        range=(0.0, 1.0),
        cost="O(Nd²), one SVD of the features",
        family="regression",
    ),
    Measure(
        name="nrc3",
        title="NRC3: classifier to the targets' covariance",
        group="classifier",
        formula=r"\min_\gamma \Bigl\lVert \frac{W W^\top}{\lVert W W^\top \rVert_F}"
        r" - \frac{\Sigma^{1/2} - \gamma^{1/2} I}{\lVert \Sigma^{1/2} - \gamma^{1/2} I \rVert_F} \Bigr\rVert_F^2",
        source=f"{_ANDRIOPOULOS}, NRC3",
        meaning="How far the Gram matrix of the last layer is from the shifted square root of the targets' covariance.",
        range=(0.0, 2.0),
        cost="O(n³ + n²d)",
        family="regression",
    ),
    Measure(
        name="gamma",
        title="The γ of NRC3",
        group="classifier",
        formula=r"\operatorname*{arg\,min}_\gamma \mathrm{NRC3}",
        source=f"{_ANDRIOPOULOS}, NRC3",
        meaning="The shift that weight decay leaves between the last layer and the targets' covariance, in units of "
        "the targets' variance.",
        ideal="N λ_W λ_H",
        direction="near",
        cost="O(n³)",
        family="regression",
    ),
    Measure(
        name="alignment",
        title="Angle of the last layer to the targets' covariance",
        group="classifier",
        formula=r"1 - \langle W W^\top, \Sigma^{1/2} \rangle \big/ \bigl(\lVert W W^\top \rVert_F"
        r" \lVert \Sigma^{1/2} \rVert_F\bigr)",
        source=f"{_ANDRIOPOULOS}, NRC3 at γ = 0",
        meaning="One minus the cosine between the Gram matrix of the last layer and the square root of the targets' "
        "covariance.",
        range=(0.0, 1.0),
        cost="O(n³ + n²d)",
        family="regression",
    ),
    Measure(
        name="nrc2",
        title="NRC2: features outside the row space of the last layer",
        group="alignment",
        formula=r"\tfrac1N \sum_i \lVert \tilde h_i - P_W \tilde h_i \rVert^2",
        source=f"{_ANDRIOPOULOS}, NRC2",
        meaning="Mean share of a feature, centred and of length one, that the last layer does not read.",
        range=(0.0, 1.0),
        cost="O(Ndn)",
        family="regression",
    ),
    Measure(
        name="r_squared",
        title="Share of the targets' variance explained",
        group="decision",
        formula=r"\tfrac1n \sum_j \Bigl(1 - \frac{\sum_i (\hat y_{ij} - y_{ij})^2}"
        r"{\sum_i (y_{ij} - \bar y_j)^2}\Bigr)",
        source="the coefficient of determination, averaged over targets",
        meaning="Share of the variance of the targets that the predictions explain.",
        ideal=1.0,
        direction="higher",
        range=(-math.inf, 1.0),
        cost="O(Nn)",
        family="regression",
    ),
)

ATTACK = (
    Measure(
        name="attack_angle",
        title="Angle between clean and attacked class means",
        group="attack",
        formula=r"\tfrac1K \sum_k \angle\bigl(\mu_k - \mu, \mu_k^\mathrm{adv} - \mu\bigr)",
        source="Su, Zhang, Tsilivis and Kempe 2024 (arXiv 2311.07444)",
        meaning="Mean angle, in degrees, by which an attack turns a class mean, seen from the mean of the clean class "
        "means.",
        range=(0.0, 180.0),
        family="attack",
    ),
)
