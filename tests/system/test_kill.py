# SPDX-License-Identifier: Apache-2.0
"""kill -9 at every named step of start, stop, cleanup, pause, resume and writes of the owner record.

One host carries a bystander whose guest counts all the time, and a victim.  A case arms a step
(src/util/checkpoint.h), gives the order, waits until a process holds itself at that step, kills who
is to be killed, starts the agent again if it was among them, and then looks: the wish is reached,
never two QEMUs, nobody else noticed, nothing is left.
"""
import hashlib
import os
import pathlib
import signal
import subprocess

import pytest

import drover
import invariants

VICTIM, BYSTANDER = 'victim', 'bystander'
NETNS = f'drover-kill-{os.getpid()}'

BEFORE_QEMU = ['keeper', 'agent', 'agent+keeper']
WITH_QEMU = ['keeper', 'agent', 'qemu', 'agent+keeper', 'agent+keeper+qemu']
OF_AGENT = ['agent', 'keeper', 'agent+keeper']

# (operation, step, who dies there)
STEPS = [
	*[('start', f'keeper.start.{step}', BEFORE_QEMU)
		for step in ('probe', 'plan', 'claims', 'own', 'book', 'volumes', 'taps', 'launch', 'named')],
	*[('start', f'keeper.start.{step}', WITH_QEMU)
		for step in ('spawned', 'launched', 'meet', 'verify', 'run', 'done')],
	('start', 'keeper.link.wish', BEFORE_QEMU),
	('start', 'keeper.owner.asking', BEFORE_QEMU),
	('start', 'keeper.owner.answered', BEFORE_QEMU),
	*[('start', f'agent.{step}', ['agent'])
		for step in ('order', 'order-written', 'keeper.spawn')],
	*[('start', f'agent.{step}', OF_AGENT)
		for step in ('keeper.spawned', 'wish', 'owner-write', 'owner-written')],
	('stop', 'keeper.link.wish', WITH_QEMU),
	('stop', 'keeper.stop.ask', WITH_QEMU),
	('stop', 'agent.order', OF_AGENT),
	('stop', 'agent.order-written', OF_AGENT),
	('kill', 'keeper.stop.quit', WITH_QEMU),
	('hard-kill', 'keeper.stop.term', WITH_QEMU),
	('hard-kill', 'keeper.stop.kill', WITH_QEMU),
	*[('kill', f'keeper.cleanup.{step}', BEFORE_QEMU)
		for step in ('begin', 'claims', 'last', 'release')],
	('kill', 'keeper.owner.asking', BEFORE_QEMU),
	('kill', 'keeper.owner.answered', BEFORE_QEMU),
	('kill', 'agent.owner-write', OF_AGENT),
	('kill', 'agent.owner-written', OF_AGENT),
	('pause', 'keeper.pause', WITH_QEMU),
	('pause', 'agent.wish', OF_AGENT),
	('resume', 'keeper.resume', WITH_QEMU),
	('resume', 'keeper.owner.asking', WITH_QEMU),
	('resume', 'keeper.owner.answered', WITH_QEMU),
	('resume', 'agent.owner-write', OF_AGENT),
	('resume', 'agent.owner-written', OF_AGENT),
	('restart', 'keeper.cleanup.last', BEFORE_QEMU),
	('restart', 'keeper.start.named', BEFORE_QEMU),
]
CASES = [(operation, step, who) for operation, step, parties in STEPS for who in parties]


class Scene:
	"""The host, what watches it, and the two VMs."""

	def __init__(self, host):
		self.host = host
		self.image = host.root / 'image'
		self.image.write_bytes(os.urandom(1 << 20))
		self.image_sum = self.sum_of(self.image)
		host.apply(self.definition(BYSTANDER), self.definition(VICTIM))
		for name in (BYSTANDER, VICTIM):
			host.wait_state(name, 'running')
		self.audit = invariants.Audit(host)
		self.watch = invariants.Watch(host)
		self.bystander = host.qemu(BYSTANDER)
		self.ticks = drover.Ticks(host, BYSTANDER, longest=4.0)

	def definition(self, name):
		return drover.micro(name, words='hz=100 ws=4 rate=4', memory=32,
			volumes=[{'name': 'data', 'size': '1M', 'source': str(self.image)}],
			nics=[{'network': 'lan'}])

	@staticmethod
	def sum_of(path):
		return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()

	# ---- getting there ----

	def fired(self, step, process):
		"""A step holds a process once in its life."""
		reached = self.host.text(self.host.run / 'checkpoint.reached').splitlines()
		return process and f'{step} {process.pid}' in reached

	def prepare(self, operation, step):
		"""What has to be before the operation can be ordered."""
		self.host.hold_at()
		if self.fired(step, self.host.agent_process):
			self.host.restart_agent()
		if self.fired(step, self.host.keeper(VICTIM)):
			self.off()
		if operation == 'start':
			self.off()
			return
		self.up()
		if operation == 'resume':
			self.host.cli('pause', VICTIM)
		if operation == 'hard-kill':
			self.host.qemu(VICTIM).signal(signal.SIGSTOP)

	def up(self):
		vm = self.host.vm(VICTIM)
		if vm['wish'] == 'pause':
			self.host.drover('resume', VICTIM)
		if vm['state'] != 'running':
			self.host.drover('start', VICTIM)
		self.host.wait_state(VICTIM, 'running')
		with drover.Ticks(self.host, VICTIM):  # it has booted and counts
			pass

	def off(self):
		vm = self.host.vm(VICTIM)
		if vm['state'] == 'off' and vm['wish'] == 'pause':
			self.host.cli('start', VICTIM)
		if vm['state'] != 'off' or vm['wish'] != 'stop':
			self.host.cli('kill', VICTIM)
		self.nothing_left()

	def nothing_left(self):
		try:
			self.host.wait(lambda: not invariants.left_of(self.host, VICTIM),
				f"nothing is left of '{VICTIM}'")
		except drover.Failure as failure:
			raise drover.Failure(f'{invariants.left_of(self.host, VICTIM)}\n{failure}') from None

	# ---- killing ----

	def strike(self, holder, who):
		"""Kills; lets those go on who were held and live; starts the agent again if it died."""
		host = self.host
		keeper, qemu = host.keeper(VICTIM), host.qemu(VICTIM)
		host.hold_at()
		for party in who.split('+'):
			if party == 'agent':
				host.kill_agent()
			elif party == 'keeper' and keeper:
				keeper.kill()
			elif party == 'qemu':
				qemu.kill()
		holder.signal(signal.SIGCONT)
		if 'agent' in who:
			host.start_agent()
		return qemu

	# ---- looking ----

	def reached(self, operation, answered):
		"""The wish of the order is what is, or (not answered and not there) it is given again."""
		goal = {'start': 'running', 'resume': 'running', 'restart': 'running', 'pause': 'paused'} \
			.get(operation, 'off')
		order = 'kill' if operation == 'hard-kill' else operation
		wish = {'running': 'run', 'paused': 'pause', 'off': 'stop'}[goal]
		if not answered and self.host.vm(VICTIM)['wish'] != wish:
			self.host.cli(order, VICTIM)
		return self.host.wait_state(VICTIM, goal)

	def check_others(self):
		host = self.host
		assert not self.watch.faults
		assert not self.ticks.faults
		self.ticks.more(5)
		assert host.qemu(BYSTANDER) == self.bystander
		assert not self.audit.faults()
		assert not invariants.tick_faults(host, VICTIM)
		assert self.sum_of(host.lib / 'volumes' / VICTIM / 'data.raw') == self.image_sum
		assert 'QEMU event STOP' not in host.text(host.vm_log(BYSTANDER, 'keeper.log'))


@pytest.fixture(scope='module')
def scene(request):
	subprocess.run(['ip', 'netns', 'add', NETNS], check=True)
	host = drover.Host(networks={'lan': {'bridge': 'lan0'}}, memory={'overhead_mib': 16},
		timers={'qmp_greeting': '2s'})
	host.command = ['ip', 'netns', 'exec', NETNS]
	try:
		subprocess.run([*host.command, 'ip', 'link', 'add', 'lan0', 'type', 'bridge'], check=True)
		host.start_agent()
		scene = Scene(host)
		yield scene
		scene.ticks.check()
		scene.watch.close()
		host.check_nothing_left()
		assert not scene.watch.faults
		assert not scene.audit.faults()
	finally:
		if request.session.testsfailed:
			print(host.dump())
		host.destroy()
		host.remove()
		subprocess.run(['ip', 'netns', 'del', NETNS], check=False)


def has_checkpoints():
	build = drover.build_dir()
	return build and b'keeper.start.plan' in (build / 'drover-keeper').read_bytes() and \
		b'checkpoint.reached' in (build / 'drover-keeper').read_bytes()


@pytest.mark.slow
@pytest.mark.leaves_things
@pytest.mark.skipif(not has_checkpoints(), reason='this build has no checkpoints')
@pytest.mark.parametrize('operation,step,who', CASES, ids=['-'.join(case) for case in CASES])
def test_killed_at(scene, operation, step, who):
	host = scene.host
	scene.prepare(operation, step)
	before = host.qemu(VICTIM)
	lives = invariants.lives(host, VICTIM)
	host.hold_at(step)
	order = host.background('kill' if operation == 'hard-kill' else operation, VICTIM)
	holder = host.held(step)
	qemu = scene.strike(holder, who)
	answer = host.ended(order)
	vm = check_wish(scene, operation, who, answer)
	# A guest that nobody killed is the same guest.
	if operation in ('pause', 'resume') and 'qemu' not in who:
		assert host.qemu(VICTIM) == before
		assert invariants.lives(host, VICTIM) == lives
	if operation == 'start' and step == 'keeper.start.done' and 'qemu' not in who:
		assert host.qemu(VICTIM) == qemu
	if vm['state'] == 'running':
		host.wait(lambda: invariants.lives(host, VICTIM) > 0, 'the guest has booted')
	scene.check_others()
	if vm['state'] == 'off' and vm['wish'] == 'stop':
		scene.nothing_left()


def check_wish(scene, operation, who, answer):
	host = scene.host
	if operation == 'pause' and 'qemu' in who:
		# What has ended cannot be paused; it is not started for that (and says so).
		vm = host.wait_state(VICTIM, 'off', 'paused')
		assert vm['wish'] == 'pause' and 'ended while it was paused' in vm['reason']
		return vm
	if operation == 'resume' and 'qemu' in who:
		host.wait(lambda: host.vm(VICTIM)['wish'] in ('run', 'pause'), 'there is a wish')
	vm = scene.reached(operation, answer.rc == 0)
	assert answer.rc in (0, 1, 75), answer
	return vm


@pytest.mark.slow
@pytest.mark.skipif(not has_checkpoints(), reason='this build has no checkpoints')
@pytest.mark.parametrize('step,order', [
	('agent.definition-written', ['apply', '--no-wait']), ('agent.remove', ['rm', 'spare']),
	('agent.removed', ['rm', 'spare']), ('agent.mode-written', ['shutdown-all', '--yes']),
	('agent.mode-written', ['node', 'ready'])], ids=lambda value: '-'.join(value)
	if isinstance(value, list) else value)
def test_an_agent_killed_while_it_writes_has_written_all_or_nothing(new_host, step, order):
	"""I10: what was written before the kill is there, and the same command can be given again."""
	host = new_host().start_agent()
	text = drover.json.dumps(drover.micro('spare', memory=32))
	path = host.root / 'spare.yaml'
	path.write_text(text, encoding='utf-8')
	args = [*order, str(path)] if order[0] == 'apply' else order
	if order[0] != 'apply':
		host.cli('apply', str(path))
	if order[0] == 'rm':
		host.cli('kill', 'spare')
	if order[0] == 'node':
		host.cli('shutdown-all', '--yes')
	host.hold_at(step)
	given = host.background(*args)
	host.held(step)
	host.hold_at()
	host.kill_agent()
	answer = host.ended(given)
	assert answer.rc in (1, 75), answer
	host.start_agent()
	again = host.drover(*args)
	there = 'spare' in host.vms()
	if order[0] == 'apply':
		assert again.rc == 0 and 'unchanged' in again.out and there
		host.wait_state('spare', 'running')
	elif order[0] == 'rm':
		assert again.rc == (0 if step == 'agent.remove' else 69) and not there
		assert (host.lib / 'volumes').exists()
	else:
		assert again.rc == 0
		if order[0] == 'shutdown-all':
			host.wait_state('spare', 'off')
			host.cli('node', 'ready')
		host.wait_state('spare', 'running')
