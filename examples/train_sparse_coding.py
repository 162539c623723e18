"""Train a network of the LISTA family on the standard benchmark of sparse coding:

    python examples/train_sparse_coding.py --network alista --out runs/alista [--snr 20]

m = 250, n = 500, 10 % of the entries of the codes nonzero, noiseless or with --snr decibels; see
`molrecon.descent.sparse_problems`. The run resumes from OUT/checkpoint.pt; with the same arguments it is the same run.
At the end OUT holds NETWORK.safetensors and its card, with the NMSE by layer on test codes that were never used before.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from molrecon.descent.lista import ALISTA, LISTA, LISTACP, CodeNetwork, SupportSelection
from molrecon.descent.sparse import nmse_by_layer
from molrecon.descent.sparse_problems import TEST, VALIDATION, BernoulliGaussian, gaussian_dictionary, stream
from molrecon.descent.sparse_training import CODING_SETTINGS, SparseCodingTask, coding_score
from molrecon.training.checkpoints import log_to
from molrecon.training.fingerprint import identifying_arguments
from molrecon.training.log import finish
from molrecon.training.loop import train
from molrecon.weights import save
from operators import Dense

NETWORKS: dict[str, Callable[[Tensor, int], CodeNetwork]] = {
    "lista": LISTA,
    "lista-tied": lambda dictionary, layers: LISTA(dictionary, layers, tied=True),
    "lista-cp": LISTACP,
    "lista-cpss": lambda dictionary, layers: LISTACP(dictionary, layers, selection=SupportSelection()),
    "lista-cpss-tied": lambda dictionary, layers: LISTACP(dictionary, layers, tied=True, selection=SupportSelection()),
    "alista": lambda dictionary, layers: ALISTA(dictionary, layers, selection=SupportSelection()),
}
GROWTH = 0.6  # of the steps, in which layers are added
VALIDATION_CODES, TEST_CODES = 500, 1000


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="alista")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--snr", type=float, metavar="DB", help="of the measurements; default: no noise")
    parser.add_argument("--measurements", type=int, default=250)
    parser.add_argument("--atoms", type=int, default=500)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--steps", type=int, default=CODING_SETTINGS.steps)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=CODING_SETTINGS.learning_rate)
    parser.add_argument("--checkpoint-every", type=int, default=CODING_SETTINGS.checkpoint_every)
    parser.add_argument("--seed", type=int, default=0, help="of the training codes; the dictionary is always the same")
    parser.add_argument("--whole", action="store_true", help="store single precision, not half")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> None:
    """Train, and write network and card."""
    torch.set_num_threads(arguments.threads)
    dictionary = gaussian_dictionary(arguments.measurements, arguments.atoms)
    problem = BernoulliGaussian(dictionary, snr_db=arguments.snr)
    network = NETWORKS[arguments.network](dictionary, arguments.layers)
    settings = replace(
        CODING_SETTINGS,
        steps=arguments.steps,
        decay_start=round(GROWTH * arguments.steps),
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
        checkpoint_every=arguments.checkpoint_every,
        log_every=min(CODING_SETTINGS.log_every, arguments.checkpoint_every),
    )
    task = SparseCodingTask(network, problem, batch=arguments.batch, growth=GROWTH)
    validate = coding_score(problem, VALIDATION_CODES, stream(0, VALIDATION))
    fingerprint = identifying_arguments(
        arguments, "whole", "steps", "checkpoint_every"
    )  # the codes are drawn at random
    finish(train(task, settings, arguments.out, validate, fingerprint=fingerprint), settings.steps)
    codes, measurements = problem.draw(TEST_CODES, stream(0, TEST))
    pooled, mean = nmse_by_layer(network.stages(measurements, Dense(dictionary)), codes, arguments.layers)
    card = {
        "name": arguments.network,
        "problem": "Bernoulli-Gaussian codes, 10 % nonzero",
        "snr_db": arguments.snr,
        "shape": list(dictionary.shape),
        "layers": arguments.layers,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "data": "drawn at random",
        "split": "training, validation and test codes from streams of their own",
        "steps": arguments.steps,
        "batch": arguments.batch,
        "learning_rate": arguments.learning_rate,
        "seed": arguments.seed,
        "scores": {
            "test_pooled_nmse_db_by_layer": pooled.round(2).tolist(),
            "test_mean_nmse_db_by_layer": mean.round(2).tolist(),
        },
        "licence": "data: none needed",
        "intended_use": "research use",
    }
    path = arguments.out / f"{arguments.network}.safetensors"
    save(network, path, card, half=not arguments.whole)
    logging.info("NMSE after layer %d: pooled %.2f dB, mean %.2f dB, %s", arguments.layers, pooled[-1], mean[-1], path)


def main() -> None:
    """Run the command, with a log in OUT."""
    arguments = parse()
    log_to(arguments.out)
    run(arguments)


if __name__ == "__main__":
    main()
