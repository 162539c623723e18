"""What `certify` says about a model that keeps its promise and about one that does not, and its exit codes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from molrecon.command.parser import main
from molrecon.guarantees.certify import CertifiedScan, certify, sample_problem, volume_problem
from molrecon.guarantees.certify_report import as_dict, describe
from molrecon.io import read_volume
from molrecon.networks import Denoiser, PlainNetwork, ResidualNetwork
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.modl import MoDL
from molrecon.reconstructors.mol import MOL
from molrecon.reconstructors.robustness_bounds import data_robustness_bound, operator_robustness_bound
from molrecon.simulation.phantom import write_phantom
from molrecon.weights import load, save
from operators import Sense

FIELDS = ["kind", "lipschitz", "monotonicity", "contraction", "robustness"]


@final
class Scaling(Denoiser):
    """H = 0.9 x, and what it claims about that."""

    strict = True
    ndim = 2

    def __init__(self, claimed: float = 0.9) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.9))
        self.monotonicity = 1 - claimed

    def lipschitz_bound(self) -> float:
        return 1 - self.monotonicity

    def denoiser(self, noise_level: Tensor, guide: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        return lambda x: self.factor * x


def small_problem() -> CertifiedScan:
    """Return twelve columns of which every other one is measured by two coils."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 2, 10, 12, dtype=torch.complex64, generator=generator)
    operator = Sense(maps / torch.linalg.vector_norm(maps, dim=1), (torch.arange(12) % 2 == 0)[None, None])
    image = torch.randn(1, 10, 12, dtype=torch.complex64, generator=generator)
    return CertifiedScan("small", operator(image), operator, 0.01)


def test_a_model_that_keeps_its_promise() -> None:
    findings = certify(MOL(Scaling()).eval(), small_problem())
    assert findings.violations == ()
    assert findings.converged
    assert findings.stretch.value.max() == pytest.approx(0.9, rel=1e-6)
    assert findings.monotone.value.min() == pytest.approx(0.1, rel=1e-6)
    assert findings.decrease.worst <= 0.9 * (1 + 1e-5)
    checks = {(check.perturbed, check.kind): check for check in findings.perturbations}
    assert len(checks) == 4
    for check in checks.values():
        assert 0 < check.tightness <= 1
    assert checks["k-space", "worst case"].change > 1.2 * checks["k-space", "Gaussian"].change
    said = as_dict(findings)
    assert list(said)[:5] == FIELDS
    json.dumps(said, allow_nan=False)
    assert "no violation was found" in describe(findings)


def test_a_model_that_does_not() -> None:
    findings = certify(MOL(Scaling(claimed=0.7)).eval(), small_problem())
    text = " ".join(findings.violations)
    for promise in ("local Lipschitz constant 0.9000", "local monotonicity 0.1000", "worst case change of the k-space"):
        assert promise in text
    assert as_dict(findings)["violations"] == list(findings.violations)
    assert all(sentence in describe(findings) for sentence in findings.violations)


def test_the_data_bound_is_attained() -> None:
    # One pixel, one coil of sensitivity a: x = lambda a b / (m + lambda a^2), steepest at a = sqrt(m / lambda).
    model = MOL(Scaling(), data_weight=5.0).double().eval()
    model.solver = replace(model.solver, tol=1e-12)
    conditioning = Conditioning(
        torch.ones(1).double(), torch.full((1,), 0.01).double(), torch.ones(1, 1, 1, dtype=torch.complex128)
    )
    maps = torch.full((1, 1, 1, 1), math.sqrt(0.1 / 5.0), dtype=torch.complex128)
    operator = Sense(maps, torch.ones(1, 1, 1))
    b = torch.full((1, 1, 1, 1), 3.0 - 1j, dtype=torch.complex128)
    with torch.no_grad():
        moved = (
            model(2 * b, operator, conditioning=conditioning).value
            - model(b, operator, conditioning=conditioning).value
        )
    ratio = model.weight_ratio(conditioning)
    torch.testing.assert_close(data_robustness_bound(ratio, operator, b), moved.abs().flatten(), rtol=1e-6, atol=0)


def test_the_bound_of_changed_maps_holds_at_all_sizes() -> None:
    problem = small_problem()
    model = MOL(Scaling(), data_weight=5.0).double().eval()
    model.solver = replace(model.solver, tol=1e-10)
    operator = problem.operator
    assert isinstance(operator, Sense)
    conditioning = model.condition(problem.kspace.to(torch.complex128), operator, 0.01)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        base = model(problem.kspace, operator, conditioning=conditioning).value
        for size in (1e-3, 0.1, 1.0, 10.0):
            change = size * torch.randn(operator.sensitivity_maps.shape, dtype=torch.complex64, generator=generator)
            changed = Sense(operator.sensitivity_maps + change, operator.sampling_mask)
            moved = (model(problem.kspace, changed, conditioning=conditioning).value - base).norm()
            bound = operator_robustness_bound(model.weight_ratio(conditioning), operator, changed, problem.kspace, base)
            assert moved <= bound
            assert size > 1e-3 or moved >= 0.05 * bound


def test_scans() -> None:
    for ndim in (2, 3):
        problem, same = sample_problem(ndim), sample_problem(ndim)
        assert problem.kspace.ndim == ndim + 2
        assert torch.equal(problem.kspace, same.kspace)
    with pytest.raises(ValueError, match="certify: a scan with 3 spatial axes, expected 2 as the network has"):
        certify(MOL(Scaling()).eval(), sample_problem(3))


def test_a_fully_sampled_scan_is_undersampled(tmp_path: Path) -> None:
    volume = read_volume(write_phantom(tmp_path / "head.h5", slices=2, coils=3, shape=(40, 100)))
    problem = volume_problem(volume)
    assert "head.h5" in problem.name and "of 100 columns" in problem.name
    assert problem.kspace.shape == (1, 3, 40, 100)
    measured = (problem.kspace[0, 0, 0] != 0).sum()
    assert 15 <= measured <= 36


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return files of a certified model, one with an empty promise, and an unrolled one."""
    folder = tmp_path_factory.mktemp("models")
    certified = ResidualNetwork(monotonicity=0.3, channels=2, features=4, levels=1, cycles=1)
    liar = PlainNetwork(monotonicity=0.5, layers=2, features=4, skip=True)
    with torch.no_grad():
        liar.convolutions[-1].weight.fill_(0.05)  # type: ignore[operator]
    saved: dict[str, MOL | MoDL] = {
        "certified": MOL(certified),
        "liar": MOL(liar),
        "unrolled": MoDL(certified, n_unrolls=2),
    }
    for name, model in saved.items():
        save(model, folder / f"{name}.safetensors", {"data": "none"})
    return {name: str(folder / f"{name}.safetensors") for name in saved}


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> str:
    generator = np.random.default_rng(0)
    kspace = np.zeros((3, 24, 32), np.complex64)
    columns = [*range(12, 20), *range(0, 32, 3)]
    shape = (3, 24, len(columns))
    kspace[:, :, columns] = generator.standard_normal(shape) + 1j * generator.standard_normal(shape)
    path = tmp_path_factory.mktemp("scan") / "scan.npy"
    np.save(path, kspace)
    return str(path)


def test_command(models: dict[str, str], scan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", scan, "--noise-level", "0.1", "--device", "cpu"]
    assert main(["certify", models["certified"], *data, "--json", str(tmp_path / "found.json")]) == 0
    output = capsys.readouterr().out
    for word in ("certified", "robustness", "scan.npy", "tightness", "no violation was found"):
        assert word in output
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found)[:5] == FIELDS
    assert found["kind"] == "certified" and found["violations"] == []
    assert main(["certify", models["liar"], *data, "--json", "-"]) == 6
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "estimated" and len(found["violations"]) >= 2


def test_usage(models: dict[str, str], scan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wrong.pth.tar").write_bytes(b"no weights")
    for arguments, code in (
        (["no-such-model"], 2),
        ([models["unrolled"]], 2),
        ([str(tmp_path / "wrong.pth.tar")], 2),
        ([str(tmp_path / "missing.pth.tar")], 2),
        ([models["certified"], "--noise-level", "0.1"], 2),
        ([models["certified"], "--data", str(tmp_path / "missing.npy")], 3),
    ):
        assert main(["certify", *arguments]) == code
        assert "Traceback" not in capsys.readouterr().err


def test_packaged_models_can_be_loaded() -> None:
    assert load("mol-brain-2d", MOL).certificate().kind == "certified"
