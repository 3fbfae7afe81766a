# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on real machines: full disks, missing programs, wrong rights, two of everything.

Each has to be told in words that name the next step, and while it lasts no guest is lost; when it is
over, things go on without further help.
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys

import pytest

import drover
import invariants

FAST = {'backoff_first': '50ms', 'backoff_max': '300ms'}


@contextlib.contextmanager
def small_disk(path, size='3m'):
	"""A file system of its own at `path`, and a way to fill it."""
	path.mkdir(parents=True, exist_ok=True)
	subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size},mode=755', 'tmpfs', str(path)],
		check=True)
	try:
		yield path
	finally:
		subprocess.run(['umount', '-l', str(path)], check=False)


def fill(path):
	"""Not a byte is left; returns the file that holds them."""
	ballast = path / 'ballast'
	with open(ballast, 'wb', buffering=0) as file, contextlib.suppress(OSError):
		while True:
			file.write(b'x' * 4096)
	with open(ballast, 'ab', buffering=0) as file, contextlib.suppress(OSError):
		while True:
			file.write(b'x')
	return ballast


def apply(host, *definitions):
	"""What comes of it is seen in the state."""
	host.apply(*definitions, args=['--no-wait'])


def start_agent_badly(host, *, env=None):
	"""An agent that has to end by itself; returns its exit code and what it said."""
	done = subprocess.run([str(host.build / 'droverd'), '--root', str(host.root)],
		capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL,
		env=env or host.environment)
	return done.returncode, done.stderr + host.text(host.log / 'droverd.log')


def private_build(host, tmp_path):
	"""The programs in a directory of their own, so that one can be taken away."""
	build = tmp_path / 'programs'
	build.mkdir()
	for program in ('drover', 'droverd', 'drover-keeper'):
		shutil.copy(host.build / program, build)
	(build / 'src/probe').mkdir(parents=True)
	shutil.copy(host.build / 'src/probe/accel-probe.rom', build / 'src/probe')
	host.build = build
	return build


# ---- full disks ----

def test_a_full_disk_for_logs_is_no_reason_for_anything_to_fail(new_host):
	host = new_host()
	with small_disk(host.log) as disk:
		host.start_agent()
		host.apply(drover.micro('one', memory=32), drover.micro('two', memory=32))
		host.wait_state('one', 'running')
		host.wait_state('two', 'running')
		host.cli('stop', 'two')
		qemu = host.qemu('one')
		ballast = fill(disk)
		host.cli('start', 'two')
		host.cli('restart', 'two')
		host.keeper('one').kill()
		host.kill_agent()
		host.start_agent()
		assert host.wait_state('one', 'running')['pid'] == qemu.pid
		ballast.unlink()
		with drover.Ticks(host, 'one') as ticks:
			ticks.check()
		assert host.qemu('one') == qemu
		host.check_nothing_left()
		host.destroy()


def test_a_full_disk_for_the_store_loses_nothing_and_runs_on(new_host):
	host = new_host(timers=FAST)
	with small_disk(host.lib, '4m') as disk:
		host.start_agent()
		host.apply(drover.micro('one', memory=32), drover.micro('two', memory=32))
		host.wait_state('one', 'running')
		host.wait_state('two', 'running')
		host.cli('stop', 'two')
		audit = invariants.Audit(host)
		with drover.Ticks(host, 'one') as ticks:
			qemu = host.qemu('one')
			ballast = fill(disk)
			# Many writes: what still fits into pages that the store has already is not refused.
			answers = [host.drover('apply', '-', input=json.dumps(drover.micro(f'new{i}',
				words='x' * 900, memory=32, online=False))) for i in range(12)]
			refused = [answer for answer in answers if answer.rc]
			assert refused and all(answer.rc == 75 for answer in refused), answers
			assert 'free some space' in refused[0].err, refused[0]
			assert host.state('one') == 'running'
			ballast.unlink()
			host.cli('start', 'two')
			host.apply(drover.micro('new', memory=32))
			host.wait_state('new', 'running')
			ticks.check()
			assert host.qemu('one') == qemu
		done = {vm for vm in host.vms() if vm.startswith('new')}
		assert {f'new{i}' for i, answer in enumerate(answers) if not answer.rc} <= done
		assert not audit.faults()
		host.check_nothing_left()
		host.destroy()


def test_a_full_run_directory_stops_starts_but_no_guest(new_host):
	host = new_host(timers=FAST)
	with small_disk(host.run, '1m') as disk:
		host.start_agent()
		host.apply(drover.micro('one', memory=32), drover.micro('two', memory=32))
		host.wait_state('one', 'running')
		host.wait_state('two', 'running')
		host.cli('stop', 'two')
		with drover.Ticks(host, 'one') as ticks:
			qemu = host.qemu('one')
			ballast = fill(disk)
			assert host.drover('start', 'two', '--no-wait').rc in (0, 1, 75)
			host.wait(lambda: 'space' in (host.vm('two')['reason'] or '').lower(), 'the reason is said')
			assert host.state('one') == 'running'
			host.keeper('one').kill()
			ballast.unlink()
			host.wait_state('two', 'running')
			assert host.wait_state('one', 'running')['pid'] == qemu.pid
			ticks.check()
		host.check_nothing_left()
		host.destroy()


def test_a_volume_that_finds_no_room_is_told_and_made_when_there_is(new_host):
	"""Too small for the volume: said at the start, with the place that is full."""
	host = new_host(timers=FAST)
	with small_disk(host.lib, '4m') as disk:
		host.start_agent()
		image = host.root / 'image'
		image.write_bytes(os.urandom(8 << 20))
		apply(host, drover.micro('one', memory=32, volumes=[
			{'name': 'data', 'size': '8M', 'source': str(image)}]))
		vm = host.wait_state('one', 'failed')
		assert 'data' in vm['reason'] and 'space' in vm['reason'].lower(), vm['reason']
		subprocess.run(['mount', '-o', 'remount,size=32m', str(disk)], check=True)
		host.wait_state('one', 'running')
		volume = host.lib / 'volumes/one/data.raw'
		assert volume.read_bytes() == image.read_bytes()
		host.check_nothing_left()
		host.destroy()


def test_a_read_only_root_is_said_at_once(new_host):
	host = new_host()
	subprocess.run(['mount', '--bind', str(host.root), str(host.root)], check=True)
	try:
		subprocess.run(['mount', '-o', 'remount,bind,ro', str(host.root)], check=True)
		code, words = start_agent_badly(host)
		assert code == 1 and 'Read-only file system' in words and str(host.root) in words, words
	finally:
		subprocess.run(['umount', '-l', str(host.root)], check=True)
	host.start_agent()


# ---- programs and files ----

def test_a_missing_qemu_names_the_package(new_host):
	host = new_host(qemu={'binary': 'qemu-system-x86_64-gone'}, timers=FAST).start_agent()
	apply(host, drover.micro('one', memory=32))
	vm = host.wait_state('one', 'failed')
	assert 'qemu-system-x86' in vm['reason'] and 'install' in vm['reason'], vm['reason']
	assert 'install' in host.cli('explain', 'one').out


def test_fc_P12_a_qemu_that_fails_at_once_is_heard(new_host, fake_qemu):
	binary = fake_qemu('echo "out of cheese" >&2; exit 3')
	host = new_host(qemu={'binary': binary}, timers=FAST).start_agent()
	apply(host, drover.micro('one', memory=32))
	vm = host.wait_state('one', 'failed')
	assert 'out of cheese' in vm['reason']
	assert 'out of cheese' in host.cli('explain', 'one').out
	assert 'exit code 3' in host.text(host.vm_log('one', 'qemu.log'))
	assert 'out of cheese' in host.cli('logs', 'one', '--qemu').out
	host.wait(lambda: host.event_names('one').count('start-failed') > 2, 'it is tried again')
	fake_qemu('true')
	host.wait_state('one', 'running')


def test_a_qemu_that_says_nothing_is_given_up_in_time(new_host, fake_qemu):
	binary = fake_qemu('exec -a "$*" sleep 600')
	host = new_host(qemu={'binary': binary},
		timers=FAST | {'qmp_greeting': '500ms', 'kill': '900ms'}).start_agent()
	apply(host, drover.micro('one', memory=32))
	host.wait(lambda: 'start-failed' in host.event_names('one'), 'the start is given up')
	host.cli('kill', 'one')
	host.wait(lambda: not invariants.left_of(host, 'one'), 'nothing is left')


def test_a_kernel_that_is_not_there_is_named(host):
	apply(host, drover.micro('one', memory=32, kernel='/nowhere/vmlinuz'))
	vm = host.wait_state('one', 'failed')
	assert '/nowhere/vmlinuz' in vm['reason'] and 'No such file' in vm['reason']


def test_a_kernel_that_may_not_be_read_is_named(host, tmp_path):
	kernel = tmp_path / 'kernel'
	shutil.copy(host.build / 'tests/guest/micro/micro.elf', kernel)
	kernel.chmod(0o600)
	apply(host, drover.micro('one', memory=32, kernel=str(kernel)))
	vm = host.wait_state('one', 'failed')
	assert str(kernel) in vm['reason'] and 'chmod' in vm['reason'], vm['reason']
	kernel.chmod(0o644)
	host.cli('start', 'one')


def test_a_missing_bridge_is_named(new_host):
	host = new_host(networks={'lan': {'bridge': 'nobridge0'}}).start_agent()
	apply(host, drover.micro('one', memory=32, nics=[{'network': 'lan'}]))
	vm = host.wait_state('one', 'failed')
	assert 'nobridge0' in vm['reason'] and "card 'lan'" in vm['reason'], vm['reason']
	assert not host.taps()


def test_a_missing_keeper_program_is_named(new_host, tmp_path):
	host = new_host(timers=FAST)
	build = private_build(host, tmp_path)
	(build / 'drover-keeper').rename(build / 'away')
	host.start_agent()
	definition = drover.micro('one', memory=32)
	definition['parameters']['kernel'] = str(drover.build_dir() / 'tests/guest/micro/micro.elf')
	apply(host, definition)
	host.wait(lambda: 'drover-keeper' in (host.vm('one')['reason'] or ''), 'the reason names it')
	assert host.vm('one')['state'] in ('off', 'unknown', 'failed')
	(build / 'away').rename(build / 'drover-keeper')
	host.wait_state('one', 'running')


# ---- rights ----

def test_the_socket_is_roots_alone(host):
	mode = stat.S_IMODE((host.run / 'control.sock').stat().st_mode)
	assert mode & 0o077 == 0
	for path in (host.root, host.root / 'run', host.run):
		path.chmod(0o755)

	def ask_as_nobody():
		os.setgroups([])
		os.setresgid(65534, 65534, 65534)
		os.setresuid(65534, 65534, 65534)
	done = subprocess.run(host.argv('ls'), capture_output=True, text=True, check=False,
		preexec_fn=ask_as_nobody, cwd='/')
	assert done.returncode in (1, 69, 75) and 'root' in done.stderr, done


def test_a_broken_configuration_is_placed(new_host):
	host = new_host()
	path = host.etc / 'drover.yaml'
	path.write_text('node: alpha\ntimers:\n  graceful_stop: soon\n', encoding='utf-8')
	code, words = start_agent_badly(host)
	assert code == 65 and f'{path}:3:18' in words, words
	path.write_text('node: alpha\ntimres: {}\n', encoding='utf-8')
	code, words = start_agent_badly(host)
	assert code == 65 and f'{path}:2:1' in words and 'timers' in words, words
	path.write_text('node: [\n', encoding='utf-8')
	code, words = start_agent_badly(host)
	assert code == 65 and f'{path}:' in words, words


def test_a_configuration_that_becomes_broken_under_running_guests_hurts_none(host):
	host.apply(drover.micro('one', memory=32))
	host.wait_state('one', 'running')
	host.wait(lambda: invariants.lives(host, 'one'), 'the guest is up')
	good = (host.etc / 'drover.yaml').read_bytes()
	with drover.Ticks(host, 'one') as ticks:
		qemu = host.qemu('one')
		(host.etc / 'drover.yaml').write_text('nodes: alpha\n', encoding='utf-8')
		host.keeper('one').kill()
		host.stop_agent()
		assert start_agent_badly(host)[0] == 65
		(host.etc / 'drover.yaml').write_bytes(good)
		host.start_agent()
		assert host.wait_state('one', 'running')['pid'] == qemu.pid
		ticks.check()


# ---- two of everything ----

def test_a_second_agent_on_one_root_is_refused_naming_the_first(host):
	code, words = start_agent_badly(host)
	assert code == 69 and str(host.agent_process.pid) in words and '--root' in words, words
	assert host.drover('node').rc == 0


def test_a_stale_lock_file_of_an_agent_stops_nobody(new_host):
	host = new_host()
	host.run.mkdir(parents=True)
	(host.run / 'droverd.lock').write_text('1\n', encoding='utf-8')
	with socket.socket(socket.AF_UNIX) as stale:
		stale.bind(str(host.run / 'control.sock'))
	host.start_agent()
	assert host.text(host.run / 'droverd.lock').strip() == str(host.agent_process.pid)


def test_a_hung_keeper_is_ended_by_its_agent_and_the_next_adopts(host):
	host.apply(drover.micro('one', memory=32))
	host.wait_state('one', 'running')
	host.wait(lambda: invariants.lives(host, 'one'), 'the guest is up')
	qemu, keeper = host.qemu('one'), host.keeper('one')
	with invariants.Watch(host) as watch, drover.Ticks(host, 'one') as ticks:
		keeper.signal(signal.SIGSTOP)
		keeper.gone()
		host.wait(lambda: host.keeper('one') not in (None, keeper), 'there is another keeper')
		assert host.wait_state('one', 'running')['pid'] == qemu.pid
		ticks.check()
	assert 'keeper-killed' in host.event_names('one')
	assert not watch.faults


def test_a_keeper_that_hangs_while_no_agent_is_there(host):
	"""The next agent meets a keeper that holds its lock and does not answer."""
	host.apply(drover.micro('one', memory=32))
	host.wait_state('one', 'running')
	host.wait(lambda: invariants.lives(host, 'one'), 'the guest is up')
	qemu, keeper = host.qemu('one'), host.keeper('one')
	with drover.Ticks(host, 'one') as ticks:
		host.kill_agent()
		keeper.signal(signal.SIGSTOP)
		host.start_agent()
		keeper.gone()
		assert host.wait_state('one', 'running')['pid'] == qemu.pid
		ticks.check()


# ---- the store ----

def test_a_corrupt_store_is_refused_with_a_way_out_and_left_alone(new_host):
	host = new_host().start_agent()
	host.apply(drover.micro('one', memory=32, online=False))
	host.stop_agent()
	store = host.lib / 'store.db'
	with contextlib.closing(sqlite3.connect(store)) as db:
		db.execute('PRAGMA wal_checkpoint(TRUNCATE)')
	good = store.read_bytes()
	bad = good[:100] + os.urandom(len(good) - 100)
	for content in (bad, b'', b'not a store at all\n' * 300, good[:len(good) // 2]):
		store.write_bytes(content)
		code, words = start_agent_badly(host)
		assert code in (1, 65) and str(store) in words and 'backup' in words, (code, words[-2000:])
		assert store.read_bytes() == content
	for beside in host.lib.glob('store.db-*'):
		beside.unlink()
	store.write_bytes(good)
	host.start_agent()
	assert host.vm('one')['wish'] == 'off'


def test_guests_run_on_while_their_store_cannot_be_read(new_host):
	host = new_host().start_agent()
	host.apply(drover.micro('one', memory=32))
	host.wait_state('one', 'running')
	host.wait(lambda: invariants.lives(host, 'one'), 'the guest is up')
	store = host.lib / 'store.db'
	with drover.Ticks(host, 'one') as ticks:
		qemu = host.qemu('one')
		host.stop_agent()
		with contextlib.closing(sqlite3.connect(store)) as db:
			db.execute('PRAGMA wal_checkpoint(TRUNCATE)')
		good = store.read_bytes()
		store.write_bytes(b'')
		assert start_agent_badly(host)[0] in (1, 65)
		for beside in host.lib.glob('store.db-*'):
			beside.unlink()
		store.write_bytes(good)
		host.start_agent()
		assert host.wait_state('one', 'running')['pid'] == qemu.pid
		ticks.check()


def test_a_store_removed_under_a_running_agent_costs_no_guest(new_host):
	"""Its file is gone: whatever the agent then says, the guest runs on, and a restored file helps."""
	host = new_host().start_agent()
	host.apply(drover.micro('one', memory=32))
	host.wait_state('one', 'running')
	host.wait(lambda: invariants.lives(host, 'one'), 'the guest is up')
	saved = host.root / 'saved'
	with drover.Ticks(host, 'one') as ticks:
		qemu = host.qemu('one')
		saved.mkdir()
		for path in host.lib.glob('store.db*'):
			path.rename(saved / path.name)
		answer = host.drover('apply', '-', input=json.dumps(drover.micro('two', memory=32)), timeout=60)
		if answer.rc == 0:  # the open file still takes writes: then it has to be the same file
			assert (saved / 'store.db').exists()
		else:
			assert 'store' in answer.err, answer
		assert host.qemu('one') == qemu
		host.kill_agent()
		for path in host.lib.glob('store.db*'):
			path.unlink()
		for path in saved.iterdir():
			path.rename(host.lib / path.name)
		host.start_agent()
		assert host.wait_state('one', 'running')['pid'] == qemu.pid
		ticks.check()
	if answer.rc == 0:
		assert host.vm('two')


def test_stdout_that_nobody_reads_stops_no_agent(new_host):
	"""The reader of its output is gone."""
	host = new_host()
	program = str(host.build / 'droverd')
	with subprocess.Popen([sys.executable, '-c', 'pass'], stdin=subprocess.PIPE) as reader:
		host.popen = subprocess.Popen([program, '--root', str(host.root)], stdin=subprocess.DEVNULL,
			stdout=reader.stdin, stderr=reader.stdin, start_new_session=True, env=host.environment)
		host.agent_process = drover.Process(host.popen.pid)
	host.wait(host.answers, 'the agent answers')
	host.apply(drover.micro('one', memory=32))
	host.wait_state('one', 'running')
	assert pathlib.Path(host.log / 'droverd.log').exists()
