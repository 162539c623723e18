"""GLOW-Prox: the flow is inverted exactly, the data step has the right sign and sees known pixels only."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from molrecon.descent.glow import Glow
from molrecon.descent.glow_prox import GlowProx
from operators import Inpainting

pytest.importorskip("normflows")


M = TypeVar("M", bound=torch.nn.Module)


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def stirred(module: M, size: float = 0.1) -> M:
    """Give every parameter another value, the couplings' zeros included."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return module


def small(**settings: int) -> GlowProx:
    return GlowProx(**({"n_layers": 3, "levels": 2, "blocks": 1, "features": 4} | settings))


def masked(images: Tensor, hole: slice = slice(2, 5)) -> Inpainting:
    known = torch.ones(1, *(1 for _ in images.shape[1:-2]), *images.shape[-2:], dtype=torch.bool)
    known[..., hole, hole] = False
    return Inpainting(known)


@pytest.mark.parametrize(("channels", "levels"), [(1, 1), (1, 3), (3, 2)])
def test_decode_is_the_inverse_of_encode(channels: int, levels: int) -> None:
    flow = Glow(channels, levels=levels, blocks=2, features=8, seed=0)
    image = random_images(4, channels, 16, 24)
    flow.calibrate(image)
    stirred(flow)
    latents = flow.encode(image)
    assert [z.shape[1] for z in latents] == flow.latent_channels
    assert sum(z[0].numel() for z in latents) == image[0].numel()
    torch.testing.assert_close(flow.decode(latents), image, atol=1e-5, rtol=0)
    back = flow.encode(flow.decode([z + 0.3 for z in latents]))
    for z, again in zip(latents, back, strict=True):
        torch.testing.assert_close(again, z + 0.3, atol=1e-4, rtol=0)
    flow, image = flow.double(), image.double()
    torch.testing.assert_close(flow.decode(flow.encode(image)), image, atol=1e-12, rtol=0)


def test_decode_cannot_overflow() -> None:
    flow = stirred(Glow(1, levels=2, blocks=2, features=8, seed=0), 2.0)
    blocks: list[Any] = list(flow.blocks)
    with torch.no_grad():
        for block in blocks:  # as at the start, but for the couplings' scales
            block.flows[-1].s.zero_()
            block.flows[1].W.copy_(torch.eye(len(block.flows[1].W)))
            last = block.flows[0].flows[1].param_map.network.net[-1]
            last.weight[0::2] = 0
            last.bias[0::2] = 0
    latents = flow.encode(100 * random_images(2, 1, 8, 8))
    largest = max(float(z.detach().abs().max()) for z in latents)
    # Four couplings, each of which at most doubles; the shifts of ActNorm are of order 2.
    assert float(flow.decode([-z for z in latents]).detach().abs().max()) <= 2**4 * (largest + 40)


def test_the_data_step_moves_known_pixels_to_the_measurements() -> None:
    model = small()
    truth, image = random_images(2, 8, 8), random_images(2, 8, 8, seed=1)
    operator = masked(truth)
    known = operator.known.expand(truth.shape)
    measurements = operator(truth)
    for step in (1.0, 0.25):
        with torch.no_grad():
            model.step_logit.fill_(math.log(step / (2 - step)))
        moved = model.descend(0, image, operator.adjoint(measurements), operator)
        torch.testing.assert_close(moved[~known], image[~known], atol=0, rtol=0)
        # The error shrinks by 1 - s; with the sign wrong it grows by 1 + s.
        torch.testing.assert_close((moved - truth)[known], (1 - step) * (image - truth)[known])


def test_without_shrinkage_layers_are_gradient_steps() -> None:
    model = stirred(small())
    with torch.no_grad():
        for log_tau in model.log_tau:
            log_tau.fill_(-40.0)
        model.step_logit.fill_(math.log(0.5 / 1.5))
    truth, start = random_images(2, 8, 8), random_images(2, 8, 8, seed=1)
    operator = masked(truth)
    known = operator.known.expand(truth.shape)
    for number, image in enumerate(model.stages(operator(truth), operator, start), 1):
        torch.testing.assert_close(image[~known], start[~known], atol=1e-5, rtol=0)
        torch.testing.assert_close((image - truth)[known], 0.5**number * (start - truth)[known], atol=1e-5, rtol=0)


def test_shrinkage() -> None:
    image = random_images(2, 8, 8)
    # Couplings start at zero and ActNorm as the identity: f is linear, and shrinking z is shrinking the image.
    torch.testing.assert_close(small().refine(0, image), image / 1.1)
    model = stirred(small())
    with torch.no_grad():
        for log_tau in model.log_tau:
            log_tau[1] = 40.0
    # All the way to z = 0: the image that the flow finds likeliest, whatever was put in.
    torch.testing.assert_close(model.refine(1, image), model.refine(1, image + 1))


def test_construction_is_seeded() -> None:
    before = torch.random.get_rng_state()
    model, same, other = small(seed=3), small(seed=3), small(seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in same.state_dict().items())
    weights = [next(p for p in flow.parameters() if p.ndim == 4) for flow in (*model.flows, other.flows[0])]
    assert not any(torch.equal(a, b) for k, a in enumerate(weights) for b in weights[:k])
    assert model.settings() == {"channels": 1, "n_layers": 3, "levels": 2, "blocks": 1, "features": 4}


def test_calibration_is_explicit_and_kept() -> None:
    images = 3 + 0.2 * random_images(16, 8, 8)
    operator = masked(images)
    model, same = small(), small()
    untouched = {key: value.clone() for key, value in model.state_dict().items()}
    model(operator(images), operator)
    # normflows would have set its ActNorms from these images.
    assert all(torch.equal(untouched[key], value) for key, value in model.state_dict().items())
    model.calibrate(operator(images), operator)
    same.calibrate(operator(images), operator)
    assert all(torch.equal(same.state_dict()[key], value) for key, value in model.state_dict().items())
    flow = model.flows[0]
    assert isinstance(flow, Glow)
    for z in flow.encode(operator(images)[:, None]):
        # Behind ActNorm a rotation, and couplings that start as a factor sigmoid(2) = 0.88 of half of the channels.
        assert float(z.detach().mean((0, 2, 3)).abs().max()) < 1e-4
        assert 0.3 < float(z.detach().std()) < 1.7
    loaded = small(seed=5)
    loaded.load_state_dict(model.state_dict())
    torch.testing.assert_close(loaded(operator(images), operator), model(operator(images), operator), atol=0, rtol=0)


def test_stages_and_disturbance() -> None:
    model = stirred(small())
    truth = random_images(2, 8, 8)
    operator = masked(truth)
    measurements = operator(truth)
    plain = list(model.stages(measurements, operator))
    assert len(plain) == model.n_layers == 3
    assert torch.equal(model(measurements, operator), plain[-1])
    seen = []

    def disturb(layer: int, image: Tensor) -> Tensor:
        seen.append(layer)
        return image + layer

    disturbed = list(model.stages(measurements, operator, disturb=disturb))
    assert seen == [1, 2]
    torch.testing.assert_close(disturbed[0], plain[0] + 1)
    *_, restarted = model.stages(measurements, operator, start=disturbed[1])
    assert not torch.allclose(disturbed[2], plain[2])
    assert not torch.allclose(restarted, disturbed[2])  # layers have weights of their own
    torch.testing.assert_close(
        model.refine(2, model.descend(2, disturbed[1], measurements, operator)), disturbed[2], atol=1e-6, rtol=0
    )


def test_every_parameter_has_a_gradient() -> None:
    images = random_images(2, 3, 8, 8)
    operator = masked(images)
    model = stirred(small(channels=3))
    # From zero in the holes and step 1 the first data step changes nothing: its step has no gradient.
    start = random_images(2, 3, 8, 8, seed=1)
    (model(operator(images), operator, start) - images).square().mean().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in model.parameters())


def test_bad_input() -> None:
    for bad in ({"n_layers": 0}, {"levels": 0}, {"features": 0}, {"blocks": -1}, {"channels": 0}):
        with pytest.raises(ValueError, match=r"expected .*positive number"):
            small(**bad)
    model = small()
    for shape in ((2, 8, 6), (2, 1, 8, 8), (8, 8)):
        images = random_images(*shape)
        with pytest.raises(ValueError, match=r"GlowProx: image .* expected \(batch, rows, cols\) .* multiples of 4"):
            model(images, Inpainting(torch.ones(shape, dtype=torch.bool)))
    whole = Inpainting(torch.ones(1, 8, 8, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"dtype torch\.complex64, expected a real one"):
        model(random_images(2, 8, 8).to(torch.complex64), whole)
    with pytest.raises(ValueError, match="constant or not finite"):
        model.calibrate(torch.ones(4, 8, 8), whole)
