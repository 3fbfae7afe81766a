# SPDX-License-Identifier: Apache-2.0
"""The QEMU process: whose it is, what it may, what it holds."""
import os
import re

import pytest

from drover import Ticks, kvm_model, micro


@pytest.mark.asan
def test_qemu_is_not_root_and_sandboxed(host):
	host.apply(micro('m1', disk=1, nics=[{'network': 'user'}]))
	qemu = host.qemu('m1')
	uids = set(qemu.field('Uid').split()) | set(qemu.field('Gid').split())
	assert len(uids) == 1 and int(uids.pop()) >= 1900000000
	assert qemu.field('Groups') == ''
	assert int(qemu.field('CapEff'), 16) == int(qemu.field('CapPrm'), 16) == 0
	assert int(qemu.field('CapBnd'), 16) == 0 or qemu.field('NoNewPrivs') == '1'
	assert qemu.field('NoNewPrivs') == '1'
	assert qemu.field('Seccomp') == '2'
	for thread in os.listdir(f'/proc/{qemu.pid}/task'):
		assert 'Seccomp:\t2' in qemu.proc(f'task/{thread}/status')


def test_each_qemu_has_a_user_of_its_own(host):
	host.apply(micro('m1'), micro('m2'), micro('m3'))
	assert len({host.qemu(name).field('Uid') for name in ('m1', 'm2', 'm3')}) == 3


def test_fc_K5_qemu_holds_no_lock_and_nothing_of_the_daemons(host):
	host.apply(micro('m1', disk=1))
	links = host.qemu('m1').fds()
	for link in links:
		assert 'lock' not in link and 'store.db' not in link, link
	files = {link for link in links if link.startswith(str(host.root))}
	expected = {str(host.vm_log('m1', 'serial.log')), str(host.vm_log('m1', 'qemu.log')),
		host.vm('m1')['volumes'][0]['path']}
	assert files == expected
	keeper = host.keeper('m1').fds()
	assert not [link for link in keeper if 'store.db' in link or link.endswith('/control.sock')]


def test_fc_K5_descriptors_do_not_grow(host):
	host.apply(micro('m1'))

	def counts():
		return len(host.agent_process.fds())
	host.cli('restart', 'm1')
	before, keeper = counts(), len(host.keeper('m1').fds())
	for _ in range(5):
		host.cli('restart', 'm1')
		host.cli('qmp', 'm1', 'query-status')
		host.cli('monitor', 'm1', 'info status')
	host.wait(lambda: counts() <= before, 'the agent holds no more than before')
	host.wait(lambda: len(host.keeper('m1').fds()) <= keeper, 'the keeper holds no more than before')


def test_fc_P26_the_exact_command_line_is_in_the_log(host):
	host.apply(micro('m1'))
	qemu = host.qemu('m1')
	log = host.text(host.vm_log('m1', 'qemu.log'))
	line = next(line for line in log.splitlines() if 'starting as uid' in line)
	assert re.findall(r"'([^']*)'", line) == qemu.args
	assert qemu.field('Uid').split()[0] in line
	for word in ('-nodefaults', '-no-user-config', '-S', '-sandbox'):
		assert word in qemu.args


def test_fc_P24_and_fc_P22_disks_use_no_host_cache_and_threads(host):
	host.apply(micro('m1', disk=1))
	args = ' '.join(host.qemu('m1').args)
	assert 'aio=threads' in args and 'cache.direct=on' in args
	assert 'i6300esb' not in args, 'fc-P23: no watchdog device'


def test_qemu_sees_no_files_of_the_host(host):
	host.apply(micro('m1'))
	qemu = host.qemu('m1')
	assert os.readlink(f'/proc/{qemu.pid}/ns/mnt') != os.readlink('/proc/self/ns/mnt')
	assert not os.path.exists(f'/proc/{qemu.pid}/root{host.root}/lib/drover/store.db')


def test_guest_memory_is_a_shared_memfd(host):
	host.apply(micro('m1'))
	assert re.search(r'rw-s.*memfd:memory-backend-memfd', host.qemu('m1').proc('maps'))


def test_private_memory_is_a_choice(host):
	host.apply(micro('m1', memory_backend='private'))
	assert not re.search(r'rw-s.*memfd:memory-backend', host.qemu('m1').proc('maps'))


def test_run_files_are_for_root_only(host):
	host.apply(micro('m1'))
	directory = host.run / 'vms/m1'
	assert directory.stat().st_mode & 0o066 == 0
	for path in directory.iterdir():
		assert path.stat().st_mode & 0o077 == 0, path
		assert path.stat().st_uid == 0, path


def test_the_micro_guest_under_kvm(host):
	if not kvm_model():
		pytest.skip('KVM runs no micro guest here')
	host.apply(micro('m1', 'hz=100 ws=4 rate=4', accelerator='kvm'))
	assert host.vm('m1')['accelerator'] == 'kvm'
	assert host.cli('qmp', 'm1', 'query-kvm').json() == {'enabled': True, 'present': True}
	with Ticks(host, 'm1') as ticks:
		host.kill_agent()
		host.keeper('m1').kill()
		ticks.more(10)
		host.start_agent()
		host.wait_state('m1', 'running')
		ticks.check()
	host.cli('stop', 'm1')
	assert host.vm('m1')['exit']['how'] == 'power-off'


def test_the_accelerator_is_chosen_by_trying_and_kept(host):
	host.apply(micro('m1', accelerator='auto'))
	accelerator = host.vm('m1')['accelerator']
	node = host.wait(lambda: (a := host.cli('node', '--format', 'json').json()['accelerator'])['name']
		in ('kvm', 'tcg') and a, 'the accelerator is known')
	assert node['name'] == accelerator and node['why']
	host.cli('restart', 'm1')
	assert host.vm('m1')['accelerator'] == accelerator
