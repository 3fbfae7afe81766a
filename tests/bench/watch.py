# SPDX-License-Identifier: Apache-2.0
"""Time stamps of things that happen at several descriptors.

One poll() sees everything, and each thing is stamped when poll() returns, so that none is stamped
late because another was waited for first.
"""

import ctypes
import json
import os
import select
import socket
import time

libc = ctypes.CDLL(None, use_errno=True)
IN_MODIFY = 0x2
IN_CLOEXEC = 0o2000000
DEADLINE = 30.0


class Trouble(Exception):
    """Something did not come as it must; the text is for the one who runs the bench."""


class Race:
    """Handlers by descriptor; each is called with the time at which its descriptor was ready and
    returns the name of what happened then, or None."""

    def __init__(self):
        self.poll = select.poll()
        self.handlers = {}
        self.seen = {}

    def add(self, fd, handler):
        self.handlers[fd] = handler
        self.poll.register(fd, select.POLLIN)

    def run(self, wanted, deadline=DEADLINE):
        """Until all of `wanted` have happened; returns their times."""
        end = time.monotonic() + deadline
        while not wanted <= self.seen.keys():
            left = end - time.monotonic()
            ready = self.poll.poll(max(0, left * 1000))
            now = time.perf_counter()
            if not ready:
                missing = ", ".join(sorted(wanted - self.seen.keys()))
                raise Trouble(f"waited {deadline:.0f} s in vain for: {missing}")
            for fd, _ in ready:
                if name := self.handlers[fd](now):
                    self.seen.setdefault(name, now)
        return self.seen


class FileGrowth:
    """The moment at which a file gets its next bytes, and that they are what was expected."""

    def __init__(self, path, expected):
        self.path = path
        self.expected = expected
        with open(path, "ab"):
            pass
        self.fd = libc.inotify_init1(IN_CLOEXEC)
        if self.fd < 0 or libc.inotify_add_watch(self.fd, os.fsencode(path), IN_MODIFY) < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch '{path}'")
        self.offset = os.stat(path).st_size

    def ready(self, _):
        os.read(self.fd, 65536)
        if os.stat(self.path).st_size > self.offset:
            return "guest"
        return None

    def check(self):
        """For later: the first bytes of a line are there long before the whole of it."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                text = file.read(4096)
            if text.startswith(self.expected):
                return
            if len(text) >= len(self.expected):
                break
            time.sleep(0.001)
        raise Trouble(f"'{self.path}' goes on with {text[:60]!r}, not {self.expected!r}")

    def close(self):
        os.close(self.fd)


class Lines:
    """JSON lines over a unix socket: the monitor of QEMU, and the agent's control.sock."""

    def __init__(self, path):
        # Not the path itself: the kernel allows 107 bytes of it.
        directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
        try:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        finally:
            os.close(directory)
        self.buffer = b""

    def fileno(self):
        return self.socket.fileno()

    def send(self, message):
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def take(self):
        """The messages that one read brings."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise Trouble("the other side closed the connection")
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        return [json.loads(line) for line in lines if line.strip()]

    def ask(self, command, arguments=None, deadline=DEADLINE):
        """For what is not timed."""
        message = {"execute": command, "id": 1}
        if arguments:
            message["arguments"] = arguments
        self.socket.settimeout(deadline)
        self.send(message)
        while True:
            for answer in self.take():
                if "error" in answer:
                    raise Trouble(f"{command}: {answer['error'].get('desc', answer['error'])}")
                if "return" in answer and answer.get("id") == 1:
                    self.socket.settimeout(None)
                    return answer["return"]

    def close(self):
        self.socket.close()


def wait_until(what, holds, deadline=DEADLINE):
    """For what is not timed."""
    end = time.monotonic() + deadline
    while not holds():
        if time.monotonic() > end:
            raise Trouble(f"waited {deadline:.0f} s in vain until {what}")
        time.sleep(0.01)


def gone(pid):
    """True when the process has ended; reaps it if it is ours."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
    return not os.path.exists(f"/proc/{pid}")
