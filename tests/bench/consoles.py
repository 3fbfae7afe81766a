# SPDX-License-Identifier: Apache-2.0
"""An outside observer of a guest: when its consoles say something, whoever runs it."""

import os
import select
import threading
import time

from watch import IN_CLOEXEC, IN_MODIFY, libc, wait_until


class Consoles:
    """Stamps each growth of the files that a guest's consoles end in.  A thread of its own, so that
    nobody's questions and answers come in between."""

    def __init__(self, paths):
        self.fd = libc.inotify_init1(IN_CLOEXEC)
        for path in paths:
            with open(path, "ab"):
                pass
            if libc.inotify_add_watch(self.fd, os.fsencode(path), IN_MODIFY) < 0:
                raise OSError(f"cannot watch '{path}'")
        self.stamps = []
        self.done = os.eventfd(0)
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def follow(self):
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        poll.register(self.done, select.POLLIN)
        while not any(fd == self.done for fd, _ in poll.poll()):
            self.stamps.append(time.perf_counter())
            os.read(self.fd, 65536)

    def more(self, count):
        """Waits until the guest has said so much more."""
        goal = len(self.stamps) + count
        wait_until("the guest counts on", lambda: len(self.stamps) >= goal)

    def longest_silence(self):
        stamps = list(self.stamps)
        return max(after - before for before, after in zip(stamps, stamps[1:])) * 1000

    def close(self):
        os.eventfd_write(self.done, 1)
        self.thread.join()
        os.close(self.done)
        os.close(self.fd)
