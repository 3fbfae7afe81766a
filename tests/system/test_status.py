# SPDX-License-Identifier: Apache-2.0
"""What can be seen: ls, status, explain, node, config, events, logs; and the exit codes."""
import datetime
import json
import os
import re
import subprocess

import pytest

from drover import ask, micro

TYPES = {
	'name': str, 'state': str, 'wish': str, 'reason': (str, type(None)), 'node': str,
	'pid': (int, type(None)), 'since': (str, type(None)), 'uptime_s': (int, type(None)),
	'accelerator': (str, type(None)), 'machine_type': (str, type(None)),
	'qemu_version': (str, type(None)), 'memory_mib': int, 'cores': int,
	'guest_agent': (str, type(None)), 'volumes': list, 'nics': list, 'generation': int,
	'source': str, 'order': (dict, type(None)), 'pending': (str, type(None)),
	'epoch': (int, type(None)), 'exit': (dict, type(None)),
}


def check_vm(vm):
	for key, kind in TYPES.items():
		assert key in vm, key
		assert isinstance(vm[key], kind), (key, vm[key])
	for volume in vm['volumes']:
		assert {'name', 'size_bytes', 'format', 'path'} <= set(volume)
	for nic in vm['nics']:
		assert {'name', 'network', 'mac', 'tap'} <= set(nic)


@pytest.mark.asan
def test_status_json_has_its_fields_and_types(host):
	host.apply(micro('m1', disk=1, nics=[{'network': 'user'}]))
	vm = host.cli('status', 'm1', '--format', 'json').json()
	check_vm(vm)
	assert vm['node'] == 'alpha' and vm['cores'] == 1 and vm['memory_mib'] == 64
	assert re.fullmatch(r'pc-q35-\d+\.\d+', vm['machine_type'])
	assert re.match(r'\d+\.\d+', vm['qemu_version'])
	assert vm['guest_agent'] in ('absent', 'unknown')
	since = datetime.datetime.fromisoformat(vm['since'].replace('Z', '+00:00'))
	age = datetime.datetime.now(datetime.timezone.utc) - since
	assert datetime.timedelta(seconds=-2) < age < datetime.timedelta(minutes=5)
	assert vm['volumes'][0]['size_bytes'] == 1 << 30
	assert os.path.exists(vm['volumes'][0]['path'])
	host.cli('stop', 'm1')
	vm = host.cli('status', 'm1', '--format', 'json', rc=1).json()
	check_vm(vm)
	assert vm['pid'] is None and vm['uptime_s'] is None
	assert vm['exit']['how'] == 'power-off'


def test_ls_json_is_a_sorted_list(host):
	host.apply(*({'name': name, 'parameters': {'online': False}} for name in ('b', 'a', 'c')))
	vms = host.cli('ls', '--format', 'json').json()
	assert [vm['name'] for vm in vms] == ['a', 'b', 'c']
	for vm in vms:
		check_vm(vm)


def test_ls_json_of_nothing_is_an_empty_list(host):
	assert host.cli('ls', '--format', 'json').json() == []


def test_ls_table_shows_states_wishes_and_reasons(host):
	host.apply(micro('m1'), {'name': 'm2', 'parameters': {'online': False}})
	lines = host.cli('ls').out.splitlines()
	assert lines[0].split() == ['NAME', 'STATE', 'WISH', 'NODE', 'CPU', 'MEM', 'UPTIME', 'AGENT',
		'REASON']
	assert lines[1].split()[:4] == ['m1', 'running', 'run', 'alpha']
	assert lines[2].split()[:4] == ['m2', 'off', 'off', 'alpha']
	assert 'online: false' in lines[2]
	assert '\033' not in host.cli('ls').out


def test_status_exit_codes(host):
	host.apply(micro('m1'))
	assert host.drover('status', 'm1').rc == 0
	host.cli('pause', 'm1')
	assert host.drover('status', 'm1').rc == 1
	host.cli('kill', 'm1')
	assert host.drover('status', 'm1').rc == 1
	assert host.drover('status', 'nobody').rc == 69
	host.stop_agent()
	assert host.drover('status', 'm1').rc == 75


def test_status_is_75_when_it_cannot_be_told(new_host):
	host = new_host(timers={'keeper_silent': '20s'}).start_agent()
	host.apply(micro('m1'))
	keeper = host.keeper('m1')
	host.stop_agent()
	keeper.signal(19)
	host.start_agent()
	assert host.drover('status', 'm1').rc == 75
	assert host.vm('m1')['state'] == 'unknown'
	keeper.signal(18)
	host.wait_state('m1', 'running')


COMMANDS = ['apply', 'ls', 'status', 'explain', 'start', 'stop', 'restart', 'kill', 'pause',
	'resume', 'ensure', 'rm', 'exec', 'console', 'monitor', 'qmp', 'guest', 'hardware', 'volume ls',
	'events', 'logs', 'config', 'node', 'shutdown-all']


@pytest.mark.parametrize('command', COMMANDS)
def test_help_is_everywhere_and_needs_no_agent(new_host, command):
	host = new_host()
	result = host.cli(*command.split(), '--help')
	assert command.split()[0] in result.out and result.err == ''


@pytest.mark.parametrize('command', [c for c in COMMANDS if c != 'apply'])
def test_without_an_agent_every_command_says_try_again(new_host, command):
	host = new_host()
	words = {'exec': ['m1', '--', 'true'], 'qmp': ['m1', 'query-status'],
		'guest': ['m1', 'guest-ping'], 'monitor': ['m1', 'info status'],
		'shutdown-all': ['--yes']}.get(command)
	if words is None:
		alone = ('ls', 'volume ls', 'events', 'logs', 'config', 'node', 'ensure')
		words = [] if command in alone else ['m1']
	result = host.cli(*command.split(), *words, rc=125 if command == 'exec' else 75)
	assert 'droverd' in result.err and len(result.err.splitlines()) == 1


@pytest.mark.parametrize('args', [
	['nonsense'], [], ['start'], ['start', 'a', 'b'], ['ls', '--format', 'xml'], ['ls', '--bogus'],
	['stop', 'm1', '--timeout', 'soon'], ['console', 'm1', '--lines', 'many'], ['shutdown-all'],
	['qmp', 'm1'], ['exec', 'm1']])
def test_usage_is_64(host, args):
	result = host.cli(*args, rc=64)
	assert result.out == '' and result.err


@pytest.mark.parametrize('command', ['start', 'stop', 'restart', 'kill', 'pause', 'resume', 'ensure',
	'rm', 'explain', 'hardware', 'status'])
def test_a_vm_that_is_not_there_is_69_and_named(host, command):
	assert "'nobody'" in host.cli(command, 'nobody', rc=69).err


def test_fc_P11_what_does_not_fit_the_state_is_refused_and_changes_nothing(host):
	host.apply(micro('m1'))
	pid = host.vm('m1')['pid']
	for args in (['start', 'm1'], ['resume', 'm1'], ['rm', 'm1']):
		assert 'running' in host.cli(*args, rc=69).err
	assert host.vm('m1')['pid'] == pid
	host.cli('pause', 'm1')
	for args in (['pause', 'm1'], ['start', 'm1'], ['exec', 'm1', '--', 'true']):
		if args[0] == 'pause':
			continue
		host.cli(*args, rc=125 if args[0] == 'exec' else 69)
	assert host.state('m1') == 'paused'
	host.cli('kill', 'm1')
	order = host.vm('m1')['order']
	for command in ('stop', 'restart', 'kill', 'pause', 'resume'):
		assert 'off' in host.cli(command, 'm1', rc=69).err
	assert host.cli('qmp', 'm1', 'query-status', rc=75).err
	assert host.cli('monitor', 'm1', 'info status', rc=75).err
	assert host.cli('guest', 'm1', 'guest-ping', rc=75).err
	assert host.cli('console', 'm1', rc=75).err
	assert host.vm('m1')['order'] == order


def test_timeout_of_a_waiting_command_is_75_and_the_order_stands(host):
	host.apply(micro('m1', 'hz=50 power=ignore', graceful_timeout='1s'))
	result = host.cli('stop', 'm1', '--timeout', '100ms', rc=75)
	assert 'stands' in result.err
	host.wait_state('m1', 'off')


def test_no_wait_comes_back_before_it_is_done(host):
	host.apply(micro('m1', 'hz=50 power=ignore', graceful_timeout='1s'))
	host.cli('stop', 'm1', '--no-wait')
	assert host.state('m1') in ('running', 'stopping')
	host.wait_state('m1', 'off')


def test_explain_says_why_and_what_next(host):
	host.apply(micro('m1'))
	host.cli('stop', 'm1')
	text = host.cli('explain', 'm1').out
	assert 'off' in text and 'drover start m1' in text
	sentences = host.cli('explain', 'm1', '--format', 'json').json()['sentences']
	assert all(isinstance(s, str) and s for s in sentences)


def test_node_status(host):
	host.apply(micro('m1'))
	node = host.cli('node', '--format', 'json').json()
	assert (node['name'], node['mode'], node['vms']) == ('alpha', 'ready', {'running': 1})
	assert {'total', 'available', 'booked'} <= set(node['memory_mib'])
	assert node['memory_mib']['booked'] == 64 + 512
	assert node['store_state'] == 'connected'
	host.wait(lambda: host.cli('node', '--format', 'json').json()['accelerator']['name']
		in ('kvm', 'tcg'), 'the accelerator is known')
	assert host.cli('node', '--format', 'json').json()['accelerator']['why']
	for qemu in node['qemu']:
		assert {'binary', 'version', 'package'} <= set(qemu)
	assert 'alpha' in host.cli('node').out


def test_fc_K13_config_prints_each_value_and_its_source(new_host):
	host = new_host(memory={'limit_mib': 4096}).start_agent()
	config = host.cli('config', '--format', 'json').json()
	assert config['memory.limit_mib']['value'] == 4096
	assert re.match(re.escape(str(host.etc / 'drover.yaml')) + r':\d+', config['memory.limit_mib']['source'])
	assert config['memory.overhead_mib'] == {'value': 512, 'source': 'default'}
	assert 'timers.graceful_stop' in host.cli('config').out


def test_fc_K12_an_empty_configuration_is_enough(new_host):
	host = new_host()
	(host.etc / 'drover.yaml').unlink()
	host.start_agent()
	node = host.cli('node', '--format', 'json').json()
	assert node['name'] == os.uname().nodename.split('.')[0]
	assert host.cli('config', '--format', 'json').json()['timers.qmp']['source'] == 'default'


def test_an_unknown_configuration_key_stops_the_agent_with_its_place(new_host):
	host = new_host(tiemrs={})
	host.start_agent(ready=False)
	assert host.reap_agent() == 65
	assert 'tiemrs' in host.agent_log() and "'timers'" in host.agent_log()
	assert f'{host.etc}/drover.yaml:' in host.agent_log()


def test_drover_root_serves_instead_of_the_option(host):
	done = subprocess.run([host.build / 'drover', 'node', '--format', 'json'], check=True,
		env=host.environment | {'DROVER_ROOT': str(host.root)}, capture_output=True)
	assert json.loads(done.stdout)['name'] == 'alpha'


@pytest.mark.asan
def test_pvc_S10_the_start_line_names_version_node_store_and_qemu(host):
	host.wait(lambda: re.search(r'droverd? [\d.]+.*alpha', host.agent_log()), 'the start line')
	line = next(l for l in host.agent_log().splitlines() if re.search(r'droverd? [\d.]+.*alpha', l))
	assert 'store.db' in line or 'local' in line
	host.apply(micro('m1'))
	keeper = host.text(host.vm_log('m1', 'keeper.log'))
	assert re.search(r"drover-keeper [\d.]+ .*'m1'.*'alpha'", keeper)


def test_fc_H10_log_lines_have_time_pid_level_and_vm(host):
	host.apply(micro('m1'))
	pid = host.agent_process.pid
	host.wait(lambda: re.search(rf'^\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+[+-]\d\d:\d\d {pid} I m1 ',
		host.agent_log(), re.M), 'a line about m1')


def test_fc_P8_looking_at_a_vm_that_is_off_logs_no_error(host):
	host.apply({'name': 'm1', 'parameters': {'online': False}})
	before = len(host.agent_log())
	for _ in range(5):
		host.cli('status', 'm1', rc=1)
		host.cli('ls')
	assert not re.search(r' [EW] ', host.agent_log()[before:])


def test_events_tell_the_story(host):
	host.apply(micro('m1'))
	host.cli('stop', 'm1')
	names = host.event_names('m1')
	for name in ('definition-created', 'started', 'ordered', 'guest-powered-off', 'qemu-ended'):
		assert name in names, names
	assert host.states_seen('m1')[-4:] == ['starting', 'running', 'stopping', 'off']
	for event in host.events('m1'):
		assert event['vm'] == 'm1' and re.fullmatch(r'\d{4}-\d\d-\d\dT[\d:.]+Z', event['time'])
	assert len(host.cli('events', 'm1', '--lines', '2').out.splitlines()) == 2


def test_events_follow(host):
	host.apply(micro('m1'))
	follower = host.background('events', '--follow', '--lines', '0', '--format', 'json')
	try:
		host.wait(lambda: len(os.listdir(f'/proc/{follower.pid}/fd')) > 3, 'it is connected')
		ask(host, 'events', vm=None, lines=1)
		host.cli('kill', 'm1')
		seen = []
		while 'state' not in seen or 'off' not in seen:
			line = json.loads(follower.stdout.readline())
			seen += [line['event'], line['reason'].split(':')[0]]
	finally:
		follower.terminate()
		follower.communicate()


def test_logs_shows_the_end_of_each_log(host):
	host.apply(micro('m1'))
	assert 'm1' in host.cli('logs').out
	assert 'drover-keeper' in host.cli('logs', 'm1', '--lines', '1000').out
	assert '-nodefaults' in host.cli('logs', 'm1', '--qemu').out
	host.wait(lambda: 'MICRO-UP' in host.cli('logs', 'm1', '--serial', '--lines', '100000').out,
		'the console is in its log')
	assert len(host.cli('logs', '--agent', '--lines', '2').out.splitlines()) == 2


def test_fc_H11_closed_stdout_stops_nothing(host):
	"""Neither of the command line's own, nor of a daemon started with everything closed."""
	argv = host.argv('apply', '-')
	done = subprocess.run(['/bin/sh', '-c', 'exec "$@" >&-', 'sh', *argv], capture_output=True,
		input=json.dumps(micro('m1')).encode(), env=host.environment, check=False)
	assert done.returncode in (0, 1), done
	host.wait_state('m1', 'running')
	host.stop_agent()
	host.command = ['/bin/sh', '-c', 'exec "$@" <&- >&- 2>&-', 'sh']
	host.start_agent()
	pid = host.wait_state('m1', 'running')['pid']
	host.cli('restart', 'm1')
	assert host.vm('m1')['pid'] != pid


def test_a_reader_that_goes_away_is_no_failure(host):
	host.apply(*({'name': f'm{i}', 'parameters': {'online': False}} for i in range(20)))
	done = subprocess.run(['/bin/bash', '-c', 'set -o pipefail; "$@" | head -1', 'bash',
		*host.argv('ls')], capture_output=True, env=host.environment, check=False)
	assert done.returncode == 0 and done.stderr == b'', done


def test_a_full_disk_is_a_failure_of_the_output(host):
	with open('/dev/full', 'wb') as full:
		done = subprocess.run(host.argv('ls'), stdout=full, stderr=subprocess.PIPE, check=False,
			env=host.environment)
	assert done.returncode == 1 and b'No space left' in done.stderr


def test_only_root_may_connect(host):
	assert (host.run / 'control.sock').stat().st_mode & 0o777 == 0o600


def test_fc_K15_a_path_serves_as_name_of_a_vm(host):
	host.apply({'name': 'm1', 'parameters': {'online': False}})
	assert host.cli('status', '/etc/drover/vms/m1.yaml', rc=1).out.startswith('m1\n')


def test_version_of_all(host):
	version = host.wait(lambda: (v := host.cli('version', '--format', 'json').json())['qemu'] and v,
		'QEMU is known')
	assert version['version'] == version['cli']
	assert {'binary', 'version', 'package'} <= set(version['qemu'][0])


def test_many_clients_at_once(host):
	host.apply(micro('m1'))
	clients = [host.background('status', 'm1', '--format', 'json') for _ in range(20)]
	clients += [host.background('events', '--lines', '5') for _ in range(10)]
	assert [host.ended(client).rc for client in clients] == [0] * 30


def test_logging_to_the_journal_needs_no_journal(new_host):
	"""There is none in a container: then the lines go to stderr, and nothing fails."""
	host = new_host(log={'file': False}).start_agent()
	host.apply(micro('m1'))
	assert not (host.log / 'droverd.log').exists()
	assert not host.vm_log('m1', 'keeper.log').exists()
	assert "drover-keeper" in host.text(host.root / 'droverd.out'), 'where the agent logs'
	assert host.state('m1') == 'running'


def test_a_log_that_cannot_be_written_stops_nothing(host):
	"""fc-H11: the disk of the logs is full; what is logged is lost, what is ordered is done."""
	host.stop_agent()
	for name in ('droverd.log', 'events.jsonl'):
		(host.log / name).unlink(missing_ok=True)
		(host.log / name).symlink_to('/dev/full')
	host.start_agent()
	host.apply(micro('m1'))
	host.cli('restart', 'm1')
	assert host.state('m1') == 'running'


def test_what_is_kept_is_for_root_only(host):
	host.apply(micro('m1'))
	for path in (host.root / 'lib/drover', host.run / 'vms/m1', host.log / 'events.jsonl',
			host.log / 'vms/m1'):
		assert path.stat().st_mode & 0o077 == 0, path
	for path in (host.root / 'lib/drover').rglob('root-id'):
		assert path.stat().st_mode & 0o077 == 0
