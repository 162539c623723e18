"""The adjoint of a 2D convolution to few channels, computed for two columns of the image at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor

LANES = 16  # single-precision numbers of an AVX-512 register


def fills_registers(weight: Tensor) -> bool:
    """Tell whether pairing pays for a kernel (out, in, rows, cols): two pixels of its input fit one vector register.

    The result of an adjoint has `in` channels, eight in the packaged networks. A register of AVX-512 holds sixteen, so
    that half of each product would be thrown away.
    """
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return wide and weight.dtype == torch.float32 and not weight.is_cuda and 2 * weight.shape[1] <= LANES


def paired_kernel(weight: Tensor) -> Tensor:
    """Return the kernel (2 in, out, rows, cols + 1) of `adjoint_in_pairs` for one of (out, in, rows, cols), odd sizes.

    Its first channels are `W^T` at the even columns, its last ones the same a column further.
    """
    mirrored = weight.flip((2, 3)).transpose(0, 1)
    both = torch.cat((nnf.pad(mirrored, (0, 1)), nnf.pad(mirrored, (1, 0))))
    return both.contiguous(memory_format=torch.channels_last)


def adjoint_in_pairs(u: Tensor, kernel: Tensor) -> Tensor:
    """Return `W^T u` (batch, in, rows, cols) of features (batch, out, rows, cols), with zeros beyond the borders.

    Each step of a convolution of stride 2 makes two columns. With channels last these lie one after the other, so that
    the result is that of the convolution, read anew. A third more products than it takes, but twice as many at a time:
    three quarters of the time of the transposed convolution, to the same bits.

    Args:
        u: features, channels last, with an even number of columns.
        kernel: of `paired_kernel`.
    """
    margins = (kernel.shape[2] // 2, kernel.shape[3] // 2 - 1)
    pairs = nnf.conv2d(u, kernel, None, (1, 2), margins)  # (batch, 2 in, rows, cols / 2)
    batch, channels, rows, cols = pairs.shape
    return pairs.permute(0, 2, 3, 1).reshape(batch, rows, 2 * cols, channels // 2).permute(0, 3, 1, 2)
