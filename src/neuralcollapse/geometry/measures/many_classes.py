"""Measures where the classes outnumber the features, among them those of language models."""

from __future__ import annotations

import math

from neuralcollapse.geometry.measures.record import PAIRS, Measure

_JIANG = "Jiang et al. 2024 (arXiv 2310.05351)"
_WU = "Wu and Papyan 2024 (arXiv 2405.17767)"

MANY_CLASSES = (
    Measure(
        name="gnc1",
        title="GNC1: variability of normalised features",
        group="within-class",
        formula=r"\mathrm{NC1} \text{ of } h_i / \lVert h_i \rVert",
        source=f"{_JIANG}, Section 3",
        meaning="NC1 of the features scaled to length one.",
        cost="O(Ndr)",
        family="many classes",
    ),
    Measure(
        name="cdnv_squared",
        title="CDNV with the exponent of the language paper",
        group="within-class",
        formula=r"\operatorname*{mean}_{i \ne j} \frac{\operatorname{tr}\Sigma_i + \operatorname{tr}\Sigma_j}"
        r"{2 \lVert \mu_i - \mu_j \rVert^4}",
        source=f"{_WU}, Section 3",
        meaning="Spread of two classes divided by the fourth power of the distance of their means, averaged over all "
        "pairs: in units of 1 / length².",
        cost=PAIRS,
        family="many classes",
    ),
    Measure(
        name="uniformity",
        title="GNC2 relaxed: uniformity on the sphere",
        group="means",
        formula=r"\operatorname*{mean}_{i \ne j} \log \frac{1}{\lVert u_i - u_j \rVert}",
        source=f"Liu et al. 2023 (ICLR); {_WU}, Section 3",
        meaning="How unevenly directions cover the sphere: the mean logarithm of their inverse distances.",
        ideal="-½ log(2K/(K-1)) for K ≤ d + 1",
        range=(-math.log(4) / 2, math.inf),
        cost=PAIRS,
        family="many classes",
    ),
    Measure(
        name="uniformity_variation",
        title="Variation of the uniformity",
        group="means",
        formula=r"\operatorname*{std}_{i \ne j} \kappa_{ij} \big/ \bigl\lvert \operatorname*{mean}_{i \ne j}"
        r" \kappa_{ij} \bigr\rvert, \quad \kappa_{ij} = \log \frac{1}{\lVert u_i - u_j \rVert}",
        source=f"{_WU}, Section 3",
        meaning="How much the logarithm of the inverse distance differs between pairs; zero for a simplex.",
        cost=PAIRS,
        family="many classes",
    ),
    Measure(
        name="gnc2",
        title="GNC2: one-vs-rest margin",
        group="classifier",
        formula=r"\min_k \operatorname{dist}\bigl(w_k, \operatorname{conv}\{w_j : j \ne k\}\bigr)",
        source=f"{_JIANG}, Definition 3.1",
        meaning="The smallest distance of a weight vector, of length one, to the convex hull of all others.",
        ideal="K/(K-1) for K ≤ d + 1, less beyond",
        direction="higher",
        range=(0.0, 2.0),
        cost="K quadratic programs, some 2 ms each at K = 1,000, d = 64",
        family="many classes",
    ),
    Measure(
        name="gnc3",
        title="GNC3: self-duality",
        group="alignment",
        formula=r"1 - \operatorname*{mean}_k \cos(w_k, \mu_k)",
        source=f"{_JIANG}, Section 3",
        meaning="One minus the mean cosine of weight vectors and class means, not centred.",
        range=(0.0, 2.0),
        family="many classes",
    ),
    Measure(
        name="duality",
        title="Self-duality with centred means",
        group="alignment",
        formula=r"1 - \operatorname*{mean}_k \cos(w_k, \bar h_k)",
        source=f"{_WU}, Section 3",
        meaning="One minus the mean cosine of weight vectors and centred class means.",
        range=(0.0, 2.0),
        family="many classes",
    ),
    Measure(
        name="unc3",
        title="UNC3: uniform duality",
        group="alignment",
        formula=r"\operatorname*{var}_k \langle w_k, \bar h_k \rangle",
        source=f"{_WU}, Section 3",
        meaning="How much the products of weight vectors and class means differ. At most 1 if both are scaled to "
        "length one.",
        family="many classes",
    ),
    Measure(
        name="ncc_agreement",
        title="Decisions like the nearest class centre",
        group="decision",
        formula=r"\tfrac1N \sum_i \bigl[\hat y_i = \arg\min_k \lVert h_i - \mu_k \rVert\bigr]",
        source=f"{_WU}, Section 3 (their NC4)",
        meaning="Share of positions at which the model chooses the class with the nearest mean.",
        ideal=1.0,
        direction="higher",
        range=(0.0, 1.0),
        cost="O(NKd), and a second pass over the data",
        family="many classes",
    ),
)
