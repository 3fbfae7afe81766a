# SPDX-License-Identifier: Apache-2.0
"""Definitions through `drover apply`."""
import json

import pytest

from drover import SOURCE, micro


def off(name, **parameters):
	"""A definition that starts nothing."""
	return {'name': name, 'parameters': {'online': False} | parameters}


@pytest.mark.asan
def test_the_answer_is_created_then_unchanged_then_changed(host):
	assert host.apply(off('m1', memory=64)).out == 'm1: created\n'
	assert host.apply(off('m1', memory=64)).out == 'm1: unchanged\n'
	changed = host.apply(off('m1', memory=128)).out
	assert changed.startswith('m1: changed\n')
	assert '64' in changed and '128' in changed and 'memory' in changed
	assert host.vm('m1')['generation'] == 2


def test_apply_starts_the_guest_and_waits_for_it(host):
	host.apply(micro('m1'))
	vm = host.vm('m1')
	assert vm['state'] == 'running'
	assert host.qemu('m1').pid == vm['pid']


def test_apply_no_wait_comes_back_at_once(host):
	host.apply(micro('m1'), args=['--no-wait'])
	host.wait_state('m1', 'running')


def test_fc_16_manual_example_loads_unchanged(host):
	"""The example of fc.qemu's manual: dashed MACs, one MAC on two cards, nothing else required."""
	text = (SOURCE / 'examples/test00.yaml').read_text()
	for part in ('id: 12345', 'kvm_host: bob', 'srv: 00-01-02-03-05-06', 'fe: 00-01-02-03-05-06'):
		assert part in text
	assert host.cli('apply', str(SOURCE / 'examples/test00.yaml')).out == 'test00: created\n'
	vm = host.vm('test00')
	assert (vm['wish'], vm['state'], vm['memory_mib']) == ('elsewhere', 'off', 512)
	assert [nic['mac'] for nic in vm['nics']] == ['00:01:02:03:05:06'] * 2
	assert [nic['network'] for nic in vm['nics']] == ['srv', 'fe']
	assert vm['volumes'][0]['size_bytes'] == 5 << 30


@pytest.mark.parametrize('name', ['nat', 'test00', 'web01'])
def test_the_examples_load(host, name):
	result = host.cli('apply', '--dry-run', str(SOURCE / f'examples/{name}.yaml'))
	assert result.out == f'{name}: created\n'


def test_keys_whose_feature_comes_later_are_stored_and_said(host):
	result = host.apply(off('m1', iops=250, rbd_pool='rbd.ssd'))
	assert 'iops' in result.err and 'rbd_pool' in result.err
	assert result.out == 'm1: created\n'
	assert host.apply(off('m1', iops=250, rbd_pool='rbd.ssd')).out == 'm1: unchanged\n'
	assert host.apply(off('m1', iops=500, rbd_pool='rbd.ssd')).out.startswith('m1: changed')


def test_unknown_keys_are_kept_and_the_nearest_key_is_named(host):
	result = host.apply(off('m1', memroy=64))
	assert 'memroy' in result.err and "'memory'" in result.err
	assert 'did you mean' in result.err
	changed = host.apply(off('m1', memroy=65)).out
	assert changed.startswith('m1: changed') and 'memroy' in changed


@pytest.mark.asan
def test_wrong_values_are_refused_with_their_place(host, tmp_path):
	path = tmp_path / 'm1.yaml'
	path.write_text('name: m1\nparameters:\n  online: false\n  memory: lots\n')
	result = host.cli('apply', str(path), rc=65)
	assert f'{path}:4:11:' in result.err
	assert 'MiB' in result.err and 'memory' in result.err
	assert host.vms() == {}


def test_broken_yaml_is_refused_with_its_place(host):
	result = host.apply('name: m1\nparameters: {memory: 64', rc=65)
	assert '<stdin>:' in result.err
	assert host.vms() == {}


def test_nothing_is_half_applied(host):
	host.apply(off('m1', memory=64), off('m2', memory='lots'), off('m3'), rc=65)
	assert host.vms() == {}


def test_nothing_is_half_applied_when_one_source_is_refused(host):
	(host.vms_dir / 'm2.yaml').write_text(json.dumps(off('m2')))
	host.wait(lambda: host.vm('m2'), 'the file is read')
	host.apply(off('m1'), off('m2', memory=128), rc=69)
	assert list(host.vms()) == ['m2']


def test_one_name_twice_in_one_apply_is_refused(host):
	result = host.apply(off('m1', memory=64), off('m1', memory=128), rc=65)
	assert 'm1' in result.err
	assert host.vms() == {}


def test_dry_run_shows_the_change_and_changes_nothing(host):
	assert host.apply(off('m1', memory=64), args=['--dry-run']).out == 'm1: created\n'
	assert host.vms() == {}
	host.apply(off('m1', memory=64))
	shown = host.apply(off('m1', memory=128), args=['--dry-run']).out
	assert shown.startswith('m1: changed') and '128' in shown
	assert host.vm('m1')['memory_mib'] == 64
	assert host.vm('m1')['generation'] == 1


def test_a_directory_is_applied_as_one(host, tmp_path):
	for name in ('a1', 'b2', 'c3'):
		(tmp_path / f'{name}.yaml').write_text(json.dumps(off(name)))
	(tmp_path / 'notes.txt').write_text('not a definition')
	assert host.cli('apply', str(tmp_path)).out == 'a1: created\nb2: created\nc3: created\n'


def test_apply_format_json(host):
	results = host.apply(off('m1'), args=['--format', 'json']).json()
	assert [(r['name'], r['result']) for r in results] == [('m1', 'created')]
	assert isinstance(results[0]['notes'], list)


def test_what_does_not_start_is_said_with_1(host):
	result = host.apply(micro('m1', kernel='/nonexistent/kernel'), rc=1)
	assert result.out == 'm1: created\n'
	assert '/nonexistent/kernel' in result.err
	host.wait_state('m1', 'failed')
	assert '/nonexistent/kernel' in host.vm('m1')['reason']


def test_starts_that_fail_book_no_memory(host):
	"""Each try used to leave its booking until the keeper ended."""
	host.apply(micro('m1', kernel='/nonexistent/kernel'), rc=1)
	host.wait(lambda: host.event_names('m1').count('start-failed') > 3, 'some tries')
	assert len(list((host.host_dir / 'bookings').iterdir())) <= 1


def test_physical_machines_are_refused(host):
	assert 'physical' in host.apply(off('m1', machine='physical'), rc=65).err


def test_fc_K8_an_older_generation_never_follows_a_newer(host):
	for memory in (64, 80, 96):
		host.apply(off('m1', memory=memory))
	host.restart_agent()
	vm = host.vm('m1')
	assert (vm['generation'], vm['memory_mib']) == (3, 96)


def test_fc_K10_a_change_of_the_same_size_is_applied(host):
	host.apply(off('m1', memory=64))
	assert host.apply(off('m1', memory=65)).out.startswith('m1: changed')
	assert host.vm('m1')['memory_mib'] == 65


def test_online_false_starts_nothing_and_start_names_the_definition(host):
	host.apply(micro('m1', online=False))
	assert (host.state('m1'), host.vm('m1')['wish']) == ('off', 'off')
	refusal = host.cli('start', 'm1', rc=69).err
	assert 'online: false' in refusal and 'apply' in refusal
