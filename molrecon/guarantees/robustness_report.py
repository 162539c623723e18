"""A robustness evaluation as a table, as plain JSON values and as a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from molrecon.guarantees.robustness_trials import Curve, Robustness, Trial
from molrecon.scans.quality_page import ERROR_GAIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vPX*"
LEGEND = """Curves
solid: maps, noise level, scale
and phase of the unperturbed
scan held fixed
dotted: found anew from
the perturbed data

Images: held fixed"""


def describe_robustness(result: Robustness) -> dict[str, Any]:
    """Return everything but the pictures: by method its guarantee, violations and trials (see `trials.Trial`)."""
    return {
        "levels": result.levels,
        "draws": result.draws,
        "steps": result.steps,
        "methods": {
            name: {
                "guarantee": curve.guarantee,
                "violations": curve.violations,
                "converged": curve.converged,
                "gaussian": [asdict(trial) for trial in curve.gaussian],
                "worst_case": [asdict(trial) for trial in curve.worst_case],
            }
            for name, curve in result.curves.items()
        },
    }


def robustness_table(result: Robustness) -> str:
    """Return the table that is printed: a line a method and level, and what is guaranteed of each method."""
    width = max(20, *map(len, result.curves))
    lines = [
        f"{'':<{width}} {'':>6}   {'random, PSNR dB':^23}   {'worst case, PSNR dB':^19}   {'image moved, worst':^24}",
        f"{'method':<{width}} {'|d|/|b|':>7}  {'held fixed':>13} {'anew':>9}   {'held fixed':>10} {'anew':>8}"
        f"   {'by':>8} {'bound':>8} {'share':>6}",
    ]
    for name, curve in result.curves.items():
        for level, worst in zip(result.levels, curve.worst_case, strict=True):
            draws = _at(curve, level)
            fixed, reestimated = [d.psnr for d in draws], [d.psnr_reestimated for d in draws]
            bound = "-" if worst.bound is None else f"{worst.bound:8.3g}"
            share = "-" if worst.tightness is None else f"{worst.tightness:6.1%}"
            random = f"{np.mean(fixed):6.2f} ± {np.std(fixed):4.2f} {np.mean(reestimated):9.2f}"
            found = f"{worst.psnr:10.2f} {worst.psnr_reestimated:8.2f}"
            moved = f"{worst.moved:8.3g} {bound:>8} {share:>6}"
            lines.append(f"{name:<{width}} {level:7.1%}  {random}   {found}   {moved}")
    for name, curve in result.curves.items():
        lines.append(f"{name}: {_verdict(curve)}")
    return "\n".join(lines)


def robustness_figure(result: Robustness, title: str) -> Figure:
    """Draw PSNR against the size of random and of worst-case perturbations, and the worst cases of one level."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(result.curves)
    figure = Figure(figsize=(max(10.0, 2.3 * (n + 1)), 9.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.add_gridspec(3, 2 * (n + 1), height_ratios=(1.5, 1, 1))
    left = figure.add_subplot(grid[0, : n + 1])
    right = figure.add_subplot(grid[0, n + 1 :], sharey=left)
    _panel(left, result, f"random: mean and spread of {result.draws} draws", _at)
    steps = f"worst case: {result.steps} steps of projected gradient ascent a level"
    _panel(right, result, steps, lambda curve, level: [t for t in curve.worst_case if t.level == level])
    left.set_ylabel("PSNR (dB)")
    left.legend(fontsize=8)
    white = float(np.quantile(result.reference, 0.999)) or 1.0
    _show(figure.add_subplot(grid[1, :2]), result.reference, "reference", white, "gray")
    size = f"{result.shown_level:.3g} |b|" if result.shown_level else "0"
    note = figure.add_subplot(grid[2, :2])
    note.axis("off")
    note.text(0, 1, LEGEND, va="top", fontsize=8, transform=note.transAxes)
    for column, (name, curve) in enumerate(result.curves.items(), start=1):
        place = slice(2 * column, 2 * column + 2)
        (trial,) = [t for t in curve.worst_case if t.level == result.shown_level]
        _show(figure.add_subplot(grid[1, place]), curve.picture, f"{name}\nworst |d| = {size}", white, "gray")
        error = np.abs(curve.picture - result.reference)
        label = f"{ERROR_GAIN} x error, {trial.psnr:.2f} dB"
        _show(figure.add_subplot(grid[2, place]), error, label, white / ERROR_GAIN, "inferno")
    return figure


def _panel(axes: Axes, result: Robustness, title: str, trials: Callable[[Curve, float], Sequence[Trial]]) -> None:
    from matplotlib import colormaps

    percent = 100 * np.array(result.levels)
    colours = colormaps["tab10"]
    for index, (name, curve) in enumerate(result.curves.items()):
        colour = colours(index % 10)
        scores = [np.array([[t.psnr, t.psnr_reestimated] for t in trials(curve, level)]) for level in result.levels]
        mean, spread = np.array([s.mean(0) for s in scores]), np.array([s.std(0) for s in scores])
        marker = MARKERS[index % len(MARKERS)]
        axes.plot(percent, mean[:, 0], color=colour, marker=marker, markersize=5, label=name)
        axes.plot(percent, mean[:, 1], color=colour, linestyle=":", linewidth=1.2)
        axes.fill_between(percent, *(mean[:, 0] + sign * spread[:, 0] for sign in (-1, 1)), color=colour, alpha=0.2)
    axes.set_xlabel("|d| / |b| (%)")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)


def _show(axes: Axes, image: np.ndarray, title: str, white: float, colours: str) -> None:
    axes.imshow(image, cmap=colours, vmin=0, vmax=white, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def _at(curve: Curve, level: float) -> list[Trial]:
    return [trial for trial in curve.gaussian if trial.level == level]


def _verdict(curve: Curve) -> str:
    if curve.guarantee == "none":
        return "no bound is known"
    share = max(trial.tightness or 0.0 for trial in curve.trials)
    return f"bound {curve.guarantee}: {curve.violations} violations, at most {share:.2%} of it used"
