"""A server that speaks OpenAI's chat protocol over real HTTP, and misbehaves on demand.

Each class meets its own faults, one an attempt, so that what happens does not depend on the order of
requests. What was asked and what was answered is counted here, and outlives whoever asks.
"""

import json
import re
import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "test-model"


def good_answer(name, count=4):
    """Descriptors that pass: different for every class, and without its name."""
    mark = "".join(chr(ord("a") + int(d)) for d in re.sub(r"\D", "", name)) or "thing"
    return {
        "spatial": [f"a {colour} {mark} on a wooden table" for colour in COLOURS[:count]],
        "temporal": [f"the {mark} {verb} under a lamp" for verb in VERBS[:count]],
    }


COLOURS = ("red", "green", "blue", "white", "black", "grey", "brown", "pink")
VERBS = ("rises", "turns", "opens", "falls", "glides", "folds", "shuts", "rests")


class ChatServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, faults=None, delay=0.0, key=None, owner="test", models=(MODEL,)):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults = defaultdict(list, faults or {})
        self.delay, self.key, self.owner, self.models = delay, key, owner, models
        self.requests, self.answered = [], Counter()
        self.attempts = Counter()
        self.refuse_options = set()
        self.ignore_schema = False
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def next_fault(self, name):
        with self.lock:
            self.attempts[name] += 1
            planned = self.faults[name]
            return planned.pop(0) if planned else None

    def handle_error(self, request, client_address):
        """Whoever asks may be killed at any moment; that is what the tests do."""


@contextmanager
def running(**settings):
    server = ChatServer(**settings)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        data = [{"id": m, "object": "model", "owned_by": self.server.owner} for m in self.server.models]
        if self._allowed():
            self._send(200, {"object": "list", "data": data})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        name = re.search(r"^Action: (.*)$", body["messages"][1]["content"], re.M)[1]
        with server.lock:
            server.requests.append(body)
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        try:
            self._answer(name, body)
        finally:
            with server.lock:
                server.in_flight -= 1

    def _answer(self, name, body):
        server = self.server
        if not self._allowed():
            return
        for option in server.refuse_options & set(body):
            text = f"Unsupported parameter: {option!r} is not supported with this model."
            self._send(400, {"error": {"message": text, "param": option}})
            return
        time.sleep(server.delay)
        fault = server.next_fault(name)
        if isinstance(fault, int):
            headers = {"Retry-After": "1"} if fault == 429 else {}
            self._send(fault, {"error": {"message": f"status {fault} on demand"}}, headers)
        elif fault == "drop":
            self.close_connection = True
            self.connection.close()
        elif fault == "half reply":
            data = self._reply(json.dumps(good_answer(name)))
            self._start(200, len(data))
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif fault == "not json at all":
            self._start(200, 5, content_type="text/html")
            self.wfile.write(b"hello")
        elif fault == "slow":
            time.sleep(2.5)
            self._good(name, json.dumps(good_answer(name)))
        else:
            answer = fault if fault is not None else json.dumps(good_answer(name, _count(body)))
            self._good(name, answer)

    def _good(self, name, text):
        with self.server.lock:
            self.server.answered[name] += 1
        data = self._reply(text)
        self._start(200, len(data))
        self.wfile.write(data)

    def _reply(self, text):
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
        whole = {"id": "x", "object": "chat.completion", "created": 0, "model": MODEL}
        return json.dumps({**whole, "choices": [choice], "usage": usage}).encode()

    def _allowed(self):
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.server.key is None or given == self.server.key:
            return True
        # Some servers echo what they were given; it must not be shown.
        self._send(401, {"error": {"message": f"Incorrect API key provided: {given}"}})
        return False

    def _send(self, status, content, headers=None):
        data = json.dumps(content).encode()
        self._start(status, len(data), headers)
        self.wfile.write(data)

    def _start(self, status, length, headers=None, content_type="application/json"):
        self.send_response(status)
        for key, value in {"Content-Type": content_type, **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


def _count(body):
    return int(re.search(r"write (\d+) spatial", body["messages"][0]["content"])[1])
