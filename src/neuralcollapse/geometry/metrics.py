"""The record of the measures, and the warning where one of them is undefined.

"Zhu et al." is arXiv 2105.02375, whose equations (7) to (10) define NC1 to NC4. "Papyan et al." is Papyan,
Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep learning training", PNAS 2020.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from neuralcollapse.geometry.tables import frame, html_table, sentences, text_table


class CollapseWarning(UserWarning):
    """A measure is undefined, or defined only by convention, for the input it was given."""


@dataclass(frozen=True)
class CollapseMetrics:
    """Measures of neural collapse. ``None`` where the input needed was not given; zero at collapse."""

    nc1: float | None
    """Within-class variability tr(Σ_W Σ_B†)/K. Zhu et al., equation (7). None for ``within="traces"``."""
    nc1_balanced: float | None
    """NC1 with Σ_W averaged over classes instead of over samples: the same where classes are of equal size.
    None where a stream of unequal classes was gathered, which keeps no such average."""
    nc2: float | None
    """Distance of the classifier's Gram matrix to a simplex ETF's. Zhu et al., equation (8)."""
    nc3: float | None
    """Distance of W H̄ to a simplex ETF's Gram matrix: self-duality. Zhu et al., equation (9)."""
    nc4: float | None
    """Bias collapse, the norm of b + W h_G. Zhu et al., equation (10)."""
    nc4_relative: float | None
    """NC4 over the root mean square norm of the columns of W H̄: bias collapse in units of the network's logits."""
    nc2_means: float
    """Equation (8) applied to the centred class means in place of the classifier."""
    cdnv: float
    """Class-distance normalised variance, mean over pairs. Galanti, György and Hutter 2022."""
    nc1_quotient: float
    """tr(Σ_W)/tr(Σ_B). Tirer, Huang and Niles-Weed 2023."""
    equinorm_means: float
    """Coefficient of variation of the norms of the centred class means. Papyan et al., Figure 2."""
    equinorm_weights: float | None
    """Coefficient of variation of the norms of the classifier's rows. Papyan et al., Figure 2."""
    equiangularity_means: float
    """Standard deviation of the cosines between centred class means. Papyan et al., Figure 3."""
    equiangularity_weights: float | None
    """Standard deviation of the cosines between the classifier's rows. Papyan et al., Figure 3."""
    max_equiangularity_means: float
    """Mean of abs(cosine + 1/(K-1)) between centred class means. Papyan et al., Figure 4."""
    max_equiangularity_weights: float | None
    """Mean of abs(cosine + 1/(K-1)) between the classifier's rows. Papyan et al., Figure 4."""
    self_duality: float | None
    """Squared distance of the normalised classifier and class means. Papyan et al., Figure 5."""
    bias_spread: float | None
    """Standard deviation of the bias's entries: equal at the optimum. Zhu et al., Theorem 3.1. None without bias."""
    geometry_weights: float | None = None
    """NC2 against a target geometry in place of the simplex ETF. None without a target."""
    geometry_means: float | None = None
    """NC2 of the class means against a target geometry. None without a target."""
    geometry_duality: float | None = None
    """NC3 against a target geometry. None without a target."""

    def to_dict(self) -> dict[str, float | None]:
        """All measures by name, in the order of definition; those against a target only where there was one."""
        measures = dataclasses.asdict(self)
        if self.geometry_means is None:
            return {name: value for name, value in measures.items() if not name.startswith("geometry_")}
        return measures

    def to_frame(self) -> Any:
        """The measures as a pandas DataFrame: one row per measure, one column ``value``.

        Raises:
            ImportError: if pandas is not installed.
        """
        return frame({"value": self.to_dict()})

    def plot(self, names: Sequence[str] | None = None, *, backend: str = "plotly") -> Any:
        """Draw the values as points on one logarithmic axis.

        Args:
            names: the measures to draw; NC1 to NC4 by default.
            backend: ``"plotly"`` or ``"matplotlib"``.

        Returns:
            A ``plotly.graph_objects.Figure``, or a ``matplotlib.figure.Figure``.

        Raises:
            ValueError: if a name is unknown, or no value is positive.
            ImportError: if matplotlib is asked for and not installed.
        """
        from neuralcollapse.figures import plot_values

        return plot_values(self, names, backend=backend)

    def explain(self) -> str:
        """How far each of the four effects has come, in words: one line per effect that was measured."""
        return "\n".join(sentences(self.to_dict()))

    def _repr_html_(self) -> str:
        """The table for notebooks; each name shows its meaning under the pointer."""
        return html_table({"value": self.to_dict()}, "Measures of neural collapse")

    def __str__(self) -> str:
        return text_table(self.to_dict())
