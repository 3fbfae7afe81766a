# SPDX-License-Identifier: Apache-2.0
"""No signal to a process that is not proven to be ours (I5), and no guest lost because a file is.

copy.json in the run directory is what a keeper leaves for the next one.  Here it is made to lie, cut,
emptied and taken away, and the next keeper has to find out the truth (fc-P2, fc-P3).
"""
import json
import shutil
import subprocess

import pytest

import drover
import invariants

GARBAGE = [b'', b'\n', b'text', b'0', b'1', b'-1', b'null', b'[]', b'{}', b'{"v":1', b'\xff\xfe\x00\x01',
	b'99999999999999999999999999', b'{"v":1,"pid":1}', b'{"v":1,"pid":"x","token":7,"boot_id":[]}',
	b'{"v":1,"pid":0,"token":"drover:","boot_id":"BOOT"}',
	b'{"v":1,"pid":4194305,"start_time":-1,"token":"","boot_id":"BOOT"}', b'{}' * 3000,
	b'{"pid":1}\n{"pid":2}', b'[' * 5000]


@pytest.fixture
def pair(new_host):
	"""A host with two guests that count; dead keepers are replaced without waiting long."""
	host = new_host(timers={'backoff_max': '200ms'}).start_agent()
	host.apply(drover.micro('one', memory=32), drover.micro('two', memory=32))
	for name in ('one', 'two'):
		host.wait_state(name, 'running')
		host.wait(lambda name=name: invariants.lives(host, name) == 1, f"guest '{name}' is up")
	return host


def copy_path(host, vm):
	return host.run / 'vms' / vm / 'copy.json'


def next_keeper_finds(host, vm, qemu):
	"""kill -9 of the keeper; comes back when the next one knows what runs, which has to be `qemu`."""
	before = host.keeper(vm)
	before.kill()
	host.wait(lambda: host.keeper(vm) not in (None, before), 'there is another keeper')

	def known():
		status = host.vm(vm)
		return (status['state'], status['pid']) == ('running', qemu.pid)
	host.wait(known, f"'{vm}' is known to run as pid {qemu.pid}", 10)
	assert host.qemu(vm) == qemu


def lie(host, how):
	"""Makes the file of 'one' name the process of 'two'."""
	mine = json.loads(copy_path(host, 'one').read_text(encoding='utf-8'))
	other = json.loads(copy_path(host, 'two').read_text(encoding='utf-8'))
	if how == 'number':
		mine['pid'] = other['pid']
	elif how == 'number and start time':
		mine |= {'pid': other['pid'], 'start_time': other['start_time']}
	else:
		mine = other
	copy_path(host, 'one').write_text(json.dumps(mine), encoding='utf-8')


@pytest.mark.parametrize('command', ['kill', 'stop', 'restart'])
@pytest.mark.parametrize('how', ['number', 'number and start time', 'whole file'])
def test_a_file_that_names_another_vm_hits_only_its_own(pair, how, command):
	"""fc-P3"""
	host = pair
	own, other = host.qemu('one'), host.qemu('two')
	with invariants.Watch(host) as watch, drover.Ticks(host, 'two') as ticks:
		lie(host, how)
		next_keeper_finds(host, 'one', own)
		host.cli(command, 'one')
		assert not own.alive
		assert host.qemu('two') == other and host.state('two') == 'running'
		ticks.check()
	assert not watch.faults


def test_a_file_that_names_another_process_of_this_machine_does_it_no_harm(pair):
	host = pair
	with subprocess.Popen(['sleep', '600']) as bystander:
		try:
			qemu = host.qemu('one')
			mine = json.loads(copy_path(host, 'one').read_text(encoding='utf-8'))
			mine['pid'] = bystander.pid
			mine['start_time'] = drover.Process(bystander.pid).start_time
			copy_path(host, 'one').write_text(json.dumps(mine), encoding='utf-8')
			next_keeper_finds(host, 'one', qemu)
			host.cli('kill', 'one')
			assert bystander.poll() is None and not qemu.alive
		finally:
			bystander.kill()


def test_garbage_in_the_files_of_a_keeper_costs_no_guest(pair):
	"""fc-P2"""
	host = pair
	qemu = host.qemu('one')
	boot = drover.pathlib.Path('/proc/sys/kernel/random/boot_id').read_bytes().strip()
	with invariants.Watch(host) as watch, drover.Ticks(host, 'one') as ticks:
		for name in ('copy.json', 'state.json'):
			for content in GARBAGE:
				copy_path(host, 'one').with_name(name).write_bytes(content.replace(b'BOOT', boot))
				print(f'{name}: {content[:60]}')
				next_keeper_finds(host, 'one', qemu)
		ticks.check()
	assert not watch.faults
	host.cli('stop', 'one')
	assert not qemu.alive


@pytest.mark.parametrize('command', ['stop', 'restart'])
def test_a_lost_file_costs_no_guest(pair, command):
	host = pair
	host.cli('restart', 'one')
	qemu = host.qemu('one')
	with drover.Ticks(host, 'one') as ticks:
		copy_path(host, 'one').unlink()
		next_keeper_finds(host, 'one', qemu)
		ticks.check()
	host.cli(command, 'one')
	assert not qemu.alive


def test_a_lost_file_of_a_vm_that_is_to_be_down_leaves_no_guest(pair):
	"""The order to stop comes while nobody knows of the process."""
	host = pair
	qemu = host.qemu('one')
	agent = host.agent_process
	host.keeper('one').kill()
	host.kill_agent()
	assert not agent.alive
	shutil.rmtree(host.run / 'vms/one')
	host.start_agent()
	assert host.wait_state('one', 'running', 'unresponsive')['pid'] == qemu.pid
	host.cli('kill', 'one')
	assert not qemu.alive
	host.wait(lambda: not invariants.left_of(host, 'one'), 'nothing is left')
	host.cli('start', 'one')


def test_a_lost_run_directory_is_told_and_can_be_helped(pair):
	"""Without its socket QEMU has no monitor any more: it is said so, and kill still works."""
	host = pair
	qemu, other = host.qemu('one'), host.qemu('two')
	with drover.Ticks(host, 'one') as ticks:
		shutil.rmtree(host.run / 'vms/one')
		host.keeper('one').kill()
		vm = host.wait_state('one', 'unresponsive')
		assert vm['pid'] == qemu.pid and 'drover kill one' in vm['reason']
		ticks.check()
	host.cli('kill', 'one')
	assert not qemu.alive and other.alive
	host.cli('start', 'one')


def test_a_file_of_an_earlier_boot_names_nobody(pair):
	host = pair
	other = host.qemu('two')
	saved = json.loads(copy_path(host, 'two').read_text(encoding='utf-8'))
	host.cli('kill', 'one')
	host.wait(lambda: not invariants.left_of(host, 'one'), 'nothing is left')
	host.stop_agent()
	path = copy_path(host, 'one')
	path.parent.mkdir()
	path.write_text(json.dumps(saved | {'boot_id': '11111111-2222-3333-4444-555555555555'}),
		encoding='utf-8')
	host.start_agent()
	host.wait(lambda: not path.exists(), 'the stale file is gone')
	assert host.qemu('two') == other and host.state('one') == 'off'
	host.cli('start', 'one')
	assert host.qemu('two') == other


def test_two_processes_of_one_vm_are_never_guessed_between(pair):
	"""Somebody started QEMU a second time by hand: nothing is ended, and the state says why."""
	host = pair
	qemu = host.qemu('one')
	token = next(arg for arg in qemu.args if 'drover:' in arg)
	uid = int(qemu.field('Uid').split()[0])  # anybody else's process may be called what it likes
	double = subprocess.Popen(['bash', '-c', 'exec -a "$0" sleep 600', token], executable='/bin/bash',
		user=uid, group=uid, extra_groups=[], cwd='/')
	try:
		copy_path(host, 'one').unlink()
		before = host.keeper('one')
		before.kill()
		vm = host.wait_state('one', 'unknown')
		host.wait(lambda: 'carry the token' in (host.vm('one')['reason'] or ''), 'the state says why')
		assert host.drover('kill', 'one').rc == 75
		assert qemu.alive and double.poll() is None, vm
	finally:
		double.kill()
		double.wait()
	host.keeper('one').kill()
	assert host.wait_state('one', 'running')['pid'] == qemu.pid
