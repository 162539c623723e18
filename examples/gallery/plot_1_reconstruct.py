"""
Reconstruct a scan, and read its error bound
============================================

One slice of the packaged head, scanned four times too fast, by the default model.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from molrecon import MOL, load, read_volume, reconstruct_volume
from molrecon.scans.comparison import root_sum_of_squares, undersample
from molrecon.scans.metrics import psnr
from molrecon.simulation.sample import write_sample
from operators import random_mask

# %%
# A fully sampled scan in the format of fastMRI, and a mask that keeps one column in four. With a scan of your own that
# is undersampled already, ``read_volume("scan.h5")`` is all there is to do.

with tempfile.TemporaryDirectory() as folder:
    full = read_volume(write_sample(Path(folder) / "sample.h5", slices=1))
mask = random_mask(full.kspace.shape[-1], acceleration=4, center_fraction=0.08, seed=0)
scan = undersample(full, mask, noise_level=0.0, seed=[0])

# %%
# Coil maps, noise level, intensity scale and phase come from the data; there is nothing to tune.

model = load("mol-guided-2d", MOL)
result = reconstruct_volume(scan, model)
reference = root_sum_of_squares(full)
print(f"PSNR {psnr(reference, result.image):.1f} dB")
print(f"within {result.error_bound[0]:.1e} of the equilibrium after {result.n_steps[0]} iterations ({result.kind})")
print(result.certificate)
print(*result.warnings, sep="\n")

# %%
# The bound falls with every iteration, and it is no promise about the anatomy: it says how far the image is from the
# one point where network and data balance.

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
for axes, image, title in ((left, reference, "fully sampled"), (middle, result.image, "reconstructed, 4x")):
    axes.imshow(image[0], cmap="gray", vmin=0, vmax=0.9 * reference.max())
    axes.set(title=title, xticks=[], yticks=[])
right.semilogy(result.residuals[0])
right.axhline(model.solver.tol, color="gray", linestyle=":")
right.set(xlabel="iteration", title="error bound")
plt.show()
