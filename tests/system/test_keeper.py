# SPDX-License-Identifier: Apache-2.0
"""Agent, keeper and QEMU are three lives: the end of one is not felt by the others (I4)."""
import json
import os
import signal
import socket
import threading

import pytest

from drover import Ticks, micro

VICTIMS = {'agent': ('agent',), 'keeper': ('keeper',), 'both': ('agent', 'keeper')}


@pytest.mark.asan
@pytest.mark.parametrize('victims', VICTIMS)
def test_I4_kill_9_leaves_the_guest_running_and_the_next_adopt_it(host, victims):
	host.apply(micro('m1', disk=1))
	before = host.vm('m1')
	keeper = host.keeper('m1')
	with Ticks(host, 'm1') as ticks:
		if 'agent' in VICTIMS[victims]:
			host.kill_agent()
		if 'keeper' in VICTIMS[victims]:
			keeper.kill()
		ticks.more(10)
		if 'agent' in VICTIMS[victims]:
			host.start_agent()
		host.wait(lambda: host.keeper('m1'), 'there is a keeper')
		after = host.wait_state('m1', 'running')
		for key in ('pid', 'uuid', 'epoch', 'since', 'started', 'accelerator', 'machine_type',
				'memory_mib', 'volumes', 'nics'):
			assert after[key] == before[key], key
		ticks.check()
	assert (host.keeper('m1') == keeper) == ('keeper' not in VICTIMS[victims])
	assert host.states_seen('m1').count('running') == 1
	host.cli('stop', 'm1')
	assert host.vm('m1')['exit']['how'] == 'power-off'


def test_a_guest_runs_on_without_any_daemon(host):
	host.apply(micro('m1'))
	with Ticks(host, 'm1') as ticks:
		host.stop_agent()
		host.keeper('m1').signal(signal.SIGTERM)
		host.wait(lambda: not host.keeper('m1'), 'the keeper ended')
		ticks.check(50)
	host.start_agent()
	host.wait_state('m1', 'running')


def test_many_deaths_of_the_keeper(host):
	host.apply(micro('m1'))
	pid = host.vm('m1')['pid']
	with Ticks(host, 'm1') as ticks:
		for _ in range(5):
			keeper = host.wait(lambda: host.keeper('m1'), 'there is a keeper')
			keeper.kill()
		host.wait(lambda: host.keeper('m1'), 'there is a keeper')
		assert host.wait_state('m1', 'running')['pid'] == pid
		ticks.check()


def test_I9_what_a_keeper_died_over_is_removed_by_the_next(host):
	"""Sockets and files are made beside and renamed: a kill between the two leaves the first name."""
	host.apply(micro('m1'))
	pid = host.vm('m1')['pid']
	halves = [host.run / 'vms/m1' / f'.new-{"0" * 32}', host.host_dir / 'bookings' / f'.new-{"1" * 32}']
	with socket.socket(socket.AF_UNIX) as half:
		half.bind(str(halves[0]))
	halves[1].write_text('{')
	host.keeper('m1').kill()
	host.wait(lambda: not halves[0].exists(), 'the next keeper removes what is half made')
	assert host.wait_state('m1', 'running')['pid'] == pid
	host.cli('kill', 'm1')
	assert not halves[1].exists()


def test_a_power_off_that_no_keeper_saw_is_told_apart(host):
	"""QEMU stays, paused, until a keeper has seen how it ended."""
	host.apply(micro('m1', 'hz=100 off=100'))
	host.kill_agent()
	host.keeper('m1').kill()
	host.wait(lambda: '\nOFF' in host.serial('m1'), 'the guest powers off')
	host.start_agent()
	host.wait(lambda: (host.vm('m1')['exit'] or {}).get('how') == 'power-off', 'the end is told')
	host.wait(lambda: host.serial('m1').count('MICRO-UP') >= 2, 'it is started again')


def test_a_panic_that_no_keeper_saw_is_told_apart(host):
	host.apply(micro('m1', 'hz=100 panic=100'))
	pid = host.vm('m1')['pid']
	host.kill_agent()
	host.keeper('m1').kill()
	host.wait(lambda: 'PANIC' in host.serial('m1'), 'the guest panics')
	host.start_agent()
	assert host.wait_state('m1', 'panicked')['pid'] == pid


def test_an_exit_code_that_the_kernel_cannot_tell_is_said_to_be_unknown(host):
	host.apply(micro('m1'))
	pid = host.vm('m1')['pid']
	host.keeper('m1').kill()
	host.wait(lambda: host.keeper('m1'), 'there is a keeper')
	host.wait_state('m1', 'running')
	host.qemu('m1').kill()
	vm = host.wait_pid_change('m1', pid)
	assert vm['exit']['code'] is None
	assert 'exit code is unknown' in host.cli('events', 'm1').out


def test_qemu_that_died_while_nobody_looked_is_started_again(host):
	host.apply(micro('m1', disk=1))
	pid = host.vm('m1')['pid']
	host.kill_agent()
	host.keeper('m1').kill()
	host.qemu('m1').kill()
	host.start_agent()
	host.wait_pid_change('m1', pid)


def test_orders_of_a_time_without_a_keeper_are_carried_out(host):
	host.apply(micro('m1'))
	keeper = host.keeper('m1')
	keeper.signal(signal.SIGSTOP)
	host.cli('stop', 'm1', '--no-wait')
	host.wait_state('m1', 'off')
	assert not keeper.alive, 'a keeper that does not answer is replaced'


def test_a_hung_keeper_is_replaced_without_the_guest_noticing(host):
	host.apply(micro('m1'))
	pid = host.vm('m1')['pid']
	keeper = host.keeper('m1')
	with Ticks(host, 'm1') as ticks:
		keeper.signal(signal.SIGSTOP)
		host.wait(lambda: not keeper.alive, 'the agent ends it')
		host.wait(lambda: host.keeper('m1'), 'there is a new one')
		assert host.wait_state('m1', 'running')['pid'] == pid
		ticks.check()


def test_fc_P4_a_stopped_qemu_is_unresponsive_and_blocks_nobody_else(host):
	host.apply(micro('m1'), micro('m2'))
	qemu = host.qemu('m1')
	qemu.signal(signal.SIGSTOP)
	vm = host.wait_state('m1', 'unresponsive')
	assert vm['pid'] == qemu.pid and str(qemu.pid) in vm['reason'] and 'drover kill m1' in vm['reason']
	assert host.drover('status', 'm1').rc == 1
	host.cli('qmp', 'm1', 'query-status', rc=75)
	host.cli('monitor', 'm1', 'info status', rc=75)
	host.cli('pause', 'm1', rc=75)
	host.cli('restart', 'm2')
	host.cli('pause', 'm2')
	host.cli('resume', 'm2')
	host.apply(micro('m3'))
	assert host.cli('ls').out.count('running') == 2
	qemu.signal(signal.SIGCONT)
	assert host.wait_state('m1', 'running')['pid'] == qemu.pid
	assert host.cli('qmp', 'm1', 'query-status').json()['status'] == 'running'


def test_a_stopped_qemu_is_adopted_as_unresponsive(host):
	host.apply(micro('m1'))
	qemu = host.qemu('m1')
	qemu.signal(signal.SIGSTOP)
	host.keeper('m1').kill()
	host.wait(lambda: host.keeper('m1'), 'there is a keeper')
	host.wait_state('m1', 'unresponsive')
	qemu.signal(signal.SIGCONT)
	assert host.wait_state('m1', 'running')['pid'] == qemu.pid


def test_kill_works_on_an_unresponsive_qemu(host):
	host.apply(micro('m1'))
	host.qemu('m1').signal(signal.SIGSTOP)
	host.wait_state('m1', 'unresponsive')
	host.cli('kill', 'm1')
	assert host.state('m1') == 'off'


def test_pause_at_the_monitor_is_seen_and_not_undone(host):
	"""Somebody at QEMU's own socket, while no keeper holds it, stopped the guest."""
	host.apply(micro('m1'))
	host.stop_agent()
	keeper = host.keeper('m1')
	keeper.signal(signal.SIGTERM)
	keeper.gone()
	with socket.socket(socket.AF_UNIX) as monitor:
		monitor.settimeout(10)
		os.chdir(host.run / 'vms/m1')
		monitor.connect('qmp.sock')
		os.chdir('/')
		monitor.sendall(b'{"execute":"qmp_capabilities"}{"execute":"stop"}')
		text = b''
		while b'STOP' not in text:
			text += monitor.recv(4096)
	host.start_agent()
	vm = host.wait_state('m1', 'paused')
	assert vm['wish'] == 'run' and 'not by drover' in vm['reason']
	assert 'drover resume m1' in host.cli('explain', 'm1').out
	host.cli('resume', 'm1')
	assert host.state('m1') == 'running'


def test_one_keeper_per_vm(host):
	host.apply(micro('m1'))
	keeper = host.keeper('m1')
	for _ in range(3):
		host.kill_agent()
		host.start_agent()
		host.wait_state('m1', 'running')
	assert host.keeper('m1') == keeper


def test_fc_H15_daemons_have_sessions_of_their_own(host):
	"""What ends the caller's process group does not reach a keeper or a QEMU."""
	host.apply(micro('m1'))
	groups = {os.getpgid(p.pid) for p in (host.agent_process, host.keeper('m1'), host.qemu('m1'))}
	assert len(groups) == 3


def test_the_agent_ends_in_no_time_and_says_so(host):
	host.apply(micro('m1'))
	assert host.stop_agent() == 0
	assert not (host.run / 'control.sock').exists() or host.drover('ls').rc == 75


def test_the_agents_death_ends_a_waiting_command_with_75(host):
	host.apply(micro('m1', 'hz=50 power=ignore', graceful_timeout='1h'))
	waiting = host.background('stop', 'm1')
	host.wait_state('m1', 'stopping')
	host.kill_agent()
	result = host.ended(waiting)
	assert result.rc == 75 and 'may stand' in result.err
	host.start_agent()
	assert host.vm('m1')['wish'] == 'stop'
	host.cli('kill', 'm1')


def test_fc_P3_a_recycled_pid_is_not_signalled(host):
	"""The file that tells of the copy names somebody else's process: that one is left alone."""
	host.apply(micro('m1'), micro('m2'))
	other = host.qemu('m2')
	host.stop_agent()
	for name in ('m1', 'm2'):
		keeper = host.keeper(name)
		keeper.signal(signal.SIGTERM)
		keeper.gone()
	host.qemu('m1').kill()
	path = host.run / 'vms/m1/copy.json'
	copy = json.loads(path.read_text())
	copy['pid'] = other.pid
	path.write_text(json.dumps(copy))
	host.start_agent()
	host.wait_state('m1', 'running')
	for command in ('kill', 'start', 'restart', 'stop'):
		host.cli(command, 'm1')
	assert other.alive and host.qemu('m2') == other
	host.wait_state('m2', 'running')


def test_fc_K6_looking_does_not_wait_for_a_busy_monitor(host):
	host.apply(micro('m1'))
	host.qemu('m1').signal(signal.SIGSTOP)
	results = []
	threads = [threading.Thread(target=lambda: results.append(host.drover('ls', timeout=10).rc))
		for _ in range(8)]
	for thread in threads:
		thread.start()
	for thread in threads:
		thread.join()
	assert results == [0] * 8


def test_a_lost_run_directory_makes_no_second_copy(host):
	"""I1: run directories get lost; the process tells of itself by its token."""
	host.apply(micro('m1'))
	qemu = host.qemu('m1')
	host.stop_agent()
	keeper = host.keeper('m1')
	keeper.signal(signal.SIGTERM)
	keeper.gone()
	for path in (host.run / 'vms/m1').iterdir():
		if path.name in ('copy.json', 'state.json'):
			path.unlink()
	host.start_agent()
	host.wait(lambda: host.vm('m1')['state'] != 'unknown', 'it can be told')
	host.drover('ensure', 'm1', '--timeout', '2s')
	assert host.qemus('m1') == [qemu]
