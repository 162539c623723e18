"""The options `--model` and `--cases`, the models to be tried, and the summary of how tight the bounds were."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from molrecon.reconstructors.mol import MOL
from molrecon.weights import available_models, load
from tests.convergence.problems import FAMILIES, NDIM, TIGHTNESS
from tests.random_networks import draw_network

DEFAULT_CASES = 10_000
# These meet by default the acquisition they were trained for only, which keeps the suite short; `--model` crosses them
# with every family of their number of axes.
OWN_FAMILY = {"mol-brain-3d": "3D", "mol-perfusion-2dt": "2D+time", "mol-brief-brain-2d": "2D"}
RANDOM_SEEDS = {2: 3, 3: 1}  # of the networks that stand in


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--model", default=None, metavar="PATH", help="tests/convergence: the model to be tried")
    parser.addoption("--cases", default=DEFAULT_CASES, type=int, help="tests/convergence: cases of the property tests")


@pytest.fixture(scope="session")
def cases(request: pytest.FixtureRequest) -> int:
    # Not known yet when the whole suite is collected from the root.
    return request.config.getoption("--cases", default=DEFAULT_CASES)


def random_model(ndim: int) -> MOL:
    network = draw_network(np.random.default_rng(RANDOM_SEEDS[ndim]), ndim)
    return MOL(network, data_weight=10.0).eval().requires_grad_(False)


@cache
def equilibrium_models() -> dict[str, MOL]:
    """Return the certified packaged models: once, since certifying them takes seconds, and every test asks."""
    models = {}
    for name in available_models():
        try:
            model = load(name, MOL)
        except ValueError:  # an unrolled model has no equilibrium
            continue
        if model.network.certified:  # what is only estimated promises nothing; `--model` tries it all the same
            models[name] = model
    return models


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Cross models with the families of their number of axes."""
    if "model" not in metafunc.fixturenames:
        return
    path = metafunc.config.getoption("--model", default=None)
    models = equilibrium_models() if path is None else {str(path): load(path, MOL)}
    known = {model.network.ndim for model in models.values()}
    if path is None:
        models |= {f"random {ndim}D": random_model(ndim) for ndim in (2, 3) if ndim not in known}
    chosen = [
        pytest.param(model, family, id=f"{name}-{family}")
        for name, model in models.items()
        for family in FAMILIES
        if NDIM[family] == model.network.ndim and OWN_FAMILY.get(name, family) == family
    ]
    metafunc.parametrize(("model", "family"), chosen)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = [
        (report.nodeid.split("::")[-1], value)
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        for key, value in getattr(report, "user_properties", [])
        if key == TIGHTNESS
    ]
    if rows:
        terminalreporter.section("share of the robustness bounds that was reached")
        for test, value in rows:
            terminalreporter.write_line(f"{test}: {value}")
