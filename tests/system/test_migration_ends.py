# SPDX-License-Identifier: Apache-2.0
"""A guest that ends by itself around a migration: it is started again, once, where it belongs."""
import fcntl
import json
import os
import signal
import socket
import struct

import pytest

import drover
import raw_qemu
from drover import micro, wait
from journey import dump, holder, make_cluster, share_volumes, timelines, wait_runs_on
from test_kill import has_checkpoints

pytestmark = pytest.mark.skipif(not has_checkpoints(), reason='this build has no checkpoints')

F_OFD_SETLK = 37  # asm-generic/fcntl.h; Python has no name for it


def guest(host, **parameters):
	return micro('m1', kvm_host=host.name, **parameters)


def send(host, to, **parameters):
	host.drover('apply', '-', input=json.dumps(guest(to, **parameters)))


def press_power_button(host):
	"""At QEMU's own socket, while no keeper holds it; the guest obeys."""
	with socket.socket(socket.AF_UNIX) as monitor:
		monitor.settimeout(drover.DEADLINE)
		os.chdir(host.run / 'vms/m1')
		monitor.connect('qmp.sock')
		os.chdir('/')
		monitor.sendall(b'{"execute":"qmp_capabilities"}{"execute":"system_powerdown"}')
		text = b''
		while b'"SHUTDOWN"' not in text:
			text += monitor.recv(4096)


def test_a_guest_that_was_let_go_on_at_the_source_and_powered_off_is_started_anew(new_host, tmp_path):
	"""The keeper that let it go on dies before it has written that down, and the guest ends before
	the next one comes: what is left looks like a copy that was sent away."""
	alpha, beta = pair = make_cluster(new_host, tmp_path)
	alpha.apply(guest(alpha))
	pid = alpha.wait_state('m1', 'running')['pid']
	beta.hold_at('keeper.receive.take')
	alpha.hold_at('keeper.source.resumed')
	send(alpha, beta)
	beta.held('keeper.receive.take')
	keeper = alpha.held('keeper.source.resumed')
	alpha.kill_agent()
	keeper.kill()
	beta.hold_at()
	alpha.hold_at()
	press_power_button(alpha)
	alpha.start_agent()
	wait(lambda: holder(pair, 'm1') and holder(pair, 'm1').vm('m1')['pid'] != pid,
		'the guest runs anew', dump=lambda: dump(pair))


def unread(keeper):
	"""What a keeper that is held has not read yet, of all its connections."""
	found = b''
	for number in os.listdir(f'/proc/{keeper.pid}/fd'):
		taken = drover.pidfd_getfd(keeper.fd, int(number))
		try:
			with socket.socket(fileno=taken) as end:
				taken = -1
				found += end.recv(1 << 20, socket.MSG_PEEK | socket.MSG_DONTWAIT)
		except OSError:
			pass  # no socket, one that listens, nothing there
		finally:
			if taken >= 0:
				os.close(taken)
	return found


def test_a_source_that_qemu_does_not_let_go_on_says_why_and_is_tried_again(new_host, tmp_path):
	"""The move came to nothing, and meanwhile somebody else has the disk."""
	alpha, beta = pair = make_cluster(new_host, tmp_path, storage={'shared': True})
	share_volumes(pair)
	alpha.apply(guest(alpha, disk=1))
	alpha.wait_state('m1', 'running')
	beta.hold_at('keeper.receive.take')
	alpha.hold_at('keeper.source.back')
	send(alpha, beta, disk=1)
	receiver = beta.held('keeper.receive.take')
	keeper = alpha.held('keeper.source.back')
	with open(alpha.lib / 'volumes/m1/root.raw', 'rb') as disk:
		fcntl.fcntl(disk, F_OFD_SETLK, struct.pack('hhqqi4x', fcntl.F_RDLCK, os.SEEK_SET,
			raw_qemu.WRITE_LOCK, 1, 0))
		keeper.signal(signal.SIGCONT)
		alpha.hold_at()
		alpha.wait(lambda: '"write" lock; tried again' in str(alpha.vm('m1')['reason']), 'it says why')
		assert alpha.state('m1') == 'paused'
	beta.hold_at()
	receiver.signal(signal.SIGCONT)
	wait(lambda: holder(pair, 'm1'), 'it runs', dump=lambda: dump(pair))
	said = alpha.text(alpha.vm_log('m1', 'keeper.log'))
	assert said.count('cont: Failed') < drover.DEADLINE, 'it is not tried all the time'
	events = alpha.text(alpha.vm_log('m1', 'events.jsonl'))
	assert events.count('"cont-refused"') == 1 and '"migration-undone"' in events, dump(pair)


def test_a_stop_that_a_dead_keeper_had_begun_does_not_let_the_copy_go_early(new_host, tmp_path):
	"""Its end was ordered once.  After a move it must not go before the other one runs, all the same."""
	alpha, beta = make_cluster(new_host, tmp_path)
	deaf = {'words': 'hz=100 ws=4 rate=4 power=ignore', 'graceful_timeout': '1h'}
	alpha.apply(guest(alpha, **deaf))
	alpha.wait_state('m1', 'running')
	alpha.cli('stop', 'm1', '--no-wait')
	alpha.wait_state('m1', 'stopping')
	keeper = alpha.keeper('m1')
	keeper.signal(signal.SIGSTOP)
	alpha.cli('start', 'm1', '--no-wait')
	keeper.kill()
	alpha.wait_state('m1', 'running')
	alpha.hold_at('keeper.source.moved')
	send(alpha, beta, **deaf)
	keeper = alpha.held('keeper.source.moved')
	assert json.loads((alpha.run / 'vms/m1/copy.json').read_text())['end_ordered'] is False
	alpha.hold_at()
	keeper.signal(signal.SIGCONT)
	wait_runs_on([alpha, beta], 'm1', beta)


# QEMU 7.2 without KVM is told to stop its guest before it is copied: there it has to end before.
KVM = os.environ.get('DROVER_ACCELERATOR') == 'kvm'
STEP = 'keeper.source.copying' if KVM else 'keeper.source.stream'
SAID = (b'"SHUTDOWN"', b'"pre-switchover"') if KVM else (b'"SHUTDOWN"',)


def test_a_guest_that_powers_off_while_it_is_moved_is_not_switched(new_host, tmp_path):
	"""Its keeper hears of the end and of the switch in one go.  What would arrive could not run, what
	was sent would run on behind its end, and what is called off looks as if somebody had paused it."""
	alpha, beta = pair = make_cluster(new_host, tmp_path)
	words = {'words': 'hz=100 ws=16 rate=8 off=300', 'migration_bandwidth': '1MiB'}
	alpha.apply(guest(alpha, **words))
	alpha.hold_at(STEP)
	send(alpha, beta, **words)
	keeper = alpha.held(STEP)
	alpha.kill_agent()  # it would end a keeper that says nothing
	was = alpha.qemu('m1')
	for word in SAID:
		alpha.wait(lambda w=word: w in unread(keeper), f'QEMU has said {word}')
	alpha.hold_at()
	keeper.signal(signal.SIGCONT)
	alpha.start_agent()
	wait(lambda: was not in (alpha.qemu('m1'), beta.qemu('m1')) and holder(pair, 'm1'),
		'it runs anew', dump=lambda: dump(pair))
	assert '"cont-refused"' not in beta.text(beta.vm_log('m1', 'events.jsonl')), dump(pair)
	assert '"migration-undone"' not in alpha.text(alpha.vm_log('m1', 'events.jsonl')), dump(pair)


def test_connections_that_say_nothing_do_not_keep_the_source_out(new_host, tmp_path):
	"""Neither those that have not said what they are for, nor those that begin no TLS."""
	pair = alpha, beta = make_cluster(new_host, tmp_path)
	alpha.apply(guest(alpha))
	alpha.wait_state('m1', 'running')
	beta.hold_at('keeper.receive.offer')
	send(alpha, beta)
	keeper = beta.held('keeper.receive.offer')
	offer = json.loads((beta.run / 'vms/m1/receive.json').read_text())
	idle = [socket.create_connection(('127.0.0.1', offer['port'])) for _ in range(80)]
	for end in idle[:8]:
		end.sendall(b'drover-control 1\n')
	keeper.signal(signal.SIGCONT)
	wait_runs_on(pair, 'm1', beta)
	beta.wait(lambda: timelines(beta, 'm1'), 'its timeline is written')
	[line] = timelines(beta, 'm1')
	assert line['result'] == 'moved', 'at the first try'
	for end in idle:
		end.close()
