"""The reconstructors that can be trained here, by name, with equal numbers of parameters."""

from __future__ import annotations

from molrecon.networks import PlainNetwork, ResidualNetwork, UNet
from molrecon.reconstructors.admm_net import ADMMNet
from molrecon.reconstructors.deep_equilibrium import DeepEquilibrium
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.reconstructors.modl import MoDL
from molrecon.reconstructors.mol import MOL
from molrecon.reconstructors.post_processing import PostProcessing
from molrecon.reconstructors.varnet import VarNet
from molrecon.training.defaults import DESCRIPTIONS

PLAIN_FEATURES = 39  # of the plain network: as many parameters as the strict one
UNROLLS = 10  # stages of unrolled networks
MONOTONICITY = 0.01
PROXIMAL_MONOTONICITY = 0.05  # of DE-PROX: its iteration is H alone where nothing is measured


def build(
    name: str,
    *,
    seed: int = 0,
    channels: int = 8,
    features: int = 32,
    levels: int = 5,
    plain_features: int = PLAIN_FEATURES,
    unrolls: int = UNROLLS,
) -> LearnedReconstructor:
    """Return an untrained 2D reconstructor, by default of about 43,000 parameters.

    Args:
        name: one of `molrecon.training.defaults.DESCRIPTIONS`.
        seed: of the initial weights.
        channels, features, levels: of the strict network, see `ResidualNetwork`.
        plain_features: of the plain network, which all others but the U-Net have. Convolutions of 32 features take half
            the time of 39.
        unrolls: stages of unrolled networks.

    Raises:
        ValueError: another name.
    """
    if name not in DESCRIPTIONS:
        raise ValueError(f"build: model {name!r}, expected one of {', '.join(DESCRIPTIONS)}")
    if name == "mol":
        strict = ResidualNetwork(
            monotonicity=MONOTONICITY, channels=channels, features=features, levels=levels, seed=seed
        )
        return MOL(strict)
    if name == "unet":
        return PostProcessing(UNet(monotonicity=MONOTONICITY, seed=seed))
    # Penalised, the plain network is H, as MOL's is; elsewhere it corrects its input, as MoDL's does.
    # An equilibrium that is not monotone may have no fixed point to train at, unless the filters are held back.
    plain = PlainNetwork(
        monotonicity=PROXIMAL_MONOTONICITY if name == "de-prox" else MONOTONICITY,
        features=plain_features,
        skip=name != "mol-penalised",
        spectral=name in ("de-grad", "de-prox"),
        seed=seed,
    )
    if name in ("de-grad", "de-prox"):
        return DeepEquilibrium(plain, step="gradient" if name == "de-grad" else "proximal")
    if name == "mol-penalised":
        return MOL(plain)
    kinds: dict[str, type[MoDL] | type[ADMMNet] | type[VarNet]]
    kinds = {"modl": MoDL, "admm-net": ADMMNet, "varnet": VarNet}
    return kinds[name](plain, n_unrolls=unrolls)
