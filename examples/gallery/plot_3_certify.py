"""
Certify a model, perturb its data
=================================

A certificate is a proof, a search for violations is not: both are worth having, because the search also meets mistakes
in the code that proves. ``molrecon certify mol-brain-2d`` does all of it; here are three of its parts.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch

from molrecon import load
from molrecon.guarantees.certify import sample_problem
from molrecon.guarantees.checks import check_equilibrium
from molrecon.guarantees.perturbation import check_data_perturbations
from molrecon.reconstructors.mol import MOL

# %%
# What is guaranteed, from the weights alone.

model = load("mol-brain-2d", MOL).eval().requires_grad_(False)
print(model.certificate())

# %%
# One equilibrium, whatever the start: a small simulated scan is solved from five images, one of them huge.

scan = sample_problem()
conditioning = model.condition(scan.kspace, scan.operator, scan.noise_level)
with torch.no_grad():
    equilibrium = check_equilibrium(model, scan.kspace, scan.operator, conditioning)
print(f"{len(equilibrium.starts)} starts, at most {equilibrium.distance:.1e} apart; violated: {equilibrium.violated}")

# %%
# The measured samples are changed by 1, 2 and 5 %: by white noise, and by the worst change that projected gradient
# ascent finds. The images move by less than ``sqrt(lambda / m) / 2 |d|``, which was known before.

sizes = (0.01, 0.02, 0.05)
checks = check_data_perturbations(model, scan.kspace, scan.operator, conditioning, sizes=sizes, attack_steps=3)
for check in checks:
    print(f"{check.size:.0%} {check.kind:10s} moved by {check.change:.4f}, allowed {check.bound:.4f}")

plt.figure(figsize=(5, 3.6), layout="constrained")
for kind in ("Gaussian", "worst case"):
    plt.loglog(sizes, [check.change for check in checks if check.kind == kind], "o-", label=kind)
plt.loglog(sizes, [check.bound for check in checks if check.kind == "Gaussian"], "k--", label="bound")
plt.xlabel("change of the data, relative")
plt.ylabel("change of the image, relative")
plt.legend()
plt.show()
