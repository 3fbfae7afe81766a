# SPDX-License-Identifier: Apache-2.0
"""A real agent beside the simulated nodes of tests/bench/store: one that holds none of their VMs, and is asked about them."""

import json
import os
import socket
import subprocess
import threading
import time

DEADLINE = 600


class Stall:
    """How long the agent's loop lets others wait: asked for its version again and again, as its heartbeat would be."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rwb")
        self.longest = 0.0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.ask, daemon=True)

    def ask(self):
        number = 0
        while not self.done.wait(0.01):
            number += 1
            begun = time.monotonic()
            self.lines.write(json.dumps({"execute": "version", "id": number}).encode() + b"\n")
            self.lines.flush()
            while json.loads(self.lines.readline()).get("id") != number:
                pass
            self.longest = max(self.longest, time.monotonic() - begun)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join(DEADLINE)
        self.socket.close()


class Onlooker:
    def __init__(self, directory, build, address):
        self.build, self.root = build, os.path.join(directory, "root")
        self.control = os.path.join(self.root, "run/drover/control.sock")
        os.makedirs(os.path.join(self.root, "etc/drover"))
        with open(os.path.join(self.root, "etc/drover/drover.yaml"), "w", encoding="utf-8") as file:
            # JSON is YAML.
            json.dump({"node": "onlooker", "store": address,
                       "host_dir": os.path.join(self.root, "run/drover-host")}, file)
        self.process = None
        self.directory = directory

    def start(self):
        """Seconds until it knows what there is."""
        begun = time.monotonic()
        with open(os.path.join(self.directory, "droverd.out"), "wb") as out:
            self.process = subprocess.Popen(
                [os.path.join(self.build, "droverd"), "--root", self.root],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        while subprocess.run(self.argv("status", "vm00000"), stdin=subprocess.DEVNULL, check=False,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            if self.process.poll() is not None or time.monotonic() - begun > DEADLINE:
                raise SystemExit(f"the agent does not serve; its root is {self.root}")
            time.sleep(0.05)
        return time.monotonic() - begun

    def argv(self, *words):
        return [os.path.join(self.build, "drover"), "--root", self.root, *words]

    def run(self, *words):
        """A command: its seconds, the longest silence of the agent meanwhile, and the lines that it printed."""
        with Stall(self.control) as stall:
            begun = time.monotonic()
            done = subprocess.run(self.argv(*words), stdin=subprocess.DEVNULL, check=False,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            seconds = time.monotonic() - begun
        return {"command": " ".join(words), "rc": done.returncode, "seconds": round(seconds, 3),
                "longest_silence": round(stall.longest, 3), "lines": done.stdout.count(b"\n"),
                "err": done.stderr.decode(errors="replace")[:300]}

    def end(self):
        if self.process:
            self.process.terminate()
            self.process.wait(DEADLINE)
