"""Too much weight decay: the phase transition.

With more decay the optimal classifier shrinks, and at K² n λ_W λ_H = 1 it becomes exactly zero: nothing is worth
learning any more. The curve is the closed form; the dots are solutions that a solver found from random starts,
each with a certificate that no point is better.
"""

import numpy as np
import plotly.graph_objects as go

from neuralcollapse.ufm import UFM

CLASSES, SAMPLES = 4, 5
threshold = 1 / (CLASSES**2 * SAMPLES)  # of the product λ_W λ_H

products = threshold * np.geomspace(1e-3, 4, 200)
norms = [
    np.linalg.norm(UFM(CLASSES, SAMPLES, CLASSES, lambda_w=p**0.5, lambda_h=p**0.5).global_optimum().point.W)
    for p in products
]
dots = threshold * np.array([0.003, 0.03, 0.2, 0.6, 0.9, 1.1, 2.0])
solved = []
for p in dots:
    solution = UFM(CLASSES, SAMPLES, CLASSES, lambda_w=p**0.5, lambda_h=p**0.5).solve()
    solved.append(np.linalg.norm(solution.point.W))
    print(f"decay product {p / threshold:5.3f} of the threshold: {solution.certificate.verdict.value}")

figure = go.Figure()
figure.add_scatter(x=products / threshold, y=norms, name="closed form")
figure.add_scatter(x=dots / threshold, y=solved, mode="markers", marker={"size": 9}, name="certified solver")
figure.add_vline(x=1, line_dash="dot", annotation_text="K² n λ_W λ_H = 1")
figure.update_layout(xaxis_title="K² n λ_W λ_H", yaxis_title="norm of the optimal classifier", xaxis_type="log")
figure.show()
