# SPDX-License-Identifier: Apache-2.0
"""kill -9 at named steps of a live migration, of each who takes part; and processes that only stand
still.  Whoever dies: the guest runs once, where it is to be, and nothing is left of the way there.

A case arms a step on one of the hosts, changes where the guest belongs, waits until a process holds
itself there, kills, and lets the others go on.  The next case moves on from where this one ended.
`./check` runs the cases of QUICK; all of them run with DROVER_KILL_ALL=1 (docs/FAULTS.md).
"""
import os
import signal

import pytest

import drover
from moves import DISK_STEPS, NAME, PARTIES, RECORD, STEPS, staged
from test_kill import has_checkpoints

# The host on which a guest stands by then, if it is not the source.
TAKEN = ('keeper.migration.cont', 'keeper.receive.running', 'keeper.receive.disks', 'keeper.source.running',
	'keeper.source.finish')

# Where a guest that is not there whole by then ends, it waits for whoever has its local disk.
EVERY = [(where, step, who, disk) for disk, steps in ((False, STEPS), (True, DISK_STEPS))
	for where, step in steps for who in (*PARTIES, 'S-halt', 'T-halt')
	if (who[2:] != 'halt' or who[0] == where) and not (disk and who == 'S-qemu' and step not in TAKEN)]
QUICK = [('S', 'keeper.source.copying', 'S-keeper', False),
	('S', 'keeper.source.stopped', 'S-keeper', False),
	('S', 'keeper.source.finish', 'S-keeper', False),
	('T', 'keeper.migration.cont', 'T-keeper', False),
	('T', 'keeper.receive.running', 'T-keeper', False),
	('T', 'keeper.receive.take', 'T-agent', False),
	('T', 'keeper.receive.take', 'T-qemu', False),
	('S', 'keeper.source.copying', 'S-qemu', False),
	('S', 'keeper.source.switch', 'S-halt', False),
	('T', 'keeper.receive.disks-ended', 'T-keeper', True),
	('S', 'keeper.source.copying', 'T-qemu', True)]
CASES = EVERY if os.environ.get('DROVER_KILL_ALL') else QUICK


@pytest.fixture(scope='module', params=[False, True], ids=['memory', 'disk'])
def scene(request, tmp_path_factory):
	with staged(tmp_path_factory.mktemp('kill'), **({'disk': 1} if request.param else {})) as it:
		yield it


def may_lose_it(where, step, who):
	"""Was that the guest?  The other QEMU never was let run, or has nothing that is still wanted.  A target
	that asked for the record may have got it, whatever it says then."""
	if who == 'S-qemu':
		return step not in TAKEN
	return who == 'T-qemu' and (step in TAKEN or step in ('keeper.receive.take',
		'keeper.receive.stopped', 'keeper.source.stopped') or (where == 'T' and step in RECORD))


def case_id(case):
	return '-'.join(str(word) for word in case[:3]) + ('-disk' if case[3] else '')


@pytest.mark.skipif(not has_checkpoints(), reason='this build has no checkpoints')
def test_a_guest_of_which_nothing_was_sent_is_not_taken_for_one_that_was(tmp_path):
	"""It came by an earlier migration: QEMU calls that `completed`, and the next keeper knows no more."""
	with staged(tmp_path) as scene:
		alpha, beta = scene.hosts
		scene.send(beta)
		scene.arrive(beta)
		beta.hold_at('keeper.source.moved')
		scene.send(alpha)
		beta.held('keeper.source.moved').kill()
		beta.hold_at()
		scene.arrive(alpha, deadline=2 * drover.DEADLINE)
		assert 'stands still, whole' not in beta.text(beta.vm_log(NAME, 'events.jsonl'))


@pytest.mark.slow
@pytest.mark.skipif(not has_checkpoints(), reason='this build has no checkpoints')
@pytest.mark.parametrize('scene,case', [(case[3], case) for case in sorted(CASES, key=lambda c: c[3])],
	indirect=['scene'], ids=[case_id(case) for case in sorted(CASES, key=lambda c: c[3])])
def test_killed_at(scene, case):
	where, step, who, _ = case
	source = scene.source
	[target] = [host for host in scene.hosts if host is not source]
	armed = source if where == 'S' else target
	if step.startswith('agent.'):
		armed.restart_agent()  # a step holds a process once in its life
	witness = None if may_lose_it(where, step, who) else scene.witness()
	armed.hold_at(step)
	scene.send(target)
	holder = armed.held(step)
	if who.endswith('halt') and step.startswith('keeper.'):
		armed.wait(lambda: not holder.alive, 'a keeper that says nothing is ended')
	elif not who.endswith('halt'):
		scene.strike(who, target)
	for host in scene.hosts:
		host.hold_at()
	holder.signal(signal.SIGCONT)
	scene.revive()
	scene.arrive(target, deadline=2 * drover.DEADLINE)
	if witness:
		witness.check(moves=8)
