"""`molrecon serve`: scans from a scanner's stream, images back to it."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from contextlib import closing

from molrecon.command.shared.argument_types import port, positive
from molrecon.command.shared.arguments import add_device
from molrecon.command.shared.exit_codes import EXIT_FAILED, EXIT_OK
from molrecon.command.shared.messages import complain, usage
from molrecon.command.shared.reading import add_conjugate, conjugation
from molrecon.reconstructors.defaults import DEFAULT_MODEL

HELP = "reconstruct scans that a scanner streams (ISMRMRD), and stream the images back"
DESCRIPTION = (
    "Listen for MRD streams (ISMRMRD version 1, as FIRE, OpenRecon and Gadgetron speak it), reconstruct every scan when"
    " its data have come, and send the images back, with error bounds and warnings in their attributes. Configurations:"
    " molrecon (the model), molrecon-cgsense, null (reads, and sends nothing). SIGTERM or Ctrl-C lets running scans"
    " finish, a second one does not. Research only. The protocol has neither passwords nor encryption: whoever reaches"
    " the port can use it."
)
LOOPBACK = ("127.", "::1", "localhost")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: %(default)s, this machine)"
    )
    parser.add_argument(
        "--port", type=port, default=9002, metavar="N", help="0: any free one, which is printed (default: %(default)s)"
    )
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME_OR_FILE",
        help="packaged model, weights file, or a method without training: zero-filled, cg-sense, l1-wavelet"
        " (default: %(default)s)",
    )
    add_device(parser)
    add_conjugate(parser)
    parser.add_argument(
        "--idle-timeout",
        type=positive,
        default=300.0,
        metavar="S",
        help="seconds without a byte after which a connection ends (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    from molrecon.stream.server import StreamServer
    from molrecon.stream.session import StreamSettings

    device = None if args.device is None else str(args.device)
    server = StreamServer(StreamSettings(args.model, device, args.idle_timeout, conjugate=conjugation(args)))
    stop = threading.Event()

    def on_signal(*_: object) -> None:
        if stop.is_set():
            server.abort()
        stop.set()

    try:
        port = server.listen(args.host, args.port)
    except OSError as error:
        return complain(f"{args.host}:{args.port}: {error.strerror or error}", EXIT_FAILED)
    with closing(server):
        with usage():
            server.check()
        logging.getLogger("molrecon.stream").setLevel(logging.DEBUG if args.verbose else logging.INFO)
        if not args.host.startswith(LOOPBACK):
            print("molrecon: warning: this port is open to other machines, without a password", file=sys.stderr)
        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        print(f"molrecon serves MRD streams on {args.host}:{port} with {args.model}", flush=True)
        try:
            server.serve(stop)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return EXIT_OK
