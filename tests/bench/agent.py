# SPDX-License-Identifier: Apache-2.0
"""Drover as a contestant: an agent of its own root, and three ways to say `start`."""

import datetime
import json
import os
import re
import signal
import subprocess
import time

from watch import FileGrowth, Lines, Race, Trouble, gone, wait_until

VM = "bench"

# In the order of the keeper's log: what begins a span, and what the span is called.
MARKS = [
    (r"wish run, .*: start", "order, store, keeper told"),
    (r"start: planning the hardware", None),
    (r"start: waiting for the owner record", "plan the hardware"),
    (r"start: booking memory", "write the owner record"),
    (r"start: preparing volumes", "book memory"),
    (r"start: making network interfaces", "prepare volumes"),
    (r"start: starting QEMU", "make taps"),
    (r"start: waiting for QEMU's monitor", "fork, jail, exec"),
    (r"start: comparing QEMU", "QEMU until it answers"),
    (r"start: starting the vcpus", "compare with the record"),
    (r"QEMU event RESUME", "cont until RESUME"),
]


class Agent:
    """droverd with one VM."""

    def __init__(self, directory, build, definition, networks, **config):
        self.build = build
        self.root = os.path.join(directory, "root")
        self.logs = os.path.join(self.root, "log/drover/vms", VM)
        self.control = os.path.join(self.root, "run/drover/control.sock")
        self.keeper_socket = os.path.join(self.root, "run/drover/vms", VM, "keeper.sock")
        self.volume = os.path.join(self.root, "lib/drover/volumes", VM, "root.raw")
        self.directory = directory
        os.makedirs(os.path.join(self.root, "etc/drover"))
        with open(os.path.join(self.root, "etc/drover/drover.yaml"), "w",
                  encoding="utf-8") as file:
            # JSON is YAML.  A long back-off: that VM is started when we say so, not earlier.
            json.dump({"node": "bench", "host_dir": os.path.join(self.root, "run/drover-host"),
                       "log": {"level": "debug"}, "networks": networks,
                       "timers": {"backoff_first": "5min"}} | config, file)
        self.definition = definition
        self.process = None

    def open(self):
        self.serve()
        self.define()
        self.ask("start", {"vm": VM, "wait": True})
        self.stop()

    def serve(self):
        with open(os.path.join(self.directory, "droverd.out"), "wb") as out:
            self.process = subprocess.Popen([os.path.join(self.build, "droverd"),
                                             "--root", self.root],
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        wait_until("droverd serves", self.serves)

    def define(self):
        self.ask("apply", {"documents": [{"label": "bench", "text": json.dumps(
            {"name": VM, "parameters": self.definition})}], "wait": True})

    def serves(self):
        if gone(self.process.pid):
            raise Trouble(f"droverd ended; see '{self.directory}/droverd.out'")
        try:
            Lines(self.control).close()
        except OSError:
            return False
        return True

    def ask(self, command, arguments):
        lines = Lines(self.control)
        try:
            return lines.ask(command, arguments)
        finally:
            lines.close()

    def keeper_listens(self):
        try:
            Lines(self.keeper_socket).close()
        except OSError:
            return False
        return True

    def stop(self):
        """Off, and its keeper dismissed, as it is between `stop` and `start` of a user."""
        self.ask("kill", {"vm": VM, "wait": True})
        wait_until("the keeper has gone", lambda: not self.keeper_listens())

    def break_down(self):
        """Runs it and kills QEMU: the keeper stays and waits with the next start."""
        pid = self.ask("start", {"vm": VM, "wait": True})["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until("QEMU is gone",
                   lambda: self.ask("status", {"vm": VM})["state"] == "failed")

    def keeper_log(self):
        return os.path.join(self.logs, "keeper.log")

    def close(self):
        self.process.terminate()
        self.process.wait()


class Drover:
    """`how` is "warm": asked over control.sock, the keeper is there; "first": asked over
    control.sock, the keeper must be started; "cli": `drover start`, from exec to exit, likewise."""

    names = {"warm": "Drover, keeper there", "first": "Drover, keeper new",
             "cli": "`drover start`"}
    end = "answer"

    def __init__(self, agent, how):
        self.agent = agent
        self.how = how
        self.name = self.names[how]
        self.started = False
        self.spans = []

    def prepare(self):
        if self.how == "warm":
            self.agent.break_down()
        self.growth = FileGrowth(os.path.join(self.agent.logs, "serial.log"), b"MICRO-UP")
        self.log_offset = os.stat(self.agent.keeper_log()).st_size
        if self.how != "cli":
            self.lines = Lines(self.agent.control)

    def on_answer(self, _):
        for message in self.lines.take():
            if "error" in message:
                raise Trouble(f"drover: {message['error'].get('desc', message['error'])}")
            if "return" in message:
                return "answer"
        return None

    def start(self):
        race = Race()
        race.add(self.growth.fd, self.growth.ready)
        self.started = True
        begin, wall = time.perf_counter(), time.time()
        if self.how == "cli":
            pid = os.posix_spawn(os.path.join(self.agent.build, "drover"),
                                 ["drover", "--root", self.agent.root, "start", VM], os.environ,
                                 file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null",
                                                os.O_WRONLY, 0)])
            pidfd = os.pidfd_open(pid)
            race.add(pidfd, lambda _: "answer")
        else:
            self.lines.send({"execute": "start", "id": 1,
                             "arguments": {"vm": VM, "wait": True}})
            race.add(self.lines.fileno(), self.on_answer)
        seen = race.run({"answer", "guest"})
        if self.how == "cli":
            os.close(pidfd)
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
                raise Trouble("`drover start` failed")
        self.growth.check()
        times = {name: (at - begin) * 1000 for name, at in seen.items()}
        times["resume"] = self.read_steps(wall, times["answer"])
        return times

    def read_steps(self, wall, answer):
        """When the keeper saw RESUME, and the spans of its log, whose stamps are whole
        milliseconds cut off: half a millisecond is added to each, which is right on average."""
        with open(self.agent.keeper_log(), encoding="utf-8") as file:
            file.seek(self.log_offset)
            lines = file.read().splitlines()
        spans, last, at, marks = {}, 0.0, None, list(MARKS)
        for line in lines:
            stamp, _, text = line.partition(" ")
            if not marks or not re.search(marks[0][0], text):
                continue
            at = (datetime.datetime.fromisoformat(stamp).timestamp() - wall) * 1000 + 0.5
            if marks[0][1]:
                spans[marks[0][1]] = at - last
            last = at
            marks.pop(0)
        if marks:
            raise Trouble(f"the keeper's log has no line '{marks[0][0]}'")
        spans["RESUME until the answer"] = answer - at
        self.spans.append(spans)
        return at

    def stop(self):
        if not self.started:
            return
        if self.how != "cli":
            self.lines.close()
        self.growth.close()
        self.agent.stop()
        self.started = False

    def close(self):
        pass
