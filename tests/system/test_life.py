# SPDX-License-Identifier: Apache-2.0
"""The life of a VM, by command and by what the guest does."""
import signal

import pytest

from drover import Ticks, micro


@pytest.mark.asan
def test_fc_T1_start_stop_start(host):
	host.apply(micro('m1', online=False, disk=1))
	assert (host.drover('status', 'm1').rc, host.state('m1')) == (1, 'off')
	host.apply(micro('m1', disk=1))
	first = host.vm('m1')
	assert first['state'] == 'running'
	host.cli('stop', 'm1')
	off = host.vm('m1')
	assert (off['state'], off['wish'], off['exit']['how']) == ('off', 'stop', 'power-off')
	assert host.qemu('m1') is None
	host.wait(lambda: not host.left(), 'nothing is left, its keeper neither')
	volume = host.cli('volume', 'ls', '--format', 'json').json()[0]
	assert volume['claimed_by'] is None
	host.cli('start', 'm1')
	again = host.vm('m1')
	assert again['state'] == 'running' and again['pid'] != first['pid']
	assert again['uuid'] == first['uuid'] and again['volumes'] == first['volumes']
	assert 'POWER-BUTTON' in host.serial('m1')


def test_a_guest_that_ignores_the_button_is_ended_after_its_time(host):
	host.apply(micro('m1', 'hz=50 power=ignore', graceful_timeout='1s'))
	host.cli('stop', 'm1')
	vm = host.vm('m1')
	assert (vm['state'], vm['exit']['how']) == ('off', 'ended')
	assert 'stop-timeout' in host.event_names('m1')
	assert host.serial('m1').count('POWER-BUTTON') >= 2, 'pressed again while it does not obey'


def test_a_qemu_that_does_not_end_by_quit_or_sigterm_is_killed(host):
	"""Stopped, it answers nothing; the keeper escalates to SIGKILL, which needs no answer."""
	host.apply(micro('m1', graceful_timeout='1s'))
	host.qemu('m1').signal(signal.SIGSTOP)
	host.cli('stop', 'm1')
	assert host.state('m1') == 'off'
	log = host.text(host.vm_log('m1', 'keeper.log'))
	assert 'SIGKILL' in log


def test_fc_P13_kill_is_at_once_and_stays(host):
	host.apply(micro('m1', 'hz=50 power=ignore', graceful_timeout='1h'))
	host.cli('kill', 'm1')
	vm = host.vm('m1')
	assert (vm['state'], vm['wish'], vm['order']['kind']) == ('off', 'stop', 'kill')
	assert 'POWER-BUTTON' not in host.serial('m1')
	host.restart_agent()
	host.cli('ensure')
	assert host.state('m1') == 'off' and host.qemu('m1') is None


def test_kill_ends_a_graceful_stop_that_is_under_way(host):
	host.apply(micro('m1', 'hz=50 power=ignore', graceful_timeout='1h'))
	host.cli('stop', 'm1', '--no-wait')
	host.wait_state('m1', 'stopping')
	host.cli('kill', 'm1')
	assert host.state('m1') == 'off'


def test_fc_P28_restart_twice_in_a_row(host):
	host.apply(micro('m1', disk=1))
	pids = [host.vm('m1')['pid']]
	for _ in range(2):
		host.cli('restart', 'm1')
		vm = host.vm('m1')
		assert vm['state'] == 'running'
		pids.append(vm['pid'])
	assert len(set(pids)) == 3
	assert host.qemu('m1').pid == pids[-1]
	assert host.serial('m1').count('POWER-BUTTON') >= 2, 'asked, not killed'


def test_pause_and_resume(host):
	host.apply(micro('m1'))
	pid = host.vm('m1')['pid']
	host.cli('pause', 'm1')
	vm = host.vm('m1')
	assert (vm['state'], vm['wish'], vm['pid']) == ('paused', 'pause', pid)
	assert host.cli('qmp', 'm1', 'query-status').json()['status'] == 'paused'
	frozen = host.serial('m1')
	host.restart_agent()
	assert host.wait_state('m1', 'paused')['pid'] == pid
	assert host.serial('m1') == frozen, 'not one tick'
	host.cli('resume', 'm1')
	assert host.vm('m1')['pid'] == pid
	with Ticks(host, 'm1') as ticks:
		ticks.check()


def test_stop_of_a_paused_guest_lets_it_hear_the_button(host):
	host.apply(micro('m1'))
	host.cli('pause', 'm1')
	host.cli('stop', 'm1')
	assert 'POWER-BUTTON' in host.serial('m1')
	assert host.vm('m1')['exit']['how'] == 'power-off'


def test_ensure_one_and_all(host):
	host.apply(micro('m1'), micro('m2'), micro('m3', online=False))
	assert {n: v['state'] for n, v in host.vms().items()} == \
		{'m1': 'running', 'm2': 'running', 'm3': 'off'}
	pids = {n: v['pid'] for n, v in host.vms().items()}
	host.cli('ensure', 'm1')
	host.cli('ensure', 'm3')
	host.cli('ensure')
	assert {n: v['pid'] for n, v in host.vms().items()} == pids, 'nothing was to be done'


def test_ensure_tries_again_at_once(new_host):
	host = new_host(timers={'backoff_first': '1h', 'backoff_max': '1h'}).start_agent()
	kernel = host.root / 'kernel'
	host.apply(micro('m1', kernel=str(kernel)), rc=1)
	vm = host.wait_state('m1', 'failed')
	assert 'tried again at' in vm['reason'] and 'drover start m1' in vm['reason']
	kernel.write_bytes((host.build / 'tests/guest/micro/micro.elf').read_bytes())
	host.cli('ensure', 'm1')
	assert host.state('m1') == 'running'


def test_administrative_stop_outlives_agent_and_new_generations(host):
	host.apply(micro('m1'))
	host.cli('stop', 'm1')
	host.restart_agent()
	vm = host.vm('m1')
	assert (vm['state'], vm['wish'], vm['order']['kind']) == ('off', 'stop', 'stop')
	host.apply(micro('m1', memory=96))
	vm = host.vm('m1')
	assert (vm['state'], vm['wish'], vm['generation']) == ('off', 'stop', 2)
	assert 'stop' in host.cli('ls').out
	assert 'drover start m1' in host.cli('explain', 'm1').out
	host.cli('start', 'm1')
	assert host.vm('m1')['memory_mib'] == 96


def test_pvc_S47_start_during_a_shutdown_takes_it_back(host):
	host.apply(micro('m1', 'hz=50 power=ignore', graceful_timeout='1h'))
	pid = host.vm('m1')['pid']
	waiting = host.background('stop', 'm1')
	host.wait_state('m1', 'stopping')
	with Ticks(host, 'm1') as ticks:
		host.cli('start', 'm1')
		result = host.ended(waiting)
		assert result.rc == 69 and 'not to be stopped any more' in result.err
		assert host.vm('m1')['pid'] == pid and host.state('m1') == 'running'
		ticks.more(20)
	host.cli('stop', 'm1', '--no-wait')
	host.wait_state('m1', 'stopping')
	host.cli('kill', 'm1')
	assert host.state('m1') == 'off'


def test_pvc_S50_the_last_of_many_orders_wins(host):
	host.apply(micro('m1'))
	for command in ('stop', 'start', 'pause', 'resume', 'restart', 'stop', 'start', 'kill', 'start',
			'pause', 'stop', 'restart', 'start'):
		host.drover(command, 'm1', '--no-wait')
	vm = host.vm('m1')
	final = {'run': 'running', 'stop': 'off', 'pause': 'paused'}[vm['wish']]
	host.wait_state('m1', final)
	host.qemu('m1')


def test_fc_K16_no_host_means_hands_off(host):
	"""online without a host: a running guest runs on, one that is off stays off."""
	host.apply(micro('m1'))
	pid = host.vm('m1')['pid']
	with Ticks(host, 'm1') as ticks:
		host.apply(micro('m1', kvm_host=''))
		host.cli('ensure', 'm1')
		host.cli('ensure')
		vm = host.vm('m1')
		assert (vm['state'], vm['wish'], vm['pid']) == ('running', 'hands-off', pid)
		ticks.check()
	host.apply(micro('m2', kvm_host=''))
	host.cli('ensure', 'm2')
	assert (host.state('m2'), host.vm('m2')['wish']) == ('off', 'hands-off')
	assert 'kvm_host' in host.cli('start', 'm2', rc=69).err
	host.cli('stop', 'm1')
	assert host.state('m1') == 'off'


def test_fc_T3_a_vm_of_another_host_makes_nothing_here(host):
	host.apply(micro('m1', kvm_host='bob', disk=1))
	host.cli('ensure', 'm1')
	vm = host.vm('m1')
	assert (vm['state'], vm['wish']) == ('off', 'elsewhere')
	assert 'bob' in host.cli('explain', 'm1').out
	assert 'bob' in host.cli('start', 'm1', rc=69).err
	assert host.cli('volume', 'ls', '--format', 'json').json() == []
	assert host.keeper('m1') is None


def test_fc_T14_a_running_guest_that_belongs_elsewhere_runs_on(host):
	"""There is no peer to move it to: nothing is stopped, nothing cleaned."""
	host.apply(micro('m1', disk=1))
	pid = host.vm('m1')['pid']
	host.apply(micro('m1', disk=1, kvm_host='bob'))
	host.cli('ensure', 'm1')
	vm = host.wait_state('m1', 'running')
	assert (vm['wish'], vm['pid']) == ('elsewhere', pid)
	assert host.cli('volume', 'ls', '--format', 'json').json()[0]['claimed_by']
	host.cli('kill', 'm1')


def test_kvm_host_that_names_this_node_runs_here(host):
	host.apply(micro('m1', kvm_host='alpha'))
	assert host.state('m1') == 'running'


def test_a_guest_that_powers_off_is_started_again_with_back_off(host):
	host.apply(micro('m1', 'hz=100 off=20'))
	host.wait(lambda: host.serial('m1').count('MICRO-UP') >= 4, 'some lives')
	events = host.event_names('m1')
	assert events.count('guest-powered-off') >= 3
	reason = host.wait(lambda: (vm := host.vm('m1'))['state'] == 'failed' and vm['reason'],
		'it waits for its next try')
	assert 'the guest powered off' in reason and 'tried again at' in reason
	assert host.vm('m1')['exit']['how'] == 'power-off'


def test_fc_T4_and_fc_P27_a_killed_qemu_is_restarted_cleanly(host):
	host.apply(micro('m1', disk=1))
	first = host.vm('m1')
	host.qemu('m1').kill()
	vm = host.wait_pid_change('m1', first['pid'])
	assert vm['uuid'] == first['uuid'] and vm['epoch'] > first['epoch']
	assert (vm['exit']['how'], vm['exit']['code']) == ('signal', 9)
	assert 'by signal 9' in host.text(host.vm_log('m1', 'qemu.log'))
	host.cli('stop', 'm1')
	host.wait(lambda: not host.left(), 'nothing is left, its keeper neither')


def test_fc_T19_cleaned_up_and_left_off_when_meant_to_be_off(host):
	host.apply(micro('m1', disk=1))
	pid = host.vm('m1')['pid']
	host.qemu('m1').kill()
	host.wait_pid_change('m1', pid)
	host.apply(micro('m1', disk=1, online=False), args=['--no-wait'])
	qemu = host.qemu('m1')
	if qemu:
		qemu.kill()
	host.wait_state('m1', 'off')
	host.wait(lambda: not host.left(), 'nothing is left')
	assert host.cli('volume', 'ls', '--format', 'json').json()[0]['claimed_by'] is None


def test_fc_T18_what_died_and_lives_elsewhere_is_cleaned_up(host):
	host.apply(micro('m1', disk=1))
	host.apply(micro('m1', disk=1, kvm_host='bob'))
	host.qemu('m1').kill()
	host.wait_state('m1', 'off')
	host.wait(lambda: not host.left(), 'nothing is left')
	assert host.cli('volume', 'ls', '--format', 'json').json()[0]['claimed_by'] is None


def test_a_qemu_that_keeps_dying_waits_longer_each_time(new_host):
	host = new_host(timers={'backoff_first': '300ms', 'backoff_max': '1h'}).start_agent()
	host.apply(micro('m1', 'hz=100 off=5'))
	host.wait(lambda: host.event_names('m1').count('started') >= 3, 'three lives')
	vm = host.wait_state('m1', 'failed')
	assert 'tried again at' in vm['reason']
	assert host.wait_state('m1', 'failed', 'off')['wish'] == 'run'
	host.cli('stop', 'm1')


@pytest.mark.asan
def test_a_panic_is_reported_and_the_guest_kept(host):
	host.apply(micro('m1', 'hz=100 panic=30'))
	vm = host.wait_state('m1', 'panicked')
	pid = vm['pid']
	assert 'panic' in vm['reason'] and 'drover restart m1' in vm['reason']
	assert 'guest-panicked' in host.event_names('m1')
	assert 'panicked' in host.cli('ensure', 'm1', rc=1).err
	host.restart_agent()
	assert host.wait_state('m1', 'panicked')['pid'] == pid
	assert host.cli('qmp', 'm1', 'query-status').json()['status'] == 'guest-panicked'
	host.apply(micro('m1'), args=['--no-wait'])
	host.cli('restart', 'm1')
	assert host.vm('m1')['pid'] != pid


def test_on_panic_restart(host):
	host.apply(micro('m1', 'hz=100 panic=20', on_panic='restart'))
	host.wait(lambda: host.event_names('m1').count('guest-panicked') >= 2, 'it panics in two lives')
	host.wait(lambda: (host.vm('m1')['exit'] or {}).get('how') == 'panic', 'the end is told')


def test_on_panic_off_is_an_administrative_stop(host):
	host.apply(micro('m1', 'hz=100 panic=20', on_panic='off'), args=['--no-wait'])
	host.wait(lambda: host.vm('m1')['wish'] == 'stop', 'it is stopped')
	vm = host.wait_state('m1', 'off')
	assert vm['exit']['how'] == 'panic'
	assert vm['order']['kind'] == 'stop'


def test_a_guest_that_resets_itself_runs_on(host):
	host.apply(micro('m1', 'hz=100 reset=30'))
	pid = host.vm('m1')['pid']
	host.wait(lambda: host.serial('m1').count('MICRO-UP') >= 3, 'it booted three times')
	vm = host.vm('m1')
	assert (vm['state'], vm['pid']) == ('running', pid)


def test_a_triple_fault_is_no_end(host):
	host.apply(micro('m1', 'hz=100 triple=30'))
	pid = host.vm('m1')['pid']
	host.wait(lambda: host.serial('m1').count('MICRO-UP') >= 2, 'it booted again')
	assert host.vm('m1')['pid'] == pid


def test_rm_refuses_what_runs_and_leaves_volumes_that_are_listed_free(host):
	host.apply(micro('m1', disk=1))
	assert 'drover stop m1' in host.cli('rm', 'm1', rc=69).err
	assert host.cli('volume', 'ls', '--format', 'json').json()[0]['free'] is False
	assert 'running' in host.cli('rm', 'm1', '--volume', 'root', rc=69).err
	host.cli('stop', 'm1')
	path = host.vm('m1')['volumes'][0]['path']
	result = host.cli('rm', 'm1')
	assert 'root' in result.out
	assert host.vms() == {}
	assert host.drover('status', 'm1').rc == 69
	volume = host.cli('volume', 'ls', '--format', 'json').json()[0]
	assert (volume['vm'], volume['name'], volume['free'], volume['path']) == \
		('m1', 'root', True, path)
	assert 'free' in host.cli('volume', 'ls').out


def test_rm_volume_removes_that_one(host):
	volumes = [{'name': 'root', 'size': '8M'}, {'name': 'data', 'size': '8M'}]
	host.apply(micro('m1', volumes=volumes))
	host.cli('stop', 'm1')
	host.cli('rm', 'm1', '--volume', 'data')
	assert [v['name'] for v in host.cli('volume', 'ls', '--format', 'json').json()] == ['root']
	assert "'nothing'" in host.cli('rm', 'm1', '--volume', 'nothing', rc=69).err
	host.cli('start', 'm1')
	assert sorted(v['name'] for v in host.cli('volume', 'ls', '--format', 'json').json()) == \
		['data', 'root']
	host.cli('kill', 'm1')
	host.cli('rm', 'm1')
	host.cli('rm', 'm1', '--volume', 'data')
	host.cli('rm', 'm1', '--volume', 'root')
	assert host.cli('volume', 'ls', '--format', 'json').json() == []


def test_a_removed_vm_that_comes_back_finds_its_volume(host):
	host.apply(micro('m1', volumes=[{'name': 'root', 'size': '8M'}]))
	host.cli('stop', 'm1')
	path = host.vm('m1')['volumes'][0]['path']
	with open(path, 'r+b') as file:
		file.write(b'data of the user')
	host.cli('rm', 'm1')
	host.apply(micro('m1', volumes=[{'name': 'root', 'size': '16M'}]))
	with open(path, 'rb') as file:
		assert file.read(16) == b'data of the user'
	assert host.vm('m1')['volumes'][0]['size_bytes'] == 16 << 20


def test_I7_a_volume_grows_and_never_shrinks(host):
	sizes = []
	for size in ('8M', '12M', '24M', '8M'):
		host.apply(micro('m1', volumes=[{'name': 'root', 'size': size}]), args=['--no-wait'])
		host.drover('restart' if sizes else 'ensure', 'm1')
		host.wait_state('m1', 'running')
		sizes.append(host.vm('m1')['volumes'][0]['size_bytes'] >> 20)
	assert sizes == [8, 12, 24, 24]


def test_shutdown_all_needs_a_yes_and_node_ready_ends_it(host):
	host.apply(micro('m1'), micro('m2', 'hz=50 power=ignore', graceful_timeout='1s'),
		micro('m3', online=False))
	host.cli('shutdown-all', rc=64)
	assert host.state('m1') == 'running'
	result = host.cli('shutdown-all', '--yes')
	assert {n: v['state'] for n, v in host.vms().items()} == dict.fromkeys(('m1', 'm2', 'm3'), 'off')
	vm = host.vm('m1')
	assert (vm['wish'], vm['order']) == ('node-stopped', None), 'wishes are untouched'
	assert 'drover node ready' in vm['reason'] and 'm1' in result.out
	assert host.cli('node', '--format', 'json').json()['mode'] == 'stopped'
	assert 'node ready' in host.cli('start', 'm1', rc=69).err
	host.restart_agent()
	host.cli('ensure')
	assert host.state('m1') == 'off', 'remembered'
	host.cli('node', 'ready')
	host.wait_state('m1', 'running')
	host.wait_state('m2', 'running')
	assert host.state('m3') == 'off'


def test_pvc_S43_two_guests_do_not_wait_for_each_other(host):
	host.apply(micro('slow', 'hz=50 power=ignore', graceful_timeout='1h'), micro('quick'))
	host.cli('stop', 'slow', '--no-wait')
	host.wait_state('slow', 'stopping')
	host.cli('restart', 'quick')
	host.cli('stop', 'quick')
	assert host.state('slow') == 'stopping'


def test_fc_T15_a_new_vm_needs_nothing_but_its_definition(host):
	assert host.drover('ensure', 'm1').rc == 69
	host.apply(micro('m1'))
	assert (host.vm('m1')['generation'], host.state('m1')) == (1, 'running')


def test_fc_P1_a_long_name(host):
	name = 'm' + '0123456789' * 4 + '-long'
	host.apply(micro(name))
	assert host.state(name) == 'running'
	host.cli('kill', name)
	assert host.state(name) == 'off'


def test_fc_K22_a_vm_that_was_never_started_can_be_ensured_and_removed(host):
	host.apply(micro('m1', online=False, disk=1))
	host.cli('ensure', 'm1')
	host.cli('rm', 'm1')


def test_fc_P5_and_fc_P6_qemu_that_vanishes_during_the_shutdown_is_a_success(host):
	host.apply(micro('m1', 'hz=50 power=ignore', graceful_timeout='1h'))
	waiting = host.background('stop', 'm1')
	host.wait_state('m1', 'stopping')
	host.qemu('m1').kill()
	assert host.ended(waiting).rc == 0
	assert host.state('m1') == 'off'


def test_fc_P6_restart_goes_on_when_qemu_vanishes_after_the_button(host):
	host.apply(micro('m1', 'hz=50 power=ignore', graceful_timeout='1h'))
	pid = host.vm('m1')['pid']
	waiting = host.background('restart', 'm1')
	host.wait_state('m1', 'stopping')
	host.qemu('m1').kill()
	assert host.ended(waiting).rc == 0
	assert host.vm('m1')['pid'] not in (None, pid)


# What is said of KVM when it was tried: what comes of a VM that does the same.
FATES = {'ran the probe guest': 'running', 'failed at': 'running', 'internal-error': 'internal-error',
	'QEMU ended': 'failed', 'cannot open /dev/kvm': 'failed'}


@pytest.mark.parametrize('model', ['qemu64', 'host', 'pentium'])
def test_a_vm_under_kvm_meets_what_the_probe_said(new_host, model):
	"""Machines differ: KVM may run everything, stop a guest with an internal error, not take the CPU
	model, not be there.  What the probe said of a guest is what becomes of it, and a user is told."""
	host = new_host(defaults={'cpu_model': model})
	host.start_agent()
	accelerator = host.wait(lambda: (a := host.cli('node', '--format', 'json').json()['accelerator'])
		['name'] in ('kvm', 'tcg') and a, 'the accelerator is known')
	said = accelerator['why'].split('; ')[0]
	fate = next((fate for words, fate in FATES.items() if words in said), None)
	rom = str(host.build / 'src/probe/accel-probe.rom')
	host.apply(micro('m1', accelerator='kvm', cpu_model=model, firmware=rom, kernel=None, kernel_args=None),
		args=['--no-wait'])
	vm = host.wait_state('m1', *([fate] if fate else ['running', 'internal-error']))
	if fate == 'internal-error':
		assert 'KVM' in vm['reason'] and 'drover restart m1' in vm['reason']
	if fate == 'failed':
		assert 'kvm' in vm['reason'].lower() or 'QEMU ended' in vm['reason']
	else:
		assert host.qemu('m1').pid == vm['pid'], 'kept for a look'
	host.cli('kill', 'm1')
	assert host.state('m1') == 'off'
