"""Weights that other groups have published, loaded into the classes of molrecon."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from molrecon.networks import PlainNetwork
from molrecon.reconstructors.mol import MOL

PUBLISHED_MONOTONICITY = 0.02  # what the authors' training aimed at; it does not hold everywhere


def load_published_mol(path: str | Path) -> MOL:
    """Return the authors' MOL (5 layers, 64 channels, constant lambda) as our reconstructor, in evaluation mode.

    Its certificate says "estimated": the weights were trained with a penalty on a local Lipschitz estimate.

    Args:
        path: `model.pth.tar` of MnM-MOL: a state dict with `f.lam` and `f.dw.net.I.conv.weight`, `.bias`.

    Raises:
        ValueError: the file is something else; it names the file and what was expected.

    Source: github.com/maneeshrj/MnM-MOL.
    """
    try:
        stored = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
        layers = sum(key.endswith("conv.weight") for key in stored)
        network = PlainNetwork(
            monotonicity=PUBLISHED_MONOTONICITY, layers=layers, features=len(stored["f.dw.net.0.conv.weight"])
        )
        model = MOL(network, data_weight=float(stored["f.lam"]), phase_reference=False)
        for i, convolution in enumerate(network.convolutions):
            convolution.load_state_dict({k: stored[f"f.dw.net.{i}.conv.{k}"] for k in ("weight", "bias")})
    except OSError:
        raise
    except Exception as error:  # torch.load fails in many ways on files that are something else
        raise ValueError(f"{path}: not published MOL weights, expected a state dict of f.lam and f.dw.net.*") from error
    with torch.no_grad():
        model.log_data_weight[1:] = 0.0  # theirs does not depend on the noise level
    model.largest_data_weight = math.inf
    return model.eval()
