# SPDX-License-Identifier: Apache-2.0
"""Disks that hang: the heartbeat of a node, its session with the store, goes on (pvc-S33)."""
import contextlib
import itertools
import os
import signal
import subprocess

import pytest

from drover import Process, micro, wait
from ensemble import ZooKeeper
from field import free_port

SESSION = '8s'
numbers = itertools.count()


@pytest.fixture(scope='module')
def zookeeper():
	with ZooKeeper(1) as servers:
		yield servers


@contextlib.contextmanager
def own_disk(directory, tmp_path):
	"""A file system of its own under `directory`, which can be frozen: whoever writes then stands still,
	and cannot even be killed."""
	image = tmp_path / 'disk.img'
	with open(image, 'wb') as file:
		file.truncate(32 << 20)
	subprocess.run(['mkfs.ext4', '-q', str(image)], check=True)
	directory.mkdir(parents=True, exist_ok=True)
	if subprocess.run(['mount', '-o', 'loop', str(image), str(directory)], check=False).returncode != 0:
		pytest.skip('no loop devices')
	try:
		yield
	finally:
		subprocess.run(['umount', str(directory)], check=True)


@contextlib.contextmanager
def frozen(directory):
	subprocess.run(['fsfreeze', '-f', str(directory)], check=True)
	try:
		yield
	finally:
		subprocess.run(['fsfreeze', '-u', str(directory)], check=True)


@contextlib.contextmanager
def hanging_file(path, tmp_path):
	"""A file whose disk answers nobody: it lies on a FUSE whose server is halted."""
	if not os.path.exists('/dev/fuse'):
		pytest.skip('no FUSE')
	backing = tmp_path / 'backing.raw'
	backing.write_bytes(path.read_bytes() if path.exists() else bytes(4096))
	path.write_bytes(b'')
	with subprocess.Popen(['qemu-storage-daemon', '--blockdev', f'file,node-name=n,filename={backing}',
			'--export', f'fuse,id=e,node-name=n,mountpoint={path},writable=on,allow-other=on'],
			stdin=subprocess.DEVNULL) as popen:
		server = Process(popen.pid)
		try:
			wait(lambda: os.path.ismount(path), 'the file is served')
			server.signal(signal.SIGSTOP)
			yield
		finally:
			server.signal(signal.SIGCONT)
			server.kill()
	subprocess.run(['umount', '-l', str(path)], check=False)


def alive(host):
	return {node['name']: node['alive'] for node in host.cli('--format', 'json', 'node', 'ls').json()}


def beside(host, zookeeper, new_host):
	"""Another node that dies now: once the store has ended its session, one of that length is over."""
	other = new_host('beta', store=host.store, timers={'session': SESSION})
	other.start_agent()
	host.wait(lambda: alive(host).get('beta'), 'the other one is there', 90)
	other.kill_agent()


@pytest.fixture
def host(zookeeper, new_host):
	store = zookeeper.address_of(f'/drover/hung-{next(numbers)}')
	host = new_host(store=store, timers={'session': SESSION})
	host.store = store
	return host


def test_pvc_S33_a_log_disk_that_hangs_costs_no_session(host, zookeeper, new_host, tmp_path):
	with own_disk(host.log, tmp_path):
		host.start_agent()
		host.wait(lambda: alive(host).get('alpha'), 'it is in the cluster', 90)
		host.apply(micro('m1', online=False))
		with frozen(host.log):
			host.apply(micro('m2', online=False))
			beside(host, zookeeper, new_host)
			host.wait(lambda: not alive(host)['beta'], 'a session of that length is over', 90)
			assert alive(host)['alpha']
			host.cli('rm', 'm1')
		host.wait(lambda: 'm1 removed by' in host.agent_log(), 'what waited is written')
		assert host.agent_log().count('joined the cluster') == 1
		host.stop_agent()


def test_pvc_S33_a_disk_of_certificates_that_hangs_costs_no_session(zookeeper, new_host, tmp_path):
	"""It is written to whenever a certificate is renewed, which is all the time here."""
	store = zookeeper.address_of(f'/drover/hung-{next(numbers)}')
	host = new_host(store=store, timers={'session': SESSION},
		cluster={'address': '127.0.0.1', 'port': free_port(), 'certificate_life': '1min'})
	host.store = store
	with own_disk(host.lib / 'tls', tmp_path):
		host.start_agent()
		host.wait(lambda: alive(host).get('alpha'), 'it is in the cluster', 90)
		host.cli('cluster', 'init')
		host.cli('cluster', 'token')
		with frozen(host.lib / 'tls'):
			beside(host, zookeeper, new_host)
			failed = host.drover('cluster', 'token')
			assert failed.rc == 1 and 'the directory of certificates does not answer' in failed.err, failed
			host.wait(lambda: not alive(host)['beta'], 'a session of that length is over', 90)
			assert alive(host)['alpha']
		host.wait(lambda: host.drover('cluster', 'token').rc == 0, 'the disk answers again')
		assert host.agent_log().count('joined the cluster') == 1
		host.stop_agent()


def test_pvc_S33_disks_of_definitions_and_volumes_that_hang_cost_no_session(host, zookeeper, new_host, tmp_path):
	host.start_agent()
	host.wait(lambda: alive(host).get('alpha'), 'it is in the cluster', 90)
	host.apply(micro('m1', online=False))
	volume = host.lib / 'volumes/m1/root.raw'
	volume.parent.mkdir(parents=True, mode=0o700)
	file = host.vms_dir / 'm2.yaml'
	with hanging_file(volume, tmp_path):
		beside(host, zookeeper, new_host)
		assert [vm['name'] for vm in host.cli('ls', '--format', 'json').json()] == ['m1']
		assert 'the directory of volumes does not answer: its disk hangs' in host.drover('volume', 'ls').err
		host.wait(lambda: not alive(host)['beta'], 'a session of that length is over', 90)
		failed = host.drover('rm', 'm1', '--volume', 'root')
		assert failed.rc == 1 and "whether volume 'root' of VM m1 goes is not known" in failed.err, failed
	host.wait(lambda: host.drover('volume', 'ls').rc == 0, 'the disk answers again')
	with hanging_file(file, tmp_path):
		(host.vms_dir / 'm3.yaml').write_text('name: m3\nparameters: {memory: 64, online: false}\n', encoding='utf-8')
		host.wait(lambda: 'the directory of definitions does not answer' in host.agent_log(), 'it was tried')
		host.apply(micro('m4', online=False))
	host.wait(lambda: 'm3' in host.vms(), 'it was read when the disk answered again')
	assert host.agent_log().count('joined the cluster') == 1
