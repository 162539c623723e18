"""A job array of a real SLURM, in a network of its own: each task does its part, and together they do all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "munged", "unshare", "ip")
CONFIGURATION = """ClusterName=test
SlurmctldHost=localhost(10.9.9.1)
AuthType=auth/munge
AuthInfo=socket={0}/munge.sock
ProctrackType=proctrack/pgid
SlurmctldPidFile={0}/slurmctld.pid
SlurmdPidFile={0}/slurmd.pid
SlurmdSpoolDir={0}/spool
StateSaveLocation={0}/state
SlurmUser=root
SwitchType=switch/none
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmctldLogFile={0}/slurmctld.log
SlurmdLogFile={0}/slurmd.log
NodeName=localhost NodeAddr=10.9.9.1 CPUs=1 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES State=UP
"""
# SLURM resolves no name where only loopback addresses are known: lo gets another one.
SESSION = """set -e
cd {0}
ip link set lo up
ip addr add 10.9.9.1/24 dev lo
hostname localhost
mount --bind {0}/hosts /etc/hosts
mkdir -p spool state
munged -f --key-file=key --socket=munge.sock --pid-file=munge.pid --log-file=munge.log --seed-file=munge.seed
slurmctld
sleep 2
slurmd
sleep 2
sbatch --array=1-2 -o {0}/said.%a job.sh
for i in $(seq 150); do sleep 1; [ -z "$(squeue -h)" ] && exit 0; done
exit 1
"""


@pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason="slurm-wlm and munge are not installed")
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="a network of its own needs root on Linux")
def test_a_job_array(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / f"{k}.npy").write_bytes(b"no scan")
    (tmp_path / "slurm.conf").write_text(CONFIGURATION.format(tmp_path))
    (tmp_path / "hosts").write_text("10.9.9.1 localhost\n")
    (tmp_path / "key").write_bytes(os.urandom(1024))
    (tmp_path / "key").chmod(0o400)
    command = f"{sys.executable} -m molrecon reconstruct *.npy --out out --model zero-filled --device cpu --shard slurm"
    (tmp_path / "job.sh").write_text(f"#!/bin/sh\ncd {tmp_path}\nexport PYTHONPATH={ROOT}\n{command} || true\n")
    session = subprocess.run(
        ["unshare", "-n", "-u", "-p", "-f", "--mount-proc", "-m", "bash", "-c", SESSION.format(tmp_path)],
        env={**os.environ, "SLURM_CONF": str(tmp_path / "slurm.conf")},
        check=False,
        capture_output=True,
        text=True,
    )
    if session.returncode and "Operation not permitted" in session.stderr:
        pytest.skip("this container may not make a network of its own")
    assert session.returncode == 0, session.stderr
    outputs = [(tmp_path / f"said.{k}").read_text() for k in (1, 2)]
    assert [text.count("unreadable") for text in outputs] == [2, 1], outputs
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"]["unreadable"] == 3 and not manifest["missing"]
