# SPDX-License-Identifier: Apache-2.0
"""Hosts with networks of their own and a real store of three servers: at a named step of a live migration
the way between them is cut, or that to the store, or both, or the server that leads is killed or halted.
The guest runs on, once, and when the way is mended it is where it is to be.

A case arms a step on one of the hosts, changes where the guest belongs, waits until a process holds itself
there, cuts, lets it go on until the cut is felt (or the guest has arrived all the same), and mends.  The next
case moves on from where this one ended.  `./check` runs QUICK; all of EVERY with DROVER_KILL_ALL=1.
"""
import os
import signal

import pytest

import consul
import drover
from ensemble import ZooKeeper
from field import Field
from journey import happened, holder, timelines
from moves import DISK_STEPS, NAME, STEPS, staged
from test_kill import has_checkpoints

WAYS = ('link', 'S-store', 'T-store', 'S-both', 'T-both', 'leader-kill', 'leader-halt')
# Both copies are stopped there, and one whole, or the other, waits for the store.
MAY_WAIT = ('S-both', 'T-both')
# So does one that stood still while it was copied, when it is its own host that is cut from the store.
STILL_WAITS = 'S-store'

EVERY = [(store, disk, where, step, way) for store, disk, steps in (('zookeeper', False, STEPS),
		('zookeeper', True, DISK_STEPS), ('consul', False, STEPS), ('consul', True, DISK_STEPS))
	for where, step in steps for way in WAYS]
QUICK = [('zookeeper', False, 'S', 'keeper.source.copying', 'link'),
	('zookeeper', False, 'S', 'keeper.source.stopped', 'S-both'),
	('zookeeper', False, 'T', 'keeper.receive.offer', 'S-store'),
	('zookeeper', False, 'T', 'keeper.receive.take', 'link'),
	('zookeeper', False, 'T', 'keeper.receive.take', 'leader-kill'),
	('zookeeper', True, 'S', 'keeper.source.mirrored', 'link'),
	('consul', False, 'S', 'keeper.source.moved', 'link'),
	('consul', False, 'S', 'keeper.source.moved', 'leader-halt'),
	('consul', False, 'T', 'keeper.receive.take', 'T-store'),
	('consul', False, 'T', 'keeper.receive.stopped', 'leader-kill')]
# A scene lasts for as long as the very same object asks for it.
SCENES = {case[:2]: case[:2] for case in EVERY}
CASES = EVERY if os.environ.get('DROVER_KILL_ALL') else QUICK


@pytest.fixture(scope='module')
def zookeeper():
	with ZooKeeper() as servers:
		yield servers


@pytest.fixture(scope='module')
def consul_servers():
	if not consul.available():
		pytest.skip('no Consul: tests/consul/fetch DIR, DROVER_CONSUL=DIR/consul')
	with consul.Consul() as servers:
		yield servers


@pytest.fixture(scope='module')
def scene(request, tmp_path_factory):
	store, disk = request.param
	servers = request.getfixturevalue('zookeeper' if store == 'zookeeper' else 'consul_servers')
	directory, names = tmp_path_factory.mktemp('cut'), ('alpha', 'beta')
	with staged(directory, names=names, field=Field(directory, names, servers),
			**({'disk': 1} if disk else {})) as it:
		yield it


def tries(scene):
	"""How often it was tried to move it, as both sides tell."""
	return sum(len(timelines(host, NAME)) for host in scene.hosts)


def sessions_lost(host):
	return sum(event['event'] == 'session-lost' for event in host.events())


def unanswered(scene):
	"""How often a keeper has told that the owner record could not be written."""
	return sum(host.text(host.vm_log(NAME, 'keeper.log')).count('was not answered') for host in scene.hosts)


def felt(scene, target, way, before):
	"""The cut has had its consequences, or there were none to come."""
	if holder([target], NAME) and not scene.source.qemu(NAME):
		return True
	cut = scene.source if way[0] == 'S' else target
	return tries(scene) > before[0] if way == 'link' else sessions_lost(cut) > before[1]


@pytest.mark.slow
@pytest.mark.skipif(not has_checkpoints(), reason='this build has no checkpoints')
@pytest.mark.parametrize('scene,case', [(SCENES[case[:2]], case[2:]) for case in CASES], indirect=['scene'],
	ids=['-'.join((case[0], 'disk' if case[1] else 'memory', *case[2:])) for case in CASES])
def test_cut_at(scene, case):
	where, step, way = case
	source, field = scene.source, scene.field
	[target] = [host for host in scene.hosts if host is not source]
	armed = source if where == 'S' else target
	if step.startswith('agent.'):
		armed.restart_agent()  # a step holds a process once in its life
	cut = source if way[0] == 'S' else target
	before, stood = (tries(scene), sessions_lost(cut)), happened(source, NAME, 'standing-still')
	told = unanswered(scene)
	with scene.witness() as witness:
		armed.hold_at(step)
		scene.send(target)
		process = armed.held(step)
		try:
			if way.startswith('leader'):
				field.strike_leader(signal.SIGKILL if way == 'leader-kill' else signal.SIGSTOP)
			else:
				field.cut(way, source.name, target.name)
			armed.hold_at()
			process.signal(signal.SIGCONT)
			if way.startswith('leader'):
				scene.arrive(target, deadline=2 * drover.DEADLINE)
			else:
				scene.wait(lambda: felt(scene, target, way, before), f'the cut of {way} is felt')
				still = happened(source, NAME, 'standing-still') > stood
				if way not in MAY_WAIT and not (way == STILL_WAITS and still):
					witness.more()
		finally:
			field.mend()
			field.servers.heal()
		scene.revive()
		scene.arrive(target, deadline=2 * drover.DEADLINE)
		witness.check(moves=8)
	assert unanswered(scene) < told + 20  # it is tried ten times a second, and told once for each reason
