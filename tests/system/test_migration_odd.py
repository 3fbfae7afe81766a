# SPDX-License-Identifier: Apache-2.0
"""Migrations that are slow, hang, cannot begin, or lose their guest on the way: each ends in a time
that is known, says why, and leaves one guest where it is to be."""
import json
import os
import signal
import socket
import ssl

import pytest

from drover import DEADLINE, kvm_model, micro
from field import Loopback
from journey import Witness, holder, make_cluster, timelines, wait_runs_on
from test_cluster import member_context

# So much to send that a slow migration takes its time.  Under KVM it is written faster than that.
HEAVY = 'hz=100 ws=8 rate=4'
SLOW = {'words': HEAVY, 'accelerator': 'tcg', 'migration_bandwidth': '128K',
	'migration_max_downtime': '700ms'}


def placed(host, **parameters):
	return micro('m1', kvm_host=host if isinstance(host, str) else host.name, **parameters)


def send(host, to, **parameters):
	host.drover('apply', '-', input=json.dumps(placed(to, **parameters)))


def qmp(host, command):
	return host.cli('qmp', 'm1', command, '--timeout', '60s').json()


def copying(host):
	"""Its migration, once bytes flow."""
	def shown():
		migration = (host.vm('m1') or {}).get('migration') or {}
		return migration if migration.get('bytes') else None
	return host.wait(shown, 'it is being copied')


def reasons(host, event):
	return [one['reason'] for one in host.events('m1') if one['event'] == event]


def test_fc_M12_fc_M15_a_slow_migration_is_no_hanging_one(new_host, tmp_path):
	"""It takes longer than what a migration may stand still."""
	pair = make_cluster(new_host, tmp_path, timers={'migration_stall': '4s'})
	alpha, beta = pair
	alpha.apply(placed(alpha, **SLOW))
	with Witness(pair, 'm1') as witness:
		send(alpha, beta, **SLOW)
		copying(alpha)
		# The monitor is not starved meanwhile, and the limits are what was asked for.
		limits = qmp(alpha, 'query-migrate-parameters')
		assert (limits['max-bandwidth'], limits['downtime-limit']) == (1 << 17, 700)
		caps = {one['capability']: one['state'] for one in qmp(alpha, 'query-migrate-capabilities')}
		assert caps['auto-converge'] and caps['pause-before-switchover']
		wait_runs_on(pair, 'm1', beta, 2 * DEADLINE)
		witness.check(moves=4)
	line = timelines(alpha, 'm1')[-1]
	at = {phase['phase']: phase['after_usec'] for phase in line['phases']}
	assert at['switching'] - at['copying'] > 4000000, line
	# Nobody who asked for no limit has none.
	assert qmp(beta, 'query-migrate-parameters')['max-bandwidth'] == 128 << 20


def test_disks_come_along_sparse_with_progress_and_within_the_limit_of_bandwidth(new_host, tmp_path):
	"""However long that takes: longer here than what a receiver waits for a source that does not come."""
	pair = make_cluster(new_host, tmp_path, timers={'migration_offer': '3s'})
	alpha, beta = pair
	alpha.apply(placed(alpha, disk=1))
	with open(alpha.lib / 'volumes/m1/root.raw', 'r+b') as disk:
		disk.seek(512 << 20)
		disk.write(os.urandom(16 << 20))
	alpha.cli('migrate', 'm1', '--to', 'beta', '--bandwidth', '2M', '--no-wait')

	def mirroring():
		migration = (alpha.vm('m1') or {}).get('migration') or {}
		return migration if migration.get('phase') == 'mirroring disks' and migration['bytes'] else None
	shown = alpha.wait(mirroring, 'its disk is being mirrored')
	assert shown['total'] >= 1 << 30 and 0 < shown['bytes'] <= shown['total']
	assert 'mirroring disks, ' in alpha.vms()['m1']['reason']
	[job] = alpha.cli('qmp', 'm1', 'query-block-jobs').json()
	assert job['speed'] == 2 << 20
	wait_runs_on(pair, 'm1', beta, 2 * DEADLINE)
	assert (beta.lib / 'volumes/m1/root.raw').stat().st_blocks * 512 < 64 << 20, 'holes stay holes'
	alpha.wait(lambda: timelines(alpha, 'm1'), 'its timeline is written')
	[line] = timelines(alpha, 'm1')
	assert line['result'] == 'moved' and line['disk_bytes'] >= 512 << 20
	at = {phase['phase']: phase['after_usec'] for phase in line['phases']}
	assert at['disks mirrored'] - at['mirroring disks'] > 3000000, line


def test_two_leave_at_once_where_that_is_configured(new_host, tmp_path):
	pair = make_cluster(new_host, tmp_path, migration={'outgoing': 2, 'incoming': 2})
	alpha, beta = pair
	alpha.apply(placed(alpha, words=HEAVY), micro('m2', kvm_host='alpha'))
	alpha.cli('migrate', 'm1', '--to', 'beta', '--bandwidth', '64K', '--no-wait')
	copying(alpha)
	alpha.cli('migrate', 'm2', '--to', 'beta', '--timeout', '120s')
	assert beta.vm('m2')['state'] == 'running'
	assert copying(alpha)['phase'] == 'copying', 'so slow that it cannot be over'
	alpha.cli('migrate', 'm1', '--cancel', '--timeout', '120s')
	wait_runs_on(pair, 'm1', alpha)


def test_fc_M4_a_migration_that_does_not_get_done_ends_at_its_deadline(new_host, tmp_path):
	pair = make_cluster(new_host, tmp_path, timers={'migration_deadline': '10s'})
	alpha, beta = pair
	alpha.apply(placed(alpha, words=HEAVY))
	pid = alpha.vm('m1')['pid']
	with Witness(pair, 'm1') as witness:
		alpha.cli('migrate', 'm1', '--to', 'beta', '--bandwidth', '64K', '--no-wait')
		assert copying(alpha)['deadline'], 'it is shown from the beginning'
		alpha.wait(lambda: reasons(alpha, 'migration-failed'), 'its time is over')
		assert 'migration_deadline' in reasons(alpha, 'migration-failed')[0]
		alpha.cli('migrate', 'm1', '--cancel', '--no-wait')
		assert wait_runs_on(pair, 'm1', alpha)['pid'] == pid
		# The limit was of that order, and is not there any more for the next.
		alpha.cli('migrate', 'm1', '--to', 'beta', '--timeout', '120s')
		wait_runs_on(pair, 'm1', beta)
		witness.check(moves=8)
	line = timelines(alpha, 'm1')[0]
	assert line['result'] == 'failed' and 'migration_deadline' in line['why']


def test_fc_M4_under_kvm_a_guest_counts_on_while_it_is_copied(new_host, tmp_path):
	if not kvm_model():
		pytest.skip('KVM runs no micro guest here')
	pair = make_cluster(new_host, tmp_path)
	alpha, beta = pair
	alpha.apply(placed(alpha, words=HEAVY, accelerator='kvm'))
	with Witness(pair, 'm1') as witness:
		witness.more(100)
		alpha.cli('migrate', 'm1', '--to', 'beta', '--bandwidth', '64K', '--no-wait')
		copying(alpha)
		witness.more(100)
		assert copying(alpha)['phase'] == 'copying', 'so slow that it cannot be over'
		alpha.cli('migrate', 'm1', '--cancel', '--no-wait')
		alpha.wait(lambda: not alpha.vm('m1')['migration'], 'it was called off')
		alpha.cli('migrate', 'm1', '--to', 'beta', '--timeout', '120s')
		wait_runs_on(pair, 'm1', beta)
		witness.check(moves=2)
	assert not reasons(alpha, 'standing-still')


def test_fc_M22_a_target_that_hangs_is_noticed_and_the_guest_runs_on(new_host, tmp_path):
	pair = make_cluster(new_host, tmp_path, timers={'migration_stall': '3s'})
	alpha, beta = pair
	alpha.apply(placed(alpha))
	pid = alpha.vm('m1')['pid']
	with Witness(pair, 'm1') as witness:
		alpha.hold_at('keeper.source.prepared')
		alpha.cli('migrate', 'm1', '--to', 'beta', '--no-wait')
		keeper = alpha.held('keeper.source.prepared')
		beta.qemu('m1').signal(signal.SIGSTOP)
		alpha.hold_at()
		keeper.signal(signal.SIGCONT)
		alpha.wait(lambda: reasons(alpha, 'migration-failed'), 'it is noticed')
		# Whoever asks is answered, of this VM and of all else.
		assert alpha.vm('m1')['pid'] == pid and qmp(alpha, 'query-status')
		assert all(node['alive'] for node in beta.cli('--format', 'json', 'node', 'ls').json())
		alpha.cli('migrate', 'm1', '--cancel', '--no-wait')
		assert wait_runs_on(pair, 'm1', alpha)['pid'] == pid
		witness.check(moves=8)
	assert 'hangs' in reasons(alpha, 'migration-failed')[0]
	beta.wait(lambda: not beta.left(), 'what hangs is ended too')


def test_fc_M22_a_source_that_stands_still_for_a_while_goes_on(new_host, tmp_path):
	pair = make_cluster(new_host, tmp_path, timers={'migration_stall': '2min'})
	alpha, beta = pair
	alpha.apply(placed(alpha, words=HEAVY, accelerator='tcg'))
	with Witness(pair, 'm1') as witness:
		alpha.cli('migrate', 'm1', '--to', 'beta', '--bandwidth', '1M', '--no-wait')
		copying(alpha)
		qemu = alpha.qemu('m1')
		qemu.signal(signal.SIGSTOP)
		alpha.wait_state('m1', 'unresponsive')
		assert all(node['alive'] for node in beta.cli('--format', 'json', 'node', 'ls').json())
		qemu.signal(signal.SIGCONT)
		wait_runs_on(pair, 'm1', beta, 2 * DEADLINE)
		witness.check(moves=4)


def test_fc_M7_fc_W19_a_target_whose_qemu_refuses_costs_nothing(new_host, fake_qemu, tmp_path):
	"""As one that does not know an option of the hardware record any more."""
	pair = make_cluster(new_host, tmp_path)
	alpha, beta = pair
	alpha.apply(placed(alpha))
	beta.stop_agent()
	config = json.loads((beta.etc / 'drover.yaml').read_text())
	config['qemu'] = {'binary': fake_qemu('case "$*" in *-incoming*) '
		'echo "-smp: invalid option" >&2; exit 1;; esac')}
	(beta.etc / 'drover.yaml').write_text(json.dumps(config))
	beta.start_agent()
	pid = alpha.vm('m1')['pid']
	with Witness(pair, 'm1') as witness:
		alpha.cli('migrate', 'm1', '--to', 'beta', '--no-wait')
		beta.wait(lambda: 'invalid option' in (beta.vms()['m1']['reason'] or ''),
			'it says there, in the words of its QEMU, why not')
		alpha.wait(lambda: 'invalid option' in alpha.cli('explain', 'm1').out, 'and here, where it is')
		vm = alpha.vm('m1')
		assert (vm['pid'], vm['node'], vm['epoch']) == (pid, 'alpha', 1)
		# Once its QEMU is another it goes on by itself.
		fake_qemu('true')
		wait_runs_on(pair, 'm1', beta, 2 * DEADLINE)
		witness.check(moves=1)


def test_fc_T14_a_migration_that_cannot_begin_changes_nothing(new_host, tmp_path):
	pair = make_cluster(new_host, tmp_path)
	alpha, beta = pair
	alpha.apply(placed(alpha, disk=1))
	before = alpha.vm('m1')
	files = sorted(path.name for path in (alpha.run / 'vms/m1').iterdir())
	claim = (alpha.lib / 'volumes/m1/root.claim').read_bytes()
	beta.kill_agent()
	with Witness(pair, 'm1') as witness:
		send(alpha, beta, disk=1)
		alpha.wait(lambda: alpha.vm('m1')['target'] == 'beta', 'it belongs there')
		witness.more(50)
		after = alpha.vm('m1')
		for key in ('pid', 'epoch', 'node', 'started'):
			assert after[key] == before[key], key
		assert sorted(path.name for path in (alpha.run / 'vms/m1').iterdir()) == files
		assert (alpha.lib / 'volumes/m1/root.claim').read_bytes() == claim
		# The same with one that nobody has heard of.
		send(alpha, 'gamma', disk=1)
		alpha.wait(lambda: alpha.vm('m1')['target'] == 'gamma', 'it belongs there')
		witness.more(50)
		assert alpha.vm('m1')['pid'] == before['pid'] and 'gamma' in alpha.cli('explain', 'm1').out
		send(alpha, beta, disk=1)
		beta.start_agent()
		wait_runs_on(pair, 'm1', beta)
		witness.check(moves=2)


def wait_receiver(alpha, beta):
	"""Sends it; the source's keeper, held while a receiver waits and nothing is written yet."""
	alpha.hold_at('keeper.source.move')
	send(alpha, beta)
	keeper = alpha.held('keeper.source.move')
	assert beta.qemu('m1')
	return keeper


def test_fc_M18_fc_M19_a_guest_that_dies_while_the_target_waits_is_started_there(new_host, tmp_path):
	pair = make_cluster(new_host, tmp_path)
	alpha, beta = pair
	alpha.apply(placed(alpha))
	keeper = wait_receiver(alpha, beta)
	alpha.qemu('m1').kill()
	alpha.hold_at()
	keeper.signal(signal.SIGCONT)
	wait_runs_on(pair, 'm1', beta, 2 * DEADLINE)
	alpha.wait(lambda: not alpha.left(), 'nothing of it is left where it was')


def test_fc_M18_a_guest_that_is_stopped_while_the_target_waits_is_off_on_both(new_host, tmp_path):
	pair = make_cluster(new_host, tmp_path)
	alpha, beta = pair
	alpha.apply(placed(alpha))
	keeper = wait_receiver(alpha, beta)
	alpha.cli('stop', 'm1', '--no-wait')
	alpha.hold_at()
	keeper.signal(signal.SIGCONT)
	for host in pair:
		host.wait(lambda host=host: not host.left() and host.state('m1') == 'off', 'it is off')
	beta.cli('start', 'm1', '--timeout', '120s')
	assert holder(pair, 'm1') is beta


def at_the_door(offer, first, context=None, hello=None):
	"""What a receiver says to one who comes with that line and those words; None: it hangs up."""
	host, _, port = offer['address'].rpartition(':')
	try:
		with socket.create_connection((host, int(port)), DEADLINE) as plain:
			plain.sendall(first)
			if not context:
				return plain.recv(1) or None
			with context.wrap_socket(plain) as tls, tls.makefile('rb') as lines:
				tls.sendall(json.dumps({'execute': 'hello', 'id': 1, 'arguments': hello}).encode() + b'\n')
				return json.loads(lines.readline() or 'null')
	except OSError:
		return None


def test_fc_T46_fc_T47_who_does_not_know_the_move_is_not_let_in(new_host, tmp_path):
	field = Loopback(tmp_path)
	hosts = make_cluster(new_host, tmp_path, names=('alpha', 'beta', 'gamma'), field=field)
	alpha, beta, gamma = hosts
	alpha.apply(placed(alpha))
	with Witness(hosts, 'm1') as witness:
		keeper = wait_receiver(alpha, beta)
		offer = field.read('/drover/vms/m1/offer')
		assert at_the_door(offer, b'GET / HTTP/1.0\n') is None
		assert at_the_door(offer, b'x' * 10000) is None
		assert at_the_door(offer, b'drover-stream ' + b'0' * 32 + b'\n') is None
		hello = {'v': 1, 'vm': 'm1', 'epoch': offer['epoch'], 'secret': offer['secret'], 'hardware': None}
		control = b'drover-control 1\n'
		stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
		stranger.check_hostname = False
		stranger.verify_mode = ssl.CERT_NONE
		assert at_the_door(offer, control, stranger, hello) is None, 'no member of the cluster'
		assert at_the_door(offer, control, member_context(gamma), hello) is None, 'not the source'
		for wrong in {'secret': '0' * 32}, {'epoch': 99}, {'vm': 'm2'}, {'epoch': None}:
			answer = at_the_door(offer, control, member_context(alpha), hello | wrong)
			assert 'error' in answer, (wrong, answer)
		alpha.hold_at()
		keeper.signal(signal.SIGCONT)
		wait_runs_on(hosts, 'm1', beta)
		witness.check(moves=1)
