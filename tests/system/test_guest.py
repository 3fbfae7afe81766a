# SPDX-License-Identifier: Apache-2.0
"""A real Linux guest with a guest agent: one boot serves most of these tests, which run in order."""
import base64
import subprocess
import time

import pytest

import drover
from drover import Process, micro


def run(host, *argv, rc=0, **options):
	return host.cli('exec', 'tux', '--', *argv, rc=rc, **options)


def later(host, script):
	"""Something that the guest does after this command was answered."""
	run(host, 'sh', '-c', f'(sleep 0.5; {script}) >/dev/null 2>&1 </dev/null &')


def answering(host):
	host.wait(lambda: host.vm('tux')['guest_agent'] == 'answering', 'the guest agent answers', 60)


def test_the_guest_agent_answers(linux):
	answering(linux)
	assert 'answering' in linux.cli('ls').out
	assert linux.cli('guest', 'tux', 'guest-ping').json() == {}
	assert linux.cli('guest', 'tux', 'guest-get-host-name').json() == {'host-name': 'tux'}
	assert linux.cli('guest', 'tux', 'guest-info').json()['version']


def test_exec_prints_what_the_command_prints_and_ends_as_it_ends(linux):
	result = run(linux, 'sh', '-c', 'echo out; echo err >&2; exit 3', rc=3)
	assert (result.out, result.err) == ('out\n', 'err\n')
	assert run(linux, 'uname', '-s').out == 'Linux\n'
	assert run(linux, 'false', rc=1).out == ''
	assert run(linux, 'sh', '-c', 'exit 255', rc=255)


def test_exec_arguments_arrive_as_they_are(linux):
	words = ['a b', "it's", '$HOME', '*', '', '--lines', 'ä€']
	assert run(linux, 'printf', '%s|', *words).out == ''.join(f'{word}|' for word in words)


def test_exec_bytes_are_bytes(linux):
	data = bytes(range(256)) * 8
	result = linux.cli('exec', 'tux', '--stdin', '--', 'cat', input=data)
	assert result.out_bytes == data
	assert linux.cli('exec', 'tux', '--stdin', '--', 'wc', '-c', input=b'x' * 200000).out.strip() \
		== '200000'


def test_exec_without_stdin_has_an_empty_one(linux):
	assert linux.cli('exec', 'tux', '--', 'wc', '-c', input=b'not for it').out.strip() == '0'


def test_exec_that_a_signal_ends_is_128_and_its_number(linux):
	run(linux, 'sh', '-c', 'kill -TERM $$', rc=128 + 15)


def test_exec_that_cannot_run_is_125_and_says_why(linux):
	result = run(linux, '/no/such/program', rc=125)
	assert '/no/such/program' in result.err and result.out == ''


def test_exec_has_a_deadline(linux):
	begin = time.monotonic()
	result = linux.cli('exec', 'tux', '--timeout', '1s', '--', 'sleep', '100', rc=125)
	assert result.err and time.monotonic() - begin < 60
	run(linux, 'true')


def test_two_commands_at_once(linux):
	slow = linux.background('exec', 'tux', '--', 'sh', '-c', 'sleep 2; echo slow')
	assert run(linux, 'echo', 'quick').out == 'quick\n'
	assert slow.poll() is None
	assert linux.ended(slow).out == 'slow\n'


def test_long_output_comes_whole_or_is_said_to_be_cut(linux):
	result = run(linux, 'sh', '-c', 'head -c 300000 /dev/zero | tr "\\0" x')
	assert len(result.out) == 300000 or 'cut' in result.err


def test_exec_format_json(linux):
	answer = linux.cli('exec', 'tux', '--format', 'json', '--', 'echo', 'hi').json()
	assert answer['exitcode'] == 0 and base64.b64decode(answer['out']) == b'hi\n'


def test_an_error_of_the_guest_agent_goes_through_in_its_own_words(linux):
	assert 'no-such-command' in linux.cli('guest', 'tux', 'no-such-command', rc=1).err
	error = linux.cli('guest', 'tux', 'guest-file-open', '{"path": "/no/such/file"}', rc=1).err
	assert '/no/such/file' in error


def test_user_mode_network_needs_nothing_on_the_host(linux):
	linux.wait(lambda: '10.0.2.15' in linux.cli('guest', 'tux', 'guest-network-get-interfaces').out,
		'DHCP is done')
	assert '10.0.2.15' in run(linux, 'ip', 'address', 'show', 'eth0').out
	assert linux.vm('tux')['nics'][0]['tap'] is None


def test_pvc_S9_the_console_is_a_shell_and_its_log_takes_any_byte(linux):
	client = subprocess.Popen(linux.argv('console', 'tux'), stdin=subprocess.PIPE,
		stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=linux.environment)
	client.stdin.write(b"\nprintf 'sum=%s \\377\\001\\300 end\\n' $((40 + 2))\n")
	client.stdin.flush()
	seen = b''
	while b'sum=42' not in seen or b' end' not in seen.split(b'sum=42')[-1]:
		seen += client.stdout.read1(4096)
	client.terminate()
	client.communicate()
	linux.wait(lambda: b'sum=42 \xff\x01\xc0 end' in
		linux.cli('console', 'tux', '--lines', '20').out_bytes, 'its log has the same bytes')


def test_fc_G6_a_mute_guest_agent_shows_and_blocks_nobody(linux):
	answering(linux)
	linux.apply(micro('m1'))
	later(linux, 'kill -STOP $(pidof qemu-ga); sleep 8; kill -CONT $(pidof qemu-ga)')
	linux.wait(lambda: linux.vm('tux')['guest_agent'] == 'silent', 'its silence is seen', 60)
	assert linux.state('tux') == 'running'
	linux.cli('restart', 'm1')
	assert linux.cli('qmp', 'tux', 'query-status').json()['status'] == 'running'
	linux.cli('exec', 'tux', '--timeout', '500ms', '--', 'true', rc=125)
	answering(linux)
	for number in range(3):
		assert run(linux, 'echo', str(number)).out == f'{number}\n', 'fc-G3: no late answers'
	linux.cli('kill', 'm1')
	linux.cli('rm', 'm1')


def test_a_guest_agent_that_dies_is_absent_and_waited_for(linux):
	answering(linux)
	later(linux, 'kill -9 $(pidof qemu-ga)')
	linux.wait(lambda: linux.vm('tux')['guest_agent'] != 'answering', 'its death is seen', 60)
	assert linux.cli('guest', 'tux', 'guest-ping', '--timeout', '60s').json() == {}
	answering(linux)


def test_exec_is_done_by_the_next_keeper_as_well(linux):
	answering(linux)
	keeper = linux.keeper('tux')
	pid = linux.vm('tux')['pid']
	keeper.kill()
	linux.wait(lambda: linux.keeper('tux') and linux.state('tux') == 'running', 'adopted')
	answering(linux)
	assert run(linux, 'cat', '/proc/sys/kernel/hostname').out == 'tux\n'
	assert linux.vm('tux')['pid'] == pid


def test_without_a_guest_agent_exec_says_so_in_bounded_time(host):
	host.apply(micro('m1'))
	result = host.cli('exec', 'm1', '--timeout', '500ms', '--', 'true', rc=125)
	assert 'agent' in result.err
	assert 'agent' in host.cli('guest', 'm1', 'guest-ping', '--timeout', '500ms', rc=75).err


def test_a_real_guest_shuts_down_when_asked_and_keeps_its_disk(linux):
	answering(linux)
	run(linux, 'sh', '-c', 'echo kept over the night >/dev/vda && sync')
	boot = run(linux, 'cat', '/proc/sys/kernel/random/boot_id').out
	uuid = run(linux, 'cat', '/sys/class/dmi/id/product_uuid').out.strip()
	assert uuid == linux.vm('tux')['uuid']
	linux.cli('stop', 'tux')
	vm = linux.vm('tux')
	assert (vm['state'], vm['exit']['how']) == ('off', 'power-off')
	assert 'stop-timeout' not in linux.event_names('tux')
	linux.cli('start', 'tux')
	linux.cli('guest', 'tux', 'guest-ping', '--timeout', '120s')
	assert run(linux, 'head', '-n', '1', '/dev/vda').out == 'kept over the night\n'
	assert run(linux, 'cat', '/proc/sys/kernel/random/boot_id').out != boot
	assert run(linux, 'cat', '/sys/class/dmi/id/product_uuid').out.strip() == uuid


def test_a_panic_of_a_real_kernel_is_reported(linux):
	answering(linux)
	qemu = Process(linux.vm('tux')['pid'])
	later(linux, 'echo c >/proc/sysrq-trigger')
	linux.wait_state('tux', 'panicked', deadline=60)
	assert qemu.alive, 'kept for a look'
	assert 'sysrq' in linux.cli('console', 'tux', '--lines', '100').out
	assert linux.cli('exec', 'tux', '--', 'true', rc=125).err


@pytest.mark.slow
def test_a_guest_that_sleeps_is_told_and_wakes_up_to_be_shut_down(host, linux_slot):
	"""On the pc board: SeaBIOS 1.16 does not bring q35's power button back after a sleep."""
	host.apply(drover.linux('tux', machine_type='pc'))
	host.cli('guest', 'tux', 'guest-ping', '--timeout', '120s')
	pid = host.vm('tux')['pid']
	later(host, 'echo mem >/sys/power/state')
	vm = host.wait_state('tux', 'suspended', deadline=60)
	assert vm['pid'] == pid and 'S3' in vm['reason']
	host.cli('exec', 'tux', '--', 'true', rc=125)
	host.keeper('tux').kill()
	host.wait(lambda: host.keeper('tux'), 'there is a keeper')
	assert host.wait_state('tux', 'suspended')['pid'] == pid
	host.cli('stop', 'tux')
	assert host.vm('tux')['exit']['how'] == 'power-off'


@pytest.mark.slow
def test_a_full_disk_is_an_io_error_that_resume_ends(new_host, linux_slot, tmp_path):
	"""The volume lies on a file system that is smaller than itself."""
	small = tmp_path / 'small'
	small.mkdir()
	subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=8m,mode=0700', 'small', small], check=True)
	try:
		with open(small / 'disk.raw', 'wb') as file:
			file.truncate(32 << 20)
		host = new_host().start_agent()
		host.apply(drover.linux('tux', volumes=[
			{'name': 'root', 'path': str(small / 'disk.raw')}]))
		host.cli('guest', 'tux', 'guest-ping', '--timeout', '120s')
		later(host, 'dd if=/dev/zero of=/dev/vda bs=1M count=24 oflag=direct; echo done >/tmp/done')
		vm = host.wait_state('tux', 'io-error', deadline=60)
		assert 'drover resume tux' in vm['reason'] and 'disk' in vm['reason']
		subprocess.run(['mount', '-o', 'remount,size=64m', small], check=True)
		host.cli('resume', 'tux')
		host.wait(lambda: host.drover('exec', 'tux', '--timeout', '5s', '--', 'cat', '/tmp/done').rc
			== 0, 'the guest has written all')
		assert host.vm('tux')['pid'] == vm['pid']
		host.cli('kill', 'tux')
	finally:
		subprocess.run(['umount', '-l', small], check=True)
