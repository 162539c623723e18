"""Scans from a scanner's stream and images back to it, in MRD version 1: the server of `molrecon serve`.

server          listens; a thread a connection, a process a reconstruction
session         one connection from its first byte to CLOSE
reception       what a peer sends until its CLOSE; what is refused
config          what a peer may ask for: configurations of a list, a few parameters
workers         starting, watching and ending the processes of reconstructions; job: what they are given
worker          such a process: spool -> MRD file -> the ordinary reader and reconstruction -> images
images          a reconstruction -> MRD images, where they lie, and their attributes
spool           received messages on disk, and the MRD file made of them
header          the XML header without all that tells of a person
messages        messages as objects and as bytes; wire: heads as NumPy dtypes, bounded reads; log_lines: texts
client          sends a file to a server: `stream_file`
public_server   `process`, for the public python-ismrmrd-server
"""

from __future__ import annotations

from molrecon.stream.public_server import process

__all__ = ["process"]
