"""Imagers as files: what is saved is what is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from molrecon.reconstructors.base import Reconstructor
from molrecon.sensing.assembly import HOSTS, assemble, names
from molrecon.sensing.gradient import GIN
from molrecon.sensing.imager import BlockImager
from molrecon.weights import available_models, load, load_card, save


def imager(host: str = "ista-net-plus") -> BlockImager:
    generator = torch.Generator().manual_seed(1)
    phi = torch.randn(7, 1089, generator=generator)
    model = assemble(host, "gin", n_stages=2, gradient_scale=3.0, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():  # some are zero before training
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    return BlockImager(model, phi, torch.randn(1089, 7, generator=generator)).eval()


@pytest.mark.parametrize("host", HOSTS)
def test_round_trip(host: str, tmp_path: Path) -> None:
    path, saved = tmp_path / "x.safetensors", imager(host)
    save(saved, path, {"seed": 3})
    loaded = load(path, BlockImager)
    assert isinstance(loaded.model.data_step, GIN) and loaded.model.data_step.scale == 3
    assert names(loaded.model) == (host, "gin") and not loaded.training and load_card(path) == {"seed": 3}
    assert path.stat().st_mode == path.with_suffix(".json").stat().st_mode
    image = torch.rand(1, 20, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(loaded.measure(image), (20, 40)), saved(saved.measure(image), (20, 40)), rtol=0, atol=0
        )


def test_half_precision_halves_the_file_and_keeps_the_image(tmp_path: Path) -> None:
    saved, paths = imager(), [tmp_path / "whole.safetensors", tmp_path / "half.safetensors"]
    for path, half in zip(paths, (False, True), strict=True):
        save(saved, path, {}, half=half)
    assert paths[1].stat().st_size < 0.52 * paths[0].stat().st_size
    whole, rounded = (load(path, BlockImager) for path in paths)
    assert rounded.phi.dtype == torch.float32
    image = torch.rand(1, 20, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = [x(x.measure(image), (20, 40)) for x in (whole, rounded)]
    torch.testing.assert_close(*images, rtol=0, atol=1e-2)


def test_what_is_no_imager(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        save(imager(), tmp_path / "x.pt", {})
    with pytest.raises(FileNotFoundError, match="neither a file nor a packaged model"):
        load(path, BlockImager)
    path.write_bytes(b"something")
    with pytest.raises(ValueError, match="not a molrecon model"):
        load(path, BlockImager)
    save_file({"phi": torch.ones(1, 1089)}, path)
    with pytest.raises(ValueError, match="not a molrecon model"):
        load(path, BlockImager)
    save(imager(), path, {})
    with pytest.raises(ValueError, match="holds a BlockImager, expected a Reconstructor"):
        load(path, Reconstructor)
    with pytest.raises(ValueError, match="holds a MOL, expected a BlockImager"):
        load("mol-brain-2d", BlockImager)


def test_packaged_imagers_load() -> None:
    for name in available_models(BlockImager):
        assert load(name, BlockImager).phi.shape[1] == 1089
        assert "intended_use" in load_card(name)
