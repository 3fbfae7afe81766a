# SPDX-License-Identifier: Apache-2.0
"""An agent that says what a test tells it to: JSON lines at ROOT/run/drover/control.sock.

`answers` maps a command to a value, or to a function of (arguments, tell) that returns one;
`tell(data)` sends a progress event.  Raise Refusal to answer with an error, Hangup to close."""
import json
import os
import socket
import tempfile
import threading


class Refusal(Exception):
    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


class Hangup(Exception):
    pass


class Agent:
    def __init__(self, answers):
        self.answers = answers
        self.asked = []
        self.directory = tempfile.TemporaryDirectory(prefix="drover-cli-")
        self.root = self.directory.name
        os.makedirs(self.root + "/run/drover")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.root + "/run/drover/control.sock")
        self.listener.listen()
        self.server = threading.Thread(target=self.serve, daemon=True)
        self.server.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # The thread first: were it about to accept while the number is closed, it would accept for
        # the next agent, whose listener gets that number.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.server.join()
        self.listener.close()
        self.directory.cleanup()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection):
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                try:
                    self.answer(json.loads(line), connection)
                except (Hangup, OSError):
                    return

    def answer(self, request, connection):
        def send(message):
            connection.sendall(json.dumps(message).encode() + b"\n")

        def tell(data):
            send({"event": "progress", "data": {**data, "id": request["id"]}})

        arguments = request.get("arguments", {})
        self.asked.append((request["execute"], arguments))
        value = self.answers[request["execute"]]
        try:
            send({"return": value(arguments, tell) if callable(value) else value,
                  "id": request["id"]})
        except Refusal as refusal:
            send({"error": {"class": refusal.kind, "desc": str(refusal)}, "id": request["id"]})
