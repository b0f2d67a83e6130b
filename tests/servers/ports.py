"""Ports of loopback that nobody listens on."""

import socket
from contextlib import ExitStack

HOST = "127.0.0.1"


def free_ports(n_ports: int) -> list[int]:
    """Return ports, all different."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(n_ports)]
        return [sock.getsockname()[1] for sock in taken]


def is_open(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
