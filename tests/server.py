"""A server of completions on this machine that misbehaves as it is told."""

import dataclasses
import http.server
import json
import re
import threading
import time
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Canned:
    """A reply that does not depend on the request."""

    body: bytes = b"{}"
    status: int = 200
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


def right_body(chat):
    """The body of a reply as a server should send it."""
    content = [{"token": " 4", "logprob": -0.5}, {"token": ".", "logprob": -0.25}]
    probabilities = {"content": content} if chat else {"tokens": [" 4", "."], "token_logprobs": [-0.5, -0.25]}
    text = {"message": {"role": "assistant", "content": " 4."}} if chat else {"text": " 4."}
    choices = [{"index": i, **text, "logprobs": probabilities, "finish_reason": "stop"} for i in range(2)]
    return {"id": "x", "choices": choices, "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}


class Server(http.server.ThreadingHTTPServer):
    """Answers completions; misbehaves as `faults` says, in turn, then behaves. Log-probabilities come where `logprobs`."""

    daemon_threads = True

    def __init__(self, faults=(), api="completions", logprobs=True):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.api, self.logprobs, self.lock = list(faults), api, logprobs, threading.Lock()
        self.bodies, self.keys, self.working, self.most = [], [], 0, 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, address):
        pass  # a client that gave up


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append(body)
            server.keys.append(self.headers.get("Authorization"))
            fault = server.faults.pop(0) if server.faults else ""
            server.working += 1
            server.most = max(server.most, server.working)
        try:
            time.sleep(0.02)
            self.answer(body, fault)
        finally:
            with server.lock:
                server.working -= 1

    def answer(self, body, fault):
        if isinstance(fault, Canned):
            return self.send(fault.status, fault.headers, fault.body)
        if fault == "slow":
            time.sleep(1.0)
        prompt = body["messages"][0]["content"] if self.server.api == "chat" else body["prompt"]
        number = int(re.findall(r"\d+", prompt.rpartition("Q: ")[2])[0])
        count = 0 if fault == "empty" else max(1, body["n"] // 2) if fault == "fewer" else body["n"]
        solution = f" {number} + {number} is {2 * number}. Draft {body['seed']}-"
        texts = [f"{solution}{i}" if i == 0 else f"{solution}{i}. The answer is {2 * number}.\nQ: more" for i in range(count)]
        if self.server.api == "chat":
            choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in texts]
        else:
            choices = [{"text": text, "finish_reason": "length" if i == 0 else "stop"} for i, text in enumerate(texts)]
        if self.server.logprobs and body.get("logprobs"):
            chat = {"content": [{"token": "x", "logprob": -0.5}] * 7}
            plain = {"tokens": ["x"] * 7, "token_logprobs": [-0.5] * 7}
            choices = [{**choice, "logprobs": chat if self.server.api == "chat" else plain} for choice in choices]
        answer = {"choices": choices, "usage": {"prompt_tokens": 10, "completion_tokens": 7 * count}}
        status = {"busy": 429, "broken": 500, "refused": 401, "bad": 400}.get(fault, 200)
        data = b'{"choices": [' if fault == "garbled" else json.dumps(answer).encode()
        headers = {"Retry-After": "0.01"} if fault == "busy" else {}
        self.send(status, headers, data, missing=50 if fault == "cut" else 0)

    def send(self, status, headers, data, missing=0):
        """A reply whose last `missing` bytes never come."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data) + missing)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
