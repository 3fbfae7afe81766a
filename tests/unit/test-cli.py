# SPDX-License-Identifier: Apache-2.0
"""The command line against a scripted agent, on pipes and on a terminal; and that help, man page
and completions know the same commands and options.  Usage: test-cli.py DROVER SOURCE_DIR"""
import base64
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import unittest

from scripted_agent import Agent, Hangup, Refusal

DROVER, SOURCE = sys.argv[1:3]
DEADLINE = 60
VM = {"name": "web01", "state": "running", "wish": "run", "reason": "", "node": "alpha", "pid": 7,
      "since": "2026-11-20T09:30:00Z", "uptime_s": 3700, "accelerator": "kvm",
      "machine_type": "pc-q35-7.2", "qemu_version": "7.2.22", "memory_mib": 512, "cores": 2,
      "guest_agent": "answering", "volumes": [{"name": "root", "size_bytes": 5 << 30,
                                               "format": "raw", "path": "/v/root"}],
      "nics": [{"name": "srv", "network": "srv", "mac": "00:01:02:03:05:06", "tap": "t1"}]}


def encode(data):
    return base64.b64encode(data).decode()


def environment(**more):
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "DROVER_ROOT", "TERM")}
    return {**kept, "TERM": "xterm", **more}


def run(agent, *words, stdin=b"", **more):
    root = ["--root", agent.root] if agent else []
    return subprocess.run([DROVER, *root, *words], input=stdin, capture_output=True,
                          timeout=DEADLINE, env=environment(**more))


class Terminal:
    """drover on a terminal of its own."""

    def __init__(self, agent, *words, **more):
        self.fd, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.seen = b""
        self.process = subprocess.Popen([DROVER, "--root", agent.root, *words], stdin=self.slave,
                                        stdout=self.slave, stderr=self.slave,
                                        env=environment(**more), start_new_session=True)

    def expect(self, text):
        while text not in self.seen:
            if not select.select([self.fd], [], [], DEADLINE)[0]:
                raise AssertionError(f"{text!r} did not come; there is {self.seen!r}")
            self.seen += os.read(self.fd, 65536)

    def type(self, text):
        os.write(self.fd, text)

    def end(self):
        code = self.process.wait(DEADLINE)
        while select.select([self.fd], [], [], 0)[0]:
            self.seen += os.read(self.fd, 65536)
        self.after = termios.tcgetattr(self.slave)
        os.close(self.slave)
        os.close(self.fd)
        return code


class Codes(unittest.TestCase):
    def test_each_class_of_error_has_its_exit_code(self):
        for kind, code in {"failed": 1, "usage": 64, "bad-data": 65, "refused": 69,
                           "try-again": 75, "of-the-future": 1}.items():
            def refuse(arguments, tell, kind=kind):
                raise Refusal(kind, "because")
            with Agent({"start": refuse}) as agent:
                done = run(agent, "start", "web01")
                self.assertEqual((done.returncode, done.stderr), (code, b"drover: because\n"))

    def test_status_tells_running_from_not_and_from_unknown(self):
        for state, code in {"running": 0, "off": 1, "failed": 1, "unresponsive": 1,
                            "unknown": 75}.items():
            with Agent({"status": {**VM, "state": state}}) as agent:
                self.assertEqual(run(agent, "status", "web01").returncode, code)
        for kind, code in {"refused": 69, "failed": 75, "try-again": 75}.items():
            def refuse(arguments, tell, kind=kind):
                raise Refusal(kind, "because")
            with Agent({"status": refuse}) as agent:
                self.assertEqual(run(agent, "status", "web01").returncode, code)

    def test_without_an_agent_the_sentence_names_the_next_step(self):
        with tempfile.TemporaryDirectory() as root:
            for words in ["ls"], ["status", "web01"], ["stop", "web01"]:
                done = run(None, "--root", root, *words)
                self.assertEqual(done.returncode, 75)
                self.assertIn(b"no agent answers at " + root.encode(), done.stderr)
                self.assertIn(b"droverd --root", done.stderr)

    def test_an_agent_that_goes_away_is_try_again(self):
        def vanish(arguments, tell):
            raise Hangup
        with Agent({"stop": vanish}) as agent:
            done = run(agent, "stop", "web01")
        self.assertEqual(done.returncode, 75)
        self.assertIn(b"the order may stand", done.stderr)

    @unittest.skipIf(os.getuid() != 0, "needs root, to be somebody else")
    def test_wrong_rights_say_run_as_root(self):
        with Agent({}) as agent:
            os.chmod(agent.root, 0o755)
            os.chmod(agent.root + "/run/drover/control.sock", 0o600)
            # The build directory may be closed to others, so the program comes along.
            program = shutil.copy(DROVER, agent.root)
            done = subprocess.run([program, "--root", agent.root, "ls"], capture_output=True,
                                  timeout=DEADLINE, env=environment(), user=65534, group=65534)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"run this as root", done.stderr)

    def test_a_wrong_command_line_is_64_and_says_what_would_be_right(self):
        for words, text in {
                ("lss",): "did you mean 'ls'", ("ls", "--fromat", "json"): "did you mean --format",
                ("start",): "write: drover start VM", ("start", "a", "b"): "one argument too many",
                ("start", "a", "--lines", "3"): "takes no --lines",
                ("start", "a", "--timeout", "soon"): "30s", ("start", "a", "--timeout", "0"): "30s",
                ("start", "a", "--timeout", "2d"): "at most 24h",
                ("ls", "--format", "xml"): "table or json", ("ls", "--format"): "needs a value",
                ("events", "-n", "-3"): "number", ("logs", "a", "--qemu", "--serial"): "one log",
                ("logs", "--serial"): "drover logs VM --serial", ("start", ""): "no name of a VM",
                ("start", "/a/.yaml/"): "no name of a VM", ("ls", "--follow=1"): "no value",
                ("move", "a"): "--to NODE", ("migrate", "a", "--method", "warm"): "live or shutdown",
                ("migrate", "a", "--max-downtime", "soon"): "300ms",
                ("migrate", "a", "--max-downtime", "0"): "300ms",
                ("migrate", "a", "--bandwidth", "9"): "100M", ("migrate", "a", "--to="): "a node",
                ("migrate", "a", "--cancel", "--to", "b"): "nothing beside it",
                ("unmigrate", "a", "--to", "b"): "takes no --to", ("shutdown-all",): "--yes", ("help", "nothing"): "no command", ("-x",): "-x",
        }.items():
            with self.subTest(words=words), Agent({}) as agent:
                done = run(agent, *words)
                self.assertEqual((done.returncode, done.stdout), (64, b""))
                self.assertIn(text.encode(), done.stderr)
                self.assertEqual(agent.asked, [])
        self.assertEqual(run(None).returncode, 64)


class Asking(unittest.TestCase):
    def test_a_path_means_the_vm_and_dots_are_kept(self):
        with Agent({"ensure": VM}) as agent:
            for word, name in {"/etc/qemu/vm/x.cfg": "x", "x.yaml": "x.yaml", "./x.yaml": "x", "d/x.yml": "x",
                               "./db.example": "db.example", "db.example": "db.example",
                               "d/a.yaml.yaml": "a.yaml"}.items():
                run(agent, "ensure", word)
                self.assertEqual(agent.asked[-1][1]["vm"], name)

    def test_orders_carry_wait_and_timeout(self):
        with Agent({"stop": VM, "ensure": [VM]}) as agent:
            run(agent, "stop", "web01")
            self.assertEqual(agent.asked[-1], ("stop", {"vm": "web01", "wait": True}))
            run(agent, "stop", "web01", "--no-wait", "--timeout", "500ms")
            self.assertEqual(agent.asked[-1][1], {"vm": "web01", "wait": False, "timeout_ms": 500})
            run(agent, "--timeout=30", "stop", "web01")
            self.assertEqual(agent.asked[-1][1]["timeout_ms"], 30000)
            run(agent, "ensure")
            self.assertEqual(agent.asked[-1][1]["vm"], None)

    def test_every_order_is_said_under_its_name(self):
        for word in "start", "stop", "restart", "kill", "pause", "resume", "ensure":
            with Agent({word: VM}) as agent:
                done = run(agent, word, "web01")
                self.assertEqual((done.returncode, done.stdout), (0, b"web01: running\n"))

    def test_a_vm_that_does_not_come_up_is_a_failure_with_its_reason(self):
        failed = {**VM, "state": "failed", "reason": "no memory"}
        with Agent({"start": failed, "ensure": [VM, failed]}) as agent:
            done = run(agent, "start", "web01")
            self.assertEqual((done.returncode, done.stdout), (1, b""))
            self.assertIn(b"web01: failed: no memory", done.stderr)
            self.assertEqual(run(agent, "ensure").returncode, 1)
            self.assertEqual(run(agent, "start", "web01", "--no-wait").returncode, 0)

    def test_drover_root_is_the_default_root(self):
        with Agent({"ls": []}) as agent:
            self.assertEqual(run(None, "ls", DROVER_ROOT=agent.root).returncode, 0)

    def test_rm_names_the_volumes_that_stay(self):
        with Agent({"rm": {"removed": "web01", "volumes_left": [{"name": "root"}, "tmp"]}}) as agent:
            done = run(agent, "rm", "web01")
            self.assertEqual(agent.asked[-1], ("rm", {"vm": "web01", "volume": None}))
            self.assertIn(b"  root\n  tmp\n", done.stdout)
            run(agent, "rm", "web01", "--volume", "root")
            self.assertEqual(agent.asked[-1][1]["volume"], "root")

    def test_qmp_takes_an_object_and_nothing_else(self):
        with Agent({"qmp": {"status": "running"}, "guest": {}}) as agent:
            done = run(agent, "qmp", "web01", "query-status")
            self.assertEqual(json.loads(done.stdout), {"status": "running"})
            run(agent, "guest", "web01", "guest-ping", '{"a": 1}', "--timeout", "2")
            self.assertEqual(agent.asked[-1][1], {"vm": "web01", "command": "guest-ping",
                                                  "arguments": {"a": 1}, "timeout_ms": 2000})
            for wrong in "[1]", "{", "{} {}":
                self.assertEqual(run(agent, "qmp", "web01", "query-status", wrong).returncode, 65)

    def test_monitor_says_a_line_or_reads_them(self):
        def hmp(arguments, tell):
            if arguments["line"] == "quit":
                raise Refusal("refused", "use 'drover kill'")
            return {"text": "did " + arguments["line"] + "\r\n"}
        with Agent({"hmp": hmp}) as agent:
            self.assertEqual(run(agent, "monitor", "web01", "info", "-x").stdout, b"did info -x\r\n")
            done = run(agent, "monitor", "web01", stdin=b"one\n\nquit\ntwo\n")
            self.assertEqual((done.returncode, done.stdout), (69, b"did one\r\ndid two\r\n"))

    def test_logs_are_bytes_and_lose_the_hole_in_front(self):
        with Agent({"logs": {"path": "p", "text": encode(b"\0" * 9 + b"a\xff\0\nb")}}) as agent:
            self.assertEqual(run(agent, "logs", "web01").stdout, b"a\xff\0\nb")
            self.assertEqual(agent.asked[-1][1], {"vm": "web01", "which": "keeper", "lines": 50})
            run(agent, "logs")
            self.assertEqual(agent.asked[-1][1]["which"], "agent")
            run(agent, "console", "web01", "--lines", "3")
            self.assertEqual(agent.asked[-1][1], {"vm": "web01", "which": "serial", "lines": 3})

    def test_words_of_a_guest_are_no_terminal_control(self):
        hostile = "ä\t\x1b[2J\u009b31m\x7f\r\n".encode() + b"\x9b0m\xc3(\r.\n"
        visible = "ä\t^[[2J<9b>31m^?\r\n".encode() + b"<9b>0m<c3>(^M.\r\n"

        def refuse(arguments, tell):
            raise Refusal("failed", "QEMU says \x1b[2J\u009b")
        with Agent({"logs": {"path": "p", "text": encode(hostile)},
                    "hmp": {"text": "\x1b]0;x\x07\n"}, "qmp": refuse}) as agent:
            for words, seen in {("logs", "web01"): visible, ("console", "web01", "--lines", "2"): visible,
                                ("monitor", "web01", "info"): b"^[]0;x^G\r\n",
                                ("qmp", "web01", "x"): b"drover: QEMU says ^[[2J<9b>\r\n"}.items():
                with self.subTest(words=words):
                    terminal = Terminal(agent, *words)
                    terminal.end()
                    self.assertEqual(terminal.seen, seen)
            self.assertEqual(run(agent, "logs", "web01").stdout, hostile)

    def test_events_follow_until_the_reader_has_enough(self):
        event = {"time": "2026-11-20T09:30:00Z", "vm": "web01", "event": "started", "reason": ""}
        def follow(arguments, tell):
            while arguments["follow"]:
                tell(event)
            return {"events": [event]}
        with Agent({"events": follow}) as agent:
            done = run(agent, "events", "web01", "--lines", "1")
            self.assertEqual(done.stdout, b"2026-11-20T09:30:00Z  web01         started\n")
            self.assertEqual(json.loads(run(agent, "events", "--format", "json").stdout), [event])
            follower = subprocess.Popen([DROVER, "--root", agent.root, "events", "-f", "--format",
                                         "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=environment())
            self.assertEqual(json.loads(follower.stdout.readline()), event)
            follower.stdout.close()
            self.assertEqual(follower.wait(DEADLINE), 0)
            self.assertEqual(follower.stderr.read(), b"")
            follower.stderr.close()


class Apply(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)

    def write(self, name, text):
        path = os.path.join(self.directory.name, name)
        with open(path, "wb") as file:
            file.write(text)
        return path

    def test_it_sends_files_in_order_prints_changes_and_waits(self):
        for name in "b.yaml", "a.yml", ".c.yaml", "d.txt":
            self.write(name, name.encode())
        results = [{"name": "a", "result": "created", "diff": None, "notes": ["a.yml:1:1: hm"]},
                   {"name": "b", "result": "changed", "diff": "disk: 1 -> 2\n", "notes": []}]
        with Agent({"apply": {"results": results},
                    "ensure": lambda a, _: {**VM, "name": a["vm"]}}) as agent:
            done = run(agent, "apply", self.directory.name)
            self.assertEqual(done.stdout, b"a: created\nb: changed\n  disk: 1 -> 2\n")
            self.assertEqual((done.returncode, done.stderr), (0, b"a.yml:1:1: hm\n"))
            self.assertEqual([d["text"] for d in agent.asked[0][1]["documents"]],
                             ["a.yml", "b.yaml"])
            self.assertEqual(agent.asked[0][1]["documents"][0]["label"],
                             self.directory.name + "/a.yml")
            self.assertEqual([(c, a.get("vm")) for c, a in agent.asked[1:]],
                             [("ensure", "a"), ("ensure", "b")])
            for option in "--dry-run", "--no-wait":
                del agent.asked[:]
                run(agent, "apply", self.directory.name, option)
                self.assertEqual(len(agent.asked), 1)
                self.assertEqual(agent.asked[0][1]["dry_run"], option == "--dry-run")

    def test_a_vm_that_does_not_settle_is_told_and_is_1(self):
        results = [{"name": "a", "result": "created"}, {"name": "b", "result": "created"}]
        def ensure(arguments, tell):
            if arguments["vm"] == "a":
                raise Refusal("failed", "QEMU died")
            return {**VM, "name": "b", "state": "failed", "reason": "no disk"}
        with Agent({"apply": {"results": results}, "ensure": ensure}) as agent:
            done = run(agent, "apply", "-", stdin=b"name: a")
            self.assertEqual(done.returncode, 1)
            self.assertIn(b"a: stored, but: QEMU died", done.stderr)
            self.assertIn(b"b: failed: no disk", done.stderr)
            self.assertEqual(agent.asked[0][1]["documents"],
                             [{"label": "<stdin>", "text": "name: a"}])

    def test_what_is_no_text_is_bad_data(self):
        with Agent({}) as agent:
            empty = os.path.join(self.directory.name, "empty")
            os.mkdir(empty)
            for path, code in {self.write("x", b"\xff\xfe"): 65, self.write("y", b"a\0b"): 65,
                               self.write("z", b"a" * 2000000): 65, empty: 65,
                               "/nowhere": 1}.items():
                self.assertEqual(run(agent, "apply", path).returncode, code)
            self.assertEqual(run(agent, "apply", "-").returncode, 65)
            self.assertEqual(agent.asked, [])


class Exec(unittest.TestCase):
    def test_bytes_and_codes_are_those_of_the_command(self):
        answer = {"exitcode": 7, "out": encode(bytes(range(256))), "err": encode(b"oops")}
        with Agent({"exec": answer}) as agent:
            done = run(agent, "exec", "web01", "--", "sh", "-c", "x", "--", "--help")
            self.assertEqual((done.returncode, done.stdout, done.stderr),
                             (7, bytes(range(256)), b"oops"))
            self.assertEqual(agent.asked[0][1], {"vm": "web01",
                                                 "argv": ["sh", "-c", "x", "--", "--help"]})
            run(agent, "exec", "web01", "ls", "-l", "--", "x")
            self.assertEqual(agent.asked[1][1]["argv"], ["ls", "-l", "--", "x"])
            for length in range(5):
                run(agent, "exec", "web01", "--stdin", "--", "cat", stdin=b"abcde"[:length])
                self.assertEqual(agent.asked[-1][1]["input"], encode(b"abcde"[:length]))
        with Agent({"exec": {"signal": 9, "out": "", "err": ""}}) as agent:
            self.assertEqual(run(agent, "exec", "web01", "--", "x").returncode, 137)

    def test_what_could_not_be_run_is_125(self):
        def refuse(arguments, tell):
            raise Refusal("refused", "web01 is off")
        with Agent({"exec": refuse}) as agent:
            done = run(agent, "exec", "web01", "--", "x")
            self.assertEqual((done.returncode, done.stderr), (125, b"drover: web01 is off\n"))
        self.assertEqual(run(None, "--root", "/nowhere", "exec", "a", "--", "b").returncode, 125)
        with Agent({"exec": {"exitcode": 0, "out": "%%%%"}}) as agent:
            self.assertEqual(run(agent, "exec", "web01", "--", "x").returncode, 125)


class Printing(unittest.TestCase):
    def test_json_is_what_the_agent_says(self):
        other = {**VM, "name": "a1"}
        with Agent({"ls": [VM, other], "status": VM, "config": {"a": {"value": 1}}}) as agent:
            listed = json.loads(run(agent, "ls", "--format", "json").stdout)
            self.assertEqual(listed, [other, VM])
            shown = json.loads(run(agent, "status", "web01", "--format=json").stdout)
            self.assertEqual(shown, VM)
            self.assertEqual(list(shown), list(VM))

    def test_a_table_is_cut_on_a_terminal_only(self):
        reason = "long " * 60 + "end"
        with Agent({"ls": [{**VM, "reason": reason}]}) as agent:
            self.assertIn(b"long end\n", run(agent, "ls").stdout)
            self.assertNotIn(b"\033", run(agent, "ls").stdout)
            terminal = Terminal(agent, "ls")
            terminal.expect("…".encode())
            self.assertEqual(terminal.end(), 0)
            self.assertIn(b"\033[32mrunning\033[0m", terminal.seen)
            for words, more in (["--no-color"], {}), ([], {"NO_COLOR": "1"}):
                terminal = Terminal(agent, "ls", *words, **more)
                terminal.expect(b"running")
                terminal.end()
                self.assertNotIn(b"\033", terminal.seen)

    def test_a_hostile_reason_is_no_terminal_control(self):
        with Agent({"ls": [{**VM, "reason": "a\033[2Jb\x9b\n"}], "status": {**VM, "reason": "\x07"},
                    "explain": {"sentences": ["x\033]0;y\x07"]}}) as agent:
            for words in ["ls"], ["status", "web01"], ["explain", "web01"]:
                printed = run(agent, *words).stdout
                self.assertNotRegex(printed, b"[\033\x07]|\xc2\x9b")

    def test_status_shows_all_of_a_vm(self):
        more = {"order": {"kind": "stop", "since": "2026", "by": "uid 0 at alpha"},
                "exit": {"how": "signal", "code": 9, "time": "2026"}, "pending": "restart"}
        with Agent({"status": {**VM, **more}}) as agent:
            text = run(agent, "status", "web01").stdout.decode()
        for part in ("web01", "running since 2026-11-20T09:30:00Z", "1h 1m", "512 MiB", "5 GiB",
                     "00:01:02:03:05:06", "answering", "pc-q35-7.2", "by uid 0 at alpha", "signal 9 at 2026", "restart"):
            self.assertIn(part, text)

    def test_missing_keys_and_wrong_types_are_dashes(self):
        for value in {}, {"name": 1, "state": [], "volumes": {}, "nics": 3, "cores": "x"}:
            with Agent({"ls": [value], "status": value, "node": value, "config": {"k": value},
                        "volume-ls": [value], "events": {"events": [value]}, "version": value,
                        "explain": {"sentences": [1]}, "stop": value, "rm": value}) as agent:
                for words in (["ls"], ["node"], ["config"], ["volume", "ls"], ["events"],
                              ["version"], ["explain", "a"], ["rm", "a"]):
                    with self.subTest(words=words):
                        done = run(agent, *words)
                        self.assertEqual((done.returncode, done.stderr), (0, b""))
                self.assertEqual(run(agent, "status", "a").returncode, 75)

    def test_a_closed_or_full_output_is_no_crash(self):
        with Agent({"ls": [VM] * 3000}) as agent:
            command = f"{DROVER} --root {agent.root} ls"
            for line, code in {f"{command} | head -n 1 >/dev/null; exit ${{PIPESTATUS[0]}}": 0,
                               f"{command} >&-": 0, f"{command} >&- 2>&- <&-": 0,
                               f"{command} >/dev/full": 1}.items():
                done = subprocess.run(["bash", "-c", line], env=environment(), timeout=DEADLINE,
                                      stderr=subprocess.PIPE)
                self.assertEqual(done.returncode, code, line)
                self.assertEqual(b"No space left" in done.stderr, code == 1)


class Waiting(unittest.TestCase):
    def setUp(self):
        self.go = threading.Event()
        self.addCleanup(self.go.set)

    def slow(self, arguments, tell):
        tell({"vm": "web01", "state": "starting", "reason": "waiting for disks"})
        self.go.wait(DEADLINE)
        return VM

    def test_an_order_to_move_says_all_that_was_given(self):
        with Agent({"migrate": VM, "move": VM, "unmigrate": VM}) as agent:
            run(agent, "migrate", "web01", "--to", "beta", "--method", "live", "--max-downtime",
                "2s", "--bandwidth", "10M", "--postcopy", "--no-wait")
            done = run(agent, "migrate", "web01", "--cancel")
            self.assertEqual(done.stdout, b"web01: it stays on node 'alpha'\n")
            run(agent, "move", "web01", "--to", "beta", "--max-downtime", "300")
            run(agent, "unmigrate", "web01")
            self.assertEqual(agent.asked, [
                ("migrate", {"vm": "web01", "wait": False, "to": "beta", "method": "live",
                             "max_downtime_ms": 2000, "bandwidth": 10 << 20,
                             "postcopy": True}),
                ("migrate", {"vm": "web01", "wait": True, "cancel": True}),
                ("move", {"vm": "web01", "wait": True, "to": "beta", "max_downtime_ms": 300}),
                ("unmigrate", {"vm": "web01", "wait": True})])

    def test_a_migration_shows_a_bar_on_a_terminal(self):
        moving = threading.Event()

        def migrate(arguments, tell):
            tell({"vm": "web01", "state": "running", "reason": "asking"})
            tell({"vm": "web01", "state": "running", "migration": {
                "phase": "copying", "to": "beta", "percent": 45, "bytes": 450 << 20,
                "total": 1000 << 20, "rate": 1 << 20}})
            moving.wait(DEADLINE)
            return VM
        with Agent({"migrate": migrate}) as agent:
            terminal = Terminal(agent, "migrate", "web01", "--to", "beta")
            terminal.expect(b"web01: copying to beta [#########...........] 45 %, 450 MiB of")
            moving.set()
            self.assertEqual(terminal.end(), 0)
            self.assertTrue(terminal.seen.split(b"\r\x1b[K")[-1].startswith(b"web01: "))
            self.assertEqual(run(agent, "migrate", "web01").stderr, b"")

    def test_migrations_are_told_step_by_step(self):
        record = {"vm": "web01", "id": 7, "role": "source", "node": "alpha", "from": "alpha",
                  "to": "beta", "started": "2026-11-20T09:30:00Z", "ended": "2026-11-20T09:30:02Z", "result": "moved",
                  "phases": [{"phase": "copying", "after_usec": 1500}], "pause_usec": 3456,
                  "rounds": 2, "bytes": 1 << 20}
        with Agent({"migrations": [record, {**record, "result": "failed", "why": "\x1b[2J"}]}) as agent:
            text = run(agent, "migrations", "web01").stdout
            self.assertIn(b"web01: alpha -> beta, moved; began 2026-11-20T09:30:00Z, epoch 7", text)
            self.assertIn(b"0.001500 s  alpha: copying", text)
            self.assertIn(b"3456 us between STOP and RESUME, 1 MiB sent, 2 rounds", text)
            self.assertNotIn(b"\x1b", text)
            self.assertEqual(json.loads(run(agent, "migrations", "--format", "json").stdout)[0], record)

    def test_both_sides_of_a_migration_are_told_as_one(self):
        source = {"vm": "web01", "id": 7, "role": "source", "node": "alpha", "from": "alpha", "to": "beta",
                  "started": "2026-11-20T09:30:00Z", "ended": "2026-11-20T09:30:02Z", "result": "moved",
                  "phases": [{"phase": "copying", "after_usec": 1500, "wall_usec": 5001500}]}
        target = {**source, "role": "target", "node": "beta", "pause_usec": 99,
                  "phases": [{"phase": "stream", "after_usec": 100, "wall_usec": 5002100}]}
        later = {**target, "started": "2026-11-20T10:30:00Z", "ended": "2026-11-20T10:30:02Z"}
        with Agent({"migrations": [{"node": "gamma", "trouble": "\x1bgone"}, source, target, later]}) as agent:
            told = run(agent, "migrations")
            self.assertEqual(told.stdout.count(b"epoch 7"), 2)
            self.assertIn(b"0.001500 s  alpha: copying\n      0.002100 s  beta: stream\n  99 us between", told.stdout)
            self.assertEqual(told.stderr, b"drover: node 'gamma' does not tell its side: ?gone\n")

    def test_progress_is_one_line_on_a_terminal_and_nothing_on_a_pipe(self):
        with Agent({"start": self.slow}) as agent:
            terminal = Terminal(agent, "start", "web01")
            terminal.expect(b"web01: starting: waiting for disks")
            self.go.set()
            self.assertEqual(terminal.end(), 0)
            self.assertIn(b"\r\033[K", terminal.seen.split(b"disks")[-1])
            done = run(agent, "start", "web01")
            self.assertEqual((done.stdout, done.stderr), (b"web01: running\n", b""))

    def test_ctrl_c_says_that_the_order_stands(self):
        with Agent({"start": self.slow}) as agent:
            terminal = Terminal(agent, "start", "web01")
            terminal.expect(b"waiting for disks")
            terminal.process.send_signal(signal.SIGINT)
            self.assertEqual(terminal.end(), 130)
            self.assertIn(b"the order to start 'web01' stands", terminal.seen)
            self.assertIn(b"drover status web01", terminal.seen)

    def test_shutdown_all_wants_the_whole_word(self):
        off = {**VM, "name": "db01", "state": "off"}
        there = {**VM, "name": "mail01", "node": "beta"}
        with Agent({"node": {"name": "alpha"}, "ls": [VM, off, there], "shutdown-all": [off]}) as agent:
            terminal = Terminal(agent, "shutdown-all")
            terminal.expect(b"yes or no: ")
            self.assertIn(b"web01 (running)", terminal.seen)
            self.assertNotIn(b"db01", terminal.seen)
            self.assertNotIn(b"mail01", terminal.seen)
            terminal.type(b"y\n")
            terminal.expect(b"yes or no: y\r\nStop all VMs of this node? Write yes or no: ")
            terminal.type(b"no\n")
            self.assertEqual(terminal.end(), 69)
            self.assertEqual([c for c, _ in agent.asked], ["node", "ls"])
            terminal = Terminal(agent, "shutdown-all")
            terminal.expect(b"yes or no: ")
            terminal.type(b"yes\n")
            self.assertEqual(terminal.end(), 0)
            self.assertEqual(agent.asked[-1], ("shutdown-all", {"vm": None, "wait": True}))
            self.assertEqual(run(agent, "shutdown-all", stdin=b"yes\n").returncode, 64)
            self.assertEqual(run(agent, "shutdown-all", "--yes").returncode, 0)


class Console(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        path = self.directory.name + "/console.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listener.close)
        self.listener.bind(path)
        self.listener.listen()
        self.listener.settimeout(DEADLINE)
        self.agent = Agent({"console": {"socket": path, "log": "x"}})
        self.addCleanup(self.agent.__exit__)

    def attach(self):
        terminal = Terminal(self.agent, "console", "web01")
        guest, _ = self.listener.accept()
        self.addCleanup(guest.close)
        guest.settimeout(DEADLINE)
        terminal.expect(b"Ctrl-] ends")
        return terminal, guest

    def assert_restored(self, terminal):
        self.assertEqual(terminal.after, terminal.before)

    def test_bytes_go_both_ways_and_the_escape_ends_it(self):
        terminal, guest = self.attach()
        guest.sendall(b"login: \xff\033[1m")
        terminal.expect(b"login: \xff\033[1m")
        terminal.type(b"root\r\x03")
        self.assertEqual(guest.recv(6), b"root\r\x03")
        terminal.type(b"bye\x1d")
        self.assertEqual(terminal.end(), 0)
        self.assertEqual(guest.recv(9), b"bye")
        self.assert_restored(terminal)

    def test_the_terminal_is_restored_when_the_guest_closes(self):
        terminal, guest = self.attach()
        guest.close()
        self.assertEqual(terminal.end(), 0)
        self.assert_restored(terminal)

    def test_the_terminal_is_restored_after_signals(self):
        for number in signal.SIGTERM, signal.SIGHUP, signal.SIGINT:
            terminal, _ = self.attach()
            terminal.process.send_signal(number)
            self.assertEqual(terminal.end(), 128 + number)
            self.assert_restored(terminal)

    def test_a_guest_that_does_not_read_does_not_hold_the_user(self):
        terminal, guest = self.attach()
        for _ in range(1000):
            terminal.type(b"x" * 1000)
        guest.sendall(b"still heard")
        terminal.expect(b"still heard")
        terminal.type(b"\x1d")
        self.assertEqual(terminal.end(), 0)
        self.assert_restored(terminal)

    def test_a_pipe_is_fed_to_the_guest_and_output_goes_on(self):
        process = subprocess.Popen([DROVER, "--root", self.agent.root, "console", "web01"],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env=environment())
        guest, _ = self.listener.accept()
        process.stdin.write(b"uptime\n")
        process.stdin.close()
        self.assertEqual(guest.recv(7), b"uptime\n")
        guest.sendall(b"up 3 days\n")
        guest.close()
        self.assertEqual(process.stdout.read(), b"up 3 days\n")
        self.assertEqual(process.wait(DEADLINE), 0)
        self.assertEqual(process.stderr.read(), b"")
        process.stdout.close()
        process.stderr.close()


class Documents(unittest.TestCase):
    """Help, man page and completions say the same."""

    @classmethod
    def setUpClass(cls):
        cls.help = run(None, "help").stdout.decode()
        part = cls.help.split("Commands:")[1].split("Options of all")[0]
        lines = [re.split(r" {2,}", line.strip())[0] for line in part.splitlines() if line.strip()]
        cls.commands = [re.match(r"[a-z-]+(?: (?:ls|status|ready|reexec|init|token|join|leave)\b)?", line)[0] for line in lines]
        cls.options = sorted(set(re.findall(r"--[a-z-]+", cls.help.split("Options of all")[1])))
        cls.texts = {}
        for name in "man/drover.1.scd", "completions/drover.bash", "completions/_drover":
            with open(os.path.join(SOURCE, name), encoding="utf-8") as file:
                cls.texts[name] = file.read()

    def test_there_are_all_commands_that_were_promised(self):
        wanted = ("apply ls status explain start stop restart kill pause resume ensure rm exec "
                  "migrate unmigrate move migrations "
                  "console monitor qmp guest handle-consul-event hardware events logs config "
                  "shutdown-all version help")
        self.assertEqual(sorted(self.commands),
                         sorted([*wanted.split(), "volume ls", "node status", "node ls",
                                 "node ready", "node reexec",
                                 *(f"cluster {word}" for word in
                                   ("status", "init", "token", "join", "leave"))]))

    def test_each_command_has_help(self):
        for command in self.commands:
            for words in [*command.split(), "--help"], ["help", *command.split()]:
                done = run(None, *words)
                self.assertEqual(done.returncode, 0)
                self.assertIn(f"Usage: drover {command}".encode(), done.stdout)

    def test_each_command_and_option_is_in_the_man_page(self):
        page = self.texts["man/drover.1.scd"]
        for command in self.commands:
            self.assertRegex(page, rf"(?m)^\*{command}\*")
        for option in self.options:
            self.assertIn(f"*{option}*", page)
        for option in re.findall(r"\*(--[a-z-]+)\*", page):
            self.assertIn(option, self.options)

    def test_the_man_page_gives_each_command_its_options(self):
        page = self.texts["man/drover.1.scd"].split("# OPTIONS")[0]
        for command in self.commands:
            text = run(None, *command.split(), "--help").stdout.decode()
            own = text.split("\nOptions of all commands:")[0].split("\nOptions:")
            wanted = set(re.findall(r"--[a-z-]+", own[1])) if len(own) > 1 else set()
            entry = re.search(rf"(?ms)^\*{command}\*(.*?)(?=^\*|\Z)", page)[1]
            orders = "start stop restart kill pause resume".split()
            if command in orders:  # said once, below the last of them
                entry = re.search(r"(?ms)^\*ensure\*(.*?)(?=^\*)", page)[1]
            said = re.findall(r"Options[^:]*:(.*?)\.\n", entry, re.S)
            self.assertEqual(set(re.findall(r"--[a-z-]+", "".join(said))), wanted, command)

    def test_each_command_and_option_is_in_the_completions(self):
        for name in "completions/drover.bash", "completions/_drover":
            for command in self.commands:
                for word in command.split():
                    self.assertRegex(self.texts[name], rf"(?<![\w-]){word}(?![\w-])", name)
            for option in self.options:
                self.assertRegex(self.texts[name], rf"(?<![\w-]){option}(?![\w-])", name)
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", self.texts[name]):
                self.assertIn(option, self.options)

    def test_the_bash_completion_completes(self):
        script = ("source completions/drover.bash; COMP_WORDS=(drover {}); COMP_CWORD={}; _drover; "
                  'echo "${{COMPREPLY[*]}}"')
        for words, expected in {"sta": "status start", "logs web01 --q": "--qemu",
                                "node r": "ready reexec", "ls --format j": "json"}.items():
            done = subprocess.run(["bash", "-c", script.format(words, len(words.split()))],
                                  cwd=SOURCE, capture_output=True, timeout=DEADLINE, text=True)
            self.assertEqual(done.stdout.strip(), expected, done.stderr)

    @unittest.skipUnless(shutil.which("zsh"), "zsh is not installed")
    def test_the_zsh_completion_parses(self):
        subprocess.run(["zsh", "-n", SOURCE + "/completions/_drover"], check=True, timeout=DEADLINE)

    @unittest.skipUnless(shutil.which("scdoc"), "scdoc is not installed")
    def test_the_man_pages_are_right_scdoc(self):
        for name in "drover.1", "droverd.8", "drover-keeper.8":
            with open(f"{SOURCE}/man/{name}.scd", "rb") as page:
                subprocess.run(["scdoc"], stdin=page, stdout=subprocess.DEVNULL, check=True,
                               timeout=DEADLINE)

    def test_version_is_ours_even_without_an_agent(self):
        self.assertRegex(run(None, "--version").stdout, rb"^drover \d+\.\d+\.\d+\n$")
        done = run(None, "--root", "/nowhere", "version")
        self.assertEqual(done.returncode, 75)
        self.assertRegex(done.stdout, rb"^drover \d")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
