"""
Compare methods on one scan
===========================

Every method has the same call, ``model(kspace, A, noise_level)``, so that a classical, an unrolled and an equilibrium
method take one loop.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from molrecon import Reconstructor, load, read_volume
from molrecon.reconstructors.classical import CGSense, ZeroFilled
from molrecon.scans.comparison import Comparison, undersample
from molrecon.scans.preparation import prepare
from molrecon.simulation.sample import write_sample
from operators import random_mask

# %%
# The scan, and what is read off it once for all methods: noise level and ESPIRiT maps.

with tempfile.TemporaryDirectory() as folder:
    full = read_volume(write_sample(Path(folder) / "sample.h5", slices=1))
mask = random_mask(full.kspace.shape[-1], acceleration=4, center_fraction=0.08, seed=1)
prepared = prepare(undersample(full, mask, noise_level=0.0, seed=[1]))
comparison = Comparison(prepared, full)

# %%
# The weight of CG-SENSE is a guess, as it would be for a scan without reference; the learned methods have none.

methods = {
    "zero-filled": ZeroFilled(),
    "CG-SENSE": CGSense(0.01),
    "ADMM-Net, unrolled": load("admm-net-brain-2d", Reconstructor),
    "MOL, certified": load("mol-guided-2d", Reconstructor),
}
outcomes = {name: comparison.score(name, method) for name, method in methods.items()}
for name, outcome in outcomes.items():
    score = outcome.score
    bound = "no bound" if score.error_bound is None else f"error bound {score.error_bound:.0e}, {score.kind}"
    print(f"{name:20s} PSNR {score.psnr:5.2f} dB, SSIM {score.ssim:.3f}, {score.seconds:4.1f} s, {bound}")

# %%
# One slice decides nothing, and the head is among the images that the learned methods were trained on. Tables of whole
# data sets are under *Results*.

figure, panels = plt.subplots(1, len(outcomes), figsize=(12, 3.8), layout="constrained")
for axes, (name, outcome) in zip(panels, outcomes.items(), strict=True):
    axes.imshow(outcome.image[0], cmap="gray", vmin=0, vmax=0.9 * outcome.image.max())
    axes.set(title=f"{name}\n{outcome.score.psnr:.1f} dB", xticks=[], yticks=[])
plt.show()
