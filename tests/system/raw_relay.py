# SPDX-License-Identifier: Apache-2.0
"""Passes the connections of a migration on from one socket to another, as two keepers would, for tests of
what QEMU does when it makes several."""
import contextlib
import socket
import threading


class Relay:
	"""Listens at `front`; each connection is passed on to `back`, each way by a thread of its own: none
	waits for another."""

	def __init__(self, front, back):
		self.back = str(back)
		self.pairs, self.moved, self.threads = [], [], []
		self.swallows = False
		self.listener = socket.socket(socket.AF_UNIX)
		self.listener.bind(str(front))
		self.listener.listen(16)
		self.start(self.let_in)

	def start(self, what, *args):
		self.threads.append(threading.Thread(target=what, args=args, daemon=True))
		self.threads[-1].start()

	def let_in(self):
		with contextlib.suppress(OSError):  # the listener was shut
			while True:
				ours, _ = self.listener.accept()
				theirs = socket.socket(socket.AF_UNIX)
				theirs.connect(self.back)
				self.moved.append(0)
				self.pairs.append((ours, theirs))
				number = len(self.pairs) - 1
				self.start(self.move, ours, theirs, number)
				self.start(self.move, theirs, ours, number)

	def move(self, source, sink, number):
		with contextlib.suppress(OSError):
			while data := source.recv(1 << 18):
				if not self.swallows:
					sink.sendall(data)
					self.moved[number] += len(data)
		if not self.swallows:
			self.cut(number)

	def swallow(self):
		"""From now on what comes is read and goes nowhere, and no end tells the other."""
		self.swallows = True

	def cut(self, *numbers):
		"""These are broken, on both sides; none: all of them."""
		for number in numbers or range(len(self.pairs)):
			for end in self.pairs[number]:
				with contextlib.suppress(OSError):
					end.shutdown(socket.SHUT_RDWR)

	def close(self):
		with contextlib.suppress(OSError):
			self.listener.shutdown(socket.SHUT_RDWR)
		self.cut()
		for thread in self.threads:
			thread.join()
		self.listener.close()
		for pair in self.pairs:
			for end in pair:
				end.close()
