# SPDX-License-Identifier: Apache-2.0
"""Drover in a migration: `drover migrate --wait` between two agents of one machine, members of one
cluster, that share an embedded store."""

import contextlib
import json
import os
import subprocess
import time

from agent import VM, Agent
from watch import Trouble, wait_until

PORT = 8441
# The pause, step by step: whose mark ends a step, and what the step is called.
STEPS = [("source", "switching", "STOP until the source's keeper acts"),
         ("source", "completed", "QEMU sends the rest, until `completed` is heard"),
         ("target", "stopped heard", "the target's keeper hears it"),
         ("target", "taking", "the target has read all"),
         ("target", "RESUME", "record taken, `cont`")]


class Node(Agent):
    """One agent."""

    def __init__(self, directory, build, definition, name, port):
        self.name = name
        super().__init__(os.path.join(directory, name), build, definition, {}, node=name,
                         store=f"local:{directory}/store.db",
                         host_dir=os.path.join(directory, "host"),
                         cluster={"address": "127.0.0.1", "port": port})
        os.makedirs(self.logs)
        self.serial = os.path.join(self.logs, "serial.log")
        self.timeline = os.path.join(self.logs, "migrations.jsonl")

    def cli(self, *words, said=None):
        argv = [os.path.join(self.build, "drover"), "--root", self.root, *words]
        done = subprocess.run(argv, input=said or "", capture_output=True, text=True, timeout=120,
                              check=False)
        if done.returncode:
            raise Trouble(f"drover {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def migrations(self):
        """What the keepers here have written of them."""
        with contextlib.suppress(FileNotFoundError):
            with open(self.timeline, encoding="utf-8") as file:
                return [json.loads(line) for line in file]
        return []


class DroverPair:
    """A VM that goes back and forth between two nodes."""

    name = "Drover"

    def __init__(self, directory, build, definition):
        self.sides = [Node(directory, build, definition, name, PORT + number)
                      for number, name in enumerate(("a", "b"))]
        self.consoles = [side.serial for side in self.sides]
        self.round_trips = []
        self.spans = []

    def open(self):
        for side in self.sides:
            side.serve()
        first, second = self.sides
        first.cli("cluster", "init")
        second.cli("cluster", "join", said=first.cli("cluster", "token"))
        first.define()
        first.cli("start", VM)

    def qemu_log(self):
        return os.path.join(self.sides[0].logs, "qemu.log")

    def wake(self):
        self.sides[0].cli("resume", VM)

    def prepare(self):
        pass

    def migrate(self):
        """Times in ms; the command begins with its exec and ends when all is done."""
        source, target = self.sides
        before = {side: len(side.migrations()) for side in self.sides}
        begin = time.perf_counter()
        source.cli("migrate", VM, "--to", target.name, "--wait")
        total = (time.perf_counter() - begin) * 1000
        wait_until("both have written what happened", lambda: all(
            len(side.migrations()) > before[side] for side in self.sides))
        sent, seen = source.migrations()[-1], target.migrations()[-1]
        if seen["result"] != "moved":
            raise Trouble(f"drover migrate: {seen['result']}, {seen['why']}")
        self.round_trips.append(take_time(seen))
        self.spans.append(steps_of(sent, seen))
        return {"total": total, "pause": seen["pause_usec"] / 1000}

    def settle(self):
        self.sides.reverse()

    def sleep(self):
        self.sides[0].cli("pause", VM)

    def close(self):
        for side in self.sides:
            with contextlib.suppress(Trouble):  # it is off, or with the other one
                side.cli("kill", VM)
        for side in self.sides:
            side.close()


def take_time(seen):
    """From the target's request for the record to `cont`, in ms."""
    at = {phase["phase"]: phase["after_usec"] for phase in seen["phases"]}
    return (at["running"] - at["taking"]) / 1000


def steps_of(sent, seen):
    """The pause in ms, by STEPS; both keepers have the clock of one machine."""
    marks = {side: {phase["phase"]: phase["wall_usec"] for phase in reversed(told["phases"])}
             for side, told in (("source", sent), ("target", seen))}
    marks["target"]["RESUME"] = seen["resume_usec"]
    spans, last = {}, sent["stop_usec"]
    for side, mark, name in STEPS:
        spans[name] = (marks[side][mark] - last) / 1000
        last = marks[side][mark]
    return spans
