# SPDX-License-Identifier: Apache-2.0
"""Straight to QEMU: qmp, monitor, console."""
import os
import pty
import re
import signal
import subprocess

import pytest

from drover import Console, Ticks, micro


@pytest.mark.asan
def test_qmp_and_monitor_in_every_state_with_an_answering_qemu(host):
	host.apply(micro('m1', 'hz=100 power=ignore', graceful_timeout='1h'))
	assert host.cli('qmp', 'm1', 'query-status').json()['status'] == 'running'
	assert 'running' in host.cli('monitor', 'm1', 'info status').out
	assert 'running' in host.cli('monitor', 'm1', 'info', 'status').out
	host.cli('pause', 'm1')
	assert 'paused' in host.cli('monitor', 'm1', 'info status').out
	host.cli('resume', 'm1')
	host.cli('stop', 'm1', '--no-wait')
	host.wait_state('m1', 'stopping')
	assert host.cli('qmp', 'm1', 'query-status').json()['status'] == 'running'


def test_qmp_takes_arguments(host):
	host.apply(micro('m1'))
	answer = host.cli('qmp', 'm1', 'human-monitor-command', '{"command-line": "info version"}')
	assert re.match(r'\d+\.\d+', answer.json())
	assert host.cli('qmp', 'm1', 'query-status', '{"broken', rc=65).err
	assert host.cli('qmp', 'm1', 'query-status', '[]', rc=65).err


def test_an_error_of_qemu_goes_through_in_its_own_words(host):
	host.apply(micro('m1'))
	error = host.cli('qmp', 'm1', 'no-such-command', rc=1).err
	assert 'The command no-such-command has not been found' in error


@pytest.mark.parametrize('words', [
	['qmp', 'cont'], ['qmp', 'stop'], ['qmp', 'quit'], ['qmp', 'migrate', '{"uri": "exec:cat >x"}'],
	['qmp', 'device_add', '{"driver": "e1000"}'], ['qmp', 'system_powerdown'],
	['qmp', 'migrate_set_parameters', '{}'],
	['qmp', 'human-monitor-command', '{"command-line": "quit"}'],
	['qmp', 'human-monitor-command', '{"command-line": "  q"}'],
	['monitor', 'quit'], ['monitor', 'c'], ['monitor', 'migrate -d tcp:0:1'], ['monitor', 'savevm x'],
	['monitor', ' quit']])
def test_what_would_break_the_keepers_promises_is_refused(host, words):
	host.apply(micro('m1'))
	pid = host.vm('m1')['pid']
	with Ticks(host, 'm1') as ticks:
		refusal = host.cli(words[0], 'm1', *words[1:], rc=69).err
		assert 'drover' in refusal.lower()
		ticks.check(5)
	assert host.vm('m1')['pid'] == pid


def test_cont_does_not_undo_a_pause(host):
	host.apply(micro('m1'))
	host.cli('pause', 'm1')
	assert 'drover resume' in host.cli('qmp', 'm1', 'cont', rc=69).err
	assert host.state('m1') == 'paused'


def test_monitor_reads_lines(host):
	host.apply(micro('m1'))
	result = host.cli('monitor', 'm1', input='info status\n\ninfo name\n')
	assert 'running' in result.out and 'm1' in result.out
	assert host.cli('monitor', 'm1', input='info status\nquit\ninfo name\n', rc=69).out.count('m1') == 1


def test_long_answers_come_whole(host):
	host.apply(micro('m1'))
	assert len(host.cli('qmp', 'm1', 'query-qmp-schema').json()) > 500


def test_console_lines(host):
	host.apply(micro('m1', 'hz=200'))
	host.wait(lambda: host.serial('m1').count('\n') > 30, 'some lines')
	lines = host.cli('console', 'm1', '--lines', '5').out.splitlines()
	assert len(lines) in (5, 6)
	numbers = [int(line.split()[1], 16) for line in lines[:4]]
	assert numbers == list(range(numbers[0], numbers[0] + 4))
	host.cli('stop', 'm1')
	assert 'OFF' in host.cli('console', 'm1', '--lines', '3').out


def test_console_attaches_and_many_may(host):
	host.apply(micro('m1'))
	clients = [Console(host, 'm1') for _ in range(3)]
	for client in clients:
		host.wait(lambda c=client: c.read().count(b'\n') > 5, 'it shows the console')
		client.close()
	client = host.background('console', 'm1')
	seen = b''.join(client.stdout.readline() for _ in range(5))
	assert seen.count(b'C ') >= 4
	host.cli('kill', 'm1')
	result = host.ended(client)
	assert result.rc == 0, 'the console closed'


def test_a_console_that_is_not_read_stops_no_guest(host):
	host.apply(micro('m1', 'hz=1000'))
	client = Console(host, 'm1')
	with Ticks(host, 'm1') as ticks:
		ticks.check(3000)
	client.close()


def test_console_on_a_terminal_ends_by_its_escape(host):
	host.apply(micro('m1'))
	main, terminal = pty.openpty()
	client = subprocess.Popen(host.argv('console', 'm1'), stdin=terminal, stdout=terminal,
		stderr=subprocess.PIPE, env=host.environment)
	os.close(terminal)
	seen = b''
	while seen.count(b'C ') < 3:
		seen += os.read(main, 4096)
	os.write(main, b'\x1d')
	assert client.wait(30) == 0
	assert b'Ctrl-]' in client.stderr.read()
	os.close(main)
	client.stderr.close()


def test_the_serial_log_goes_on_without_a_keeper(host):
	host.apply(micro('m1'))
	host.stop_agent()
	host.keeper('m1').signal(signal.SIGTERM)
	with Ticks(host, 'm1') as ticks:
		ticks.check()
	host.start_agent()


def test_an_event_without_end_is_written_down_so_often_only(host):
	host.apply(micro('m1'))
	for _ in range(45):
		host.cli('qmp', 'm1', 'system_reset')
	assert 20 <= host.event_names('m1').count('guest-reset') <= 30
	assert host.state('m1') == 'running'


def test_a_log_that_qemu_makes_huge_holds_up_nobody(host):
	host.apply(micro('m1', 'hz=200'))
	log, old = host.vm_log('m1', 'serial.log'), host.vm_log('m1', 'serial.log.1')
	host.wait(lambda: host.serial('m1'), 'the first words of the guest')
	os.truncate(log, 200 << 20)
	host.wait(old.exists, 'a shortened serial log')
	assert os.stat(old).st_size <= 16 << 20
	assert host.cli('qmp', 'm1', 'query-status').json()['status'] == 'running'
	with Ticks(host, 'm1') as ticks:
		ticks.check(5)
