"""What `certify` found about a model on one scan, as sentences, as lines to print, and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, final

from torch import Tensor

from molrecon.guarantees.checks import DecreaseCheck, EquilibriumCheck
from molrecon.guarantees.estimates import LipschitzEstimate, MonotonicityEstimate
from molrecon.guarantees.perturbation import PerturbationCheck
from molrecon.reconstructors.certificate import Certificate

MARGIN = 1e-6  # relative; the estimates' own rounding


@final
@dataclass(frozen=True, eq=False)
class Findings:
    """A certificate and what was found on one scan.

    Attributes:
        certificate: what is promised.
        problem: the scan's name.
        noise_level: relative to the image scale. data_weight: lambda there.
        equilibrium, decrease, perturbations: see `molrecon.guarantees.checks` and `molrecon.guarantees.perturbation`.
        stretch, monotone: local estimates, see `molrecon.guarantees.estimates`, at `points`.
        seconds: that all this took.
    """

    certificate: Certificate
    problem: str
    noise_level: float
    data_weight: float
    equilibrium: EquilibriumCheck
    decrease: DecreaseCheck
    perturbations: tuple[PerturbationCheck, ...]
    stretch: LipschitzEstimate
    monotone: MonotonicityEstimate
    seconds: float

    points = ("equilibrium", "2 % away", "20 % away")

    @property
    def converged(self) -> bool:
        """Whether the model reached its tolerance from every start."""
        return self.equilibrium.converged

    @property
    def violations(self) -> tuple[str, ...]:
        """Sentences, one for each promise that was seen to be broken; empty when none was."""
        promised = self.certificate
        sentences = []
        if not promised.monotonicity > 0:
            sentences.append(f"monotonicity {promised.monotonicity:.4g} is promised: nothing follows from that")
        if (largest := float(self.stretch.value.max())) > promised.lipschitz * (1 + MARGIN):
            sentences.append(f"local Lipschitz constant {largest:.4f}, promised at most {promised.lipschitz:.4f}")
        if (smallest := float(self.monotone.value.min())) < promised.monotonicity - MARGIN:
            sentences.append(f"local monotonicity {smallest:.4f}, promised at least {promised.monotonicity:.4f}")
        if self.decrease.violated:
            sentences.append(
                f"a plain step left {self.decrease.worst:.4f} of the residual, promised {promised.contraction:.4f}"
            )
        if self.equilibrium.violated:
            sentences.append(f"two equilibria {self.equilibrium.distance:.1e} apart, beyond their error bounds")
        for check in self.perturbations:
            if check.violated:
                sentences.append(
                    f"{check.kind} change of the {check.perturbed} by {check.size:.0%} moved the image"
                    f" {check.tightness:.3g} times as far as promised"
                )
        return tuple(sentences)


def as_dict(findings: Findings) -> dict[str, Any]:
    """Return the findings as JSON has them: the Certificate's fields at the top, everything else under its own key."""
    stretch, monotone = findings.stretch, findings.monotone
    return {
        **asdict(findings.certificate),
        "problem": {
            "name": findings.problem,
            "noise_level": findings.noise_level,
            "data_weight": findings.data_weight,
        },
        "violations": list(findings.violations),
        "equilibrium": {**asdict(findings.equilibrium), "violated": findings.equilibrium.violated},
        "decrease": {**asdict(findings.decrease), "violated": findings.decrease.violated},
        "perturbations": [
            {**asdict(check), "tightness": check.tightness, "violated": check.violated}
            for check in findings.perturbations
        ],
        "local": {
            "points": list(findings.points),
            "lipschitz": stretch.value.tolist(),
            "monotonicity": monotone.value.tolist(),
            "smallest_eigenvalue": monotone.eigenvalue.tolist(),
            "tried": {
                "power_steps": stretch.power_steps,
                "ascent_steps": stretch.ascent_steps,
                "lanczos_steps": monotone.lanczos_steps,
                "radii": list(stretch.radii),
                "seed": stretch.seed,
            },
        },
        "seconds": round(findings.seconds, 3),
    }


def describe(findings: Findings) -> str:
    """Return the findings as the lines that the command prints."""
    promised, equilibrium, decrease = findings.certificate, findings.equilibrium, findings.decrease
    stretch, monotone = findings.stretch, findings.monotone
    lines = [
        f"certificate    {promised.kind}",
        f"lipschitz      {promised.lipschitz:.9g}",
        f"monotonicity   {promised.monotonicity:.9g}",
        f"contraction    {promised.contraction:.9g} a plain step",
        f"robustness     {promised.robustness:.6g} sqrt(lambda)",
        "",
        f"seen on {findings.problem}; lambda = {findings.data_weight:.4g}",
        f"  equilibrium    {len(equilibrium.starts)} starts ({', '.join(equilibrium.starts)}): "
        + (f"at most {equilibrium.distance:.1e} apart" if not equilibrium.violated else "NOT THE SAME")
        + f", {min(equilibrium.n_steps)}-{max(equilibrium.n_steps)} iterations"
        + ("" if equilibrium.converged else ", NOT ALL CONVERGED"),
        f"  decrease       a plain step left at most {decrease.worst:.4f} of the residual"
        f" (2 x {decrease.n_steps} steps)",
        f"  local          Lipschitz {_numbers(stretch.value)}, monotonicity {_numbers(monotone.value)}"
        f" ({', '.join(findings.points)})",
        f"                 tried: {stretch.power_steps} power, {stretch.ascent_steps} ascent, {monotone.lanczos_steps}"
        " Lanczos steps; such estimates refute and never certify",
        "",
        f"  {'perturbed by':<26} {'size':>6} {'change':>9} {'bound':>9} {'tightness':>9}",
    ]
    for check in findings.perturbations:
        lines.append(
            f"  {check.perturbed + ', ' + check.kind:<26} {check.size:6.1%} {check.change:9.2e} {check.bound:9.2e}"
            f" {check.tightness:9.4f}" + (" VIOLATED" if check.violated else "")
        )
    if findings.violations:
        return "\n".join([*lines, "", "violations:", *(f"  {sentence}" for sentence in findings.violations)])
    conclusion = "no violation was found" + ("" if promised.kind == "certified" else "; that certifies nothing")
    return "\n".join([*lines, "", conclusion])


def _numbers(values: Tensor) -> str:
    return " ".join(f"{value:.4f}" for value in values.tolist())
