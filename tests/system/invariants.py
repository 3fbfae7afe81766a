# SPDX-License-Identifier: Apache-2.0
"""The invariants of the house (I1..I10), looked at from outside while things are being killed.

Watch is a thread that looks at /proc and never asks Drover anything: what it reports happened.  The
store is audited by a trigger in its own database, so that not one write of an owner record escapes,
however short a record stood.
"""
import contextlib
import json
import os
import re
import sqlite3
import threading
import time

import drover

TOKEN = re.compile(rb'drover:([0-9a-f]{12}):([0-9a-f-]{36}):(\d+)')


def live_qemus(root_id):
	"""{uuid: {(pid, epoch), ...}} of one root."""
	wanted, found = root_id.encode(), {}
	for entry in os.listdir('/proc'):
		if not entry.isdigit():
			continue
		with contextlib.suppress(OSError):
			with open(f'/proc/{entry}/cmdline', 'rb') as file:
				match = TOKEN.search(file.read())
			if match and match[1] == wanted:
				found.setdefault(match[2].decode(), set()).add((int(entry), int(match[3])))
	return found


class Watch:
	"""I1: never two QEMUs of one VM, at any moment that is looked at."""

	def __init__(self, host, every=0.02):
		self.host, self.every = host, every
		self.faults, self.looks = [], 0
		self.done = threading.Event()
		self.thread = threading.Thread(target=self.follow, daemon=True)
		self.thread.start()

	def follow(self):
		root_id = ''
		while not self.done.wait(self.every):
			root_id = root_id or self.host.root_id
			if root_id:
				self.look(root_id)

	def look(self, root_id):
		self.looks += 1
		for uuid, copies in live_qemus(root_id).items():
			if len(copies) < 2:
				continue
			# One may have ended while the other was found: both have to be there still.
			both = copies & live_qemus(root_id).get(uuid, set())
			if len(both) > 1:
				self.faults.append(f'{time.time():.3f}: {uuid} runs as {sorted(both)}')

	def close(self):
		self.done.set()
		self.thread.join()

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.close()


class Audit:
	"""Each write of each owner record, in order."""

	def __init__(self, host):
		self.path = host.lib / 'store.db'
		with self.open() as db:
			db.executescript('''
				CREATE TABLE IF NOT EXISTS audit (n INTEGER PRIMARY KEY, key TEXT, value TEXT);
				CREATE TRIGGER IF NOT EXISTS audit_new AFTER INSERT ON keys
				WHEN NEW.key LIKE '/drover/vms/%/owner'
				BEGIN INSERT INTO audit (key, value) VALUES (NEW.key, NEW.value); END;
				CREATE TRIGGER IF NOT EXISTS audit_more AFTER UPDATE ON keys
				WHEN NEW.key LIKE '/drover/vms/%/owner'
				BEGIN INSERT INTO audit (key, value) VALUES (NEW.key, NEW.value); END;
			''')

	@contextlib.contextmanager
	def open(self):
		db = sqlite3.connect(self.path, timeout=20)
		try:
			yield db
			db.commit()
		finally:
			db.close()

	def writes(self):
		"""{VM: [owner record, ...]}"""
		found = {}
		with self.open() as db:
			for key, value in db.execute('SELECT key, value FROM audit ORDER BY n'):
				found.setdefault(key.split('/')[3], []).append(json.loads(value))
		return found

	def faults(self):
		"""R3: each write raises the epoch by one; phases follow the table of writes."""
		faults = []
		for vm, records in self.writes().items():
			for before, after in zip(records, records[1:]):
				if after['epoch'] != before['epoch'] + 1:
					faults.append(f"{vm}: epoch {after['epoch']} follows {before['epoch']}")
				if before['phase'] == after['phase'] == 'off':
					faults.append(f"{vm}: released twice, epoch {after['epoch']}")
		return faults


def left_of(host, vm):
	"""I9: what is on the host of a VM that has ended and that nobody looks after."""
	found = [repr(p) for p in host.qemus(vm)]
	if host.keeper(vm):
		found.append(f"keeper of '{vm}'")
	run = host.run / 'vms' / vm
	found += [str(path) for path in run.rglob('*')] if run.is_dir() else []
	bookings = host.host_dir / 'bookings'
	for path in bookings.glob('*.json') if bookings.is_dir() else []:
		with contextlib.suppress(OSError, ValueError):
			if json.loads(path.read_text(encoding='utf-8')).get('vm') == vm:
				found.append(str(path))
	volumes = host.lib / 'volumes' / vm
	found += [str(path) for path in volumes.glob('*claim*')] if volumes.is_dir() else []
	if host.taps():
		alias = f'drover {host.root_id} '
		found += [f'tap {tap}' for tap in host.taps()
			if alias + vm in host.text(f'/sys/class/net/{tap}/ifalias')]
	return found


def tick_faults(host, vm):
	"""Each life of a micro guest counts from 1 without a gap, and finds its memory as it left it."""
	faults, last = [], None
	lines = host.serial(vm).split('\n')
	for line in lines[:-1]:  # the last one is being written
		words = line.split()
		if 'MICRO-UP' in line:
			last = 0
		elif len(words) == 5 and words[0] == 'C' and last is not None:
			seq, bad = int(words[1], 16), int(words[3], 16)
			if seq != last + 1:
				faults.append(f'tick {seq} follows {last}')
			if bad:
				faults.append(f'{bad} damaged pages at tick {seq}')
			last = seq
	return faults


def lives(host, vm):
	"""How many times the guest has booted."""
	return host.serial(vm).count('MICRO-UP')


def must_be_settled(vm):
	"""Does this status object say what the wish leads to?"""
	if vm['wish'] == 'run':
		return vm['state'] == 'running'
	if vm['wish'] == 'pause':
		return vm['state'] in ('paused', 'off')
	return vm['state'] == 'off'


def claim_files(host, vm):
	volumes = host.lib / 'volumes' / vm
	return [drover.pathlib.Path(p) for p in volumes.glob('*claim*')] if volumes.is_dir() else []
