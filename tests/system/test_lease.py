# SPDX-License-Identifier: Apache-2.0
"""The lease of a node: what keepers do when their agent is dead, hangs, or is cut off from the store,
by the policy in the owner record; and what they do not do (DESIGN 8, I4).

Sessions here are so short that a lease ends while a test waits, or so long that it cannot.  An agent
that is late on a busy machine may pause a guest a second time: what a test waits for is where things
end up, and each guest comes back by itself.
"""
import json
import os
import pathlib
import signal
import sqlite3
import struct
import time

import pytest

from drover import Ticks, micro
from scripted_agent import Agent

# QEMU has all the time that a busy machine may need to pause; a lease of 4.35 s.
PATIENT = {'session': '15s', 'lease_stop': '10s'}
SHORT = {'session': '5s'}  # a lease of 3.95 s
LONG = {'session': '10min'}
PAGE = struct.Struct('=16s48sQQ')


def state_told(host, name):
	"""What the keeper keeps for the next one: readable while no agent is there."""
	try:
		return json.loads((host.run / 'vms' / name / 'state.json').read_text(encoding='utf-8'))
	except (FileNotFoundError, ValueError):
		return {'state': None, 'reason': None}


def wait_told(host, name, state, words=''):
	def there():
		told = state_told(host, name)
		return told['state'] == state and words in told['reason']
	host.wait(there, f"the keeper of '{name}' says {state}: {words}")


def owner_lease(host, name):
	"""Of the owner record, as the store has it."""
	with sqlite3.connect(f'file:{host.lib}/store.db?mode=ro', uri=True, timeout=30) as db:
		row = db.execute('SELECT value FROM keys WHERE key = ?', (f'/drover/vms/{name}/owner',))
		return json.loads(row.fetchone()[0])['lease']


class Hung:
	"""The agent stands still."""

	def __init__(self, host):
		self.process = host.agent_process

	def __enter__(self):
		self.process.signal(signal.SIGSTOP)

	def __exit__(self, *_):
		self.process.signal(signal.SIGCONT)


def test_policy_pause_and_a_dead_agent(new_host):
	host = new_host(timers=PATIENT).start_agent()
	host.apply(micro('m1', lease='pause'))
	host.wait_state('m1', 'running')
	qemu = host.qemu('m1')
	host.kill_agent()
	wait_told(host, 'm1', 'paused', 'lease of this node is over')
	assert host.qemu('m1') == qemu
	host.start_agent()
	host.wait_state('m1', 'running')
	assert host.qemu('m1') == qemu
	with Ticks(host, 'm1', longest=60) as ticks:
		ticks.check(5)


def test_policy_pause_and_an_agent_that_hangs(new_host):
	host = new_host(timers=PATIENT).start_agent()
	host.apply(micro('m1', lease='pause'))
	host.wait_state('m1', 'running')
	qemu = host.qemu('m1')
	with Hung(host):
		wait_told(host, 'm1', 'paused', 'lease of this node is over')
	host.wait_state('m1', 'running')
	assert host.qemu('m1') == qemu


def test_policy_pause_kills_a_qemu_that_does_not_answer(new_host):
	host = new_host(timers=SHORT).start_agent()
	host.apply(micro('m1', lease='pause'))
	host.wait_state('m1', 'running')
	qemu = host.qemu('m1')
	qemu.signal(signal.SIGSTOP)
	host.kill_agent()
	qemu.gone()
	host.start_agent()
	host.wait_state('m1', 'running')
	assert host.qemu('m1') != qemu


@pytest.mark.asan
def test_policy_stop_and_a_dead_agent(new_host):
	host = new_host(timers=SHORT).start_agent()
	host.apply(micro('m1', lease='stop', disk=1))
	host.wait_state('m1', 'running')
	qemu = host.qemu('m1')
	host.kill_agent()
	qemu.gone()
	wait_told(host, 'm1', 'off', 'lease of this node is over')
	host.start_agent()
	host.wait_state('m1', 'running')
	assert 'start-failed' not in host.event_names('m1')


def test_policy_stop_and_an_agent_that_hangs(new_host):
	host = new_host(timers=SHORT).start_agent()
	host.apply(micro('m1', lease='stop'))
	host.wait_state('m1', 'running')
	qemu = host.qemu('m1')
	with Hung(host):
		qemu.gone()
		wait_told(host, 'm1', 'off', 'lease of this node is over')
	host.wait_state('m1', 'running')


def test_policy_stop_leaves_a_guest_alone_that_the_user_paused(new_host):
	host = new_host(timers=SHORT).start_agent()
	host.apply(micro('m1', lease='stop'), micro('m2', lease='stop'))
	for name in ('m1', 'm2'):
		host.wait_state(name, 'running')
	host.cli('pause', 'm1')
	qemu, other = host.qemu('m1'), host.qemu('m2')
	host.kill_agent()
	other.gone()  # so the lease is over
	wait_told(host, 'm2', 'off')
	assert qemu.alive
	host.start_agent()
	host.wait_state('m1', 'paused')
	host.cli('resume', 'm1')
	assert host.qemu('m1') == qemu


def test_I4_policy_keep_lets_the_guest_run_whatever_becomes_of_the_agent(new_host):
	host = new_host(timers=SHORT).start_agent()
	host.apply(micro('m1'), micro('m2', lease='stop'))
	for name in ('m1', 'm2'):
		host.wait_state(name, 'running')
	other = host.qemu('m2')
	with Ticks(host, 'm1', longest=15) as ticks:
		host.kill_agent()
		other.gone()  # so the lease is over
		host.start_agent()
		host.wait_state('m2', 'running')
		ticks.check()
	assert not {'paused', 'stopping'} & set(host.states_seen('m1'))


def test_I4_an_interruption_that_is_shorter_than_the_lease_is_not_felt(new_host):
	host = new_host(timers=LONG).start_agent()
	host.apply(micro('m1', lease='stop'), micro('m2', lease='pause'))
	for name in ('m1', 'm2'):
		host.wait_state(name, 'running')
	with Ticks(host, 'm1', longest=15) as one, Ticks(host, 'm2', longest=15) as two:
		host.kill_agent()
		for ticks in (one, two):
			ticks.more(50)
		host.start_agent()
		with Hung(host):
			for ticks in (one, two):
				ticks.more(50)
		host.wait_state('m1', 'running')
		for ticks in (one, two):
			ticks.check()
	for name in ('m1', 'm2'):
		assert 'paused' not in host.states_seen(name) and 'stopping' not in host.states_seen(name)


@pytest.mark.parametrize('lease, step', [('pause', 'keeper.lease.pause'), ('stop', 'keeper.lease.kill')])
def test_a_keeper_that_dies_at_the_end_of_the_lease_leaves_a_guest_that_runs_in_the_end(new_host, lease, step):
	"""The next one looks for itself, whatever this one had noted."""
	host = new_host(timers=PATIENT).start_agent()
	host.apply(micro('m1', lease=lease))
	host.wait_state('m1', 'running')
	qemu = host.qemu('m1')
	host.hold_at(step)
	host.kill_agent()
	keeper = host.held(step)
	host.hold_at()
	keeper.kill()
	assert qemu.alive
	host.start_agent()
	host.wait_state('m1', 'running')
	assert lease == 'stop' or host.qemu('m1') == qemu


@pytest.mark.parametrize('before, after', [('keep', 'stop'), ('stop', 'keep')])
def test_a_keeper_that_dies_while_the_policy_changes_loses_no_change(new_host, before, after):
	host = new_host(timers=LONG | {'keeper_silent': '10min'}).start_agent()
	host.apply(micro('m1', lease=before))
	host.wait_state('m1', 'running')
	qemu = host.qemu('m1')
	for step in ('keeper.lease.policy', 'agent.owner-write', 'keeper.owner.answered'):
		host.apply(micro('m1', lease=before))
		host.wait(lambda: owner_lease(host, 'm1') == before, f'the owner record says {before}')
		host.hold_at(step)
		host.apply(micro('m1', lease=after), args=['--no-wait'])
		held = host.held(step)
		host.hold_at()
		host.keeper('m1').kill()
		held.signal(signal.SIGCONT)
		host.wait(lambda: owner_lease(host, 'm1') == after, f'the owner record says {after}')
		host.wait_state('m1', 'running')
	assert host.qemu('m1') == qemu


def test_the_policy_is_changed_under_the_running_guest(new_host):
	host = new_host(timers=PATIENT).start_agent()
	host.apply(micro('m1'))
	host.wait_state('m1', 'running')
	qemu = host.qemu('m1')
	assert owner_lease(host, 'm1') == 'keep'
	host.apply(micro('m1', lease='pause'))
	host.wait(lambda: owner_lease(host, 'm1') == 'pause', 'the owner record says pause')
	host.kill_agent()
	wait_told(host, 'm1', 'paused', 'lease of this node is over')
	host.start_agent()
	host.wait_state('m1', 'running')
	host.apply(micro('m1', lease='keep'))
	host.wait(lambda: owner_lease(host, 'm1') == 'keep', 'the owner record says keep')
	assert host.qemu('m1') == qemu


# ---- a keeper and a page that the test writes ----

class Page:
	"""RUN/lease, written as an agent would; docs/PROTOCOL.md has the layout."""

	def __init__(self, host):
		self.path = host.run / 'lease'
		self.boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text('ascii').strip().replace('-', '')
		host.run.mkdir(parents=True, exist_ok=True)

	@staticmethod
	def now():
		return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000

	def tell(self, since, end):
		if not self.path.exists():
			new = self.path.with_suffix('.new')
			new.write_bytes(PAGE.pack(b'drover-lease-1\n', self.boot.encode(), 0, 0).ljust(4096, b'\0'))
			new.rename(self.path)
		fd = os.open(self.path, os.O_RDWR)
		try:
			os.pwrite(fd, struct.pack('=QQ', since, end), 64)
		finally:
			os.close(fd)

	def valid(self):
		"""For as long as any test lasts; begun a moment ago."""
		self.tell(self.now(), self.now() + 3600 * 1000000)

	def over(self):
		self.tell(1, 2)


@pytest.fixture
def leased(new_host, request):
	"""A keeper without a real agent, and the page that it looks at."""
	agents = []

	def make(lease, **timers):
		agent = Agent(new_host(timers=PATIENT | timers), micro('m1', lease=lease))
		agent.page = Page(agent.host)
		agents.append(agent)
		agent.start_keeper()
		return agent
	yield make
	for agent in agents:
		if request.node.report_call.passed:
			agent.page.valid()
			agent.finish()
		else:
			print(agent.dump())
			agent.kill_keeper()


@pytest.mark.parametrize('lease', ['stop', 'pause'])
def test_a_start_waits_for_a_lease_and_says_so(leased, lease):
	agent = leased(lease)
	agent.wish('run')
	agent.wait(lambda: 'lease' in (agent.state.get('reason') or ''), 'it says that it waits for the lease')
	assert agent.state['state'] == 'off' and not agent.writes
	agent.page.over()
	agent.wish('run', retry=1)
	agent.wait(lambda: agent.state.get('retry') == 1, 'the wish was looked at')
	assert agent.state['state'] == 'off' and not agent.writes
	agent.page.valid()
	agent.wait_state('running')


def test_policy_keep_starts_without_any_lease(leased):
	agent = leased('keep')
	agent.wish('run')
	agent.wait_state('running')


def test_a_lease_that_ends_in_the_middle_of_a_start_is_waited_for(leased):
	"""The permission is gone with it: there is a second write before the vcpus run (R1, R2)."""
	agent = leased('stop')
	agent.page.valid()
	agent.host.hold_at('keeper.start.run')
	agent.send_wish('run')
	keeper = agent.wait(lambda: agent.host.held_now('keeper.start.run'), 'it comes to the last step')
	agent.host.hold_at()
	writes = len(agent.writes)
	agent.page.over()
	keeper.signal(signal.SIGCONT)
	agent.wait(lambda: 'lease' in (agent.state.get('reason') or ''), 'it says that it waits for the lease')
	assert agent.state['state'] == 'starting' and len(agent.writes) == writes
	agent.page.valid()
	agent.wait_state('running')
	assert len(agent.writes) == writes + 1


def test_an_answer_that_is_older_than_the_lease_is_not_obeyed(leased):
	"""R2, on the way back from a pause by the user."""
	agent = leased('keep')
	agent.page.valid()
	agent.wish('run')
	agent.wait_state('running')
	agent.wish('pause')
	agent.wait_state('paused')
	agent.answers['owner-write'] = lambda _arguments: None
	agent.send_wish('run')
	agent.wait(lambda: agent.held, 'the record is asked for')
	agent.page.over()
	writes = len(agent.writes)
	agent.let_go()
	agent.page.valid()
	agent.wait_state('running')
	assert len(agent.writes) > writes


def test_a_guest_that_the_lease_paused_goes_on_only_after_a_write(leased):
	agent = leased('pause')
	agent.page.valid()
	agent.wish('run')
	agent.wait_state('running')
	agent.page.tell(1, agent.page.now() + 1000)
	agent.next_keeper()  # it looks at the page of now; the one before would do so in an hour
	agent.wait_state('paused')
	assert 'lease' in agent.state['reason']
	writes = len(agent.writes)
	agent.page.valid()
	agent.wait_state('running')
	assert len(agent.writes) == writes + 1


@pytest.mark.parametrize('lease', ['stop', 'pause'])
def test_a_new_keeper_leaves_a_guest_alone_that_is_paused(leased, lease):
	"""It comes when the lease is over and has not heard from QEMU yet."""
	agent = leased(lease)
	agent.page.valid()
	agent.wish('run')
	agent.wait_state('running')
	agent.wish('pause')
	agent.wait_state('paused')
	qemu = agent.host.qemu('m1')
	agent.page.over()
	for _ in range(3):
		agent.next_keeper()
		agent.wait_state('paused')
	assert agent.host.qemu('m1') == qemu


def test_a_guest_that_the_lease_paused_stays_so_under_the_next_keeper(leased):
	agent = leased('pause')
	agent.page.valid()
	agent.wish('run')
	agent.wait_state('running')
	qemu = agent.host.qemu('m1')
	agent.page.over()
	for _ in range(3):
		agent.next_keeper()
		agent.wait_state('paused')
		assert 'lease' in agent.state['reason']
	assert agent.host.qemu('m1') == qemu


def test_a_new_keeper_kills_what_it_cannot_hear(leased):
	agent = leased('pause', lease_stop='500ms')
	agent.page.valid()
	agent.wish('run')
	agent.wait_state('running')
	qemu = agent.host.qemu('m1')
	qemu.signal(signal.SIGSTOP)
	agent.page.over()
	agent.next_keeper()
	agent.wait(lambda: not qemu.alive, 'QEMU is killed')
	agent.wait(lambda: agent.state['state'] == 'off' and 'lease' in agent.state['reason'], 'it waits')


def test_a_removed_page_ends_nothing_and_starts_nothing(leased):
	agent = leased('stop')
	agent.page.valid()
	agent.wish('run')
	agent.wait_state('running')
	qemu = agent.host.qemu('m1')
	agent.page.path.unlink()
	agent.next_keeper()
	agent.wait_state('running')
	assert agent.host.qemu('m1') == qemu
	qemu.kill()
	agent.wait(lambda: agent.state['state'] == 'off' and 'lease' in agent.state['reason'], 'it waits')
