# SPDX-License-Identifier: Apache-2.0
"""Definitions as files in etc/drover/vms, which is watched."""
import json
import os

from drover import Ticks, micro


def write(host, name, definition, suffix='.yaml'):
	"""As an editor does: beside it, then renamed."""
	text = definition if isinstance(definition, str) else json.dumps(definition)
	path = host.vms_dir / f'{name}{suffix}'
	new = host.vms_dir / f'.{name}.new'
	new.write_text(text)
	new.rename(path)
	return path


def test_a_file_makes_a_guest(host):
	path = write(host, 'm1', micro('m1'))
	vm = host.wait_state('m1', 'running')
	assert vm['source'] == f'file alpha:{path}'


def test_a_file_that_was_there_before_the_agent(new_host):
	host = new_host()
	write(host, 'm1', micro('m1'))
	host.start_agent()
	host.wait_state('m1', 'running')


def test_a_file_written_in_place_is_read_when_it_rests(host):
	with open(host.vms_dir / 'm1.yaml', 'w', encoding='utf-8') as file:
		for part in ('name: m1\n', 'parameters:\n', '  online: false\n', '  memory: 96\n'):
			file.write(part)
			file.flush()
	host.wait(lambda: (host.vm('m1') or {}).get('memory_mib') == 96, 'the file is read')


def test_a_changed_file_is_pending_until_restart(host):
	write(host, 'm1', micro('m1'))
	pid = host.wait_state('m1', 'running')['pid']
	write(host, 'm1', micro('m1', memory=96))
	vm = host.wait(lambda: host.vm('m1')['pending'] and host.vm('m1'), 'the change is seen')
	assert vm['pid'] == pid and vm['memory_mib'] == 64
	host.cli('restart', 'm1')
	vm = host.vm('m1')
	assert vm['pid'] != pid and vm['memory_mib'] == 96 and vm['pending'] is None


def test_a_broken_file_keeps_the_last_good_definition(host):
	path = write(host, 'm1', micro('m1'))
	pid = host.wait_state('m1', 'running')['pid']
	write(host, 'm1', 'name: m1\nparameters:\n  memory: lots\n')
	vm = host.wait(lambda: host.vm('m1')['pending'] and host.vm('m1'), 'the fault is shown')
	assert f'{path}:3:11' in vm['pending']
	assert (vm['state'], vm['pid'], vm['wish'], vm['memory_mib']) == ('running', pid, 'run', 64)
	assert str(path) in host.cli('explain', 'm1').out
	write(host, 'm1', micro('m1'))
	host.wait(lambda: host.vm('m1')['pending'] is None, 'the fault is taken back')


def test_fc_K9_a_broken_file_stands_in_nobodys_way(host):
	write(host, 'bad', '\x00\x01 {{{')
	write(host, 'm1', micro('m1'))
	host.wait_state('m1', 'running')


def test_a_deleted_file_means_hands_off_and_is_listed_so(host):
	path = write(host, 'm1', micro('m1'))
	pid = host.wait_state('m1', 'running')['pid']
	with Ticks(host, 'm1') as ticks:
		path.unlink()
		vm = host.wait(lambda: host.vm('m1')['wish'] == 'hands-off' and host.vm('m1'), 'hands off')
		assert vm['source_gone'] is True
		assert (vm['state'], vm['pid']) == ('running', pid)
		assert str(path) in host.cli('explain', 'm1').out
		assert 'hands-off' in host.cli('ls').out
		ticks.check()
	write(host, 'm1', micro('m1'))
	vm = host.wait(lambda: host.vm('m1')['wish'] == 'run' and host.vm('m1'), 'hands on again')
	assert (vm['pid'], vm['source_gone'], vm['generation']) == (pid, False, 1)


def test_a_file_deleted_while_no_agent_looks(host):
	path = write(host, 'm1', micro('m1'))
	pid = host.wait_state('m1', 'running')['pid']
	host.stop_agent()
	path.unlink()
	host.start_agent()
	host.wait(lambda: host.vm('m1')['wish'] == 'hands-off', 'hands off')
	assert host.wait_state('m1', 'running')['pid'] == pid
	write(host, 'm1', micro('m1'))
	host.wait(lambda: host.vm('m1')['wish'] == 'run', 'hands on again')


def test_rm_is_refused_while_the_file_is_there_and_names_it(host):
	path = write(host, 'm1', micro('m1', online=False))
	host.wait(lambda: host.vm('m1'), 'the file is read')
	assert str(path) in host.cli('rm', 'm1', rc=69).err
	path.unlink()
	host.wait(lambda: host.vm('m1')['wish'] == 'hands-off', 'hands off')
	host.cli('rm', 'm1')
	assert host.vms() == {}


def test_start_against_online_false_names_the_file(host):
	path = write(host, 'm1', micro('m1', online=False))
	host.wait(lambda: host.vm('m1'), 'the file is read')
	refusal = host.cli('start', 'm1', rc=69).err
	assert str(path) in refusal and 'online: false' in refusal


def test_a_second_source_is_refused_naming_both_apply_after_file(host):
	path = write(host, 'm1', micro('m1', online=False))
	host.wait(lambda: host.vm('m1'), 'the file is read')
	refusal = host.apply(micro('m1', online=False, memory=96), rc=69).err
	assert f'file alpha:{path}' in refusal and 'apply' in refusal
	assert host.vm('m1')['memory_mib'] == 64


def test_a_second_source_is_refused_naming_both_file_after_apply(host):
	host.apply(micro('m1', online=False))
	path = write(host, 'm1', micro('m1', online=False, memory=96))
	vm = host.wait(lambda: host.vm('m1')['pending'] and host.vm('m1'), 'the refusal is shown')
	assert str(path) in vm['pending'] and 'by apply' in vm['pending']
	assert (vm['memory_mib'], vm['source']) == (64, 'apply')


def test_two_files_for_one_name_are_refused_naming_both(host):
	first = write(host, 'a', micro('m1', online=False))
	host.wait(lambda: host.vm('m1'), 'the file is read')
	second = write(host, 'b', micro('m1', online=False, memory=96))
	host.wait(lambda: str(second) in host.agent_log(), 'the second file is spoken of')
	assert str(first) in host.agent_log()
	assert host.vm('m1')['memory_mib'] == 64
	second.unlink()


def test_fc_K7_a_storm_of_updates_ends_with_the_last(host):
	for memory in range(64, 164):
		write(host, 'm1', micro('m1', online=False, memory=memory))
	host.wait(lambda: (host.vm('m1') or {}).get('memory_mib') == 163, 'the last one wins')
	assert len(host.all_processes()) <= 2


def test_online_false_in_the_file_shuts_the_guest_down(host):
	write(host, 'm1', micro('m1'))
	host.wait_state('m1', 'running')
	write(host, 'm1', micro('m1', online=False))
	host.wait_state('m1', 'off')
	assert 'POWER-BUTTON' in host.serial('m1')
	write(host, 'm1', micro('m1'))
	host.wait_state('m1', 'running')


def test_fc_T2_ensure_going_offline_without_an_agent_looking(host):
	"""What was written while no agent ran is carried out by the next one."""
	write(host, 'm1', micro('m1'))
	host.wait_state('m1', 'running')
	host.stop_agent()
	write(host, 'm1', micro('m1', online=False))
	host.start_agent()
	host.cli('ensure', 'm1')
	host.wait_state('m1', 'off')
	host.cli('ensure', 'm1')
	assert host.state('m1') == 'off'
	host.wait(lambda: host.keeper('m1') is None, 'nobody is kept for a VM that is off')
	log = host.text(host.vm_log('m1', 'keeper.log'))
	host.cli('ensure', 'm1')
	assert host.text(host.vm_log('m1', 'keeper.log')) == log, 'the third look costs nothing'


def test_a_running_guest_without_a_file_is_stopped_and_removed_by_name(host):
	path = write(host, 'm1', micro('m1'))
	host.wait_state('m1', 'running')
	path.unlink()
	host.wait(lambda: host.vm('m1')['wish'] == 'hands-off', 'hands off')
	assert 'drover stop m1' in host.cli('rm', 'm1', rc=69).err
	assert str(path) in host.cli('restart', 'm1', rc=69).err
	host.cli('stop', 'm1')
	host.cli('rm', 'm1')
	assert host.vms() == {}


def test_apply_may_follow_a_file_that_is_gone(host):
	path = write(host, 'm1', micro('m1'))
	pid = host.wait_state('m1', 'running')['pid']
	path.unlink()
	host.wait(lambda: host.vm('m1')['wish'] == 'hands-off', 'hands off')
	host.apply(micro('m1'))
	vm = host.vm('m1')
	assert (vm['source'], vm['wish'], vm['pid']) == ('apply', 'run', pid)


def test_other_files_and_editors_leftovers_are_no_definitions(host):
	for name in ('.m1.yaml.swp', 'm1.yaml~', '#m1.yaml#', 'README'):
		(host.vms_dir / name).write_text(json.dumps(micro(f'x{len(name)}')))
	write(host, 'm1', micro('m1', online=False), '.yml')
	host.wait(lambda: host.vm('m1'), 'the definition is read')
	assert list(host.vms()) == ['m1']


def test_the_directory_may_come_and_go(host):
	write(host, 'm1', micro('m1'))
	pid = host.wait_state('m1', 'running')['pid']
	os.rename(host.vms_dir, host.etc / 'vms.away')
	host.wait(lambda: host.vms_dir.is_dir(), 'the directory is made anew', 10)
	os.rmdir(host.vms_dir)
	os.rename(host.etc / 'vms.away', host.vms_dir)
	host.wait(lambda: host.vm('m1')['wish'] == 'run', 'hands on', 20)
	assert host.vm('m1')['pid'] == pid
