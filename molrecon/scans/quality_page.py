"""The quality page of a reconstruction: one slice by three methods, errors where a reference exists, convergence."""

from __future__ import annotations

import io
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch

from molrecon.io import RawVolume, write_atomically
from molrecon.io.volume import left_out_text
from molrecon.reconstructors.classical import CGSense, ZeroFilled
from molrecon.scans.metrics import psnr
from molrecon.scans.preparation import PreparedVolume
from molrecon.scans.reconstruction import Reconstruction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ERROR_GAIN = 5  # error maps are shown this much brighter than the images
RESOLUTION = 110  # dots an inch
WARNINGS_SHOWN = 4  # kinds of warnings with their advice: more leave the page


@final
@dataclass(frozen=True, eq=False)
class Preview:
    """One slice of a volume, every image (rows, cols) float32 in the units of the input.

    `index` is the slice; `image` is what `method` made of it; `reference` is None where the input has none.
    """

    index: int
    zero_filled: np.ndarray
    cg_sense: np.ndarray
    image: np.ndarray
    reference: np.ndarray | None
    method: str

    @property
    def images(self) -> dict[str, np.ndarray]:
        """The reconstructions by title."""
        return {"zero-filled": self.zero_filled, "CG-SENSE": self.cg_sense, self.method: self.image}


def make_preview(prepared: PreparedVolume, result: Reconstruction) -> Preview:
    """Reconstruct the middle slice that holds data by zero filling and CG-SENSE too (default regularisation)."""
    filled = np.flatnonzero(~prepared.empty)
    index = int(filled[len(filled) // 2])
    operator, kspace = prepared.operator([index]), prepared.kspace[[index]]
    with torch.no_grad():
        zero = ZeroFilled()(kspace, operator).value
        cg = CGSense()(kspace, operator).value
    reference = prepared.volume.reference
    fits = reference is not None and reference.shape == result.image.shape
    return Preview(
        index=index,
        zero_filled=prepared.magnitude(zero, [index])[0],
        cg_sense=prepared.magnitude(cg, [index])[0],
        image=result.image[index],
        reference=reference[index] if reference is not None and fits else None,
        method=result.method,
    )


def quality_page(preview: Preview, prepared: PreparedVolume, result: Reconstruction, title: str) -> Figure:
    """Draw the page: images, below them errors where there is a reference, and convergence in the last row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    reference = preview.reference
    rows = 2 if reference is None else 3
    width = 12 // (3 if reference is None else 4)  # of an image, in twelfths of the page
    figure = Figure(figsize=(13, (4.4 if reference is None else 3.9) * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{title}, slice {preview.index} of {len(result.image)}")
    grid = figure.add_gridspec(rows, 12)
    white = float(np.quantile(preview.image if reference is None else reference, 0.999)) or 1.0
    for n, (name, image) in enumerate(preview.images.items()):
        columns = slice(n * width, (n + 1) * width)
        _show(figure.add_subplot(grid[0, columns]), image, name, white, "gray")
        if reference is not None:
            score = psnr(reference[None], image[None])
            error = figure.add_subplot(grid[1, columns])
            _show(
                error, np.abs(image - reference), f"{ERROR_GAIN} x error, {score:.2f} dB", white / ERROR_GAIN, "inferno"
            )
    if reference is not None:
        kind = prepared.volume.reference_kind or "given"
        _show(figure.add_subplot(grid[0, 9:]), reference, f"reference ({kind})", white, "gray")
    _convergence(figure.add_subplot(grid[rows - 1, :6]), result)
    text = figure.add_subplot(grid[rows - 1, 6:])
    text.axis("off")
    text.text(0, 1, summary(prepared, result), va="top", family="monospace", fontsize=9, transform=text.transAxes)
    return figure


def summary(prepared: PreparedVolume, result: Reconstruction) -> str:
    """Return the text of the page: data, noise, certificate, convergence."""
    slices, coils, rows, cols = prepared.volume.kspace.shape
    volume = prepared.volume
    noise = "estimated" if prepared.noise_estimated else "given"
    lines = [
        f"k-space       {slices} slices, {coils} coils, {rows} x {cols}",
        f"measured      {_measured(volume)}",
        f"coil maps     {prepared.maps_source.method}",
        f"noise level   {result.noise_level:.3g} ({noise})",
        *_guarantee(result),
        f"time          {result.seconds:.1f} s",
    ]
    if result.empty.any():
        lines.append(f"no data       slices {', '.join(map(str, np.flatnonzero(result.empty)))}: delivered as zeros")
    if volume.left_out:
        lines.append(f"left out      {left_out_text(volume.left_out)}")
    lines += _warned(result)
    return "\n".join(lines)


def _measured(volume: RawVolume) -> str:
    if volume.trajectory is not None:
        readouts, samples = volume.kspace.shape[-2:]
        return f"{readouts} readouts of {samples} samples, {volume.attributes.get('trajectory', 'other')}"
    mask = volume.sampling_mask
    counted = "columns" if mask.shape[1] == 1 else "samples"
    return f"{int(mask.sum())} of {mask.size} {counted}" + (" of all slices, which differ" if len(mask) > 1 else "")


def _warned(result: Reconstruction) -> list[str]:
    """Return one warning of each check, with the number of the others; the sidecar holds them all."""
    counts = Counter(warning.check for warning in result.warnings)
    first = {warning.check: warning for warning in reversed(result.warnings)}
    lines = []
    for check, count in list(counts.items())[:WARNINGS_SHOWN]:
        others = f" (and {count - 1} more)" if count > 1 else ""
        lines += textwrap.wrap(f"WARNING       {first[check]}{others}", 84, subsequent_indent=" " * 14)
    if len(counts) > WARNINGS_SHOWN:
        lines.append(f"WARNING       of {', '.join(list(counts)[WARNINGS_SHOWN:])} too: see the sidecar")
    return lines


def _guarantee(result: Reconstruction) -> list[str]:
    """Return what is known about the images' errors; a method that solves no equation promises nothing."""
    certificate, solver = result.certificate, result.solver
    if solver is None:
        return [f"method        {result.method}, {int(result.n_steps.max())} stages", "certificate   none"]
    lines = [
        f"method        {result.method}",
        f"converged     {int(result.converged.sum())} of {len(result.converged)} slices to {solver.tol:g}",
        f"iterations    {int(result.n_steps.max())} at most, of {solver.max_steps}",
    ]
    if result.kind == "none":
        return [*lines, "certificate   none"]
    worst = int(np.argmax(result.error_bound))
    return [
        *lines,
        f"certificate   {certificate.kind}: Lip(H) <= {certificate.lipschitz:.4g}, m = {certificate.monotonicity:.4g}",
        f"error bound   {result.error_bound[worst]:.2e} at worst (slice {worst}), {result.kind}",
    ]


def write_png(path: str | Path, figure: Figure) -> None:
    """Write a figure as PNG, atomically. Raises OSError."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=RESOLUTION)
    write_atomically(path, buffer.getbuffer())


def _show(axes: Axes, image: np.ndarray, title: str, white: float, colours: str) -> None:
    axes.imshow(image, cmap=colours, vmin=0, vmax=white, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.axis("off")


def _convergence(axes: Axes, result: Reconstruction) -> None:
    if result.solver is None:
        axes.axis("off")
        text = "no error bound, nothing that converges to a tolerance"
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=10, transform=axes.transAxes)
        return
    for history in result.residuals:
        shown = np.where(np.isfinite(history) & (history > 0), history, np.nan)
        axes.semilogy(shown, color="tab:blue", alpha=0.5, linewidth=1)
    tol = result.solver.tol
    axes.axhline(tol, color="tab:red", linestyle="--", linewidth=1, label=f"tol {tol:g}")
    axes.set_xlabel("iteration")
    axes.set_ylabel("relative residual, no bound" if result.kind == "none" else "relative error bound")
    axes.set_title("convergence, one line a slice", fontsize=10)
    axes.legend(loc="upper right", fontsize=9)
