"""The hosts and data steps by the names that files and commands use, and putting one of each together."""

from __future__ import annotations

from collections.abc import Mapping

from molrecon.sensing.coast import COAST
from molrecon.sensing.dpc_dun import DPCDUN
from molrecon.sensing.equilibrium_stage import EquilibriumStage
from molrecon.sensing.gradient import GDM, GIN, GRADIENT_SCALE, DataStep
from molrecon.sensing.ista_net_plus import ISTANetPlus
from molrecon.sensing.stage import Host, Unrolled

HOSTS: dict[str, type[ISTANetPlus] | type[COAST] | type[DPCDUN]] = {
    "ista-net-plus": ISTANetPlus,
    "coast": COAST,
    "dpc-dun": DPCDUN,
}
DATA_STEPS: dict[str, type[GDM] | type[GIN]] = {"gdm": GDM, "gin": GIN}


def assemble(
    host: str,
    data_step: str,
    *,
    channels: int = 1,
    n_stages: int | None = None,
    repeats: int = 1,
    gradient_scale: float = GRADIENT_SCALE,
    seed: int = 0,
) -> Unrolled:
    """Return an untrained model.

    Args:
        host: one of HOSTS.
        data_step: one of DATA_STEPS.
        channels: 1 for real and 2 for complex images.
        n_stages: the published number when None.
        repeats: how often all of them are run.
        gradient_scale: of GIN; GDM has none.
        seed: of the initial weights, which are the same for both data steps.

    Raises:
        ValueError: other names, or a scale that is not a positive number.
    """
    if host not in HOSTS or data_step not in DATA_STEPS:
        raise ValueError(
            f"assemble: host {host!r} and data step {data_step!r}, expected one of {', '.join(HOSTS)} and one of"
            f" {', '.join(DATA_STEPS)}"
        )
    kind = DATA_STEPS[data_step]
    more = {} if n_stages is None else {"n_stages": n_stages}
    network = HOSTS[host](channels=channels, copies=kind.copies, seed=seed, **more)
    step = GIN(network.n_stages, gradient_scale) if kind is GIN else kind(network.n_stages)
    return Unrolled(network, step, repeats)


def names(model: Unrolled | EquilibriumStage) -> tuple[str, str]:
    """Return the names of a model's host and data step."""
    return _name(HOSTS, model.host), _name(DATA_STEPS, model.data_step)


def _name(classes: Mapping[str, type], instance: Host | DataStep) -> str:
    for name, kind in classes.items():
        if type(instance) is kind:
            return name
    raise TypeError(f"names: {type(instance).__name__}, expected one of {', '.join(classes)}")
