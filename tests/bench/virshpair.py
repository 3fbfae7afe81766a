# SPDX-License-Identifier: Apache-2.0
"""The peer: `virsh migrate --live` between two libvirt daemons.

Each has its own mounts (its configuration, state and /run are directories of the bench), host name
and host id, so that libvirt takes them for two hosts; their sockets lie where both can be reached.
No security driver and no control groups, which can only make them faster."""

import os
import re
import subprocess
import time
import uuid

from host import run
from virsh import PLACES, QEMU_CONF, cpu_element
from watch import Trouble, wait_until

LIBVIRTD_CONF = """\
unix_sock_dir = "{sockets}"
unix_sock_group = "root"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{uuid}"
"""
DOMAIN = """\
<domain type='{type}'>
  <name>bench</name>
  <uuid>6ba7b810-9dad-41d1-80b4-00c04fd430c9</uuid>
  <memory unit='MiB'>{memory}</memory>
  <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <loader readonly='yes' type='rom'>{firmware}</loader>
    <kernel>{kernel}</kernel>
    <cmdline>{kernel_args}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  {cpu}
  <devices>
    <emulator>{emulator}</emulator>
    <controller type='usb' model='none'/>
    <controller type='virtio-serial' index='0'/>
    <serial type='file'>
      <source path='{serial}' append='on'/>
      <target type='isa-serial' port='0'/>
    </serial>
    <channel type='unix'>
      <source mode='bind'/>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <rng model='virtio'><backend model='builtin'/></rng>
    <panic model='isa'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""
# What becomes a libvirtd after its places are its own.
INSIDE = """\
set -eu
hostname "$1"
shift
for place in "$@"; do
    mkdir -p "$HERE$place" "$place"
    mount --bind "$HERE$place" "$place"
done
mkdir -p /run/libvirt
printf '%s' "$LIBVIRTD_CONF" > /etc/libvirt/libvirtd.conf
printf '%s' "$QEMU_CONF" > /etc/libvirt/qemu.conf
exec libvirtd
"""


class Daemon:
    """One libvirtd."""

    def __init__(self, directory, name):
        self.name = name
        self.directory = os.path.join(directory, name)
        self.sockets = os.path.join(self.directory, "sockets")
        os.makedirs(self.sockets)
        self.uri = f"qemu+unix:///system?socket={self.sockets}/libvirt-sock"
        environment = dict(os.environ, HERE=self.directory, QEMU_CONF=QEMU_CONF,
                           LIBVIRTD_CONF=LIBVIRTD_CONF.format(sockets=self.sockets,
                                                              uuid=uuid.uuid4()))
        with open(os.path.join(self.directory, "libvirtd.out"), "wb") as out:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", INSIDE,
                 "libvirtd", name, "/run", *PLACES],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment)

    def serves(self):
        if self.process.poll() is not None:
            raise Trouble(f"libvirtd ended; see '{self.directory}/libvirtd.out'")
        return "error" not in self.ask("list", check=False)

    def ask(self, *words, check=True):
        return run("virsh", "-q", "-c", self.uri, *words, check=check)

    def close(self):
        self.process.terminate()
        self.process.wait()


class VirshPair:
    """A domain that goes back and forth between two of them."""

    name = "`virsh migrate --live`"

    def __init__(self, directory, accelerator, argv, definition, bandwidth):
        self.directory = os.path.join(directory, "libvirt")
        os.makedirs(self.directory)
        self.bandwidth = bandwidth
        serial = os.path.join(self.directory, "serial.log")
        self.consoles = [serial]
        line = " ".join(argv)
        self.domain = DOMAIN.format(
            type="kvm" if accelerator == "kvm" else "qemu", memory=definition["memory"],
            machine=re.search(r"-machine ([\w.-]+)", line)[1], cpu=cpu_element(line), emulator=argv[0],
            serial=serial, firmware=definition["firmware"], kernel=definition["kernel"],
            kernel_args=definition["kernel_args"])
        self.sides = []

    def open(self):
        self.sides = [Daemon(self.directory, name) for name in ("bench-a", "bench-b")]
        for side in self.sides:
            wait_until("libvirtd serves", side.serves)
        path = os.path.join(self.directory, "bench.xml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.domain)
        self.sides[0].ask("create", path)

    def wake(self):
        if self.sides[0].ask("domstate", "bench") == "paused":
            self.sides[0].ask("resume", "bench")

    def prepare(self):
        pass

    def migrate(self):
        """Times in ms."""
        source, target = self.sides
        begin = time.perf_counter()
        source.ask("migrate", "--live", "--bandwidth", str(self.bandwidth), "--migrateuri",
                   "tcp://127.0.0.1", "bench", target.uri)
        total = (time.perf_counter() - begin) * 1000
        said = target.ask("domjobinfo", "bench", "--completed")
        numbers = {name: int(value) for name, value, _ in
                   re.findall(r"^([\w /]+?):\s+(\d+)\s+(ms)", said, re.M)}
        return {"total": total, "pause": numbers.get("Total downtime"),
                "stream": numbers.get("Time elapsed")}

    def settle(self):
        self.sides.reverse()

    def sleep(self):
        self.sides[0].ask("suspend", "bench")

    def close(self):
        for side in self.sides:
            side.ask("destroy", "bench", check=False)
            side.close()
