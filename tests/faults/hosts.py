"""Several hosts on one machine: network namespaces on a bridge, which can be disconnected and connected again.

Needs root and `ip` (Debian: iproute2).
"""

import os
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """One namespace.

    Attributes:
        address: its address on the bridge.
        inside: prefix of a command that runs there.
        link: the bridge's end of its cable.
    """

    address: str
    inside: tuple[str, ...]
    link: str

    def disconnect(self) -> None:
        """Pull the cable: packets vanish, and neither side gets an error."""
        _ip("link", "set", self.link, "down")

    def connect(self) -> None:
        """Plug the cable in again."""
        _ip("link", "set", self.link, "up")


class Hosts:
    """A context that makes hosts and leaves none behind.

    Attributes:
        here: this machine's address on the bridge.
    """

    def __init__(self) -> None:
        number = os.getpid() % 250
        self._name, self._net = f"t3d{number}", f"10.77.{number}"
        self.here = f"{self._net}.1"
        self._hosts: list[Host] = []

    def __enter__(self) -> "Hosts":
        _ip("link", "add", self._name, "type", "bridge")
        _ip("address", "add", f"{self.here}/24", "dev", self._name)
        _ip("link", "set", self._name, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for host in self._hosts:
            _ip("netns", "delete", host.link)
        _ip("link", "delete", self._name)

    def add(self) -> Host:
        """Add one more host."""
        link, address = f"{self._name}h{len(self._hosts)}", f"{self._net}.{len(self._hosts) + 2}"
        # By the host's name Gloo would find this machine's loopback, because all hosts here share /etc/hosts.
        inside = ("ip", "netns", "exec", link, "env", "GLOO_SOCKET_IFNAME=eth0")
        _ip("netns", "add", link)
        self._hosts.append(Host(address, inside, link))
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", link)
        _ip("link", "set", link, "master", self._name)
        _ip("link", "set", link, "up")
        for command in (("link", "set", "lo", "up"), ("address", "add", f"{address}/24", "dev", "eth0")):
            subprocess.run([*inside, "ip", *command], check=True)
        subprocess.run([*inside, "ip", "link", "set", "eth0", "up"], check=True)
        return self._hosts[-1]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
