# SPDX-License-Identifier: Apache-2.0
"""The machine: what it is, and a corner of it in which nothing of the host is touched."""

import ctypes
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time

INSIDE = "DROVER_BENCH_INSIDE"
PR_SET_CHILD_SUBREAPER = 36


def run(*argv, check=True):
    """Output of a tool, both streams."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stdout.strip()}")
    return done.stdout.strip()


def enter_namespaces():
    """Mounts and network of our own: bridges, taps and what is put over /run and /etc/libvirt
    vanish with us."""
    if os.environ.get(INSIDE):
        return
    if os.geteuid() != 0:
        sys.exit("must be run as root (namespaces, taps, uids of QEMU)")
    environment = dict(os.environ, PATH="/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL="C.UTF-8")
    environment[INSIDE] = "1"
    os.execvpe("unshare", ["unshare", "--mount", "--net", "--propagation", "private",
                           sys.executable, *sys.argv], environment)


def children():
    """Our children by pid, zombies too."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == os.getpid():
            found.append(int(entry))
    return found


def kill_children():
    """Ends all that was started below us and is still there; grandchildren become children."""
    end = time.monotonic() + 10
    while (left := children()) and time.monotonic() < end:
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def run_under_nurse(work):
    """Runs work() in a child and returns its exit code.  What it leaves behind becomes ours:
    daemons that ended are reaped at once (libvirtd waits for that), and at the end none is left."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    worker = os.fork()
    if worker == 0:
        return work()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(worker, signal.SIGKILL))
    code = None
    while code is None:
        pid, status = os.waitpid(-1, 0)
        if pid == worker:
            code = os.waitstatus_to_exitcode(status)
    kill_children()
    return code


def mount_tmpfs(path):
    os.makedirs(path, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "mode=0755", "bench", path)


def mount_bind(source, path):
    os.makedirs(source, exist_ok=True)
    os.makedirs(path, exist_ok=True)
    run("mount", "--bind", source, path)


def unmount_below(*prefixes):
    """What was mounted there, the last first: a directory that is mounted on cannot be removed."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        targets = [line.split()[1] for line in file]
    for target in reversed(targets):
        if target.startswith(prefixes):
            run("umount", "--lazy", target, check=False)


def file_system(path):
    return run("df", "--output=fstype", path).split()[-1]


def load():
    return [round(number, 2) for number in os.getloadavg()]


def scheduler():
    """What we and so all contestants run under, when it is not the usual."""
    policy = os.sched_getscheduler(0)
    names = {os.SCHED_FIFO: "SCHED_FIFO", os.SCHED_RR: "SCHED_RR"}
    if policy in names:
        return names[policy]
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    return f"nice {nice}" if nice else None


def version_of(*argv):
    """The first line that a program says of itself, or None."""
    try:
        return run(*argv).splitlines()[0]
    except (RuntimeError, OSError, IndexError):
        return None


def commit(build):
    """The commit that the sources of the build are at, with a + when they were changed since."""
    try:
        with open(os.path.join(build, "meson-info/meson-info.json"), encoding="utf-8") as file:
            source = json.load(file)["directories"]["source"]
        git = ["git", "-c", f"safe.directory={source}", "-C", source]
        name = run(*git, "rev-parse", "--short=12", "HEAD")
        return name + ("+" if run(*git, "status", "--porcelain", "--", "src") else "")
    except (RuntimeError, OSError, ValueError, KeyError):
        return None


def facts(build):
    """What the numbers depend on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        cpuinfo = file.read()
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.M)
    with open("/proc/meminfo", encoding="utf-8") as file:
        memory = int(re.search(r"^MemTotal:\s*(\d+)", file.read(), re.M)[1])
    options = os.path.join(build, "meson-info", "intro-buildoptions.json")
    return {
        "kernel": platform.release(),
        "distribution": platform.freedesktop_os_release().get("PRETTY_NAME"),
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "virtual": " hypervisor" in cpuinfo,
        "memory_mib": memory // 1024,
        "drover": version_of(os.path.join(build, "drover"), "--version"),
        "commit": commit(build),
        "build": build_kind(options),
        "qemu": version_of("qemu-system-x86_64", "--version"),
        "libvirt": version_of("libvirtd", "--version"),
        "python": platform.python_version(),
    }


def build_kind(path):
    """A debug or sanitizer build tells nothing about speed: say what it is."""
    try:
        with open(path, encoding="utf-8") as file:
            values = {option["name"]: option["value"] for option in json.load(file)}
    except (OSError, ValueError):
        return None
    return {name: values.get(name) for name in ("buildtype", "optimization", "b_sanitize",
                                                "checkpoints")}


def told(results):
    """The facts of a run and the load that it met, as a sentence."""
    facts = results["facts"]
    build = facts["build"] or {}
    return (f"{facts['distribution']}, Linux {facts['kernel']}, {facts['cores']} "
            f"cores of {facts['cpu']}{' (a virtual machine)' if facts['virtual'] else ''}, "
            f"{facts['memory_mib']} MiB; {facts['qemu']}; {facts['libvirt'] or 'no libvirt'}; "
            f"{facts['drover']}, commit {facts['commit']}, build {build.get('buildtype')}"
            f"{', sanitizers' if build.get('b_sanitize') not in ('none', None) else ''}. "
            f"Load average {results['load_begin'][0]} at the start, {results['load_end'][0]} at "
            f"the end{'; under ' + results['scheduler'] if results['scheduler'] else ''}.")


def progress(text):
    if sys.stderr.isatty():
        print(f"\r{text}   ", end="", file=sys.stderr, flush=True)
