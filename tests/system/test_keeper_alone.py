# SPDX-License-Identifier: Apache-2.0
"""A keeper and what a real agent shows it only on a bad day: each test is a fault that was found by
review and shown with a scripted agent, named here by its letter there.

Beside what each test says, its end looks whether the owner record was ever given back while QEMU
lived, and whether an order to end the VM still ends it and leaves nothing.
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

import drover
from drover import Console, Ticks, micro
from scripted_agent import Agent, hold, refuse


# For monitors that are known not to answer.
IMPATIENT = {'qmp_greeting': '1s'}


@pytest.fixture
def alone(new_host, request):
	"""Makes an agent whose keeper runs: alone(definition, timers={...})."""
	agents = []

	def make(definition=None, **config):
		agents.append(Agent(new_host(**config), definition or micro('m1', disk=1)))
		agents[-1].start_keeper()
		return agents[-1]
	yield make
	for agent in agents:
		if request.node.report_call.passed:
			agent.finish()
		else:
			print(agent.dump())
			agent.kill_keeper()


@pytest.fixture
def image():
	"""What a volume starts from: copying it is a child process, so a start waits for it."""
	with tempfile.NamedTemporaryFile(prefix='drover-image-') as file:
		file.write(os.urandom(1 << 20))
		file.flush()
		yield file.name


def run(agent, **wanted):
	"""Orders the VM to run and waits until it does; returns its QEMU."""
	agent.wish('run', **wanted)
	agent.wait_state('running')
	return agent.host.qemu(agent.name)


def start_held_at(agent, step):
	"""Orders a start; the keeper stops itself at that step of it.  Returns the keeper's process."""
	agent.host.hold_at(step)
	agent.send_wish('run')
	keeper = agent.wait(lambda: agent.host.held_now(step), f'it comes to {step}')
	agent.host.hold_at()
	return keeper


def stop_process(agent, process):
	process.signal(signal.SIGSTOP)
	agent.host.wait(process.stopped, f'{process} stands still')


def claims(agent):
	return list(agent.host.lib.glob('volumes/*/*claim*'))


def run_dir(agent):
	return agent.host.run / 'vms' / agent.name


def lose_copy_file(agent):
	(run_dir(agent) / 'copy.json').unlink()


def damage_copy_file(agent):
	(run_dir(agent) / 'copy.json').write_text('{"v":1', encoding='utf-8')


def lose_run_directory(agent):
	shutil.rmtree(run_dir(agent))


def resumes(agent):
	return agent.host.text(agent.host.vm_log(agent.name, 'keeper.log')).count('QEMU event RESUME')


# ---- A: no second QEMU, nothing given back under a live one ----

@pytest.mark.parametrize('lose,wish', [(lose_copy_file, 'hands-off'), (lose_copy_file, 'off'),
	(lose_run_directory, 'hands-off'), (lose_run_directory, 'elsewhere'),
	(lose_run_directory, 'pause'), (lose_run_directory, 'stop')])
def test_A1_nothing_is_given_back_before_it_was_searched_for_a_process(alone, lose, wish):
	"""I1, R1.  A QEMU of which no file tells any more was searched for at the first start only: with
	another wish the record was given back, claims were removed, "off" was told, and it ran on."""
	agent = alone(micro('m1', disk=1, kvm_host='beta' if wish == 'elsewhere' else None),
		timers=IMPATIENT)
	qemu = run(agent)
	agent.kill_keeper()
	lose(agent)
	agent.start_keeper()
	agent.wish(wish, kill=True)
	if wish in ('stop', 'off'):
		agent.wait_state('off')
		assert not qemu.alive
		return
	agent.wait(lambda: agent.state['pid'] == qemu.pid and agent.state['settled'], 'it is found')
	assert agent.state['state'] in ('running', 'paused', 'unresponsive')
	assert qemu.alive and agent.store.phase == 'held' and claims(agent)


@pytest.mark.asan
def test_A2_a_write_of_a_former_keeper_permits_nothing(alone):
	"""R1, I6.  A conflict with a record that names this node was taken for a won write, also when
	another life of the keeper had written it, with other hardware: what ran was not what was stored,
	and after the loss of the run directory the VM ran twice."""
	agent = alone(micro('m1'), timers=IMPATIENT)
	agent.answers['owner-write'] = hold
	agent.wish('run')
	first = agent.wait(lambda: agent.writes, 'the first keeper asks')[0]
	agent.next_keeper()  # told that there is no record
	agent.wait(lambda: agent.held, 'the second keeper asks')
	agent.store.write(first)
	agent.let_go()
	agent.wait_state('running')
	qemu = agent.host.qemu('m1')
	assert agent.store.owner['by'] in agent.granted, 'it runs by an answered write of its own'
	assert qemu.args[qemu.args.index('-uuid') + 1] == agent.store.hardware['uuid']
	agent.kill_keeper()
	lose_run_directory(agent)
	agent.start_keeper()
	agent.wish()
	agent.wait(lambda: agent.state['pid'], 'there is a process')
	assert agent.host.qemu('m1') == qemu, 'the one there was, and no other'


DYING = '''
import ctypes, threading
threading.Thread(target=ctypes.CDLL(None).pause).start()
ctypes.CDLL(None).syscall(60, 0)
'''


def test_A3_a_process_whose_main_thread_is_gone_is_not_gone(alone):
	"""I1.  A QEMU that was killed and still writes in the kernel has no command line any more; the
	next keeper took it for somebody else's process, and freed all that it used."""
	agent = alone(timers=IMPATIENT)
	qemu = run(agent)
	agent.kill_keeper()
	qemu.kill()
	# Stands in for it: exactly such a process, with a thread that does not come to its end.
	popen = subprocess.Popen([sys.executable, '-c', DYING])
	try:
		stat = pathlib.Path(f'/proc/{popen.pid}/stat')
		agent.host.wait(lambda: ') Z ' in stat.read_text(encoding='utf-8'), 'it hangs')
		path = run_dir(agent) / 'copy.json'
		copy = json.loads(path.read_text(encoding='utf-8'))
		start_time = int(stat.read_text(encoding='utf-8').rpartition(')')[2].split()[19])
		copy |= {'pid': popen.pid, 'start_time': start_time}
		path.write_text(json.dumps(copy), encoding='utf-8')
		agent.start_keeper()
		agent.wish('hands-off')
		agent.wait(lambda: agent.state['settled'], 'the keeper knows what there is')
		assert agent.state['pid'] == popen.pid
		assert agent.store.phase == 'held' and claims(agent)
	finally:
		popen.kill()
		popen.wait()
	agent.wait_state('off')
	assert agent.store.phase == 'off' and not claims(agent)


def test_A4_after_an_unanswered_try_a_refusal_is_asked_again(alone):
	"""Section 6.2 of the protocol: the first try may have landed.  The refusal of the second was
	taken for a no, and another write made with the old version."""
	agent = alone()
	agent.answers['owner-write'] = hold
	agent.wish('run')
	agent.wait(lambda: agent.held, 'the keeper asks')
	agent.store.write(agent.writes[0])  # but the answer dies with the agent
	agent.answers['owner-write'] = refuse('it is not defined any more')
	agent.connect()
	agent.wish()
	agent.wait(lambda: len(agent.writes) >= 3, 'it is asked again')
	assert all(write == agent.writes[0] for write in agent.writes)
	agent.let_go()
	agent.wait_state('running')


# ---- B: no guest is ended or let run without a wish ----

@pytest.mark.parametrize('lose', [damage_copy_file, lose_copy_file])
def test_B1_a_restart_of_long_ago_is_not_carried_out_on_what_the_search_found(alone, lose):
	"""I3.  What was adopted by a search had 0 carried out restarts, so one of last month shut it
	down; its booking said 0 MiB, uid 0."""
	agent = alone()
	qemu = run(agent, restarts=1)
	with Ticks(agent.host, 'm1') as ticks:
		agent.kill_keeper()
		lose(agent)
		agent.start_keeper()
		agent.wish()
		agent.wait_state('running')
		assert agent.host.qemu('m1') == qemu
		ticks.check()
	assert 'stopping' not in agent.event_names()
	assert (agent.state['restarts'], agent.state['pending']) == (1, None)
	[booking] = agent.host.host_dir.glob('bookings/*.json')
	booking = json.loads(booking.read_text(encoding='utf-8'))
	assert (booking['pid'], booking['memory_mib']) == (qemu.pid, 64)
	assert booking['uid'] == int(qemu.field('Uid').split()[0]) != 0


@pytest.mark.parametrize('wish', ['run', 'hands-off'])
def test_B2_a_guest_whose_cont_is_answered_late_is_not_ended(alone, wish):
	"""I3.  QEMU took `cont` and, 2 seconds later, the `quit` that followed from its silence."""
	agent = alone(timers={'qmp': '1s'})
	keeper = start_held_at(agent, 'keeper.start.run')
	qemu = agent.host.qemu('m1')
	stop_process(agent, qemu)
	keeper.signal(signal.SIGCONT)
	if wish == 'run':
		agent.wait(lambda: agent.state['state'] != 'starting', '`cont` is waited for no more')
		assert agent.state['state'] == 'unresponsive'
	agent.wish(wish)
	qemu.signal(signal.SIGCONT)
	agent.wait_state('running')
	assert agent.host.qemu('m1') == qemu
	assert 'ending' not in agent.event_names()


@pytest.mark.parametrize('wish,state', [('pause', 'paused'), ('stop', 'off'),
	('hands-off', 'paused')])
def test_B3_a_resume_that_nobody_wants_any_more_does_not_run_the_guest(alone, wish, state):
	"""R2.  The write of the record was answered after the user had ordered something else: the
	guest ran for that moment."""
	agent = alone()
	run(agent)
	agent.wish('pause')
	agent.wait_state('paused')
	before = resumes(agent)
	agent.answers['owner-write'] = hold
	agent.wish('run')
	agent.wait(lambda: agent.held, 'the keeper asks')
	agent.wish(wish, kill=True)
	agent.let_go()
	agent.wait_state(state)
	assert resumes(agent) == before


@pytest.mark.parametrize('keeper', ['same keeper', 'next keeper'])
def test_B4_on_panic_off_waits_for_the_agent(alone, keeper):
	"""The order to stop was sent once, to nobody, and the VM started again and again; then, at
	first, it was repeated without a pause."""
	agent = alone(micro('m1', 'hz=100 panic=20', disk=1, on_panic='off'))
	agent.answers['order-stop'] = refuse('the store does not answer', 'try-again')
	run(agent)
	agent.hang_up()
	log = agent.host.vm_log('m1', 'keeper.log')
	agent.host.wait(lambda: 'guest-panicked' in agent.host.text(log), 'the guest panics')
	if keeper == 'next keeper':
		agent.kill_keeper()
		agent.start_keeper()
	else:
		agent.connect()
	agent.wish()
	agent.wait(lambda: [command for command, _ in agent.asked].count('order-stop') >= 3,
		'the agent is asked until it answers')
	assert agent.host.text(log).count(': order-stop') < 20, 'but not all the time'
	agent.let_go()
	agent.wish('stop')
	agent.wait_state('off')
	assert agent.host.serial('m1').count('MICRO-UP') == 1
	agent.wish('run', retry=1, definition=micro('m1', disk=1))
	agent.wait_state('running')


# ---- C: one start, one definition ----

@pytest.mark.asan
@pytest.mark.parametrize('step', ['keeper.start.volumes', 'keeper.owner.asking'])
def test_C1_a_start_goes_on_with_the_definition_that_it_began_with(alone, image, step):
	"""The definition of now was read at each step: with fewer volumes than were being prepared,
	beyond its end."""
	volumes = [{'name': 'root', 'size': '10M', 'source': image}, {'name': 'data', 'size': '10M'}]
	agent = alone(micro('m1', volumes=volumes, nics=[{'network': 'user'}]))
	keeper = start_held_at(agent, step)
	agent.send_wish(definition=micro('m1'), generation=2)
	keeper.signal(signal.SIGCONT)
	agent.wait_state('running')
	assert any('drive=vol-data' in arg for arg in agent.host.qemu('m1').args)
	assert agent.state['running_generation'] == 1
	assert 'disk-data' in agent.state['pending']


def test_C2_what_only_a_restart_brings_is_said_also_when_it_came_during_the_start(alone):
	"""The guest had the hardware of generation 1, was told to be generation 2, with nothing
	pending."""
	agent = alone()
	agent.answers['owner-write'] = hold
	agent.wish('run')
	agent.wait(lambda: agent.held, 'the keeper asks')
	agent.wish(definition=micro('m1', disk=1, memory=96), generation=2)
	agent.let_go()
	agent.wait_state('running')
	assert (agent.state['memory_mib'], agent.state['running_generation']) == (64, 1)
	assert 'memory 64 -> 96 MiB' in agent.state['pending']


# ---- D: what begins ends ----

@pytest.mark.parametrize('wish', ['stop', 'pause', 'hands-off'])
def test_D1_a_start_that_is_given_up_before_qemu_is_cleaned_up_at_once(alone, wish):
	"""It stood in "stopping: cleaning up" until the next wish."""
	agent = alone()
	keeper = start_held_at(agent, 'keeper.start.volumes')
	agent.send_wish(wish)
	keeper.signal(signal.SIGCONT)
	agent.wait_state('off')


def test_D1_a_wish_during_a_graceful_stop_does_not_wait_for_the_next_ping(alone):
	agent = alone(micro('m1', 'hz=100 power=ignore'), timers={'qmp_ping': '60s',
		'graceful_stop': '60s', 'stop_repeat': '60s'})
	qemu = run(agent)
	agent.wish('stop')
	agent.wait(lambda: agent.state['state'] == 'stopping', 'the guest is asked')
	agent.wish('pause')
	agent.wait_state('paused')
	assert agent.host.qemu('m1') == qemu


SLOW_QEMU = '''#!/bin/sh
case "$*" in *'-machine none'*) sleep 3 ;; esac
exec qemu-system-x86_64 "$@"
'''


@pytest.fixture
def slow_qemu():
	"""Where a QEMU in its jail sees it: not below the root of a host, nor in /tmp."""
	directory = pathlib.Path(tempfile.mkdtemp(prefix='drover-slow-', dir='/var/lib'))
	directory.chmod(0o755)
	path = directory / 'qemu'
	path.write_text(SLOW_QEMU, encoding='utf-8')
	path.chmod(0o755)
	yield str(path)
	shutil.rmtree(directory)


def test_D2_a_keeper_that_asks_a_slow_qemu_what_it_can_do_answers(new_host, slow_qemu):
	"""It asked and waited, was taken for hung and killed, and so was the next: no VM ever
	started."""
	host = new_host(qemu={'binary': slow_qemu}, timers={'keeper_silent': '1s'}).start_agent()
	host.apply(micro('m1'), args=['--no-wait'])
	keeper = host.wait(lambda: host.keeper('m1'), 'there is a keeper')
	host.wait_state('m1', 'running')
	assert host.keeper('m1') == keeper


def test_D3_a_claim_of_a_newer_epoch_is_left_alone_and_said(alone):
	"""A store out of a backup: "cleaning up", for ever, and nothing said why."""
	agent = alone()
	run(agent)
	[claim] = claims(agent)
	agent.wish('stop', kill=True)
	agent.wait_state('off')
	claim.write_text(json.dumps({'v': 1, 'vm': 'm1', 'epoch': 99, 'node': 'alpha'}),
		encoding='utf-8')
	agent.wish('run', kill=False)
	agent.wait(lambda: agent.state['state'] == 'failed', 'the start fails')
	assert 'epoch 99' in agent.state['reason']
	agent.wish('stop')
	agent.wait_state('off')
	assert json.loads(claim.read_text(encoding='utf-8'))['epoch'] == 99
	claim.unlink()


def test_D4_a_qemu_that_never_greets_is_ended_and_the_start_tried_again(alone):
	"""I8.  "waiting for QEMU's monitor", for ever."""
	agent = alone(timers={'qmp_greeting': '1s'})
	keeper = start_held_at(agent, 'keeper.start.launched')
	qemu = agent.host.qemu('m1')
	stop_process(agent, qemu)
	keeper.signal(signal.SIGCONT)
	agent.wait_state('running')
	assert not qemu.alive and agent.host.qemu('m1') != qemu
	assert 'start-failed' in agent.event_names()


def test_D5_a_refused_release_is_asked_again_later_and_said(alone):
	"""Keeper and agent asked and refused 700 times a second."""
	agent = alone(timers={'cleanup': '3s'})
	run(agent)
	agent.answers['owner-write'] = refuse('its owner record cannot be read')
	agent.wish('stop', kill=True)
	agent.wait(lambda: len(agent.writes) >= 2, 'it is given back')
	for _ in range(50):
		agent.ask('ping')
	assert len(agent.writes) <= 4
	assert 'its owner record cannot be read' in agent.state['reason']
	agent.let_go()
	agent.wait_state('off')
	assert agent.store.phase == 'off'


@pytest.mark.parametrize('lose', [None, damage_copy_file])
def test_D6_a_monitor_that_could_not_be_reached_is_tried_again(alone, lose):
	"""It was not, though the log said so."""
	agent = alone(timers=IMPATIENT)
	qemu = run(agent)
	agent.kill_keeper()
	monitor = run_dir(agent) / 'qmp.sock'
	monitor.rename(monitor.with_suffix('.away'))
	if lose:
		lose(agent)
	agent.start_keeper()
	agent.wish()
	agent.wait_state('unresponsive')
	monitor.with_suffix('.away').rename(monitor)
	agent.wait_state('running')
	assert agent.host.qemu('m1') == qemu


@pytest.mark.asan
def test_D7_the_end_of_qemu_ends_all_that_was_asked_of_it(alone):
	"""The pidfd may tell of it before the monitor's socket does, as it does here, where somebody
	else holds QEMU's end of it: the keeper was busy with a pause for ever, and commands of users
	were never answered."""
	agent = alone()
	qemu = run(agent)
	stop_process(agent, qemu)
	with qemu.take_socket('qmp'):
		agent.wish('pause')
		numbers = [agent.send('hmp', line='info status'), agent.send('qmp', command='query-status')]
		agent.ask('ping')
		qemu.kill()
		for number in numbers:
			answer = agent.wait(lambda: agent.replies.get(number), 'commands are answered')
			assert answer['error']['class'] == 'try-again'
		agent.wait_state('off')
		agent.wish('run', retry=1)
		agent.wait_state('running')


def test_D7_the_end_of_qemu_ends_the_comparison_of_its_hardware(alone):
	agent = alone()
	keeper = start_held_at(agent, 'keeper.start.verify')
	qemu = agent.host.qemu('m1')
	stop_process(agent, qemu)
	with qemu.take_socket('qmp'):
		keeper.signal(signal.SIGCONT)
		agent.ask('ping')
		qemu.kill()
		agent.wait_state('running')
	assert agent.host.qemu('m1') != qemu


def test_D8_the_port_of_the_guest_agent_is_opened_again(linux):
	"""One broken connection, and it was "silent" until QEMU ended."""
	linux.wait(lambda: linux.vm('tux')['guest_agent'] == 'answering', 'the guest agent answers')
	with linux.qemu('tux').take_socket('agent0') as end:
		end.shutdown(drover.socket.SHUT_RDWR)
	linux.cli('guest', 'tux', 'guest-ping')
	linux.wait(lambda: linux.vm('tux')['guest_agent'] == 'answering', 'it answers again')


# ---- F: sentences ----

def test_F_a_step_of_a_start_that_takes_its_time_is_told(alone):
	"""The reason was told once: minutes of copying an image were "waiting for the owner record"."""
	agent = alone(timers={'qmp_greeting': '60s'})
	keeper = start_held_at(agent, 'keeper.start.launched')
	qemu = agent.host.qemu('m1')
	stop_process(agent, qemu)
	keeper.signal(signal.SIGCONT)
	agent.wait(lambda: agent.state['reason'] == "waiting for QEMU's monitor", 'it is told')
	qemu.signal(signal.SIGCONT)
	agent.wait_state('running')


@pytest.mark.parametrize('step', ['keeper.start.verify', 'keeper.start.run'])
def test_F_a_qemu_that_ends_in_a_start_is_said_to_have_ended(alone, step):
	"""Its monitor closes first, and that was the reason given."""
	agent = alone(timers={'backoff_first': '60s', 'backoff_max': '60s'})
	keeper = start_held_at(agent, step)
	agent.host.qemu('m1').kill()
	keeper.signal(signal.SIGCONT)
	agent.wait(lambda: agent.state['state'] == 'failed', 'the start fails')
	assert 'QEMU ended' in agent.state['reason']


def test_F_a_console_goes_on_with_the_next_qemu(new_host):
	"""It showed nothing until a key was typed."""
	host = new_host().start_agent()
	host.apply(micro('m1'))
	console = Console(host, 'm1')
	with contextlib.closing(console):
		host.wait(lambda: b'\nC ' in console.read(), 'the guest counts')
		pid = host.qemu('m1').pid
		host.qemu('m1').kill()
		host.wait_pid_change('m1', pid)
		seen = len(console.read())
		host.wait(lambda: b'\nC ' in console.read()[seen:], 'the next one is seen')
