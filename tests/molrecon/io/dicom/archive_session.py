"""Run in a network namespace of its own: send DICOM files to storescp and to Orthanc, twice, and tell what arrived.

python archive_session.py FOLDER FILE...

Orthanc listens on all interfaces whatever its configuration says; here there is none but loopback. FOLDER gets
`received/` (what storescp wrote), `preview-N.png` (each instance as Orthanc shows it) and session.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

HTTP, DICOM, STORESCP = 8042, 4242, 4104


def ask(path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{HTTP}{path}", timeout=10) as answer:
        return bytes(answer.read())


def ask_json(path: str) -> Any:
    return json.loads(ask(path))


def send(port: int, called: str, files: list[str]) -> None:
    command = ["storescu", "-xe", "-aec", called, "127.0.0.1", str(port), *files]  # explicit little endian
    for attempt in range(100):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        if "Connection refused" not in done.stderr and "Peer aborted" not in done.stderr:
            break
        time.sleep(0.1 + 0.01 * attempt)  # the server has not opened its port yet
    raise RuntimeError(done.stderr)


def wait_for_orthanc() -> None:
    for _ in range(300):
        try:
            ask("/system")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("Orthanc does not answer")


def main(folder: Path, files: list[str]) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    received = folder / "received"
    received.mkdir()
    configuration = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": HTTP,
        "DicomPort": DICOM,
        "DicomAlwaysAllowStore": True,
        "RemoteAccessAllowed": False,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    storescp = ["storescp", "-od", str(received), "--filename-extension", ".dcm", str(STORESCP)]
    with (folder / "log.txt").open("w") as log:
        orthanc = ["Orthanc", str(folder / "orthanc.json")]
        servers = [subprocess.Popen(command, stdout=log, stderr=log) for command in (storescp, orthanc)]
        try:
            wait_for_orthanc()
            send(STORESCP, "STORESCP", files)
            counts = []
            for _ in range(2):
                send(DICOM, "ORTHANC", files)
                counts.append(ask_json("/statistics")["CountInstances"])
            instances = ask_json("/instances")
            for number, instance in enumerate(instances):
                (folder / f"preview-{number}.png").write_bytes(ask(f"/instances/{instance}/preview"))
            series = [ask_json(f"/series/{name}") for name in ask_json("/series")]
            patients = [ask_json(f"/patients/{name}")["MainDicomTags"] for name in ask_json("/patients")]
            content = {"counts": counts, "series": series, "patients": patients}
            (folder / "session.json").write_text(json.dumps(content))
        finally:
            for server in servers:
                server.terminate()
                server.wait(timeout=30)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
