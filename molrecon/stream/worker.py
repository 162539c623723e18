"""The process that reconstructs one scan: from the spool to messages, by the functions that files go through."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from molrecon.io import UnreadableInput
from molrecon.io.volume import image_data_left_out, left_out_text
from molrecon.reconstructors.base import Reconstructor
from molrecon.scans.memory.allocator import keep_freed_memory
from molrecon.scans.methods import load_method
from molrecon.scans.reconstruction import Reconstruction
from molrecon.scans.scan import Reading, read_scan
from molrecon.scans.scan_reconstruction import reconstruct_scan
from molrecon.scans.series import frame_of
from molrecon.scans.settings import Settings
from molrecon.scans.sidecar import ModelSource
from molrecon.solvers.solver_settings import SolverSettings
from molrecon.stream.config import CG_SENSE, Request
from molrecon.stream.images import ImageMaker
from molrecon.stream.job import DONE, FAILED, Job
from molrecon.stream.log_lines import ERROR, INFO, WARNING, log_line
from molrecon.stream.messages import encode_image
from molrecon.stream.spool import read_heads, write_mrd

log = logging.getLogger(__name__)


def work(job: Job, sender: Connection) -> None:
    """Reconstruct a scan in this process: send its messages, then DONE; or a line that says why not, then FAILED."""
    # Ctrl-C and service managers signal the whole group, and the server wants the scan finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    keep_freed_memory()
    with sender:
        try:
            reconstruct_job(job, sender.send_bytes)
        except BrokenPipeError:  # the server has given the scan up
            return
        except Exception as error:  # whatever it is, the scanner is told, and the next scan is another process
            log.debug("reconstruction failed", exc_info=True)
            sender.send_bytes(log_line(ERROR, failure(error, job)))
            sender.send_bytes(FAILED)
            return
        sender.send_bytes(DONE)


def reconstruct_job(job: Job, send: Callable[[bytes], None]) -> None:
    """Reconstruct the scan of a job, and send log lines and images. Raises what reading and reconstructing raise."""
    name = "cg-sense" if job.request.config == CG_SENSE else job.model
    model, source = load_method(name)
    device = torch.device(job.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.zeros(1, device=device)
    if job.spool is None:
        return
    path = job.spool.with_suffix(".h5")
    write_mrd(job.spool, path)
    job.spool.unlink()
    scan = read_scan(path, Reading(job.conjugate))
    if scan.left_out:
        level = WARNING if image_data_left_out(scan.left_out) else INFO
        send(log_line(level, f"left out: {left_out_text(scan.left_out)}"))
    digest = f", weights {source.weights_sha256[:12]}" if source.weights_sha256 else ""
    slices = sum(len(frame.volume.kspace) for frame in scan.frames)
    frames = f" in {len(scan.frames)} volumes" if len(scan.frames) > 1 else ""
    shown = ModelSource(Path(source.name).name, source.weights_sha256)
    send(log_line(INFO, f"reconstructing {slices} slices{frames} with {shown.name}{digest}"))
    maker, count = ImageMaker(job.request.pixels, shown, read_heads(path)), 0
    settings = Settings(solver=_solver(model, job.request), device=device)
    for one in reconstruct_scan(scan, model, settings):
        for warning in one.result.warnings:
            send(log_line(WARNING, str(warning)))
        send(log_line(INFO if one.result.converged.all() else WARNING, _summary(one.result)))
        for k, frame in enumerate(one.series.frames):
            result = one.result if len(one.series.frames) == 1 else frame_of(one.result, k)
            for image in maker.images(frame, result, 1 + count):
                send(encode_image(image))
            count += len(result.image)
    send(log_line(INFO, f"{count} images sent"))


def failure(error: Exception, job: Job) -> str:
    """Return what the peer is told of an error: never a path or a traceback."""
    if isinstance(error, UnreadableInput):
        text = f"the scan cannot be used: found {error.found}, expected {error.expected}"
    elif isinstance(error, ValueError):
        text = f"the scan cannot be reconstructed: {error}"
    elif isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        text = "the scan does not fit into the memory of this server"
    elif isinstance(error, FileNotFoundError):
        text = f"the model {Path(job.model).name} is not there"
    elif isinstance(error, OSError):
        text = f"the server's disk: {error.strerror}"
    else:
        text = f"the reconstruction failed ({type(error).__name__})"
    for path in () if job.spool is None else (job.spool.with_suffix(".h5"), job.spool.parent):
        text = text.replace(str(path), "the scan")
    return " ".join(text.split())


def _solver(model: Reconstructor, request: Request) -> SolverSettings | None:
    if model.solver is None:
        return None
    solver = model.solver if request.tol is None else replace(model.solver, tol=request.tol)
    return solver if request.max_steps is None else replace(solver, max_steps=request.max_steps)


def _summary(result: Reconstruction) -> str:
    slices = len(result.converged)
    if result.solver is None:
        return f"{slices} slices, no error bound, {result.seconds:.1f} s"
    bound = "no error bound" if result.kind == "none" else f"error bound {result.error_bound.max():.1e} at worst"
    converged = f"{int(result.converged.sum())} of {slices} slices converged, {bound} ({result.kind})"
    return f"{converged}, {int(result.n_steps.max())} iterations at most, {result.seconds:.1f} s"
