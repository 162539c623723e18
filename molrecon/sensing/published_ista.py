"""The ISTA-Net+ weights that its authors have published, in our classes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from molrecon.io.matlab import read_matrix
from molrecon.sensing.assembly import assemble
from molrecon.sensing.imager import BlockImager
from molrecon.sensing.stage import Unrolled, widened
from operators.fourier import centre

NAMES = {
    "soft_thr": "threshold",
    "conv1_forward": "forward_1",
    "conv2_forward": "forward_2",
    "conv1_backward": "backward_1",
    "conv2_backward": "backward_2",
    "conv_G": "conv_g",
}


def load_published_imager(folder: str | Path, ratio: int) -> BlockImager:
    """Return the authors' ISTA-Net+ for photographs with its Phi and Q_init, in evaluation mode.

    Args:
        folder: with `cs_ratio_R.pkl`, `phi_0_R_1089.mat` and `Initialization_Matrix_R.mat`.
        ratio: R, sampling ratio in percent: 10, 25, 30 or 40.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file is something else; it is named with what was expected.

    Source: github.com/jianzhangcs/ISTA-Net-PyTorch.
    """
    folder = Path(folder)
    phi = read_matrix(folder / f"phi_0_{ratio}_1089.mat", "phi")
    initialisation = read_matrix(folder / f"Initialization_Matrix_{ratio}.mat", "Qinit")
    model = load_published_ista(folder / f"cs_ratio_{ratio}.pkl")
    return BlockImager(model, torch.from_numpy(phi).float(), torch.from_numpy(initialisation).float()).eval()


def load_published_mri(folder: str | Path, ratio: int) -> tuple[Unrolled, Tensor]:
    """Return the authors' ISTA-Net+ for real 256 x 256 brain images, and its sampling mask (1, 256, 256), centred.

    The model is for `PartialFourier(mask, real=True)`. Arguments and errors as of `load_published_imager`; R is 10,
    20, 30, 40 or 50.
    """
    folder = Path(folder)
    mask = torch.from_numpy(read_matrix(folder / f"mask_{ratio}.mat", "mask_matrix")).bool()
    return load_published_ista(folder / f"mri_ratio_{ratio}.pkl").eval(), centre(mask, (0, 1))[None]


def load_published_ista(path: str | Path, data_step: str = "gdm", gradient_scale: float = 1.0) -> Unrolled:
    """Return ISTA-Net+ with the weights of one published file; errors as of `load_published_imager`.

    With the data step "gin" the filters for the gradient are zero: the same function, from which training can go on,
    with the gradient shown at `gradient_scale`.
    """
    try:
        stored = torch.load(path, weights_only=True, map_location="cpu")
        n_stages = sum(key.endswith("lambda_step") for key in stored)
        model = assemble("ista-net-plus", data_step, n_stages=n_stages, gradient_scale=gradient_scale)
        state = {"data_step.step": torch.cat([stored[f"module.fcs.{k}.lambda_step"] for k in range(n_stages)])}
        for k in range(n_stages):
            for theirs, ours in NAMES.items():
                state[f"host.networks.{k}.{ours}"] = stored[f"module.fcs.{k}.{theirs}"]
            state[f"host.networks.{k}.conv_d"] = widened(stored[f"module.fcs.{k}.conv_D"], 1, model.data_step.copies)
        model.load_state_dict(state)
    except OSError:
        raise
    except Exception as error:  # torch.load fails in many ways on files that are something else
        raise ValueError(f"{path}: not published ISTA-Net+ weights ({error}), expected module.fcs.*") from error
    return model
