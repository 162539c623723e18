"""The exit codes of every command, and when each of them is returned."""

from __future__ import annotations

from collections.abc import Sequence

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_UNREADABLE = 3
EXIT_FAILED = 4
EXIT_NOT_CONVERGED = 5
EXIT_VIOLATED = 6
EXIT_INTERRUPTED = 130

EXIT_CODES = """Exit codes:
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
  130  interrupted (Ctrl-C)"""


def cohort_exit_code(statuses: Sequence[str], *, warned: bool = False) -> int:
    """Return the exit code of volumes that ended so; none at all are fine."""
    from molrecon.scans.manifest import FAILED, INCOMPLETE, NOT_CONVERGED, UNREADABLE

    if statuses and all(status == UNREADABLE for status in statuses):
        return EXIT_UNREADABLE
    if UNREADABLE in statuses or FAILED in statuses:
        return EXIT_FAILED
    return EXIT_NOT_CONVERGED if warned or NOT_CONVERGED in statuses or INCOMPLETE in statuses else EXIT_OK
