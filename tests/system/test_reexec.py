# SPDX-License-Identifier: Apache-2.0
"""Agent and keepers become the programs that are installed now, in place; guests notice nothing."""
import os
import shutil
import signal

import pytest

from drover import DEADLINE, Ticks, ask, micro
from journey import Witness, make_cluster, timelines

LONG = ('--timeout', '120s')
HEAVY = 'hz=100 ws=8 rate=4'
PROGRAMS = ('droverd', 'drover-keeper', 'drover')


def install(host, name, text=None):
	"""Puts the program where the agent was started from, as a package does: another file."""
	new = host.build / f'.{name}.new'
	if text is None:
		shutil.copy(host.origin / name, new)
	else:
		new.write_text(text, encoding='utf-8')
		new.chmod(0o755)
	os.rename(new, host.build / name)


def with_programs(host):
	"""Its programs are copies of its own."""
	host.origin, host.build = host.build, host.root / 'programs'
	host.build.mkdir()
	for name in PROGRAMS:
		install(host, name)
	return host


@pytest.fixture
def installed(new_host):
	return with_programs(new_host()).start_agent()


def upgrade(host):
	for name in PROGRAMS:
		install(host, name)


def keepers(host):
	return ask(host, 'keepers')['return']


def runs(process, path):
	try:
		return process and os.path.samefile(f'/proc/{process.pid}/exe', path)
	except FileNotFoundError:  # it ends at this moment
		return False


@pytest.mark.asan
def test_pvc_S5_agent_and_keepers_are_replaced_in_place(installed):
	host = installed
	host.apply(micro('m1', disk=1), micro('m2'))
	before, agent = host.vms(), host.agent_process
	session = host.text(host.run / 'session')
	old = {name: host.keeper(name) for name in before}
	with Ticks(host, 'm1') as one, Ticks(host, 'm2') as two:
		upgrade(host)
		assert keepers(host) == {'total': 2, 'outdated': 0, 'waiting': []}
		result = host.cli('node', 'reexec')
		assert '2 keepers, 0 of them still the earlier program' in result.out
		assert agent.alive and runs(agent, host.build / 'droverd')
		for name, keeper in old.items():
			assert not keeper.alive
			assert runs(host.keeper(name), host.build / 'drover-keeper')
			after = host.wait_state(name, 'running')
			for key in ('pid', 'uuid', 'epoch', 'since', 'started'):
				assert after[key] == before[name][key], (name, key)
		assert host.text(host.run / 'session') == session
		one.check()
		two.check()
	assert host.event_names(None).count('keeper-replaced') == 2
	# Those that ended were our children, and are nobody's now.
	host.wait(lambda: 'Z' not in {line.split()[2] for line in children(agent)}, 'no child is a zombie')


def children(process):
	lines = []
	for pid in process.proc(f'task/{process.pid}/children').split():
		try:
			with open(f'/proc/{pid}/stat', encoding='utf-8') as file:
				lines.append(file.read())
		except OSError:
			continue
	return lines


def test_a_signal_does_the_same_and_nothing_new_changes_nothing(installed):
	host = installed
	host.apply(micro('m1'))
	keeper = host.keeper('m1')
	with Ticks(host, 'm1') as ticks:
		host.agent_process.signal(signal.SIGHUP)
		host.wait(lambda: host.event_names(None).count('agent-started') == 2, 'it started anew')
		host.wait_state('m1', 'running')
		assert host.keeper('m1') == keeper
		ticks.check()


BROKEN = {
	'absent': (None, 'cannot take over'),
	'crashing': ('#!/bin/sh\nkill -SEGV $$\n', 'it only ends'),
	'talking': ('#!/bin/sh\necho no\n', 'cannot take over'),
	'earlier': ('#!/bin/sh\necho "droverd: there is no option" >&2\nexit 64\n', 'there is no option'),
	'of-other-records': ('#!/bin/sh\necho \'{"version": "9", "schema": {"min": 7, "max": 9}}\'\n',
		'records of schema 7 to 9'),
}


@pytest.mark.asan
@pytest.mark.parametrize('kind', BROKEN)
def test_what_cannot_run_here_is_not_taken(installed, kind):
	host = installed
	text, words = BROKEN[kind]
	if text is None:
		(host.build / 'droverd').unlink()
	else:
		install(host, 'droverd', text)
	result = host.cli('node', 'reexec', rc=69)
	assert words in result.err and 'goes on as it is' in result.err
	assert host.agent_process.alive and host.cli('node')


def test_a_keeper_of_another_version_beside_it_is_half_a_package(installed):
	host = installed
	install(host, 'drover-keeper', '#!/bin/sh\necho drover-keeper 0.0.1\n')
	assert 'another keeper beside it' in host.cli('node', 'reexec', rc=69).err


def test_who_waits_goes_on_waiting(installed):
	host = installed
	# A guest that does not hear the power button: the stop takes its time.
	host.apply(micro('m1', words='hz=100 ws=4 rate=4 acpi=off'))
	host.hold_at('keeper.stop.kill')
	waiting = host.background('restart', 'm1')
	host.wait(lambda: host.vm('m1')['order'] is not None or host.vm('m1')['state'] != 'running',
		'the order is under way')
	upgrade(host)
	host.cli('node', 'reexec', '--no-wait')
	host.hold_at()
	result = host.ended(waiting)
	assert result.rc == 0, result
	assert host.states_seen('m1').count('running') == 2

@pytest.fixture
def pair(new_host, tmp_path):
	"""Two hosts of a cluster, each with programs of its own."""
	def make(*args, **options):
		return with_programs(new_host(*args, **options))
	return make_cluster(make, tmp_path)


def test_agents_and_keepers_are_replaced_while_a_guest_moves(pair):
	alpha, beta = pair
	alpha.apply(micro('m1', words=HEAVY, kvm_host='alpha'), micro('m2', kvm_host='beta'))
	beta.wait_state('m2', 'running')
	agents = [host.agent_process for host in pair]
	with Witness(pair, 'm1') as witness:
		moving = alpha.background('migrate', 'm1', '--to', 'beta', '--bandwidth', '1M', *LONG)
		alpha.wait(lambda: alpha.qemu('m1') and beta.qemu('m1') and
			(alpha.vm('m1')['migration'] or {}).get('bytes'), 'its memory is copied')
		for host in pair:
			upgrade(host)
			host.cli('node', 'reexec', '--no-wait')
		# At rest it makes way at once; who moves a VM does not yet.
		beta.wait(lambda: runs(beta.keeper('m2'), beta.build / 'drover-keeper'), "m2's keeper is replaced")
		assert not runs(alpha.keeper('m1'), alpha.build / 'drover-keeper')
		result = alpha.ended(moving, 2 * DEADLINE)
		assert result.rc == 0 and result.out.startswith('m1: running'), result
		for host in pair:
			host.cli('node', 'reexec')
			assert keepers(host)['outdated'] == 0
		assert all(agent.alive for agent in agents)
		assert runs(beta.keeper('m1'), beta.build / 'drover-keeper')
		witness.check(moves=1)
	assert [line['result'] for line in timelines(alpha, 'm1')] == ['moved']
