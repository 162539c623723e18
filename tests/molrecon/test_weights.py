"""Weights: written and read back bit for bit, described, refused when they are something else."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from molrecon.deep_equilibrium import DeepEquilibrium
from molrecon.mol import MOL
from molrecon.networks import PlainNetwork, ResidualNetwork, ScoreNetwork, SpectralNetwork, UNet
from molrecon.unrolled.admm_net import ADMMNet
from molrecon.unrolled.modl import MoDL
from molrecon.unrolled.post_processing import PostProcessing
from molrecon.unrolled.varnet import VarNet
from molrecon.weights import (
    Reconstructor,
    available_models,
    load_card,
    load_model,
    load_reconstructor,
    save_model,
    weights_hash,
    weights_path,
)
from molrecon.weights.imaging import available_imagers
from molrecon.weights.inpainting import available_inpainters
from molrecon.weights.published import load_published_mol
from molrecon.weights.sparse import available_code_networks
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
    save_model(model, path, CARD)
    again = load_model(path)
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
        save_model(model, tmp_path / f"{name}.safetensors", CARD)
    assert weights_hash(tmp_path / "a.safetensors") == weights_hash(tmp_path / "b.safetensors")
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    save_model(model, tmp_path / "b.safetensors", CARD)
    assert weights_hash(tmp_path / "a.safetensors") != weights_hash(tmp_path / "b.safetensors")


def test_paths_may_be_text_and_cards_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save_model(small_model(), str(path), CARD)
    path.with_suffix(".json").unlink()
    assert load_card(str(path)) == {}
    assert weights_path(str(path)) == path
    load_model(str(path))


def test_unknown_names() -> None:
    for function in (load_model, load_card, weights_hash, weights_path):
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
    save_model(small_model(), path, CARD)
    path.write_bytes(path.read_bytes()[:-100])


def write_without_settings(path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, path)


def write_broken_settings(path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, path, metadata={"molrecon": "{"})


def write_other_settings(path: Path) -> None:
    settings: dict[str, Any] = {"network": {"depth": 3}, "phase_reference": True}
    save_file({"weight": torch.zeros(2)}, path, metadata={"molrecon": json.dumps(settings)})


def write_other_tensors(path: Path) -> None:
    settings = {"network": small_model().network.settings(), "phase_reference": True}
    save_file({"weight": torch.zeros(2)}, path, metadata={"molrecon": json.dumps(settings)})


def write_impossible_settings(path: Path) -> None:
    settings = {"network": {"monotonicity": 2.0}, "phase_reference": True}
    save_file({"weight": torch.zeros(2)}, path, metadata={"molrecon": json.dumps(settings)})


BROKEN = [
    write_text,
    write_nothing,
    write_truncated,
    write_without_settings,
    write_broken_settings,
    write_other_settings,
    write_other_tensors,
    write_impossible_settings,
]


@pytest.mark.parametrize("write", BROKEN, ids=lambda function: function.__name__)
def test_files_that_are_no_model(write: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    write(path)
    with pytest.raises(
        ValueError, match=r"(?s)broken\.safetensors: not a molrecon model \(.*expected a file written by"
    ):
        load_model(path)


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
    save_model(model, path, CARD)
    again = load_reconstructor(path)
    assert type(again) is type(model)
    assert not again.training
    assert again.settings() == model.settings()
    assert again.network.settings() == model.network.settings()
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    kspace, operator = small_scan()
    with torch.no_grad():
        images = [m(kspace, operator, 0.01) for m in (model, again)]
    first, second = (image if isinstance(image, Tensor) else image.value for image in images)
    assert torch.equal(first, second)
    if isinstance(model, MOL):
        assert load_model(path).certificate().kind == ("certified" if name == "spectral" else "estimated")
    else:
        with pytest.raises(
            ValueError, match=rf"{name}.safetensors: holds a {type(model).__name__}, expected an equilibrium model"
        ):
            load_model(path)


@pytest.mark.parametrize("unrolled", [True, False])
def test_files_without_the_name_of_a_class(unrolled: bool, tmp_path: Path) -> None:
    strict = small_model()
    model = MoDL(strict.network, n_unrolls=3) if unrolled else strict
    settings = {"network": strict.network.settings(), **model.settings()}
    path = tmp_path / "old.safetensors"
    save_file(model.state_dict(), path, metadata={"molrecon": json.dumps(settings)})
    again = load_reconstructor(path)
    assert type(again) is type(model)
    assert again.settings() == model.settings()


def test_networks_of_others_are_not_saved(tmp_path: Path) -> None:
    class Foreign(ScoreNetwork):
        monotonicity, certified, ndim = 0.5, False, 2

        def denoiser(self, noise_level: Tensor) -> Callable[[Tensor], Tensor]:
            return torch.zeros_like

        def lipschitz_bound(self) -> float:
            return 0.5

    with pytest.raises(TypeError, match=r"save_model: network is Foreign, expected one of PlainNetwork"):
        save_model(MOL(Foreign()), tmp_path / "foreign.safetensors", CARD)


@pytest.mark.parametrize(
    "name",
    sorted({*available_models()} - {*available_imagers()} - {*available_code_networks()} - {*available_inpainters()}),
)
def test_packaged_models(name: str) -> None:
    model = load_reconstructor(name)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    kspace, operator = small_scan(model.network.ndim)
    with torch.no_grad():
        answer = model(kspace, operator, None if model.network.ndim == 2 else 0.01)
    if isinstance(answer, Tensor):
        assert torch.isfinite(torch.view_as_real(answer)).all()
    elif isinstance(model, MOL):
        assert answer.converged.all()
        assert model.certificate().kind == ("estimated" if "penalised" in name else "certified")
        assert model.certificate().lipschitz < 1
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
