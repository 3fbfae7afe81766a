# SPDX-License-Identifier: Apache-2.0
"""Network cards on a bridge, in a network namespace of the test's own."""
import contextlib
import ctypes
import json
import os
import socket
import struct
import subprocess
import threading

import pytest

from drover import Ticks, linux, micro
from field import Loopback
from journey import make_cluster, timelines

RARP = 0x8035
SO_TIMESTAMPNS = 35
CLONE_NEWNET = 0x40000000


def run(*args, check=True):
	return subprocess.run(args, check=check, capture_output=True, text=True)


@pytest.fixture
def netns():
	name = f'drover-test-{os.getpid()}'
	made = run('ip', 'netns', 'add', name, check=False)
	if made.returncode:
		pytest.skip(f'no network namespaces here: {made.stderr.strip()}')
	run('ip', '-n', name, 'link', 'set', 'lo', 'up')
	yield name
	run('ip', 'netns', 'del', name)


def add_bridge(netns, name, *address):
	run('ip', '-n', netns, 'link', 'add', name, 'type', 'bridge')
	run('ip', '-n', netns, 'link', 'set', name, 'up')
	for one in address:
		run('ip', '-n', netns, 'address', 'add', one, 'dev', name)


def link(netns, name):
	done = run('ip', '-n', netns, '-j', '-d', 'link', 'show', name, check=False)
	return json.loads(done.stdout)[0] if done.returncode == 0 else None


@pytest.fixture
def host(new_host, netns):
	host = new_host()
	host.command = ['ip', 'netns', 'exec', netns]
	return host.start_agent()


def tap_of(host, name='m1', index=0):
	return host.vm(name)['nics'][index]['tap']


def test_a_card_is_plugged_into_its_bridge(host, netns):
	add_bridge(netns, 'brsrv')
	host.apply(micro('m1', nics=[{'network': 'srv'}]))
	vm = host.vm('m1')
	tap = link(netns, vm['nics'][0]['tap'])
	assert tap['master'] == 'brsrv' and 'UP' in tap['flags']
	assert tap['ifalias'].startswith(f'drover {host.root_id} m1 ')
	assert tap['mtu'] == link(netns, 'brsrv')['mtu']
	assert host.taps() == [tap['ifname']]
	assert vm['nics'][0]['mac'] in ' '.join(host.qemu('m1').args)


def test_pvc_S22_the_host_has_no_address_on_a_guests_link(host, netns):
	add_bridge(netns, 'brsrv')
	host.apply(micro('m1', nics=[{'network': 'srv'}]))
	shown = json.loads(run('ip', '-n', netns, '-j', 'address', 'show', tap_of(host)).stdout)
	assert shown[0]['addr_info'] == []


@pytest.mark.parametrize('end', ['stop', 'kill', 'death', 'restart'])
def test_I9_the_tap_is_gone_with_its_guest(host, netns, end):
	add_bridge(netns, 'brsrv')
	host.apply(micro('m1', nics=[{'network': 'srv'}]))
	tap = tap_of(host)
	if end == 'restart':
		host.cli('restart', 'm1')
		assert tap_of(host) == tap and host.taps() == [tap], 'its name stays, and there is one'
		host.cli('stop', 'm1')
	elif end == 'death':
		host.apply(micro('m1', nics=[{'network': 'srv'}], online=False), args=['--no-wait'])
		with contextlib.suppress(AttributeError):
			host.qemu('m1').kill()
		host.wait_state('m1', 'off')
	else:
		host.cli(end, 'm1')
	assert host.taps() == [] and link(netns, tap) is None
	assert host.vm('m1')['nics'][0]['tap'] is None


def test_the_tap_outlives_agent_and_keeper(host, netns):
	add_bridge(netns, 'brsrv')
	host.apply(micro('m1', nics=[{'network': 'srv'}]))
	tap = tap_of(host)
	with Ticks(host, 'm1') as ticks:
		host.kill_agent()
		host.keeper('m1').kill()
		assert link(netns, tap)['master'] == 'brsrv'
		host.start_agent()
		host.wait_state('m1', 'running')
		assert tap_of(host) == tap and host.taps() == [tap]
		ticks.check()


def test_a_bridge_that_is_not_there_is_said_by_name(host, netns):
	result = host.apply(micro('m1', nics=[{'network': 'srv'}]), rc=1)
	assert "'brsrv'" in result.err
	assert host.qemus() == [] and host.taps() == []
	assert 'brsrv' in host.wait_state('m1', 'failed')['reason']
	add_bridge(netns, 'brsrv')
	host.cli('ensure', 'm1')
	assert host.taps() == [tap_of(host)]


def test_the_definition_and_the_node_may_name_the_bridge(new_host, netns):
	add_bridge(netns, 'one')
	add_bridge(netns, 'two')
	host = new_host(networks={'srv': {'bridge': 'one'}})
	host.command = ['ip', 'netns', 'exec', netns]
	host.start_agent()
	host.apply(micro('m1', nics=[{'network': 'srv'}, {'network': 'srv2', 'bridge': 'two'},
		{'network': 'lab', 'mode': 'none'}, {'network': 'user'}]))
	nics = host.vm('m1')['nics']
	assert link(netns, nics[0]['tap'])['master'] == 'one'
	assert link(netns, nics[1]['tap'])['master'] == 'two'
	assert [nic['tap'] for nic in nics[2:]] == [None, None]


def test_two_roots_with_one_name_do_not_meet(new_host, netns):
	add_bridge(netns, 'brsrv')
	hosts = []
	for name in ('alpha', 'beta'):
		host = new_host(name)
		host.command = ['ip', 'netns', 'exec', netns]
		hosts.append(host.start_agent())
		host.apply(micro('m1', nics=[{'network': 'srv'}]))
	assert tap_of(hosts[0]) != tap_of(hosts[1])
	hosts[0].cli('kill', 'm1')
	assert link(netns, tap_of(hosts[1]))
	with Ticks(hosts[1], 'm1') as ticks:
		ticks.check()


def test_a_foreign_device_of_the_taps_name_is_left_alone(host, netns):
	add_bridge(netns, 'brsrv')
	host.apply(micro('m1', nics=[{'network': 'srv'}]))
	tap = tap_of(host)
	host.cli('stop', 'm1')
	run('ip', '-n', netns, 'link', 'add', tap, 'type', 'bridge')
	host.cli('start', 'm1', '--timeout', '10s', rc=1)
	assert tap in host.vm('m1')['reason']
	assert link(netns, tap)['linkinfo']['info_kind'] == 'bridge'
	run('ip', '-n', netns, 'link', 'del', tap)
	host.cli('ensure', 'm1')
	host.wait_state('m1', 'running')


def test_a_linux_guest_talks_over_the_bridge(host, netns, linux_slot):
	add_bridge(netns, 'brsrv', '192.0.2.1/24')
	host.apply(linux('tux', 'drover.ip=192.0.2.2/24', nics=[{'network': 'srv'}]))
	host.cli('guest', 'tux', 'guest-ping', '--timeout', '120s')
	host.cli('exec', 'tux', '--', 'ping', '-c', '1', '-W', '5', '192.0.2.1')
	run('ip', 'netns', 'exec', netns, 'python3', '-c',
		'import socket,sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n'
		's.connect(("192.0.2.2", 9))\ns.send(b"x")')
	known = json.loads(run('ip', '-n', netns, '-j', 'neighbour', 'show').stdout)
	assert host.vm('tux')['nics'][0]['mac'] in [entry.get('lladdr') for entry in known]
	host.cli('kill', 'tux')


class Sniffer:
	"""What a port of a bridge hears, with the kernel's time of each frame."""

	def __init__(self, netns, device):
		self.frames = []  # (usec, source, type)
		self.socket = None
		# A socket belongs to the namespace in which its thread was.
		thread = threading.Thread(target=self.open, args=(netns, device))
		thread.start()
		thread.join()

	def open(self, netns, device):
		libc = ctypes.CDLL(None, use_errno=True)
		with open(f'/run/netns/{netns}', 'rb') as file:
			if libc.setns(file.fileno(), CLONE_NEWNET):
				raise OSError(ctypes.get_errno(), 'setns')
		self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
		self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
		self.socket.setblocking(False)
		self.socket.bind((device, 0))

	def heard(self, mac, kind):
		"""The times of all such frames of that card until now."""
		with contextlib.suppress(BlockingIOError):
			while True:
				data, extra, _, _ = self.socket.recvmsg(2048, 256)
				seconds, nsec = struct.unpack('ll', extra[0][2])
				self.frames.append((seconds * 1000000 + nsec // 1000, data[6:12].hex(':'),
					int.from_bytes(data[12:14], 'big')))
		return [usec for usec, source, what in self.frames if (source, what) == (mac, kind)]


def test_pvc_S44_a_guest_that_arrives_tells_the_network_once_it_runs(new_host, netns, tmp_path):
	add_bridge(netns, 'brsrv')

	class Inside(Loopback):
		def command(self, _):
			return ['ip', 'netns', 'exec', netns]
	pair = make_cluster(new_host, tmp_path, field=Inside(tmp_path))
	alpha, beta = pair
	alpha.apply(micro('m1', nics=[{'network': 'srv'}, {'network': 'srv'}]))
	macs = [nic['mac'] for nic in alpha.vm('m1')['nics']]
	sniffer = Sniffer(netns, 'brsrv')
	alpha.cli('migrate', 'm1', '--to', 'beta', '--timeout', '120s')
	beta.wait(lambda: all(len(sniffer.heard(mac, RARP)) >= 5 for mac in macs),
		'each card is announced five times')
	resumed = timelines(beta, 'm1')[-1]['resume_usec']
	assert all(usec > resumed for mac in macs for usec in sniffer.heard(mac, RARP)), \
		(resumed, sniffer.frames)
