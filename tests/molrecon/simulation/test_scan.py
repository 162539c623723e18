"""Simulated scans and the problems made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from molrecon.simulation import scan as simulation
from molrecon.simulation.fields import draw_fields
from molrecon.simulation.images import ImageSet, wrap
from molrecon.simulation.problem import Problem, stack_problems
from molrecon.simulation.scan import SimulatedScan, simulate, strip
from molrecon.simulation.stream import ProblemStream
from operators import SoftSense, centred_fft


def head(rows: int = 90, cols: int = 72) -> np.ndarray:
    """Return a box with two inner boxes, float32."""
    image = np.zeros((rows, cols), np.float32)
    image[10 : rows - 12, 8 : cols - 10] = 0.6
    image[25:45, 20:40] = 1
    image[50:60, 30:55] = 0.3
    return image


def complex_head(rows: int = 90, cols: int = 72) -> np.ndarray:
    phase = np.linspace(-1, 1, cols) + 0.3 * np.random.default_rng(1).standard_normal((rows, cols))
    return (head(rows, cols) * np.exp(1j * phase)).astype(np.complex64)


def make_stream(seed: int = 0) -> ProblemStream:
    stored = np.stack([complex_head().real, complex_head().imag])[None]
    return ProblemStream([ImageSet("complex", stored), ImageSet("real", head()[None])], rows=40, seed=seed)


def same(first: Problem, second: Problem) -> bool:
    return torch.equal(first.kspace, second.kspace) and torch.equal(first.reference, second.reference)


@pytest.mark.parametrize("seed", range(8))
def test_scan(seed: int) -> None:
    scan = simulate(head() if seed % 2 else complex_head(), np.random.default_rng(seed))
    coils, rows, cols = scan.coil_images.shape
    assert 1 <= coils <= 8
    assert scan.sensitivity_maps.shape == (coils, rows, cols)
    assert scan.reference.shape == (rows, cols)
    assert scan.reference.abs().flatten().quantile(0.995) == pytest.approx(1, abs=0.1)
    power = scan.sensitivity_maps.abs().square().sum(0)
    torch.testing.assert_close(power[power > 0], torch.ones_like(power[power > 0]), rtol=0, atol=1e-3)
    inside = scan.reference.abs() > 0.3
    expected = torch.linalg.vector_norm(scan.coil_images, dim=0)
    assert float((scan.reference.abs() - expected)[inside].abs().median()) < 0.05


def test_a_complex_image_keeps_its_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Received by one uniform coil and not moved, the reference is the image, but for its scale."""
    monkeypatch.setattr(simulation, "placed", lambda image, rng, largest: image)
    monkeypatch.setattr(simulation, "draw_matrix", lambda cols, rng: None)
    monkeypatch.setattr(simulation, "draw_fields", lambda image, coils, rng: np.ones((1, *image.shape), np.complex64))
    image = complex_head()
    reference = simulate(image, np.random.default_rng(0)).reference.numpy()
    shown = np.abs(image) > 0.1
    np.testing.assert_allclose(np.angle(reference[shown] * image[shown].conj()), 0, atol=1e-5)


def plain_scan(level: float = 0.02) -> SimulatedScan:
    image = torch.from_numpy(complex_head(120, 72))[None]
    return SimulatedScan(image, torch.ones_like(image), image[0], level, 10, None)


@pytest.mark.parametrize("seed", range(6))
def test_a_strip_is_measured_with_the_noise_it_names(seed: int) -> None:
    problem = strip(plain_scan(), 48, np.random.default_rng(seed), margin=4)
    assert problem.reference.shape == (1, 48, 72)
    assert problem.judged(problem.reference).shape == (1, 40, 72)
    assert float(problem.noise_level) == pytest.approx(0.02)
    mask = problem.operator.sampling_mask.expand(1, 48, 72)
    clean = centred_fft(problem.reference[:, None], (-2, -1))
    assert not problem.kspace[:, 0][~mask].any()
    noise = (problem.kspace - clean)[:, 0][mask]
    assert float(noise.abs().square().mean().sqrt()) == pytest.approx(0.02, rel=0.15)


def test_small_slices_are_taken_whole() -> None:
    problem = strip(plain_scan(), 100, np.random.default_rng(0))
    assert problem.reference.shape == (1, 120, 72)
    assert problem.margin == 0


def test_the_stream_depends_on_step_and_generator_alone() -> None:
    first, second = make_stream(), make_stream()
    drawn = [first.draw(np.random.default_rng(step), step) for step in range(0, 60, 7)]
    again = [second.draw(np.random.default_rng(step), step) for step in (14, 49)]
    assert same(drawn[2], again[0])
    assert same(drawn[7], again[1])
    assert not same(drawn[2], make_stream(1).draw(np.random.default_rng(14), 14))


def test_scans_are_forgotten() -> None:
    stream = make_stream()
    for step in range(0, 120, 3):
        stream.draw(np.random.default_rng(step), step)
        assert len(stream._scans) <= stream.window


def test_fixed_problems_are_none_of_the_stream() -> None:
    stream = make_stream()
    problems = stream.problems(3)
    assert all(same(p, q) for p, q in zip(problems, make_stream().problems(3), strict=True))
    assert all(p.margin == 0 for p in problems)


def test_no_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="ProblemStream: sets of"):
        ProblemStream([ImageSet("none", [])])
    with pytest.raises(ValueError, match="positive"):
        ProblemStream([ImageSet("one", head()[None])], rows=0)


@pytest.mark.parametrize("cols", [36, 40, 54, 200])
def test_a_narrow_view_samples_the_same_k_space(cols: int) -> None:
    image = torch.from_numpy(complex_head())
    seen = wrap(image, cols)
    assert seen.shape == (90, cols)
    place = torch.arange(72.0) - 36
    frequency = (torch.arange(float(cols)) - cols // 2) / cols
    wave = torch.exp(-2j * torch.pi * frequency * place[:, None])
    torch.testing.assert_close(centred_fft(seen, (-1,)) * cols**0.5, image @ wave, rtol=1e-4, atol=1e-4)
    if cols == 36:
        every_second = centred_fft(image, (-1,))[:, ::2] * 2**0.5
        torch.testing.assert_close(centred_fft(seen, (-1,)), every_second, rtol=1e-4, atol=1e-4)


def wrapped_scan(monkeypatch: pytest.MonkeyPatch, two_sets: float = 1.0) -> SimulatedScan:
    """Return the scan of a box with eight coils, in a view of half its grid where `two_sets` is 1."""
    monkeypatch.setattr(simulation, "placed", lambda image, rng, largest: image)
    monkeypatch.setattr(simulation, "draw_matrix", lambda cols, rng: None)
    monkeypatch.setattr(simulation, "draw_filter", lambda rng: None)
    monkeypatch.setattr(simulation, "draw_fields", lambda image, coils, rng: draw_fields(image, coils, rng, count=8))
    monkeypatch.setattr(simulation, "draw_narrow_view", lambda images, rng: images.shape[-1] // 2)
    monkeypatch.setattr(simulation, "draw_calibration_lines", lambda cols, rng: 18)
    monkeypatch.setattr(simulation, "draw_noise_level", lambda rng: 0.002)
    image = head(120, 144) * np.exp(1j * np.linspace(-1, 1, 144))
    return simulate(image.astype(np.complex64), np.random.default_rng(1), two_sets=two_sets)


def test_a_wrapped_scan_has_two_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both images together are what the coils received; one set would leave the half that lies underneath."""
    scan = wrapped_scan(monkeypatch)
    assert scan.wrapped == pytest.approx(126 / 72)
    assert scan.sensitivity_maps.shape == (2, 8, 120, 72)
    explained = (scan.sensitivity_maps * scan.reference[:, None]).sum(0)
    left = torch.linalg.vector_norm(scan.coil_images - explained) / torch.linalg.vector_norm(scan.coil_images)
    assert float(left) < 0.1
    problem = strip(scan, 48, np.random.default_rng(0), margin=4)
    assert isinstance(problem.operator, SoftSense)
    assert problem.reference.shape == (1, 2, 48, 72)
    assert problem.judged(problem.reference).shape == (1, 80, 72)
    again = problem.operator(problem.reference) - problem.kspace
    assert float(torch.linalg.vector_norm(again) / torch.linalg.vector_norm(problem.kspace)) < 0.15
    expected = torch.linalg.vector_norm(problem.reference, dim=1)
    torch.testing.assert_close(problem.magnitude(problem.reference), expected)


def test_without_a_share_scans_have_one_set(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = wrapped_scan(monkeypatch, two_sets=0.0)
    assert scan.wrapped == 1
    assert scan.sensitivity_maps.shape == (8, 120, 144)


def test_problems_of_one_and_two_sets_are_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    two = strip(wrapped_scan(monkeypatch), 48, np.random.default_rng(0))
    both = stack_problems([two, two])
    assert isinstance(both.operator, SoftSense)
    torch.testing.assert_close(both.operator(both.reference)[1:], two.operator(two.reference))
    with pytest.raises(ValueError, match=r"stack_problems: \[2, None\] sets of maps"):
        stack_problems([two, strip(plain_scan(), 48, np.random.default_rng(0))])


def test_a_share_lies_between_0_and_1() -> None:
    with pytest.raises(ValueError, match=r"two_sets is 1.5"):
        ProblemStream([ImageSet("one", head()[None])], two_sets=1.5)
