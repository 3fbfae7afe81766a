# SPDX-License-Identifier: Apache-2.0
"""A running guest that goes from one version of QEMU to another and back, by Drover.  With
DROVER_QEMUS=DIR, where tests/qemus/fetch has unpacked them; docs/QEMU.md."""
import pytest

import raw_qemu
from drover import micro, wait
from journey import DISK_WORDS, Witness, make_cluster, timelines, wait_runs_on

PROGRAMS = raw_qemu.programs()
OURS = next(iter(PROGRAMS))


def version_of(host):
	[build] = host.cli('node', '--format', 'json').json()['qemu'] or [{}]
	return build.get('version')


def test_a_qemu_that_is_too_old_is_said_to_be(new_host):
	if not PROGRAMS.get('5.2'):
		pytest.skip('no QEMU 5.2 in DROVER_QEMUS')
	host = new_host(qemu={'binary': PROGRAMS['5.2']}).start_agent()
	host.wait(lambda: 'QEMU 5.2.0 is too old' in host.cli('node').out, 'the node says so')
	host.apply(micro('m1'), args=['--no-wait'])
	host.wait(lambda: 'QEMU 5.2.0 is too old' in str(host.vm('m1')['reason']), 'so does its VM')


@pytest.mark.parametrize('other', [version for version in raw_qemu.OTHERS if version != "5.2"])
def test_a_guest_goes_to_another_version_of_qemu_and_back(new_host, tmp_path, other):
	if not PROGRAMS.get(other):
		pytest.skip(f'no QEMU {other} in DROVER_QEMUS')
	programs = {'alpha': PROGRAMS[OURS], 'beta': PROGRAMS[other]}

	def make(name, **config):
		return new_host(name, qemu={'binary': programs[name]}, **config)
	pair = alpha, beta = make_cluster(make, tmp_path)
	wait(lambda: version_of(alpha) and version_of(beta), 'what their QEMUs are is known')
	assert version_of(alpha) != version_of(beta)
	guest = micro('m1', kvm_host='alpha', machine_type='pc-q35-5.2', words=DISK_WORDS, disk=1)
	alpha.apply(guest)
	alpha.wait_state('m1', 'running')
	hardware = alpha.cli('hardware', 'm1').out
	with Witness(pair, 'm1') as witness:
		for host in (beta, alpha):
			alpha.cli('move', 'm1', '--to', host.name, '--timeout', '120s')
			wait_runs_on(pair, 'm1', host)
			host.wait(lambda h=host: h.vm('m1')['qemu_version'] == version_of(h), 'what it runs on is shown')
			runs = host.cli('qmp', 'm1', 'query-version').json()['qemu']
			assert '.'.join(str(runs[part]) for part in ('major', 'minor', 'micro')) == version_of(host)
		witness.check(moves=2)
	assert alpha.cli('hardware', 'm1').out == hardware
	assert [line['result'] for line in timelines(alpha, 'm1')] == ['moved', 'moved']
