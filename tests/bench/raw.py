# SPDX-License-Identifier: Apache-2.0
"""The bare thing: QEMU with the command line that Drover used last, started over QMP by hand.

The descriptors 3, 4, ... are of the same kinds as Drover's: listening sockets, logs, the same
volume file, taps.  They are made before the clock starts.  What differs: QEMU runs as root and in
the mount namespace of this program, where kernel and firmware lie under the names that Drover's
private one gives them; and the identity token has another first word, since a keeper would rightly
take this QEMU for its own."""

import fcntl
import os
import re
import shlex
import shutil
import socket
import struct
import subprocess
import time

from watch import DEADLINE, FileGrowth, Lines, Race, Trouble, gone, wait_until

TUNSETIFF = 0x400454CA
QBOOT = "/usr/share/qemu/qboot.rom"
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x1000, 0x4000


def last_command_line(qemu_log):
    """As Drover wrote it down before it started QEMU."""
    with open(qemu_log, encoding="utf-8") as file:
        lines = re.findall(r"starting as uid \d+: (.*)", file.read())
    if not lines:
        raise Trouble(f"'{qemu_log}' has no command line of a start")
    return shlex.split(lines[-1])


def accelerator_works(accelerator, kernel, cpu="max"):
    """Why the micro guest does not run and power off there, or None."""
    argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
            "-machine", "q35", "-accel", accelerator, "-cpu", cpu, "-m", "64", "-bios", QBOOT,
            "-kernel", kernel, "-append", "hz=100 ws=0 off=2"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return "the micro guest hangs"
    return None if done.returncode == 0 else done.stderr.strip() or f"exit {done.returncode}"


def parse_sets(argv):
    """-add-fd: descriptor by number of its set."""
    sets = {}
    for option, value in zip(argv, argv[1:]):
        if option == "-add-fd":
            sets[int(re.search(r"set=(\d+)", value)[1])] = int(re.search(r"fd=(\d+)", value)[1])
    return sets


class Raw:
    """One VM's worth of it."""

    name = "raw QEMU"
    end = "resume"
    monitor_kind = Lines

    def __init__(self, directory, qemu_log, volume, bridge, definition):
        self.directory = os.path.join(directory, "raw")
        os.makedirs(self.directory, exist_ok=True)
        self.qemu_log = qemu_log
        self.volume = volume
        self.bridge = bridge
        self.serial = os.path.join(self.directory, "serial.log")
        self.pid = None
        os.makedirs("/run/vm", exist_ok=True)
        shutil.copy(definition["kernel"], "/run/vm/kernel")
        if definition.get("firmware"):
            shutil.copy(definition["firmware"], "/run/vm/firmware")

    def listener(self, name):
        path = os.path.join(self.directory, name)
        if os.path.exists(path):
            os.unlink(path)
        directory = os.open(self.directory, os.O_PATH)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(f"/proc/self/fd/{directory}/{name}")
        os.close(directory)
        sock.listen(8)
        return sock.detach()

    def tap(self):
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"rawtap",
                                               IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        os.system(f"ip link set rawtap master {self.bridge} up")
        return fd

    def descriptors(self, argv):
        """{number in QEMU: descriptor here}"""
        fds = {}
        sets = parse_sets(argv)
        for option, value in zip(argv, argv[1:]):
            number = re.search(r"\bfd=(\d+)", value)
            if option == "-chardev" and value.startswith("socket,"):
                fds[int(number[1])] = self.listener(re.search(r"id=(\w+)", value)[1] + ".sock")
                if log := re.search(r"logfile=/dev/fdset/(\d+)", value):
                    fds[sets[int(log[1])]] = os.open(
                        self.serial, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            elif option == "-blockdev" and (at := re.search(r"filename=/dev/fdset/(\d+)", value)):
                fds[sets[int(at[1])]] = os.open(self.volume, os.O_RDWR)
            elif option == "-netdev" and value.startswith("tap,"):
                fds[int(number[1])] = self.tap()
        return fds

    def prepare(self):
        argv = last_command_line(self.qemu_log)
        argv = [word.replace("opaque=drover:", "opaque=bench:") for word in argv]
        fds = self.descriptors(argv)
        high = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for number, fd in fds.items()}
        for fd in fds.values():
            os.close(fd)
        log = os.path.join(self.directory, "qemu.log")
        self.actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                        (os.POSIX_SPAWN_DUP2, 1, 2)]
        self.actions += [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in sorted(high.items())]
        self.handed = list(high.values())
        self.argv = argv
        self.monitor = self.monitor_kind(os.path.join(self.directory, "qmp.sock"))
        self.growth = FileGrowth(self.serial, b"MICRO-UP")

    def on_monitor(self, _):
        happened = None
        for message in self.monitor.take():
            if "QMP" in message:
                self.monitor.send({"execute": "qmp_capabilities"})
                self.monitor.send({"execute": "cont"})
            elif message.get("event") == "RESUME":
                happened = "resume"
            elif "error" in message:
                raise Trouble(f"raw QEMU: {message['error']['desc']}")
        return happened

    def start(self):
        """Times in ms since just before fork."""
        race = Race()
        race.add(self.monitor.fileno(), self.on_monitor)
        race.add(self.growth.fd, self.growth.ready)
        begin = time.perf_counter()
        self.pid = os.posix_spawn(self.argv[0], self.argv, os.environ, file_actions=self.actions,
                                  setsid=True)
        seen = race.run({"resume", "guest"})
        self.growth.check()
        return {name: (at - begin) * 1000 for name, at in seen.items()}

    def stop(self):
        if self.pid is None:
            return
        for fd in self.handed:
            os.close(fd)
        self.monitor.send({"execute": "quit"})
        wait_until("raw QEMU has ended", lambda: gone(self.pid), DEADLINE)
        self.pid = None
        self.monitor.close()
        self.growth.close()

    def close(self):
        pass
