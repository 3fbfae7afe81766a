# SPDX-License-Identifier: Apache-2.0
"""An agent for one keeper, played by a test: docs/PROTOCOL.md, "agent and keeper".

It says what is wanted and answers as an agent with a store would, until the test puts an answer of
its own into `answers`: none (hold), late (let_go), a refusal (refuse).  So a test shows a keeper
what a real agent shows it once in a thousand days.  Nothing runs beside the test: what the keeper
says is read while the test waits.
"""
import json
import select
import signal
import socket
import subprocess
import time

import drover


def hold(_arguments):
	"""No answer; the request stands in `held` until let_go()."""
	return None


def refuse(text, kind='failed'):
	"""An answer that says no; of the kind 'try-again' it says that nobody knows."""
	return lambda _arguments: {'error': {'class': kind, 'desc': text}}


class Store:
	"""The owner record and the hardware record of one VM, written by version."""

	def __init__(self):
		self.owner, self.version, self.hardware = None, 0, None

	def write(self, arguments):
		if arguments['expected'] != self.version:
			return {'outcome': 'conflict', 'owner': self.owner, 'version': self.version}
		self.owner, self.version = arguments['owner'], self.version + 1
		self.hardware = arguments['hardware'] or self.hardware
		return {'outcome': 'done', 'version': self.version}

	@property
	def phase(self):
		return self.owner and self.owner['phase']


class Agent:
	def __init__(self, host, definition):
		self.host, self.definition, self.name = host, definition, definition['name']
		self.store = Store()
		self.popen = self.socket = None
		self.buffer, self.last_id, self.replies = b'', 0, {}
		self.wanted = {'wish': 'run', 'kill': False, 'restarts': 0, 'retry': 0, 'generation': 1,
			'node_mode': 'ready'}
		self.answers = {}  # command -> function of its arguments; without one: as a store would
		self.held = []
		self.asked = []  # (command, arguments) of all requests of keepers
		self.granted = set()  # `by` of the writes that were answered with "done"
		self.state, self.states, self.events = {}, [], []
		self.faults = []

	# ---- the keeper ----

	def start_keeper(self):
		log = self.host.vm_log(self.name, 'keeper.log')
		log.parent.mkdir(parents=True, exist_ok=True)
		with open(log, 'ab') as out:
			self.popen = subprocess.Popen([str(self.host.build / 'drover-keeper'),
				'--root', str(self.host.root), self.name], stdin=subprocess.DEVNULL,
				stdout=out, stderr=out, start_new_session=True, env=self.host.environment)
		self.connect()

	def connect(self):
		"""A keeper takes the newest connection for its agent."""
		self.hang_up()
		path = self.host.run / 'vms' / self.name / 'keeper.sock'

		def connected():
			self.socket = socket.socket(socket.AF_UNIX)
			try:
				self.socket.connect(str(path))
			except OSError:
				self.hang_up()
			return self.socket
		self.wait(connected, 'the keeper listens')
		self.wait(lambda: self.state, 'the keeper says what it knows')

	def hang_up(self):
		"""As an agent that dies; what it had not answered it never answers."""
		if self.socket:
			self.socket.close()
		self.socket, self.buffer, self.state, self.held = None, b'', {}, []

	def kill_keeper(self):
		self.popen.kill()
		self.popen.wait()
		self.hang_up()

	def next_keeper(self, **wanted):
		"""kill -9, and the next one, told what the store has."""
		self.kill_keeper()
		self.start_keeper()
		self.wish(**wanted)

	# ---- saying ----

	def send(self, command, /, **arguments):
		self.last_id += 1
		message = {'execute': command, 'arguments': arguments, 'id': self.last_id}
		self.socket.sendall(json.dumps(message).encode() + b'\n')
		return self.last_id

	def ask(self, command, /, **arguments):
		number = self.send(command, **arguments)
		return self.wait(lambda: self.replies.get(number), f"the keeper answers '{command}'")

	def send_wish(self, wish=None, definition=None, **more):
		"""What is not named stays as it was."""
		self.wanted.update(more, **({'wish': wish} if wish else {}))
		self.definition = definition or self.definition
		store = self.store
		owner = {'record': store.owner, 'version': store.version} if store.owner else None
		return self.send('wish', definition=self.definition, owner=owner,
			hardware=store.hardware, **self.wanted)

	def wish(self, wish=None, definition=None, **more):
		number = self.send_wish(wish, definition, **more)
		answer = self.wait(lambda: self.replies.get(number), 'the keeper takes the wish')
		if 'return' not in answer:
			raise drover.Failure(f'the wish was refused: {answer}')

	def let_go(self):
		"""Answers what was held, as a store would, and all that comes."""
		self.answers.clear()
		held, self.held = self.held, []
		for request in held:
			self.answer(request)

	# ---- hearing ----

	def listen(self, seconds):
		if not select.select([self.socket] if self.socket else [], [], [], seconds)[0]:
			return
		try:
			data = self.socket.recv(1 << 20)
		except ConnectionResetError:
			data = b''
		if not data:
			self.hang_up()
			return
		lines = (self.buffer + data).split(b'\n')
		self.buffer = lines.pop()
		for line in lines:
			self.take(json.loads(line))

	def take(self, message):
		if 'execute' in message:
			self.asked.append((message['execute'], message['arguments']))
			self.answer(message)
		elif message.get('event') == 'state':
			self.state = message['data']
			self.states.append(message['data'])
		elif 'event' in message:
			self.events.append(message['data'])
		else:
			self.replies[message['id']] = message

	def answer(self, request):
		arguments = request['arguments']
		answer = self.answers.get(request['execute'], self.as_store)(arguments)
		if answer is None:
			self.held.append(request)
			return
		self.socket.sendall(json.dumps(answer | {'id': request['id']}).encode() + b'\n')

	def as_store(self, arguments):
		if 'owner' not in arguments:
			return {'return': {}}
		if arguments['owner']['phase'] == 'off' and self.host.qemus(self.name):
			self.faults.append('the owner record was given back while QEMU lived')
		answer = self.store.write(arguments)
		if answer['outcome'] == 'done':
			self.granted.add(arguments['owner']['by'])
		return {'return': answer}

	@property
	def writes(self):
		return [arguments for command, arguments in self.asked if command == 'owner-write']

	def event_names(self):
		return [event['event'] for event in self.events]

	# ---- waiting ----

	def dump(self):
		told = [(state['state'], state['reason'], state['pid'], state['settled'])
			for state in self.states[-8:]]
		return f'the keeper told: {told}\nasked: {self.asked[-4:]}\n{self.host.dump()}'

	def wait(self, fact, what, deadline=None):
		"""Hears and answers the keeper until the fact is there; fails when the keeper has ended."""
		end = time.monotonic() + (deadline or drover.DEADLINE)
		while True:
			value = fact()
			if value:
				return value
			if self.popen and self.popen.poll() is not None:
				raise drover.Failure(
					f'the keeper ended with {self.popen.returncode}, before: {what}\n{self.dump()}')
			if time.monotonic() > end:
				raise drover.Failure(f'this did not happen: {what}\n{self.dump()}')
			self.listen(drover.LOOK_EVERY)

	def wait_state(self, *states):
		"""Waits until the keeper wants nothing more, with what it was told, in one of `states`."""
		def there():
			return self.state.get('settled') and self.state['wish'] == self.wanted['wish'] and \
				self.state['state'] in states
		self.wait(there, f"'{self.name}' is {' or '.join(states)} and stays so")
		return self.state

	def wait_event(self, name):
		self.wait(lambda: name in self.event_names(), f"the event '{name}'")

	# ---- the end ----

	def finish(self):
		"""Orders an end, however things stand; then nothing may be left, of the keeper neither."""
		self.answers.clear()
		if self.popen.poll() is not None:
			self.start_keeper()
		elif not self.socket:
			self.connect()
		self.wish('stop', kill=True)
		self.wait_state('off')
		left = [*self.host.qemus(), *self.host.host_dir.glob('bookings/*'),
			*self.host.lib.glob('volumes/*/*claim*')]
		self.popen.send_signal(signal.SIGTERM)
		code = self.popen.wait(drover.DEADLINE)
		if code or left or self.faults or self.store.phase == 'held':
			raise drover.Failure(f'the keeper ended with {code}, left: {left}, faults: '
				f'{self.faults}, owner record: {self.store.owner}\n{self.dump()}')
