"""Hosts and data steps: published sizes, one switch, and the same stages on any operator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from molrecon.sensing.alignment import alignment
from molrecon.sensing.assembly import HOSTS, assemble, names
from molrecon.sensing.gradient import GDM
from molrecon.sensing.imager import BlockImager
from molrecon.sensing.stage import Host, Refinement, Unrolled, measured_share
from operators import Blocks, Dense, Flatten, Inpainting, LinearOperator, Sense, orthonormal_matrix

PUBLISHED_PARAMETERS = {"ista-net-plus": 336_978, "coast": 1_122_024, "dpc-dun": 1_634_235 - 25 * 9_932}
EXTRA_FILTERS = 32 * 9  # of one more input channel


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=dtype)


def sense(seed: int = 0, rows: int = 12, cols: int = 10) -> tuple[Sense, Tensor, Tensor]:
    """Return an operator of 3 coils, 2 measurements and their images."""
    maps = torch.randn(2, 3, rows, cols, generator=generator(seed), dtype=torch.complex64)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    operator = Sense(maps, (rand(1, 1, cols, seed=seed + 1) < 0.6))
    image = torch.randn(2, rows, cols, generator=generator(seed + 2), dtype=torch.complex64)
    return operator, operator(image), image


def n_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def with_last_filters(model: Unrolled) -> Unrolled:
    """Return the model with other filters where those of residual hosts are zero before training."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "tail.weight" in name or "conv_g" in name:
                parameter.uniform_(-0.1, 0.1, generator=generator(5))
    return model


class Nothing(Host):
    """A host whose networks change nothing, so that GDM is gradient descent."""

    def __init__(self, channels: int, n_stages: int) -> None:
        super().__init__()
        self.channels, self.n_stages, self.whole_image = channels, n_stages, True

    def refine(self, stage: int, inputs: Tensor, carry: Tensor | None) -> Refinement:
        return Refinement(torch.zeros_like(inputs))


@pytest.mark.parametrize("host", HOSTS)
def test_sizes_are_the_published_ones(host: str) -> None:
    gdm, gin = assemble(host, "gdm"), assemble(host, "gin")
    assert n_parameters(gdm) == PUBLISHED_PARAMETERS[host]
    assert n_parameters(gin) == PUBLISHED_PARAMETERS[host] + gdm.host.n_stages * EXTRA_FILTERS
    assert names(gin) == (host, "gin")


@pytest.mark.parametrize("host", HOSTS)
def test_gin_starts_as_gdm_and_learns_from_the_gradient(host: str) -> None:
    gdm, gin = (with_last_filters(assemble(host, step, n_stages=2, seed=3)).eval() for step in ("gdm", "gin"))
    operator = Dense(orthonormal_matrix(20, 36, seed=1).float()) @ Flatten((6, 6))
    measurements = operator(rand(2, 6, 6, seed=2))
    start = rand(2, 6, 6, seed=3)
    expected, got = gdm(measurements, operator, start), gin(measurements, operator, start)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    got.square().sum().backward()
    first = next(p for name, p in gin.named_parameters() if "conv_d" in name or "head.weight" in name)
    assert first.grad is not None and bool((first.grad[:, 1] != 0).any())


@pytest.mark.parametrize("host", ["coast", "dpc-dun"])
def test_residual_hosts_start_as_gradient_descent(host: str) -> None:
    operator = Dense(orthonormal_matrix(20, 36, seed=1).float()) @ Flatten((6, 6))
    measurements, start = operator(rand(2, 6, 6, seed=2)), rand(2, 6, 6, seed=3)
    expected = Unrolled(Nothing(1, 2), GDM(2))(measurements, operator, start)
    torch.testing.assert_close(assemble(host, "gdm", n_stages=2)(measurements, operator, start), expected)


@pytest.mark.parametrize("data_step", ["gdm", "gin"])
@pytest.mark.parametrize("host", HOSTS)
def test_multi_coil_images_are_two_channels(host: str, data_step: str) -> None:
    operator, kspace, _ = sense()
    model = with_last_filters(assemble(host, data_step, channels=2, n_stages=2, seed=1)).eval()
    with torch.no_grad():
        image = model(kspace, operator)
        assert image.shape == (2, 12, 10) and image.dtype == torch.complex64
        one = Sense(operator.sensitivity_maps[1:], operator.sampling_mask)
        torch.testing.assert_close(model(kspace[1:], one), image[1:])
    with pytest.raises(TypeError, match="complex64 for a host of 1 channels"):
        assemble(host, data_step)(kspace, operator)


def test_descent_without_networks_reaches_the_least_squares_solution() -> None:
    operator, kspace, image = sense()
    everything = Sense(operator.sensitivity_maps, torch.ones(1, 1, 1, dtype=torch.bool))
    model = Unrolled(Nothing(2, 60), GDM(60))
    torch.testing.assert_close(model(everything(image), everything), image)
    residuals = alignment(model, kspace, operator)[1]
    assert bool((residuals[1:] < residuals[:-1]).all()) and float(residuals[-1]) < 1e-2


def test_alignment_is_the_relative_residual() -> None:
    operator = Dense(orthonormal_matrix(20, 36, seed=1)) @ Flatten((6, 6))
    measurements = operator(rand(2, 6, 6, dtype=torch.float64))
    start = rand(2, 6, 6, seed=5, dtype=torch.float64)
    model = assemble("ista-net-plus", "gdm", n_stages=3).double().eval()
    before, after = alignment(model, measurements, operator, start)
    # Phi Phi^T = I: a step of rho shrinks the residual to 1 - rho of what it was.
    first = (operator(start) - measurements).norm() / measurements.norm()
    torch.testing.assert_close(before, torch.cat([first[None], after[:-1]]) * 0.5)
    last = model(measurements, operator, start)
    torch.testing.assert_close(after[-1], (operator(last) - measurements).norm() / measurements.norm())


@torch.no_grad()
def test_penalty_is_that_of_a_pair_that_is_not_inverse() -> None:
    model = assemble("ista-net-plus", "gin", n_stages=1)
    operator = Inpainting(torch.ones(1, 8, 8))
    image = rand(1, 8, 8)
    (stage,) = model.stages(image, operator)
    assert stage.penalty is not None and float(stage.penalty) > 0
    (stage,) = model.eval().stages(image, operator)
    assert stage.penalty is None
    network = dict(model.train().host.named_parameters())
    # Identical filters through which positive features pass as they are: B(F(d)) = d.
    for name in ("forward_1", "forward_2", "backward_1", "backward_2"):
        network[f"networks.0.{name}"].zero_()[range(32), range(32), 1, 1] = 1.0
    network["networks.0.conv_d"].abs_()
    (stage,) = model.stages(image, operator)
    assert stage.penalty is not None and float(stage.penalty) == 0


def test_measured_share() -> None:
    operator = Dense(torch.ones(3, 12)) @ Flatten((3, 4))
    image = rand(2, 3, 4)
    assert measured_share(operator(image), operator, image).tolist() == [[0.25], [0.25]]
    masked, kspace, x = sense()
    share = measured_share(kspace, masked, x)
    assert share.shape == (2, 1) and float(share[0]) == pytest.approx(float(masked.sampling_mask.float().mean()))


@pytest.mark.parametrize(("host", "whole"), [("ista-net-plus", False), ("coast", True)])
def test_imager_pads_as_the_published_programs(host: str, whole: bool) -> None:
    phi = orthonormal_matrix(400, 33 * 33, seed=0).float()
    imager = BlockImager(with_last_filters(assemble(host, "gin", n_stages=1, seed=2)), phi).eval()
    image = rand(2, 33, 50)
    measurements = imager.measure(image)
    assert measurements.shape == (2, 4, 400)
    padded = torch.nn.functional.pad(image, (0, 16, 0, 33))
    torch.testing.assert_close(measurements, Dense(phi)(Blocks((66, 66), 33)(padded)))
    with torch.no_grad():
        restored = imager(measurements, (33, 50))
        assert restored.shape == image.shape and float(restored.min()) >= 0 and float(restored.max()) <= 1
        operator: LinearOperator
        if whole:
            operator = Dense(phi) @ Blocks((66, 66), 33)
            expected = imager.model(measurements, operator)[:, :33, :50]
        else:
            operator = Dense(phi) @ Flatten((33, 33))
            blocks = imager.model(measurements.flatten(0, 1), operator).reshape(2, 2, 2, 33, 33)
            expected = blocks.transpose(2, 3).reshape(2, 66, 66)[:, :33, :50]
    torch.testing.assert_close(restored, expected.clamp(0, 1))


def test_errors() -> None:
    with pytest.raises(ValueError, match="host 'u-net' and data step 'gdm', expected one of ista-net-plus"):
        assemble("u-net", "gdm")
    with pytest.raises(ValueError, match="GIN: got scale 0, expected a positive number"):
        assemble("coast", "gin", gradient_scale=0)
    with pytest.raises(TypeError, match="Nothing"):
        names(Unrolled(Nothing(1, 1), GDM(1)))
    model = assemble("ista-net-plus", "gdm", n_stages=1)
    with pytest.raises(ValueError, match=r"Phi \(3, 4\)"):
        BlockImager(model, torch.ones(3, 4))
    with pytest.raises(ValueError, match="initialisation"):
        BlockImager(model, torch.ones(3, 1089), torch.ones(3, 1089))


@pytest.mark.parametrize("host", HOSTS)
def test_mixed_precision_rounds_the_networks_alone(host: str) -> None:
    model = with_last_filters(assemble(host, "gin", n_stages=2, seed=3, gradient_scale=1.0))
    operator = Dense(orthonormal_matrix(20, 36, seed=1).float()) @ Flatten((6, 6))
    measurements = operator(rand(2, 6, 6, seed=2))
    single, mixed = (list(model.stages(measurements, operator, mixed=mixed)) for mixed in (False, True))
    assert mixed[-1].image.dtype == torch.float32
    # The first base is of the operator's making, no network's.
    torch.testing.assert_close(mixed[0].base, single[0].base, rtol=0, atol=0)
    distance = (mixed[-1].image - single[-1].image).norm() / single[-1].image.norm()
    assert 0 < distance < 2e-2
    mixed[-1].image.square().sum().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())
