# SPDX-License-Identifier: Apache-2.0
"""The bare thing in a migration: two QEMUs with the command line that Drover used, over QMP.

The stream is a TCP connection on the loopback whose ends are handed in as descriptors, as Drover
does it; under TLS with a key that both know.  The target goes on by itself, without -S: nothing
could be faster."""

import json
import os
import secrets
import socket
import time

from host import run
from raw import Raw
from watch import DEADLINE, Lines, Trouble


class Monitor(Lines):
    """QMP whose events are kept."""

    def __init__(self, path):
        super().__init__(path)
        self.events = []
        self.socket.settimeout(DEADLINE)

    def hear(self):
        """The answers that one read brings."""
        messages = self.take()
        self.events += [message for message in messages if "event" in message]
        return [message for message in messages if "event" not in message]

    def ask(self, command, arguments=None, fd=None):
        text = json.dumps({"execute": command, "id": 1, "arguments": arguments or {}}) + "\n"
        socket.send_fds(self.socket, [text.encode()], [] if fd is None else [fd])
        while True:
            for answer in self.hear():
                if "error" in answer:
                    raise Trouble(f"raw QEMU, {command}: {answer['error']['desc']}")
                if answer.get("id") == 1:
                    return answer["return"]

    def until(self, name, **data):
        """When QEMU said so, by its own clock, in ms."""
        while True:
            for event in self.events:
                if event["event"] == name and data.items() <= event.get("data", {}).items():
                    stamp = event["timestamp"]
                    return stamp["seconds"] * 1000 + stamp["microseconds"] / 1000
            self.hear()


class Side(Raw):
    """One of the two."""

    monitor_kind = Monitor

    def spawn(self, *options):
        """After prepare()."""
        self.argv = [word for word in self.argv if word != "-S"] + list(options)
        self.pid = os.posix_spawn(self.argv[0], self.argv, os.environ, file_actions=self.actions,
                                  setsid=True)
        self.ask("qmp_capabilities")
        self.ask("migrate-set-capabilities",
                 {"capabilities": [{"capability": "events", "state": True}]})

    def ask(self, command, arguments=None, fd=None):
        return self.monitor.ask(command, arguments, fd)

    def encrypt(self, endpoint, directory):
        client = {"username": "bench"} if endpoint == "client" else {}
        self.ask("object-add", {"qom-type": "tls-creds-psk", "id": endpoint, "dir": directory,
                                "endpoint": endpoint, **client})
        self.ask("migrate-set-parameters", {"tls-creds": endpoint, "tls-hostname": "bench"})

    def give(self, stream):
        self.ask("getfd", {"fdname": "stream"}, fd=stream.fileno())


def stream():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    for end in (ours, theirs):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


class RawPair:
    """A guest that goes back and forth between two of them."""

    names = {False: "raw QEMU", True: "raw QEMU, TLS"}

    def __init__(self, directory, qemu_log, definition, encrypted):
        self.name = self.names[encrypted]
        self.sides = []
        for name in ("a", "b"):
            place = os.path.join(directory, f"tls-{name}" if encrypted else name)
            self.sides.append(Side(place, qemu_log, None, None, definition))
        self.consoles = [side.serial for side in self.sides]
        self.keys = None
        if encrypted:
            self.keys = os.path.join(directory, "keys")
            os.mkdir(self.keys, 0o700)
            # Without parameters of its own a server makes some, which takes it up to a second.
            for name, text in (("keys.psk", f"bench:{secrets.token_hex(32)}"),
                               ("dh-params.pem", run("openssl", "genpkey", "-genparam", "-algorithm",
                                                     "DH", "-pkeyopt", "group:ffdhe2048"))):
                with open(os.path.join(self.keys, name), "w", encoding="ascii") as file:
                    file.write(text + "\n")

    def open(self):
        self.sides[0].prepare()
        self.sides[0].spawn()

    def wake(self):
        self.sides[0].ask("cont")

    def prepare(self):
        self.sides[0].monitor.events.clear()
        self.sides[1].prepare()

    def migrate(self):
        """Times in ms; `total` contains the start of the target."""
        source, target = self.sides
        begin = time.perf_counter()
        target.spawn("-incoming", "defer")
        ours, theirs = stream()
        with ours, theirs:
            if self.keys:
                target.encrypt("server", self.keys)
                source.encrypt("client", self.keys)
            target.give(theirs)
            target.ask("migrate-incoming", {"uri": "fd:stream"})
            source.give(ours)
            source.ask("migrate", {"uri": "fd:stream"})
            source.monitor.until("MIGRATION", status="completed")
            resumed = target.monitor.until("RESUME")
        end = time.perf_counter()
        return {"total": (end - begin) * 1000, "pause": resumed - source.monitor.until("STOP"),
                "stream": source.ask("query-migrate")["total-time"]}

    def settle(self):
        """The source ends; the next migration goes the other way."""
        self.sides[0].stop()
        self.sides.reverse()

    def sleep(self):
        self.sides[0].ask("stop")

    def close(self):
        for side in self.sides:
            side.stop()
