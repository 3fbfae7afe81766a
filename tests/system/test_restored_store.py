# SPDX-License-Identifier: Apache-2.0
"""A store that is put back from a backup while guests run.  The records know nothing of what came after
the backup; the claims beside the volumes do, and hold where others can see them."""
import pathlib
import sqlite3

import pytest

from drover import micro
from field import Loopback
from journey import make_cluster, share_volumes, wait_runs_on

NAME = 'm1'


class Backup:
	"""Of the file that is the store of these hosts."""

	def __init__(self, field, hosts):
		self.path, self.hosts = pathlib.Path(field.path), hosts
		self.copy = self.path.with_suffix('.backup')
		source, target = sqlite3.connect(self.path, timeout=20), sqlite3.connect(self.copy)
		source.backup(target)
		source.close()
		target.close()

	def put_back(self):
		"""As an operator does: agents are stopped meanwhile, keepers and guests go on."""
		for host in self.hosts:
			host.stop_agent()
		for end in ('', '-wal', '-shm'):
			pathlib.Path(f'{self.path}{end}').unlink(missing_ok=True)
		self.path.write_bytes(self.copy.read_bytes())
		for host in self.hosts:
			host.start_agent()


@pytest.fixture(name='place')
def place_fixture(new_host, tmp_path):
	def make(shared):
		field = Loopback(tmp_path)
		hosts = make_cluster(new_host, tmp_path, field=field, storage={'shared': shared},
			timers={'migration_keep': '3s', 'cleanup': '3s'})
		if shared:
			share_volumes(hosts)
		return field, hosts
	return make


def definition(host):
	return micro(NAME, kvm_host=host.name, disk=1)


def epoch(field):
	return field.read(f'/drover/vms/{NAME}/owner')['epoch']


def move(hosts, target):
	target.apply(definition(target), args=['--no-wait'])
	wait_runs_on(hosts, NAME, target)
	target.wait(lambda: not target.vm(NAME)['migration'], 'it has arrived')


def says(host, *words):
	reason = (host.vm(NAME) or {}).get('reason') or ''
	return all(word in reason for word in words)


@pytest.mark.parametrize('new_keeper', [False, True])
def test_I1_what_runs_elsewhere_by_its_claim_is_not_started_a_second_time(place, new_keeper):
	"""Each try of a start raised the epoch before it looked at the claim: after enough of them the
	record had passed the claim of the guest that ran."""
	field, (alpha, beta) = place(shared=True)
	hosts = (alpha, beta)
	alpha.apply(definition(alpha))
	alpha.wait_state(NAME, 'running')
	backup = Backup(field, hosts)
	move(hosts, beta)
	qemu, keeper = beta.qemu(NAME), beta.keeper(NAME)
	backup.put_back()
	if new_keeper:
		keeper.kill()
	alpha.wait(lambda: says(alpha, "node 'beta' claims it", 'the store was set back', f"'drover stop {NAME}'"),
		'alpha says why it does not start it')
	before = epoch(field)
	for _ in range(8):
		tries = alpha.event_names(NAME).count('start-failed')
		alpha.drover('start', NAME, '--no-wait')
		alpha.wait(lambda n=tries: alpha.event_names(NAME).count('start-failed') > n, 'it is tried again')
	assert epoch(field) == before
	assert qemu.alive and not alpha.qemus(NAME)
	# The way out that the reason names.
	alpha.cli('stop', NAME, '--timeout', '120s')
	beta.wait(lambda: not qemu.alive, 'it is ended where it runs')
	alpha.cli('start', NAME, '--timeout', '120s')
	wait_runs_on(hosts, NAME, alpha)
	beta.wait(lambda: not beta.left(), 'nothing is left where it ran')


def test_I7_a_disk_that_left_with_its_vm_is_not_made_anew(place):
	"""The old disk was put aside under the epoch of the move: an older record does not make an
	empty one in its place."""
	field, (alpha, beta) = place(shared=False)
	hosts = (alpha, beta)
	alpha.apply(definition(alpha))
	alpha.wait_state(NAME, 'running')
	backup = Backup(field, hosts)
	move(hosts, beta)
	alpha.wait(lambda: list(alpha.lib.glob(f'volumes/{NAME}/.root.*.gone.raw')), 'the old disk is put aside')
	alpha.wait(lambda: not alpha.keeper(NAME), 'alpha is done with it')
	qemu = beta.qemu(NAME)
	backup.put_back()
	alpha.wait(lambda: says(alpha, 'left this node with its VM', 'bring its disk here'), 'alpha says why it does not start it')
	assert qemu.alive and not alpha.qemus(NAME)
	assert not (alpha.lib / f'volumes/{NAME}/root.raw').exists()
