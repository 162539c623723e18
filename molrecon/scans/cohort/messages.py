"""How well a volume went, in one line of the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from molrecon.io.volume import left_out_text
from molrecon.scans.data_warnings import DataWarning
from molrecon.scans.kinds.choice import UNIT_PHRASES
from molrecon.scans.reconstruction import Reconstruction


def result_text(result: Reconstruction) -> str:
    """Return the message of a reconstructed volume: convergence, worst error bound, time, what is missing, warnings."""
    n = len(result.converged)
    empty = f", {int(result.empty.sum())} without data delivered as zeros" if result.empty.any() else ""
    left_out = f"; left out: {left_out_text(result.left_out)}" if result.left_out else ""
    together = "" if result.unit == "slice" else f"{UNIT_PHRASES[result.unit]}, "
    details = f"{together}{result.seconds:.1f} s{empty}{left_out}{warnings_text(result.warnings)}"
    if result.solver is None:
        return f"{n} slices, no error bound, {details}"
    bound = "no error bound" if result.kind == "none" else f"error bound {result.error_bound.max():.1e} at worst"
    return (
        f"{int(result.converged.sum())} of {n} slices converged, {bound},"
        f" {int(result.n_steps.max())} iterations at most, {details}"
    )


def warnings_text(warnings: Sequence[DataWarning]) -> str:
    """Return the end of a message that tells of warnings: how many of each check."""
    counts = Counter(warning.check for warning in warnings)
    listed = ", ".join(check if count == 1 else f"{check} ({count})" for check, count in counts.items())
    return f"; warnings: {listed}" if listed else ""
