"""Layer by layer: networks trained to descend, on problems they never saw, and where layer noise gets to.

The trained network is a small LISTA with descent constraints; ISTA, of which it is a learned version, descends by
theorem and is the check's known answer. Past the depth it was trained for nothing is promised: what happens there is
recorded as a property of the test.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from molrecon.descent.constraints import Descent
from molrecon.descent.descent_checks import DescentCheck, LayerNoise, check_descent
from molrecon.descent.lista import LISTA
from molrecon.descent.problems import CodingProblem, ScanProblem
from molrecon.descent.sparse import ISTA
from molrecon.descent.sparse_problems import Patches, overcomplete_dct
from molrecon.descent.training import DescentTask
from molrecon.networks import PlainNetwork
from molrecon.reconstructors.admm_net import ADMMNet
from molrecon.reconstructors.modl import MoDL
from molrecon.reconstructors.unrolled import Disturb
from molrecon.reconstructors.varnet import VarNet
from molrecon.sensing.assembly import assemble
from molrecon.simulation.problem import Problem
from molrecon.training.log import finish
from molrecon.training.loop import train
from molrecon.training.train_settings import TrainSettings
from operators import Dense, Sense
from tests.convergence.problems import blobs, cartesian_2d

LAYERS = 5
STEPS = 120
EPSILON = 0.2
DICTIONARY = overcomplete_dct(4, 6).float()  # (16, 35)


def coded(kind: str, count: int, seed: int) -> Patches:
    """Return measurements of norm 1, and their own optima by FISTA."""
    rng = np.random.default_rng(seed)
    sparse = rng.standard_normal((count, 35)) * (rng.random((count, 35)) < 0.1)
    clean = sparse @ DICTIONARY.double().numpy().T + 0.05 * rng.standard_normal((count, 16))
    clean /= np.linalg.norm(clean, axis=1, keepdims=True)
    noise = rng.standard_normal((count, 16)) / 4
    measurements = {"sparse": clean, "perturbed": clean + 0.2 * noise, "white": noise}[kind]
    return Patches(torch.from_numpy(measurements).float(), DICTIONARY)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> CodingProblem:
    problem = CodingProblem(LISTA(DICTIONARY, LAYERS, tied=True), coded("sparse", 400, 0))
    validation = coded("sparse", 100, 1)
    settings = TrainSettings(
        steps=STEPS, learning_rate=2e-3, warmup=0, ema=0, checkpoint_every=STEPS // 4, log_every=STEPS, patience=STEPS
    )
    task = DescentTask(problem, Descent(EPSILON, dual_rate=0.2))
    batches = [(validation.codes, validation.measurements)]
    finish(train(task, settings, tmp_path_factory.mktemp("lista"), task.validator(batches)), STEPS)
    assert task.assessments[-1][1].feasible
    return problem


def run(problem: CodingProblem, problems: Patches, layers: int = LAYERS) -> tuple[Tensor, Sequence[Tensor]]:
    problem.run_to(layers)
    with torch.no_grad():
        start, outputs = problem.layers((problems.codes, problems.measurements), None)
    problem.run_to(LAYERS)
    return start, outputs


@pytest.mark.parametrize(("kind", "seed"), [("sparse", 0), ("sparse", 2), ("perturbed", 2), ("white", 3)])
def test_a_constrained_network_descends_on_average_and_nearly_always(
    network: CodingProblem, kind: str, seed: int, record_property: Callable[[str, object], None]
) -> None:
    problems = coded(kind, 200, seed)
    start, outputs = run(network, problems)
    found = check_descent(outputs, start, problems.codes)
    assert found.layers_descending == 1
    assert found.samples_descending > 0.9
    start, deep = run(network, problems, 2 * LAYERS)
    for a, b in zip(deep, outputs, strict=False):
        assert torch.equal(a, b)
    past = check_descent(deep[LAYERS:], deep[LAYERS - 1], problems.codes)
    assert len(past.mean_ratios) == LAYERS
    record_property("mean ratios past the trained depth", ", ".join(f"{ratio:.2f}" for ratio in past.mean_ratios))


@pytest.mark.parametrize("kind", ["sparse", "white"])
def test_ista_descends_always_at_any_depth(kind: str) -> None:
    problems = coded(kind, 100, 4)
    iterates: list[Tensor] = []
    for x in ISTA(0.1).stages(problems.measurements.double(), Dense(DICTIONARY.double())):
        iterates.append(x)
        if len(iterates) == 30:
            break
    found: DescentCheck = check_descent(iterates, torch.zeros_like(iterates[0]), problems.codes.double())
    assert (found.layers_descending, found.always_descending) == (1, 1)


def scan() -> Problem:
    problem = cartesian_2d().problem
    assert isinstance(problem.operator, Sense)
    return Problem(problem.kspace, problem.operator, blobs((16, 20), 0), torch.tensor([0.01]))


def all_outputs(name: str) -> tuple[int, Callable[[Disturb | None], Sequence[Tensor]]]:
    """Return L and a network of every kind as a function of its noise."""
    if name == "LISTA":
        problems = coded("sparse", 3, 0)
        problem = CodingProblem(LISTA(DICTIONARY, 4), problems)
        return 4, lambda disturb: problem.layers((problems.codes, problems.measurements), disturb)[1]
    batch = scan()
    if name == "ISTA-Net+":
        stages = assemble("ista-net-plus", "gin", channels=2, n_stages=3).eval().stages
        return 3, lambda disturb: [x.image for x in stages(batch.kspace, batch.operator, disturb=disturb)]
    plain = PlainNetwork(monotonicity=0.1, features=4, layers=2, skip=True)
    models: dict[str, MoDL | VarNet | ADMMNet] = {
        "MoDL": MoDL(plain, n_unrolls=3),
        "VarNet": VarNet(plain, n_unrolls=3),
        "ADMM-Net": ADMMNet(plain, n_unrolls=3),
    }
    descent_problem = ScanProblem(models[name].eval(), lambda rng, step: batch)
    return 3, lambda disturb: descent_problem.layers(batch, disturb)[1]


@pytest.mark.parametrize("name", ["LISTA", "ISTA-Net+", "MoDL", "VarNet", "ADMM-Net"])
@torch.no_grad()
def test_noise_reaches_the_next_layer_after_all_but_the_last(name: str) -> None:
    layers, outputs = all_outputs(name)
    noisy = LayerNoise(0.1).disturb(torch.Generator().manual_seed(0))
    received: list[tuple[int, Tensor]] = []

    def disturb(layer: int, output: Tensor) -> Tensor:
        received.append((layer, output))
        return noisy(layer, output)

    clean, disturbed = outputs(None), outputs(disturb)
    assert len(clean) == len(disturbed) == layers
    assert [layer for layer, _ in received] == list(range(1, layers))
    torch.testing.assert_close(received[0][1], clean[0])
    for (_, before), after in zip(received, disturbed, strict=False):
        relative = (after - before).norm() / before.norm()
        assert 0.05 < float(relative) < 0.2
    assert not torch.allclose(received[-1][1], clean[layers - 2])
    assert not torch.allclose(disturbed[-1], clean[-1])
    for a, b in zip(outputs(lambda layer, output: output), clean, strict=True):
        torch.testing.assert_close(a, b)


def test_a_scan_problem_has_stages_past_its_own_only_where_they_are_alike() -> None:
    problem = scan()
    network = PlainNetwork(monotonicity=0.1, features=4, layers=2, skip=True)
    descent_problem = ScanProblem(MoDL(network, n_unrolls=2), lambda rng, step: problem)
    descent_problem.run_to(4)
    start, outputs = descent_problem.layers(problem, None)
    assert len(outputs) == 4
    assert descent_problem.ratios(start, outputs, problem, "distance").shape == (4,)
    with pytest.raises(ValueError, match="3 stages of VarNet, expected 2 at most"):
        ScanProblem(VarNet(copy.deepcopy(network), n_unrolls=2), lambda rng, step: problem).run_to(3)
