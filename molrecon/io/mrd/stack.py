"""A 3D scan of one 2D trajectory in every partition (a stack of stars or spirals), taken apart along the partitions."""

from __future__ import annotations

import numpy as np
import torch

from molrecon.io.header import Header
from molrecon.io.mrd.placing import partitions
from molrecon.io.mrd.records import Records
from molrecon.io.volume import UnreadableInput
from operators.fourier import centred_ifft

SAME = 1e-3  # cycles per field of view, or steps from partition to partition, that coordinates may be apart


def taken_apart(
    records: Records, heads: np.ndarray, header: Header, points: np.ndarray, height: np.ndarray, samples: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return k-space (slices, coils, readouts, samples) complex64 and its trajectory (1, readouts, samples, 2).

    Where every partition was measured along the same readouts, a Fourier transform along the partitions makes of
    each position of the slab a 2D problem of its own, exactly. It is orthonormal, so the noise level stays. The slices
    are the central ones of the slab, as many as the recon matrix has.

    Args:
        records: the file.
        heads: of the readouts (readouts,).
        header: of their encoding space.
        points: (readouts, samples, 2), in cycles per field of view.
        height: (readouts, samples), the third coordinate as the file has it, or zeros.
        samples: (readouts, coils, samples), conjugated where they have to be.

    Raises:
        UnreadableInput: readouts that run through the partitions (a koosh ball), that turn from partition to
            partition, or that some partitions lack.
    """
    depth, name = header.encoded_matrix[2], header.trajectory
    what = f"a 3D {name} scan with an encoded matrix of {' x '.join(map(str, header.encoded_matrix))}"
    part = partitions(heads, header)

    def refusal(found: str) -> UnreadableInput:
        expected = "a 2D scan, or a stack of 2D ones: the same readouts in every partition, each within its own"
        return UnreadableInput(records.path, f"{what}, {found}", expected)

    if np.ptp(height, axis=1).max(initial=0) > SAME / depth:
        raise refusal("whose readouts run through the partitions, as those of a koosh ball do")
    if height.any() and not _tells_partition(height[:, 0], part, depth):
        raise refusal("whose third coordinates are not those of its partitions (kspace_encode_step_2)")
    numbers, counts = np.unique(part, return_counts=True)
    if len(numbers) != depth or (numbers[0], numbers[-1]) != (0, depth - 1):
        raise refusal(f"with readouts in {len(numbers)} of its partitions, numbered {numbers[0]} to {numbers[-1]}")
    if counts.min() < counts.max():
        raise refusal(f"with {counts.min()} to {counts.max()} readouts in each partition")
    idx = heads["idx"]
    order = np.lexsort((idx["average"], idx["kspace_encode_step_1"], part)).reshape(depth, -1)
    if np.abs(points[order] - points[order[:1]]).max() > SAME:
        raise refusal("whose readouts turn from partition to partition")
    kept = min(header.recon_matrix[2], depth)
    first = (depth - kept) // 2
    stacked = torch.from_numpy(samples[order])  # (partitions, readouts, coils, samples)
    kspace = centred_ifft(stacked, (0,))[first : first + kept].transpose(1, 2).contiguous()
    return kspace.numpy(), points[order[:1]]


def _tells_partition(height: np.ndarray, part: np.ndarray, depth: int) -> bool:
    """Whether third coordinates (readouts,) are those of the partitions, in 1 / pixel or in cycles."""
    expected = part - depth // 2
    return any(np.abs(height * unit - expected).max() <= SAME * depth for unit in (1, depth))
