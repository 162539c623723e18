"""GIN against GDM on multi-coil MRI: the stages of ISTA-Net+ with `A^H (A x - b)` of the SENSE operator.

    MOLRECON_DATA=DATA python examples/train_gin_mri.py --data-step gin --seed 0 --steps 400 --out runs/mri-gin-0

With GDM this is an unrolled network in the manner of VarNet: a learned gradient step and a network, nine times. Both
data steps get the same problems and initial weights for the same seed, one problem a step: strips of scans of real
images, with their own or a simulated rough phase and 1 to 32 simulated coils (`molrecon.simulation.scan`), of the
training subjects of examples/_subjects.py. OUT/result.json holds "psnr" (dB, of magnitudes, peak the reference's
maximum), the mean over problems of subjects that training never sees, "psnr_by_set", and "cg_sense_psnr" of CG-SENSE on
the same. The run resumes from OUT/checkpoint.pt.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from examples._gradient_arguments import add_gradient_arguments
from examples._subjects import training_sets, validation_sets
from molrecon.command.shared.argument_types import positive
from molrecon.reconstructors.classical import CGSense
from molrecon.sensing.assembly import DATA_STEPS, HOSTS, assemble
from molrecon.sensing.stage import Unrolled, last_image
from molrecon.sensing.training import IMAGING_SETTINGS, PENALTY_WEIGHT
from molrecon.simulation.problem import Problem, magnitude_psnr
from molrecon.simulation.scan import MARGIN
from molrecon.simulation.stream import ProblemStream
from molrecon.training.checkpoints import log_to
from molrecon.training.fingerprint import identifying_arguments
from molrecon.training.log import finish
from molrecon.training.loop import train
from molrecon.training.losses import log_mse
from molrecon.training.task import Task

RECORDED = ("host", "data_step", "gradient_scale", "seed", "steps", "learning_rate", "clip", "precision", "rows")


def scores(reconstruct: Callable[[Problem], Tensor], problems: Sequence[Problem]) -> list[float]:
    """Return the PSNR of each problem."""
    with torch.no_grad():
        return [magnitude_psnr(p.judged(reconstruct(p)), p.judged(p.reference)) for p in problems]


@final
class GinTask(Task[Unrolled]):
    """A problem a step: the logarithmic error of the last image, and 0.01 times all penalties.

    Args:
        model: for complex images; it is trained.
        stream: of problems.
        mixed: see `Unrolled.stages`.
    """

    def __init__(self, model: Unrolled, stream: ProblemStream, *, mixed: bool = False) -> None:
        self.model, self.stream, self.mixed = model, stream, mixed

    def losses(self, step: int, rng: np.random.Generator) -> Iterator[Tensor]:
        """Yield the loss of one strip."""
        problem = self.stream.draw(rng, step)
        image, penalty = last_image(self.model.stages(problem.kspace, problem.operator, mixed=self.mixed))
        yield log_mse(problem.judged(image), problem.judged(problem.reference)) + PENALTY_WEIGHT * penalty


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("MOLRECON_DATA"), help="default: $MOLRECON_DATA")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--host", choices=HOSTS, default="ista-net-plus")
    parser.add_argument("--data-step", choices=DATA_STEPS, default="gin")
    parser.add_argument("--gradient-scale", type=positive, default=1.0, help="of GIN (default: %(default)g)")
    parser.add_argument("--stages", type=int, help="default: the published number")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--learning-rate", type=float, default=IMAGING_SETTINGS.learning_rate)
    add_gradient_arguments(parser)
    parser.add_argument("--checkpoint-every", type=int, default=IMAGING_SETTINGS.checkpoint_every)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=64, help="readout positions of a problem")
    parser.add_argument("--validation-problems", type=int, default=15, help="strips of twice as many rows")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args(argv)
    if arguments.data is None:
        parser.error("--data is not given and MOLRECON_DATA not set, expected the data folder")
    if arguments.rows <= 2 * MARGIN:
        parser.error(f"--rows {arguments.rows}, expected more than {2 * MARGIN}: {MARGIN} at each end do not count")
    return arguments


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, and return what result.json holds."""
    torch.set_num_threads(arguments.threads)
    stream = ProblemStream(training_sets(arguments.data), rows=arguments.rows, seed=arguments.seed)
    sets = validation_sets(arguments.data)
    problems = ProblemStream(sets, seed=0).problems(arguments.validation_problems, 2 * arguments.rows)
    model = assemble(
        arguments.host,
        arguments.data_step,
        channels=2,
        n_stages=arguments.stages,
        gradient_scale=arguments.gradient_scale,
        seed=arguments.seed,
    )
    settings = replace(
        IMAGING_SETTINGS,
        steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        clip=arguments.clip,
        checkpoint_every=arguments.checkpoint_every,
        seed=arguments.seed,
    )
    fingerprint = {
        **identifying_arguments(arguments, "data", "steps", "checkpoint_every"),
        "problems": stream.describe(),
    }
    task = GinTask(model, stream, mixed=arguments.precision == "mixed")

    def reconstruct(p: Problem) -> Tensor:
        return model(p.kspace, p.operator)

    finish(
        train(task, settings, arguments.out, lambda _: fmean(scores(reconstruct, problems)), fingerprint=fingerprint),
        settings.steps,
    )
    cg_sense = CGSense()
    psnr = scores(reconstruct, problems)
    by_set: dict[str, list[float]] = defaultdict(list)
    for number, value in enumerate(psnr):
        by_set[sets[number % len(sets)].name].append(value)
    result = {
        **{name: getattr(arguments, name) for name in RECORDED},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "psnr": fmean(psnr),
        "psnr_by_set": {name: fmean(values) for name, values in by_set.items()},
        "cg_sense_psnr": fmean(scores(lambda p: cg_sense(p.kspace, p.operator).value, problems)),
    }
    (arguments.out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def main() -> None:
    """Run the command, with a log in OUT."""
    arguments = parse()
    log_to(arguments.out)
    print(json.dumps(run(arguments)))


if __name__ == "__main__":
    main()
