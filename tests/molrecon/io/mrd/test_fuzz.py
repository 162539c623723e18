"""A thousand damaged MRD files: a valid scan or UnreadableInput, without a crash, a hang, or memory out of bounds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ismrmrd
import numpy as np
import pytest

from examples._mrd_files import header, radial, readouts, write

N_FILES = 1000
SECONDS = 240  # for all; they take a few on an idle machine
MEGABYTES = 400  # above what the imports take

# In a process of its own: a crash of the HDF5 library or memory without bounds does not take the tests with it.
READ = """
import json, resource, sys
from pathlib import Path
import numpy as np
from molrecon.io import UnreadableInput, read_frames
content, folder, count = bytearray(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]), int(sys.argv[3])
head = len(content) // 3
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read = refused = 0
rng = np.random.default_rng(0)
for number in range(count):
    damaged = bytearray(content)
    kind = number % 4
    if kind == 0:  # bytes anywhere
        for place in rng.integers(len(damaged), size=rng.integers(1, 9)):
            damaged[place] = rng.integers(256)
    elif kind == 1:  # runs of one value, as of sectors that were lost
        place, length = rng.integers(len(damaged)), rng.integers(1, 200)
        damaged[place : place + length] = bytes([rng.choice([0, 255])]) * len(damaged[place : place + length])
    elif kind == 2:  # the structures of the file, most of which lie in front
        for place in rng.integers(head, size=3):
            damaged[place] ^= 1 << rng.integers(8)
    else:  # an end that is missing
        damaged = damaged[: rng.integers(len(damaged))]
    path = folder / "damaged.h5"
    path.write_bytes(damaged)
    try:
        frames = read_frames(path)
    except UnreadableInput as error:
        assert "damaged.h5: found " in str(error), error
        refused += 1
    else:
        for frame in frames:
            assert np.isfinite(frame.volume.kspace.view(np.float32)).all() and frame.volume.sampling_mask.any()
        read += 1
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
print(json.dumps({"read": read, "refused": refused, "grown": grown, "left": [one.name for one in folder.iterdir()]}))
"""


def cartesian(path: Path) -> None:
    """Write two repetitions with a noise readout, calibration lines and reversed ones."""
    space = "<matrixSize><x>8</x><y>6</y><z>1</z></matrixSize><fieldOfView_mm><x>8</x><y>6</y><z>2</z></fieldOfView_mm>"
    xml = (
        '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><acquisitionSystemInformation><systemVendor>SIEMENS'
        f"</systemVendor></acquisitionSystemInformation><encoding><encodedSpace>{space}</encodedSpace><reconSpace>{space}"
        "</reconSpace><trajectory>cartesian</trajectory><parallelImaging><calibrationMode>separate</calibrationMode>"
        "</parallelImaging></encoding></ismrmrdHeader>"
    )
    rng = np.random.default_rng(0)
    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=True) as dataset:
        dataset.write_xml_header(xml.encode())
        flags = [ismrmrd.ACQ_IS_NOISE_MEASUREMENT, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, ismrmrd.ACQ_IS_REVERSE]
        for repetition in range(2):
            for column in range(6):
                samples = rng.normal(size=(2, 8)) + 1j * rng.normal(size=(2, 8))
                line = ismrmrd.Acquisition.from_array(samples.astype(np.complex64))
                line.center_sample, line.idx.kspace_encode_step_1, line.idx.repetition = 4, column, repetition
                line.read_dir[:], line.phase_dir[:], line.slice_dir[:] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
                if repetition == 0 and column < len(flags):
                    line.set_flag(flags[column])
                dataset.append_acquisition(line)


def stack_of_stars(path: Path) -> None:
    """Write a slab of radial readouts, the same in each partition."""
    rng, points = np.random.default_rng(0), radial(4, 8) / 8
    samples = rng.normal(size=(3, 2, *points.shape[:2])) + 1j * rng.normal(size=(3, 2, *points.shape[:2]))
    acquisitions = [one for k in range(3) for one in readouts(samples[k], points, kspace_encode_step_2=k)]
    write(path, header("radial", (8, 8), depth=3), acquisitions)


@pytest.mark.parametrize("make", [cartesian, stack_of_stars])
def test_a_thousand_damaged_files(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "whole.h5"
    make(path)
    folder = tmp_path / "damaged"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), str(folder), str(N_FILES)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["read"] + found["refused"] == N_FILES and min(found["read"], found["refused"]) > 50
    assert found["grown"] < MEGABYTES
    assert found["left"] == ["damaged.h5"]  # nothing else was written
