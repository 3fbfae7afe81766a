# SPDX-License-Identifier: Apache-2.0
"""Lessons of the elders (docs/COVERAGE.md) that belong to no other file here."""
import contextlib
import re
import sqlite3
import threading

from drover import Ticks, micro


def probes(host):
	"""Processes that only find out what this machine can do."""
	return [p for p in host.all_processes() if '--probe' in p.args or
		(p.args[0].endswith('qemu-system-x86_64') and p not in host.qemus())]


def test_fc_H2_looking_for_an_accelerator_leaves_no_process(host):
	host.wait(lambda: host.cli('node', '--format', 'json').json()['accelerator']['name']
		in ('kvm', 'tcg'), 'the accelerator is known')
	host.apply(micro('m1'))
	host.wait(lambda: not probes(host), 'the probes have ended')


def test_fc_K4_lock_files_are_never_replaced(host):
	def locks():
		return {path: path.stat().st_ino for top in (host.run, host.lib, host.host_dir)
			for path in top.rglob('*lock*') if path.is_file() and 'vms' not in path.parts}
	host.apply(micro('m1', disk=1))
	before = locks()
	assert before
	host.cli('restart', 'm1')
	host.cli('kill', 'm1')
	host.cli('rm', 'm1')
	host.restart_agent()
	host.apply(micro('m1'))
	after = locks()
	assert {path: after.get(path) for path in before} == before


def test_fc_K18_what_a_crash_left_is_gone_without_a_new_start(host):
	"""The host lost all three at once while the VM was being shut down for good."""
	host.apply(micro('m1', 'hz=50 power=ignore', graceful_timeout='1h', disk=1))
	host.cli('stop', 'm1', '--no-wait')
	host.wait_state('m1', 'stopping')
	keeper, qemu = host.keeper('m1'), host.qemu('m1')
	host.kill_agent()
	for process in (keeper, qemu):
		process.kill()
		process.gone()
	assert list((host.run / 'vms/m1').iterdir())
	host.start_agent()
	host.wait_state('m1', 'off')
	host.wait(lambda: not host.left(), 'nothing is left')
	assert host.cli('volume', 'ls', '--format', 'json').json()[0]['claimed_by'] is None


def test_fc_W24_great_ids_and_names_with_dots(host):
	"""No port, no name of a device and no pattern is made of them."""
	long = 'a.very-long.name.that-has-dots.example'
	host.apply(micro(long, id=2147483647), micro('m1.example', id=45536), micro('m1', id=65536))
	for name in (long, 'm1', 'm1.example'):
		assert host.state(name) == 'running'
	host.cli('kill', 'm1.example')
	assert [host.state(name) for name in (long, 'm1', 'm1.example')] == ['running', 'running', 'off']


def test_pvc_C19_a_name_means_itself_alone(host):
	host.apply(micro('vm1'), micro('vm'))
	host.cli('kill', 'vm')
	assert (host.state('vm'), host.state('vm1')) == ('off', 'running')
	host.cli('kill', 'v', rc=69)
	host.cli('rm', 'vm')
	assert list(host.vms()) == ['vm1'] and host.state('vm1') == 'running'
	assert {event['vm'] for event in host.events('vm1')} == {'vm1'}


def test_pvc_C14_a_restart_is_not_held_up_by_a_guest_that_ignores_the_button(host):
	host.apply(micro('m1', 'hz=50 power=ignore', graceful_timeout='1s'))
	pid = host.vm('m1')['pid']
	host.cli('restart', 'm1')
	assert host.vm('m1')['state'] == 'running' and host.vm('m1')['pid'] != pid


def test_pvc_S9_a_console_log_of_junk_is_read(host):
	"""NULs, no text, and 64 MiB without the end of a line."""
	host.apply(micro('m1'))
	log = host.vm_log('m1', 'serial.log')
	host.wait(lambda: host.serial('m1'), 'the first words of the guest')
	with open(log, 'ab') as file:
		for _ in range(64):
			file.write(b'\x00\xff\xc3(\x1b[' * 174763)
	for command in (['console', 'm1', '--lines', '3'], ['logs', 'm1', '--serial', '--lines', '3']):
		assert host.cli(*command).out_bytes
	with Ticks(host, 'm1') as ticks:
		ticks.more(5)
	assert host.state('m1') == 'running'


def test_pvc_S23_vms_come_and_go_while_others_look(host):
	done, faults = threading.Event(), []

	def look():
		while not done.is_set():
			for command in (['ls', '--format', 'json'], ['events', '--lines', '50'], ['node']):
				result = host.drover(*command)
				if result.rc != 0:
					faults.append(result)
	threads = [threading.Thread(target=look) for _ in range(2)]
	for thread in threads:
		thread.start()
	try:
		for _ in range(10):
			names = [f'm{number}' for number in range(20)]
			host.apply(*({'name': name, 'parameters': {'online': False}} for name in names))
			for name in names[::3]:
				host.cli('rm', name)
	finally:
		done.set()
		for thread in threads:
			thread.join()
	assert not faults, faults[0]


def test_pvc_S26_debug_is_a_level_of_the_log_and_off_unless_asked_for(new_host):
	told = {}
	for level in ('info', 'debug'):
		host = new_host(level, log={'level': level}).start_agent()
		host.apply(micro('m1'))
		host.cli('kill', 'm1')
		told[level] = host.agent_log() + host.text(host.vm_log('m1', 'keeper.log'))
	lines = re.findall(r'^\S+ \d+ D .*', told['debug'], re.M)
	assert lines and all(re.match(r'\d{4}-\d\d-\d\dT', line) for line in lines)
	assert not re.search(r'^\S+ \d+ D ', told['info'], re.M)
	assert re.search(r'^\S+ \d+ I ', told['info'], re.M)


def test_fc_T29_a_lost_owner_record_costs_no_guest(host):
	"""The guest runs and nothing says whose it is: it is not ended for that, and not doubled."""
	host.apply(micro('m1', disk=1))
	qemu = host.qemu('m1')
	with Ticks(host, 'm1') as ticks:
		host.stop_agent()
		with contextlib.closing(sqlite3.connect(host.lib / 'store.db')) as db:
			assert db.execute("DELETE FROM keys WHERE key LIKE '%/m1/owner'").rowcount == 1
			db.commit()
		host.start_agent()
		assert host.wait_state('m1', 'running')['pid'] == qemu.pid
		host.drover('ensure', 'm1', '--timeout', '2s')
		assert host.qemus('m1') == [qemu]
		ticks.check()
	# The first start finds that the record is not the one it knew, the next one makes it anew.
	host.drover('restart', 'm1')
	host.wait_pid_change('m1', qemu.pid)
