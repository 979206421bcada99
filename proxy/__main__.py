"""``python -m proxy zygote --socket-fd N``: how the testbed starts the node programs."""

from __future__ import annotations

import argparse
import socket


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m proxy", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    zygote = commands.add_parser("zygote", help="fork node programs as asked over a socket")
    zygote.add_argument("--socket-fd", type=int, required=True, help="an inherited SOCK_SEQPACKET socket")
    arguments = parser.parse_args()

    from proxy.zygote import serve  # noqa: PLC0415 - `--help` needs none of it

    with socket.socket(fileno=arguments.socket_fd) as sock:
        serve(sock)


if __name__ == "__main__":
    main()
