# SPDX-License-Identifier: Apache-2.0
"""The peer: `virsh start` of a domain with the same devices.

libvirtd is run by hand in our namespaces: its configuration, state and /run are directories of the
bench.  QEMU's monitor, sandbox and logs are libvirt's own.  No security driver and no control
groups, which can only make it faster."""

import os
import re
import shutil
import subprocess
import time

from host import mount_bind, run
from watch import FileGrowth, Race, Trouble, wait_until

PACKAGES = "libvirt-daemon-system libvirt-clients libvirt-daemon-driver-qemu"

PLACES = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt")

LIBVIRTD_CONF = """\
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
"""
QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = [ ]
stdio_handler = "file"
"""

DOMAIN = """\
<domain type='{type}'>
  <name>bench</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
  <vcpu>{cores}</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    {loader}
    <kernel>{kernel}</kernel>
    <cmdline>{kernel_args}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  {cpu}
  <on_poweroff>destroy</on_poweroff>
  <devices>
    <emulator>{emulator}</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='threads' discard='unmap'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='pci' index='0' model='pcie-root'/>
{ports}
    <controller type='usb' model='none'/>
    <controller type='virtio-serial' index='0'/>
    <serial type='unix'>
      <source mode='bind' path='{directory}/serial.sock'/>
      <log file='{serial}' append='on'/>
      <target type='isa-serial' port='0'/>
    </serial>
    <channel type='unix'>
      <source mode='bind'/>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    {nic}
    <rng model='virtio'><backend model='builtin'/></rng>
    <panic model='isa'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def missing():
    """Why it cannot take part, or None."""
    for program in ("libvirtd", "virsh"):
        if not shutil.which(program):
            return f"{program} is not installed (apt install --no-install-recommends {PACKAGES})"
    return None


def cpu_element(line):
    """The CPU of a command line of QEMU's, in libvirt's words."""
    model, *flags = re.search(r"-cpu (\S+)", line)[1].split(",")
    if model in ("host", "max"):
        return f"<cpu mode='{'maximum' if model == 'max' else 'host-passthrough'}' check='none'/>"
    features = "".join(
        f"<feature policy='{'disable' if value == 'off' else 'require'}' name='{name}'/>"
        for name, value in (flag.split("=") for flag in flags if not flag.startswith("enforce")))
    return (f"<cpu mode='custom' match='exact' check='none'><model>{model}</model>{features}"
            "</cpu>")


class Virsh:
    """A defined domain."""

    name = "`virsh start`"
    end = "answer"

    def __init__(self, directory, accelerator, argv, bridge, definition):
        self.directory = os.path.join(directory, "libvirt")
        os.makedirs(self.directory)
        self.argv = argv
        self.bridge = bridge
        self.definition = definition
        self.accelerator = accelerator
        self.serial = os.path.join(self.directory, "serial.log")
        self.process = None
        self.started = False

    def domain(self, disk):
        """The same machine; what Drover gave its QEMU is read off its command line."""
        line = " ".join(self.argv)
        firmware = self.definition.get("firmware")
        ports = "\n".join(f"    <controller type='pci' index='{i + 1}' model='pcie-root-port'/>"
                          for i in range(line.count("pcie-root-port,")))
        nic = f"""<interface type='bridge'><source bridge='{self.bridge}'/>
      <mac address='52:54:00:00:00:11'/><model type='virtio'/><driver name='qemu'/>
    </interface>""" if self.bridge else ""
        return DOMAIN.format(
            type="kvm" if self.accelerator == "kvm" else "qemu",
            uuid="6ba7b810-9dad-41d1-80b4-00c04fd430c8",
            memory=self.definition["memory"], cores=self.definition["cores"],
            machine=re.search(r"-machine ([\w.-]+)", line)[1],
            loader=f"<loader readonly='yes' type='rom'>{firmware}</loader>" if firmware else "",
            kernel=self.definition["kernel"], kernel_args=self.definition["kernel_args"],
            cpu=cpu_element(line), emulator=self.argv[0], disk=disk, ports=ports, directory=self.directory,
            serial=self.serial, nic=nic)

    def open(self, volume):
        for place in PLACES:
            mount_bind(self.directory + place, place)
        for name, text in (("libvirtd.conf", LIBVIRTD_CONF), ("qemu.conf", QEMU_CONF)):
            with open(f"/etc/libvirt/{name}", "w", encoding="utf-8") as file:
                file.write(text)
        disk = os.path.join(self.directory, "root.raw")
        with open(disk, "wb") as file:
            file.truncate(os.stat(volume).st_size)
        with open(os.path.join(self.directory, "libvirtd.out"), "wb") as out:
            self.process = subprocess.Popen(["libvirtd"], stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=out)
        wait_until("libvirtd serves", lambda: "error" not in
                   run("virsh", "-c", "qemu:///system", "list", check=False))
        xml = os.path.join(self.directory, "bench.xml")
        with open(xml, "w", encoding="utf-8") as file:
            file.write(self.domain(disk))
        self.virsh("define", xml)

    def virsh(self, *words):
        return run("virsh", "-q", "-c", "qemu:///system", *words)

    def prepare(self):
        self.growth = FileGrowth(self.serial, b"MICRO-UP")

    def start(self):
        race = Race()
        race.add(self.growth.fd, self.growth.ready)
        said = os.path.join(self.directory, "virsh.out")
        self.started = True
        begin = time.perf_counter()
        pid = os.posix_spawn("/usr/bin/virsh",
                             ["virsh", "-q", "-c", "qemu:///system", "start", "bench"], os.environ,
                             file_actions=[(os.POSIX_SPAWN_OPEN, 1, said,
                                            os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                                           (os.POSIX_SPAWN_DUP2, 1, 2)])
        pidfd = os.pidfd_open(pid)
        race.add(pidfd, lambda _: "answer")
        race.run({"answer"})
        race.poll.unregister(pidfd)
        os.close(pidfd)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
            with open(said, encoding="utf-8") as file:
                raise Trouble(f"virsh start: {' '.join(file.read().split())}")
        seen = race.run({"answer", "guest"})
        self.growth.check()
        return {name: (at - begin) * 1000 for name, at in seen.items()}

    def stop(self):
        if not self.started:
            return
        self.virsh("destroy", "bench")
        self.growth.close()
        self.started = False

    def close(self):
        self.virsh("undefine", "bench")
        self.process.terminate()
        self.process.wait()
