"""Weights: written and read back bit for bit, described, refused when they are something else."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from molrecon.descent.glow_prox import GlowProx
from molrecon.descent.lista import CodeNetwork
from molrecon.networks import Denoiser, PlainNetwork, ResidualNetwork, SpectralNetwork, UNet
from molrecon.reconstructors.admm_net import ADMMNet
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.deep_equilibrium import DeepEquilibrium
from molrecon.reconstructors.modl import MoDL
from molrecon.reconstructors.mol import MOL
from molrecon.reconstructors.post_processing import PostProcessing
from molrecon.reconstructors.varnet import VarNet
from molrecon.sensing.imager import BlockImager
from molrecon.solvers.solver_settings import IMAGE_TOL, SolverSettings
from molrecon.weights import available_models, load, load_card, save, weights_hash, weights_path
from molrecon.weights.published import load_published_mol
from operators import Sense

DATA = os.environ.get("MOLRECON_DATA")
CARD = {"data": "none", "split": "none", "steps": 0, "seed": 3, "licence": "MIT", "intended use": "a test"}


def small_model(*, phase_reference: bool = True) -> MOL:
    network = ResidualNetwork(monotonicity=0.1, channels=3, features=4, levels=2, cycles=1, seed=3)
    model = MOL(network, data_weight=20.0, phase_reference=phase_reference)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def small_scan(ndim: int = 2) -> tuple[Tensor, Sense]:
    generator = torch.Generator().manual_seed(1)
    shape = (12, 10) if ndim == 2 else (4, 12, 10)
    maps = torch.randn(1, 4, *shape, dtype=torch.complex64, generator=generator)
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    mask = (torch.arange(10) % 2 == 0).view(1, *[1] * (ndim - 1), 10)
    operator = Sense(maps, mask)
    return operator(torch.randn(1, *shape, dtype=torch.complex64, generator=generator)), operator


def reconstruct(model: MOL) -> Tensor:
    kspace, operator = small_scan()
    with torch.no_grad():
        return model(kspace, operator, 0.01).value


@pytest.mark.parametrize("phase_reference", [True, False])
def test_round_trip(phase_reference: bool, tmp_path: Path) -> None:
    model, path = small_model(phase_reference=phase_reference), tmp_path / "small.safetensors"
    save(model, path, CARD)
    again = load(path, MOL)
    assert not again.training
    assert again.phase_reference is phase_reference
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    assert again.certificate() == model.certificate()
    assert torch.equal(reconstruct(again), reconstruct(model))
    assert load_card(path) == CARD
    assert weights_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.json", "small.safetensors"]


def test_saving_is_repeatable(tmp_path: Path) -> None:
    model = small_model()
    for name in ("a", "b"):
        save(model, tmp_path / f"{name}.safetensors", CARD)
    assert weights_hash(tmp_path / "a.safetensors") == weights_hash(tmp_path / "b.safetensors")
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    save(model, tmp_path / "b.safetensors", CARD)
    assert weights_hash(tmp_path / "a.safetensors") != weights_hash(tmp_path / "b.safetensors")


def test_paths_may_be_text_and_cards_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save(small_model(), str(path), CARD)
    path.with_suffix(".json").unlink()
    assert load_card(str(path)) == {}
    assert weights_path(str(path)) == path
    load(str(path), MOL)


def test_unknown_names() -> None:
    for function in (load, load_card, weights_hash, weights_path):
        with pytest.raises(
            FileNotFoundError, match=r"weights: no-such is neither a file nor a packaged model"
        ) as caught:
            function("no-such")
        assert all(name in str(caught.value) for name in available_models())


def write_text(path: Path) -> None:
    path.write_text("not a model")


def write_nothing(path: Path) -> None:
    path.write_bytes(b"")


def write_truncated(path: Path) -> None:
    save(small_model(), path, CARD)
    path.write_bytes(path.read_bytes()[:-100])


def write_without_settings(path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, path)


def write_broken_settings(path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, path, metadata={"molrecon": "{"})


NETWORK = "molrecon.networks.residual:ResidualNetwork"


def write_header(path: Path, name: str, settings: dict[str, Any]) -> None:
    header = json.dumps({"class": name, "settings": settings})
    save_file({"weight": torch.zeros(2)}, path, metadata={"molrecon": header})


def write_other_settings(path: Path) -> None:
    write_header(path, NETWORK, {"depth": 3})


def write_other_tensors(path: Path) -> None:
    write_header(path, NETWORK, small_model().network.settings())


def write_impossible_settings(path: Path) -> None:
    write_header(path, NETWORK, {"monotonicity": 2.0})


def write_no_model(path: Path) -> None:
    write_header(path, "os:getcwd", {})


def write_no_class(path: Path) -> None:
    write_header(path, "molrecon.reconstructors.defaults:DEFAULT_MODEL", {})


BROKEN = [
    write_text,
    write_nothing,
    write_truncated,
    write_without_settings,
    write_broken_settings,
    write_other_settings,
    write_other_tensors,
    write_impossible_settings,
    write_no_model,
    write_no_class,
]


@pytest.mark.parametrize("write", BROKEN, ids=lambda function: function.__name__)
def test_files_that_are_no_model(write: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    write(path)
    with pytest.raises(
        ValueError, match=r"(?s)broken\.safetensors: not a molrecon model \(.*expected a file written by"
    ):
        load(path, MOL)


def other_reconstructors() -> dict[str, Reconstructor]:
    plain = PlainNetwork(monotonicity=0.1, layers=3, features=4, skip=True)
    tempered = PlainNetwork(monotonicity=0.1, layers=3, features=4, spectral=True)
    return {
        "penalised": MOL(plain),
        "spectral": MOL(SpectralNetwork(monotonicity=0.1, layers=2, features=4)),
        "modl": MoDL(plain, n_unrolls=3, data_weight=20.0),
        "admm-net": ADMMNet(plain, n_unrolls=4),
        "varnet": VarNet(plain, n_unrolls=2, phase_reference=False),
        "unet": PostProcessing(UNet(channels=(3, 4)), phase_reference=False),
        "de-grad": DeepEquilibrium(plain, data_weight=3.0),
        "de-prox": DeepEquilibrium(tempered, step="proximal", phase_reference=False),
    }


@pytest.mark.parametrize("name", other_reconstructors())
def test_other_reconstructors_round_trip(name: str, tmp_path: Path) -> None:
    model, path = other_reconstructors()[name].eval(), tmp_path / f"{name}.safetensors"
    save(model, path, CARD)
    again = load(path, Reconstructor)
    assert type(again) is type(model)
    assert not again.training
    assert plain_settings(again) == plain_settings(model)
    assert again.settings()["network"].settings() == model.settings()["network"].settings()
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    kspace, operator = small_scan()
    with torch.no_grad():
        first, second = (m(kspace, operator, 0.01).value for m in (model, again))
    assert torch.equal(first, second)
    if isinstance(model, MOL):
        assert load(path, MOL).certificate().kind == ("certified" if name == "spectral" else "estimated")
    else:
        with pytest.raises(ValueError, match=rf"{name}.safetensors: holds a {type(model).__name__}, expected a MOL"):
            load(path, MOL)


def plain_settings(model: Reconstructor) -> dict[str, Any]:
    return {key: value for key, value in model.settings().items() if key != "network"}


def test_solver_settings_survive(tmp_path: Path) -> None:
    model, path = small_model(), tmp_path / "small.safetensors"
    model.solver = SolverSettings(tol=3e-3, max_steps=7, window=2, backward_tol=0.5, backward_max_steps=5, refine=False)
    save(model, path, CARD)
    assert load(path, MOL).solver == model.solver


FOREIGN = """
import torch
from molrecon.networks import Denoiser

class Foreign(Denoiser):
    monotonicity, certified, ndim = 0.5, False, 2

    def __init__(self, gain):
        super().__init__()
        self.gain = gain
        self.weight = torch.nn.Parameter(torch.ones(3))

    def settings(self):
        return {"gain": self.gain}

    def denoiser(self, noise_level):
        return lambda x: self.gain * self.weight.mean() * x

    def lipschitz_bound(self):
        return 0.5
"""


def test_a_model_with_somebody_elses_network_is_saved_and_loaded_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "foreign_network.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    model = MOL(importlib.import_module("foreign_network").Foreign(0.3)).eval()
    path = tmp_path / "foreign.safetensors"
    save(model, path, CARD)
    assert torch.equal(reconstruct(load(path, MOL)), reconstruct(model))
    code = "import sys; from molrecon.weights import load; print(load(sys.argv[1]).network.gain)"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.strip() == "0.3", ran.stderr


def test_networks_that_could_not_be_built_again_are_not_saved(tmp_path: Path) -> None:
    class Foreign(Denoiser):
        monotonicity, certified, ndim = 0.5, False, 2

        def denoiser(self, noise_level: Tensor, guide: Tensor | None = None) -> Callable[[Tensor], Tensor]:
            return torch.zeros_like

        def lipschitz_bound(self) -> float:
            return 0.5

    with pytest.raises(TypeError, match=r"save: MOL\.network is a Foreign .*expected a class that can be imported"):
        save(MOL(Foreign()), tmp_path / "foreign.safetensors", CARD)
    assert not list(tmp_path.iterdir())


def test_every_packaged_model_loads() -> None:
    kinds = [Reconstructor, BlockImager, CodeNetwork, GlowProx]
    assert sorted(name for kind in kinds for name in available_models(kind)) == available_models()
    for name in available_models():
        assert not load(name).training


@pytest.mark.parametrize("name", available_models(Reconstructor))
def test_packaged_models(name: str) -> None:
    model = load(name, Reconstructor)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    ndim = model.settings()["network"].ndim
    kspace, operator = small_scan(ndim)
    with torch.no_grad():
        solution = model(kspace, operator, None if ndim == 2 else 0.01)
    kind = ("estimated" if "penalised" in name else "certified") if isinstance(model, MOL) else "none"
    assert solution.kind == model.certificate().kind == kind
    assert bool(solution.error_bound.isnan().all()) == (kind == "none")
    if isinstance(model, MOL):
        assert solution.converged.all()
        assert model.certificate().lipschitz < 1
        assert model.solver.tol <= IMAGE_TOL  # a training's own is rougher
    card = load_card(name)
    assert {"data", "split", "steps", "seed", "licence"} <= card.keys()
    assert "research use" in json.dumps(card)
    assert len(weights_hash(name)) == 64


@pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: no published weights")
def test_published_weights() -> None:
    assert DATA is not None
    path = Path(DATA) / "published" / "mol" / "mol.pth.tar"
    stored = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    model = load_published_mol(path)
    assert not model.training
    assert isinstance(model.network, PlainNetwork)
    assert len(model.network.convolutions) == 5
    assert torch.equal(model.network.convolutions[2].weight, stored["f.dw.net.2.conv.weight"])  # type: ignore[arg-type]
    # Lambda of the published model does not depend on the noise.
    weights = model.data_weight(torch.tensor([0.001, 0.01, 0.05])).detach()
    torch.testing.assert_close(weights, stored["f.lam"].expand(3))
    assert model.certificate().kind == "estimated"
    assert torch.isfinite(reconstruct(model).abs()).all()


@pytest.mark.parametrize("content", ["text", "empty", "tensors", "tensor", "other", "half", "list"])
def test_files_that_are_no_published_weights(content: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.pth.tar"
    stored: dict[str, Any] = {
        "tensors": {"weight": torch.zeros(2)},
        "tensor": torch.zeros(2),
        "other": {"state_dict": {"weight": torch.zeros(2)}},
        "half": {"state_dict": {"f.lam": torch.ones(1), "f.dw.net.0.conv.weight": torch.zeros(4, 2, 3, 3)}},
        "list": [1, 2],
    }
    if content in stored:
        torch.save(stored[content], path)
    else:
        path.write_bytes(b"not weights" if content == "text" else b"")
    with pytest.raises(ValueError, match=r"wrong\.pth\.tar: not published MOL weights, expected .*f\.lam"):
        load_published_mol(path)


def test_missing_published_weights(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_published_mol(tmp_path / "missing.pth.tar")
