"""A comparison of methods as a table, and as data with everything that its numbers depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from molrecon.scans.comparison import ScoredMethod
from molrecon.scans.preparation import PreparedVolume
from molrecon.scans.sidecar import ModelSource, describe_sampling


def comparison_table(outcomes: Mapping[str, ScoredMethod]) -> str:
    """Return the scores as text, one line a method."""
    width = max(12, *(len(name) for name in outcomes))
    lines = [
        f"{'method':<{width}} {'PSNR dB':>8} {'SSIM':>7} {'NMSE':>8} {'seconds':>8} {'steps':>6} {'bound':>8}"
        "  converged  weight"
    ]
    against_rss: list[str] = []
    for name, outcome in outcomes.items():
        score = outcome.score
        bound = "-" if score.error_bound is None else f"{score.error_bound:.1e}"
        converged = {None: "-", True: "yes", False: "NO"}[score.converged]
        weight = "-" if outcome.regularisation is None else f"{outcome.regularisation:.3g}"
        lines.append(
            f"{name:<{width}} {score.psnr:8.2f} {score.ssim:7.4f} {score.nmse:8.5f} {score.seconds:8.2f}"
            f" {score.iterations:6d} {bound:>8}  {converged:<9}  {weight}"
            + ("  WORSE THAN ZERO-FILLED" if score.worse_than_zero_filled else "")
        )
        if score.psnr_rss is not None:
            against_rss.append(f"{name} {score.psnr_rss:.2f} dB {score.ssim_rss:.4f}")
    if against_rss:
        lines.append("against the root sum of squares: " + ", ".join(against_rss))
    return "\n".join(lines)


def describe_comparison(
    prepared: PreparedVolume, sources: Mapping[str, ModelSource], outcomes: Mapping[str, ScoredMethod]
) -> dict[str, Any]:
    """Return the scan, its sampling, noise and coil maps, the kind of reference, and each method's scores and weights.

    Args:
        prepared: the undersampled scan.
        sources: where each method came from, with the keys of `outcomes`.
        outcomes: of each method by its name.
    """
    return {
        "sha256": prepared.volume.sha256,
        "sampling": describe_sampling(prepared.volume),
        "noise": {"noise_level": prepared.noise_level, "estimated": prepared.noise_estimated},
        "sensitivity_maps": {"method": prepared.maps_source.method, **prepared.maps_source.detail},
        "reference": "root sum of squares" if prepared.volume.reference_kind == "rss" else "combined with the maps",
        "methods": {
            name: {
                **asdict(outcome.score),
                "regularisation": outcome.regularisation,
                "model": sources[name].name,
                "weights_sha256": sources[name].weights_sha256,
            }
            for name, outcome in outcomes.items()
        },
    }
