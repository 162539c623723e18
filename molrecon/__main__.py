"""The `molrecon` command.

    molrecon demo [--out DIR]                   a real head, scanned in simulation four times too fast, reconstructed
    molrecon reconstruct INPUT... --out DIR     scans (files or folders of files) to images with a report each
    molrecon compare INPUT --accel R ...        methods side by side on a fully sampled scan
    molrecon certify MODEL [--data FILE]        what is guaranteed about a model, and a search for violations of it
    molrecon robustness INPUT --accel R ...     PSNR of perturbed data, random and worst-case, with what is guaranteed
    molrecon cs --image FILE --ratio R          compressed sensing of a photograph, simulated and reconstructed
    molrecon train DATA... --out DIR            a reconstructor of your own, on fastMRI files or image stacks
    molrecon models                             the packaged models and their cards

Exit codes:
    0  ok
    2  usage: arguments that make no sense, an unknown model, a scan that is not fully sampled in `compare`
    3  unreadable input (of several inputs: all of them)
    4  some volumes failed; the others are reconstructed, and manifest.json in the output folder lists all of them
       (of any command: the disk is full; older files are as they were)
       (of `train`: some files could not be used; it is trained on the others)
    5  everything is written, but some slice did not converge to the tolerance; the outputs say which
       (in `compare`, of the methods with an error bound; l1-wavelet runs a fixed number of iterations);
       or a volume is incomplete: its file holds image data that were left out, such as further repetitions;
       or, with `reconstruct --strict`, there are warnings: data that do not fit the coil maps, the noise level or the
       image, and remarks about the file
    6  `certify` or `robustness` saw a model break what it promises; the output says how

Existing outputs are replaced, unless `reconstruct --resume` finds that they would come out the same. No command
replaces its inputs. Messages go to stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from molrecon.command.arguments import build_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments (None: those of the process) and return its exit code."""
    args = build_parser(__doc__ or "").parse_args(argv)
    from molrecon.command.commands import run  # and with it torch, which help and wrong arguments do not wait for

    return run(args)


if __name__ == "__main__":
    sys.exit(main())
