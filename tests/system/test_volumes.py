# SPDX-License-Identifier: Apache-2.0
"""Volumes, as far as a guest and its host see them."""
import os
import stat
import subprocess

from drover import micro


def blocks(host, name='m1'):
	"""What QEMU has for disks, by id of the device: /machine/peripheral/ID/virtio-backend."""
	found = {}
	for block in host.cli('qmp', name, 'query-block').json():
		if 'inserted' in block:
			found[block['qdev'].split('/')[3]] = block['inserted']
	return found


def volumes(host):
	return {v['name']: v for v in host.cli('volume', 'ls', '--format', 'json').json()}


def image(path, text, size=4 << 20):
	path.write_bytes(text)
	os.truncate(path, size)
	return str(path)


def test_a_volume_starts_as_a_copy_of_its_source(host, tmp_path):
	source = image(tmp_path / 'image.raw', b'from the image')
	host.apply(micro('m1', volumes=[{'name': 'root', 'size': '8M', 'source': source}]))
	volume = volumes(host)['root']
	assert volume['size_bytes'] == 8 << 20
	with open(volume['path'], 'rb') as file:
		assert file.read(14) == b'from the image'
	image(tmp_path / 'image.raw', b'something else')
	host.cli('restart', 'm1')
	with open(volume['path'], 'rb') as file:
		assert file.read(14) == b'from the image', 'later changes of it are not seen'


def test_an_overlay_stays_small(host, tmp_path):
	source = image(tmp_path / 'image.raw', b'base', 64 << 20)
	host.apply(micro('m1', volumes=[{'name': 'root', 'source': source, 'overlay': True}]))
	volume = volumes(host)['root']
	assert (volume['format'], volume['size_bytes']) == ('qcow2', 64 << 20)
	assert volume['allocated_bytes'] < 4 << 20
	host.cli('restart', 'm1')
	host.cli('kill', 'm1')
	host.cli('rm', 'm1', '--volume', 'root')
	assert os.path.exists(source)


def test_qcow2(host):
	host.apply(micro('m1', volumes=[{'name': 'root', 'size': '1G', 'format': 'qcow2'}]))
	assert blocks(host)['disk-root']['drv'] == 'qcow2'
	assert volumes(host)['root']['size_bytes'] == 1 << 30


def test_I7_what_is_named_by_path_is_neither_made_nor_removed(host, tmp_path):
	path = image(tmp_path / 'mine.raw', b'mine')
	definition = micro('m1', volumes=[{'name': 'data', 'path': path}])
	host.apply(definition)
	assert host.vm('m1')['volumes'][0]['path'] == path
	assert volumes(host) == {}
	host.cli('stop', 'm1')
	host.cli('rm', 'm1', '--volume', 'data', rc=69)
	host.cli('rm', 'm1')
	assert os.path.getsize(path) == 4 << 20
	host.apply(micro('m2', volumes=[{'name': 'data', 'path': str(tmp_path / 'absent')}]), rc=1)
	assert 'absent' in host.vm('m2')['reason'] and not os.path.exists(tmp_path / 'absent')
	host.cli('stop', 'm2')


def test_read_only_is_read_only(host, tmp_path):
	path = image(tmp_path / 'mine.raw', b'mine')
	host.apply(micro('m1', volumes=[{'name': 'data', 'path': path, 'read_only': True}]))
	assert blocks(host)['disk-data']['ro'] is True
	qemu = host.qemu('m1')
	flags = [line for fd in os.listdir(f'/proc/{qemu.pid}/fd')
		if os.readlink(f'/proc/{qemu.pid}/fd/{fd}') == path
		for line in qemu.proc(f'fdinfo/{fd}').splitlines() if line.startswith('flags:')]
	assert flags and all(int(line.split()[1], 8) & 3 == os.O_RDONLY for line in flags)


def test_one_disk_is_not_given_to_two_guests(host, tmp_path):
	path = image(tmp_path / 'mine.raw', b'mine')
	host.apply(micro('m1', volumes=[{'name': 'data', 'path': path}]))
	host.apply(micro('m2', volumes=[{'name': 'data', 'path': path}]), rc=1)
	reason = host.wait_state('m2', 'failed')['reason']
	assert 'lock' in reason and 'tried again at' in reason
	assert 'exit code' not in reason, "QEMU's own words, not ours about it"
	assert host.state('m1') == 'running'
	host.cli('stop', 'm1')
	host.cli('ensure', 'm2')
	assert host.state('m2') == 'running'


def test_a_source_that_is_missing_makes_no_volume(host, tmp_path):
	result = host.apply(micro('m1', volumes=[
		{'name': 'root', 'size': '8M', 'source': str(tmp_path / 'absent.raw')}]), rc=1)
	assert 'absent.raw' in result.err and "'root'" in result.err
	assert volumes(host) == {} and host.qemus() == []
	image(tmp_path / 'absent.raw', b'now it is there')
	host.cli('ensure', 'm1')
	assert host.state('m1') == 'running'


def test_pvc_S8_a_tool_that_fails_is_a_result(host, tmp_path):
	"""qemu-img meets an image whose tables are damaged, and says so."""
	source = tmp_path / 'image.qcow2'
	volume = {'name': 'root', 'size': '8M', 'source': str(source), 'format': 'qcow2'}
	image(tmp_path / 'image.raw', b'data' * 1024)
	subprocess.run(['qemu-img', 'convert', '-O', 'qcow2', tmp_path / 'image.raw', source], check=True)
	good = source.read_bytes()
	table = int.from_bytes(good[40:48], 'big')
	source.write_bytes(good[:table] + b'\x80\x00\xff\xff\xff\xff\xff\x01' + good[table + 8:])
	result = host.apply(micro('m1', volumes=[volume]), rc=1)
	assert 'qemu-img' in result.err and "'root'" in result.err
	assert volumes(host) == {} and host.qemus() == []
	source.write_bytes(good)
	host.cli('ensure', 'm1')
	assert host.state('m1') == 'running'


def test_volumes_are_for_root_only(host):
	host.apply(micro('m1', disk=1))
	mode = os.stat(volumes(host)['root']['path']).st_mode
	assert stat.S_IMODE(mode) & 0o077 == 0


def test_fc_P17_no_claim_is_left_after_each_way_of_dying(host):
	for way in ('stop', 'kill', 'death'):
		host.apply(micro('m1', disk=1))
		if way == 'death':
			host.cli('stop', 'm1', '--no-wait')
			for qemu in host.qemus('m1'):
				qemu.kill()
			host.wait_state('m1', 'off')
		else:
			host.cli(way, 'm1')
		assert volumes(host)['root']['claimed_by'] is None, way
		host.wait(lambda: not host.left(), f'nothing is left after {way}')
		host.cli('start', 'm1')
		assert volumes(host)['root']['claimed_by'] == 'alpha'
