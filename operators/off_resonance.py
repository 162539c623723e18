"""The NUFFT in an inhomogeneous main field, by time segmentation with least-squares interpolators."""

from __future__ import annotations

from math import pi
from typing import final

import torch
from torch import Tensor

from operators.linear import LinearOperator
from operators.nufft import ACCURACY, NUFFT, check_trajectory
from operators.shapes import MORE, Shapes, batch_of

N_BINS = 256  # of the field map's histogram: finer than any phase that so few segments can follow
MAX_SEGMENTS = 64


@final
class OffResonance(LinearOperator):
    """Samples of an object whose spins precess at their own frequency f (Hz) while the readout (time t) goes on:

        y_j = 1 / sqrt(N) sum_n x_n exp(-2 pi i f_n t_j) exp(-2 pi i sum_d k_jd (n_d - N_d // 2) / N_d)
           ~= sum_l b_l(t_j) NUFFT(exp(-2 pi i f tau_l) x)_j

    The times tau_l are equally spaced over the readout; the interpolators b_l(t) minimise, for each t,
    `sum_f h(f) |exp(-2 pi i f t) - sum_l b_l(t) exp(-2 pi i f tau_l)|^2` over the histogram h of the field map. There
    are as few segments as keep the root of that sum, at the worst t, below `segment_error`. The adjoint is that of the
    segmented sum, exactly.

    Args:
        trajectory: (batch or 1, *samples, ndim) real, in cycles per field of view (see `NUFFT`).
        field_map: f, (batch or 1, *spatial) real, in Hz.
        readout_times: t, in seconds, of a shape that broadcasts to *samples: (readout,) for (spokes, readout).
        segment_error: root mean square error of the interpolated phase factors.
        accuracy: of the NUFFT.

    Shapes: (batch, ..., *spatial) to (batch, ..., *samples), complex.

    Attributes:
        n_segments: number of segments, each of which costs one NUFFT.
        interpolation_error: the error reached, at most `segment_error`.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, more than 64 segments needed.
        TypeError: a complex field map or times.

    Reference: Sutton, Noll, Fessler, IEEE TMI 22, 2003, eq. 9-12; Man, Pauly, Macovski, Magn Reson Med 37, 1997.
    """

    field_map: Tensor
    segment_times: Tensor
    interpolators: Tensor

    def __init__(
        self,
        trajectory: Tensor,
        field_map: Tensor,
        readout_times: Tensor,
        *,
        segment_error: float = 1e-3,
        accuracy: float = ACCURACY,
    ) -> None:
        super().__init__()
        for name, tensor in (("field map", field_map), ("readout times", readout_times)):
            if not torch.is_floating_point(tensor):
                raise TypeError(f"OffResonance: {name} has dtype {tensor.dtype}, expected a real floating point dtype")
            if tensor.numel() == 0 or not bool(tensor.isfinite().all()):
                raise ValueError(f"OffResonance: {name} is empty or not finite, expected finite numbers")
        if not segment_error > 0:
            raise ValueError(f"OffResonance: segment_error is {segment_error}, expected a positive number")
        self.spatial = tuple(field_map.shape[1:])
        check_trajectory("OffResonance", trajectory, self.spatial)
        self.samples = tuple(trajectory.shape[1:-1])
        times = readout_times.detach().double()
        fits = times.ndim <= len(self.samples) and all(
            t in (1, n) for t, n in zip(times.shape[::-1], self.samples[::-1], strict=False)
        )
        if not fits or len({len(field_map), len(trajectory)} - {1}) > 1:
            raise ValueError(
                f"OffResonance: field map {tuple(field_map.shape)} (batch, *spatial) and readout times"
                f" {tuple(times.shape)} do not fit the trajectory {tuple(trajectory.shape)} (batch, *samples, ndim)"
            )
        times = times.reshape(*[1] * (len(self.samples) - times.ndim), *times.shape)
        self.nufft = NUFFT(trajectory, self.spatial, accuracy=accuracy)
        histograms = [_histogram(f.detach().double()) for f in field_map]
        self.n_segments, self.interpolation_error = _enough_segments(histograms, times, segment_error)
        centres = _segment_times(times, self.n_segments)
        interpolators = torch.stack([_interpolators(*h, centres, times.flatten()) for h in histograms])
        self.register_buffer("field_map", field_map.detach(), persistent=False)
        self.register_buffer("segment_times", centres, persistent=False)
        self.register_buffer("interpolators", interpolators.unflatten(-1, times.shape), persistent=False)

    @property
    def trajectory(self) -> Tensor:
        """The sampled points of k-space, (batch or 1, *samples, ndim), in cycles per field of view."""
        return self.nufft.trajectory

    def forward(self, x: Tensor) -> Tensor:
        """Return `sum_l b_l F (p_l x)`, where `p_l = exp(-2 pi i f tau_l)`."""
        self.nufft.check("image", x, self.spatial)
        outer = x.ndim - len(self.spatial)
        y = torch.zeros(*x.shape[:outer], *self.samples, dtype=x.dtype, device=x.device)
        for segment in range(self.n_segments):
            phased = self._phase(segment, x, outer) * x
            y = y + self._interpolator(segment, x, outer) * self.nufft(phased)
        return y

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `sum_l conj(p_l) F^H (conj(b_l) y)`."""
        self.nufft.check("samples", y, self.samples)
        outer = y.ndim - len(self.samples)
        x = torch.zeros(*y.shape[:outer], *self.spatial, dtype=y.dtype, device=y.device)
        for segment in range(self.n_segments):
            weighted = self._interpolator(segment, y, outer).conj() * y
            x = x + self._phase(segment, y, outer).conj() * self.nufft.adjoint(weighted)
        return x

    @property
    def shapes(self) -> Shapes:
        """(batch, ..., *spatial) to (batch, ..., *samples)."""
        batch = batch_of(self.trajectory, self.field_map)
        return Shapes((batch, MORE, *self.spatial), (batch, MORE, *self.samples))

    def extra_repr(self) -> str:
        """Return the number of segments."""
        return f"{self.n_segments} segments"

    def _phase(self, segment: int, like: Tensor, outer: int) -> Tensor:
        """Return p_l in the dtype of `like`, with axes of size 1 after the batch up to `outer` leading axes."""
        # Radians in double precision: a late segment far off resonance is many turns away.
        turns = self.field_map.double() * self.segment_times[segment].double()
        phase = torch.polar(torch.ones_like(turns), -2 * pi * turns).to(like.dtype)
        return phase.reshape(len(phase), *[1] * (outer - 1), *phase.shape[1:])

    def _interpolator(self, segment: int, like: Tensor, outer: int) -> Tensor:
        factor = self.interpolators[:, segment].to(like.dtype)
        return factor.reshape(len(factor), *[1] * (outer - 1), *factor.shape[1:])


def _histogram(field_map: Tensor) -> tuple[Tensor, Tensor]:
    """Return the frequencies f and the fractions h of the field map's histogram that are not empty."""
    low, high = field_map.aminmax()
    edges = torch.linspace(0, 1, N_BINS, dtype=field_map.dtype, device=field_map.device)
    frequencies = low + (high - low) * edges
    bins = ((field_map - low) / (high - low).clamp_min(1e-30) * (N_BINS - 1)).round().long()
    counts = torch.bincount(bins.flatten(), minlength=N_BINS).to(field_map)
    return frequencies[counts > 0], counts[counts > 0] / field_map.numel()


def _segment_times(times: Tensor, n_segments: int) -> Tensor:
    low, high = times.aminmax()
    steps = torch.arange(n_segments, dtype=times.dtype, device=times.device)
    return low + (high - low) * (steps / (n_segments - 1) if n_segments > 1 else steps + 0.5)


def _turn(frequencies: Tensor, times: Tensor) -> Tensor:
    """Return exp(-2 pi i f t), (frequency, time)."""
    radians = -2 * pi * frequencies[:, None] * times
    return torch.polar(torch.ones_like(radians), radians)


def _interpolators(frequencies: Tensor, fractions: Tensor, centres: Tensor, times: Tensor) -> Tensor:
    """Return b_l(t), (segment, time): the weighted least-squares fit of exp(-2 pi i f t) by the segments' phases."""
    root = fractions.sqrt()[:, None]
    # The factors one after another: the product of a pseudo-inverse would blow up the rounding of each.
    u, sizes, vh = torch.linalg.svd(root * _turn(frequencies, centres), full_matrices=False)
    kept = sizes > 1e-11 * sizes[0]
    u, sizes, vh = u[:, kept], sizes[kept, None], vh[kept]
    unique, index = torch.unique(times, return_inverse=True)  # every spoke has the same times
    chunks = [vh.mH @ (u.mH @ (root * _turn(frequencies, chunk)) / sizes) for chunk in unique.split(4096)]
    return torch.cat(chunks, dim=1)[:, index]


def _enough_segments(histograms: list[tuple[Tensor, Tensor]], times: Tensor, goal: float) -> tuple[int, float]:
    """Return the smallest number of segments whose error is at most `goal`, and that error."""
    low, high = times.aminmax()
    probes = low + (high - low) * torch.linspace(0, 1, N_BINS, dtype=times.dtype, device=times.device)
    error = float("inf")
    for n_segments in range(1, MAX_SEGMENTS + 1):
        centres = _segment_times(times, n_segments)
        errors = []
        for frequencies, fractions in histograms:
            weights = _interpolators(frequencies, fractions, centres, probes)
            misfit = _turn(frequencies, probes) - _turn(frequencies, centres) @ weights
            errors.append(float((fractions[:, None] * misfit.abs().square()).sum(0).sqrt().amax()))
        error = max(errors)
        if error <= goal:
            return n_segments, error
    span = max(float(f[-1] - f[0]) for f, _ in histograms)
    raise ValueError(
        f"OffResonance: {MAX_SEGMENTS} segments leave an error of {error:.1e} for a field map that spans {span:g} Hz"
        f" over {float(high - low):g} s, expected at most segment_error = {goal:g}; check the units (Hz, seconds),"
        " mask the field map outside the object, or allow a larger error"
    )
