# SPDX-License-Identifier: Apache-2.0
"""What the guest sees is frozen at its first start and replayed until power-off (I6)."""
import json
import re

import pytest

from drover import micro

NICS = [{'network': 'user'}, {'network': 'lab', 'mode': 'none'}]
VOLUMES = [{'name': 'root', 'size': '8M'}, {'name': 'data', 'size': '8M'}]


def hardware(host, name='m1'):
	return host.cli('hardware', name, '--format', 'json').json()


def devices(host, name='m1'):
	"""The addresses of all devices by id, as QEMU itself says."""
	found, device = {}, None
	for line in host.cli('monitor', name, 'info qtree').out.splitlines():
		if match := re.match(r' *dev: [^,]+, id "(.*)"$', line.rstrip()):
			device = match[1]
		elif match := re.match(r' *addr = (\S+)', line):
			if device:
				found[device] = match[1]
			device = None
	return found


def lasting(record):
	return {k: v for k, v in record.items() if k not in ('generation', 'born')}


@pytest.mark.asan
def test_the_record_is_made_at_the_first_start(host):
	host.apply(micro('m1', online=False))
	assert 'never started' in host.cli('hardware', 'm1', rc=69).err
	host.apply(micro('m1', volumes=VOLUMES, nics=NICS))
	record, vm = hardware(host), host.vm('m1')
	assert record['uuid'] == vm['uuid'] == host.cli('qmp', 'm1', 'query-uuid').json()['UUID']
	text = json.dumps(record)
	for word in ('memory-backend-memfd', 'pcie-root-port', 'virtio-blk-pci', 'virtio-net-pci',
			'virtio-rng-pci', 'virtserialport', 'pvpanic-pci', 'isa-serial'):
		assert word in text, word
	table = host.cli('hardware', 'm1').out
	assert record['uuid'] in table and 'virtio-blk-pci' in table


def test_fc_T21_the_machine_type_has_three_parts(host):
	host.apply(micro('m1'))
	assert re.fullmatch(r'pc-q35-\d+\.\d+', host.vm('m1')['machine_type'])
	args = host.qemu('m1').args
	assert args[args.index('-machine') + 1].split(',')[0] == host.vm('m1')['machine_type']


def test_fc_P20_the_newest_of_a_family_by_version(host):
	host.apply(micro('m1', machine_type='pc'))
	listed = host.cli('qmp', 'm1', 'query-machines').json()
	versions = [tuple(map(int, m['name'].rsplit('-', 1)[1].split('.')[:2])) for m in listed
		if m['name'].startswith('pc-i440fx-')]
	assert host.vm('m1')['machine_type'] == 'pc-i440fx-{}.{}'.format(*max(versions))


def test_it_stays_over_cold_starts(host):
	host.apply(micro('m1', volumes=VOLUMES, nics=NICS))
	record, seen, vm = hardware(host), devices(host), host.vm('m1')
	assert len(seen) > 8
	for command in ('restart', 'stop', 'start'):
		host.cli(command, 'm1')
	host.restart_agent()
	host.wait_state('m1', 'running')
	assert lasting(hardware(host)) == lasting(record)
	assert devices(host) == seen
	assert host.vm('m1')['nics'] == vm['nics']
	assert host.vm('m1')['machine_type'] == vm['machine_type']


def test_it_stays_after_the_death_of_qemu(host):
	host.apply(micro('m1', volumes=VOLUMES))
	record, pid = hardware(host), host.vm('m1')['pid']
	host.qemu('m1').kill()
	host.wait_pid_change('m1', pid)
	assert lasting(hardware(host)) == lasting(record)


def test_defaults_of_the_node_are_for_new_vms(new_host):
	host = new_host().start_agent()
	host.apply(micro('m1'))
	host.cli('stop', 'm1')
	host.stop_agent()
	host.configure(defaults={'machine_type': 'pc', 'cpu_model': 'kvm64'})
	host.start_agent()
	host.cli('start', 'm1')
	host.apply(micro('m2'))
	assert host.vm('m1')['machine_type'].startswith('pc-q35-')
	assert host.vm('m2')['machine_type'].startswith('pc-i440fx-')
	assert hardware(host)['cpu_model'] == 'qemu64'
	assert hardware(host, 'm2')['cpu_model'] == 'kvm64'


def test_flags_of_a_cpu_model_are_what_was_asked(host):
	host.apply(micro('m1', cpu_model='qemu64,-pni,+popcnt'))
	assert hardware(host)['cpu_model'] == 'qemu64,pni=off,popcnt=on'
	[cpu] = host.cli('qmp', 'm1', 'query-cpus-fast').json()
	for flag, value in ('pni', False), ('popcnt', True), ('enforce', True):
		asked = json.dumps({'path': cpu['qom-path'], 'property': flag})
		assert host.cli('qmp', 'm1', 'qom-get', asked).json() is value, flag
	host.apply(micro('m1', cpu_model='qemu64,popcnt,pni=off', memory=96), args=['--no-wait'])
	pending = host.wait(lambda: host.vm('m1')['pending'], 'the keeper has compared')
	assert 'memory' in pending and 'cpu' not in pending, 'the same in other words is the same'
	refused = host.apply(micro('m2', cpu_model='qemu64,-nonsense'), rc=1)
	assert 'nonsense' in refused.err


def test_a_changed_definition_waits_for_power_off(host):
	host.apply(micro('m1', volumes=VOLUMES[:1], nics=NICS[:1]))
	record, seen = hardware(host), devices(host)
	host.apply(micro('m1', memory=96, volumes=VOLUMES, nics=NICS), args=['--no-wait'])
	vm = host.wait(lambda: (vm := host.vm('m1'))['pending'] and vm, 'it is pending')
	assert (vm['memory_mib'], vm['running_generation'], vm['generation']) == (64, 1, 2)
	assert hardware(host) == record and devices(host) == seen
	host.keeper('m1').kill()
	host.wait(lambda: host.keeper('m1'), 'there is a keeper')
	vm = host.wait(lambda: (vm := host.vm('m1'))['state'] == 'running' and vm['pending'] and vm,
		'the next keeper knows it too')
	assert vm['memory_mib'] == 64
	assert 'drover restart m1' in host.cli('explain', 'm1').out
	host.cli('restart', 'm1')
	vm = host.vm('m1')
	assert (vm['memory_mib'], vm['pending'], vm['running_generation']) == (96, None, 2)
	after = devices(host)
	assert {k: after[k] for k in seen} == seen, 'what was there keeps its place'
	assert {'disk-data', 'nic-lab'} <= set(after)


def test_a_device_that_comes_back_finds_its_place(host):
	host.apply(micro('m1', volumes=VOLUMES, nics=NICS))
	seen = devices(host)
	host.apply(micro('m1', volumes=VOLUMES[1:], nics=NICS[1:]))
	host.cli('restart', 'm1')
	fewer = devices(host)
	assert 'disk-root' not in fewer and fewer['disk-data'] == seen['disk-data']
	assert fewer['nic-lab'] == seen['nic-lab']


def test_addresses_of_cards_are_made_once_and_kept(host):
	host.apply(micro('m1', nics=NICS), micro('m2', nics=NICS))
	macs = [nic['mac'] for name in ('m1', 'm2') for nic in host.vm(name)['nics']]
	assert len(set(macs)) == 4
	assert all(mac.startswith('52:54:00:') for mac in macs)
	host.cli('restart', 'm1')
	assert [nic['mac'] for nic in host.vm('m1')['nics']] == macs[:2]


def test_cores_memory_and_model_are_what_was_asked(host):
	host.apply(micro('m1', cores=2, memory=80, memory_max=160, cores_max=4, cpu_model='qemu64'))
	assert len(host.cli('qmp', 'm1', 'query-cpus-fast').json()) == 2
	assert host.cli('qmp', 'm1', 'query-memory-size-summary').json()['base-memory'] == 80 << 20
	record = hardware(host)
	assert (record['cores'], record['cores_max']) == (2, 4)
	assert (record['memory_mib'], record['memory_max_mib']) == (80, 160)


def test_fc_P19_entropy_is_limited(host):
	host.apply(micro('m1'))
	text = host.cli('monitor', 'm1', 'info qtree').out
	assert re.search(r'max-bytes = 1024\b', text) and re.search(r'period = 100\b', text)


def test_fc_T22_a_site_template_wins(host):
	(host.etc / 'qemu.cfg.in').write_text(
		'# of this site\n[device "balloon0"]\n  driver = "virtio-balloon-pci"\n  bus = "{pci_bus}"\n'
		'  addr = "0x6"\n[device "rng0"]\n  max-bytes = "2048"\n'
		'[smbios]\n  type = "1"\n  serial = "{name} on {machine_type}"\n')
	host.apply(micro('m1'))
	seen = devices(host)
	assert 'balloon0' in seen
	assert re.search(r'max-bytes = 2048\b', host.cli('monitor', 'm1', 'info qtree').out)
	assert f'm1 on {host.vm("m1")["machine_type"]}' in ' '.join(host.qemu('m1').args)
	assert 'virtio-balloon-pci' in json.dumps(hardware(host)), 'merged before the record is made'


def test_a_broken_template_is_refused_with_its_place(host):
	path = host.etc / 'qemu.cfg.in'
	path.write_text('[device "x0"]\n  driver = "{nonsense}"\n')
	result = host.apply(micro('m1'), rc=1)
	assert f'{path}:2:' in result.err and 'nonsense' in result.err
	path.unlink()
	host.cli('ensure', 'm1')
	assert host.state('m1') == 'running'


@pytest.mark.parametrize('text', ['[mon "m2"]\n  mode = "control"\n', '[sandbox]\n  enable = "off"\n'])
def test_a_template_does_not_touch_what_the_keeper_rests_on(host, text):
	(host.etc / 'qemu.cfg.in').write_text(text)
	assert 'qemu.cfg.in:1' in host.apply(micro('m1'), rc=1).err


def test_fc_P12_qemus_own_words_are_the_reason(host):
	(host.etc / 'qemu.cfg.in').write_text(
		'[device "x0"]\n  driver = "no-such-device"\n  bus = "{pci_bus}"\n  addr = "0x6"\n')
	host.apply(micro('m1'), rc=1)
	vm = host.wait_state('m1', 'failed')
	assert 'no-such-device' in vm['reason']
	log = host.text(host.vm_log('m1', 'qemu.log'))
	assert "'no-such-device' is not a valid device model name" in log
	assert 'exit code 1' in log
	host.cli('stop', 'm1')


def test_an_unknown_machine_type_is_said_before_anything_is_made(host):
	result = host.apply(micro('m1', machine_type='pc-q35-99.9'), rc=1)
	assert 'pc-q35-99.9' in result.err
	assert host.qemus() == []
	host.cli('stop', 'm1')
