#!/usr/bin/env python3
"""Mixed traffic against `lowbit serve` for as long as one likes: of the requests, 30 % are aborted,
10 % are bad in some way, 10 % are read slowly. At the end, and all along, it checks that

  - every answer equals the one that the same request gets alone,
  - no block of the KV cache is held when nothing runs, and no connection or request is left,
  - memory stays flat,
  - bad requests get a 4xx, the server stays healthy, and SIGTERM ends it with exit code 0.

  tools/soak/soak.py -m SmolLM2-135M-Instruct.Q4_1.gguf --minutes 60
  tools/soak/soak.py -m MODEL --minutes 10 --clients 32 -- -t 2 --max-num-seqs 16

What follows "--" goes to `lowbit serve`. Needs nothing but Python 3.9. Exits with 1 if a check fails.
"""

import argparse
import asyncio
import collections
import json
import os
import pathlib
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ABORTS, BAD, SLOW = 0.30, 0.10, 0.10
TOPICS = ["rivers", "the moon", "bread", "a lighthouse", "Ada Lovelace", "snow", "trains", "chess"]
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
                                           "age": {"type": "integer", "minimum": 0, "maximum": 99}},
          "required": ["name", "age"], "additionalProperties": False}


def make_requests(rng, count):
    """(path, body) of every kind that generates text."""
    prefix = "You are a helpful assistant who answers briefly and never makes things up. " * 6
    requests = []
    for i in range(count):
        topic = TOPICS[i % len(TOPICS)]
        sampling = {"temperature": 0} if i % 3 == 0 else {
            "temperature": 0.9, "top_p": 0.95, "seed": rng.randrange(1 << 30)}
        tokens = rng.choice([4, 12, 24, 48])
        kind = i % 8
        if kind in (0, 1):  # with a prefix that others share
            body = {"prompt": f"{prefix}\nQuestion {i}: what about {topic}?\nAnswer:",
                    "max_tokens": tokens, **sampling}
        elif kind == 2:
            body = {"prompt": f"Once upon a time, {topic}", "max_tokens": tokens, "logprobs": 2, "n": 2,
                    **sampling}
        elif kind == 3:
            body = {"prompt": f"List: {topic}, ", "max_tokens": tokens, "stop": [".", "\n"],
                    "presence_penalty": 0.5, "frequency_penalty": 0.3, **sampling}
        elif kind == 4:
            body = {"prompt": f"A person who likes {topic} as JSON:", "max_tokens": 60,
                    "guided_json": SCHEMA, **sampling}
        else:
            body = {"messages": [{"role": "system", "content": prefix},
                                 {"role": "user", "content": f"Tell me about {topic}. ({i})"}],
                    "max_tokens": tokens, **sampling}
        path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        requests.append((path, body))
    return requests


class HttpError(Exception):
    pass


class Client:
    """One request on a connection of its own, over plain sockets: every byte is ours to withhold."""

    def __init__(self, port, receive_buffer=0):
        self.port = port
        self.receive_buffer = receive_buffer

    async def open(self):
        connection = socket.socket()
        if self.receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.port))
        limit = 1 << 12 if self.receive_buffer else 1 << 16
        self.reader, self.writer = await asyncio.open_connection(sock=connection, limit=limit)

    async def send(self, method, path, body=b""):
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        if body or method == "POST":
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.writer.write(head.encode() + b"\r\n" + body)
        await self.writer.drain()

    async def status(self):
        line = await self.reader.readline()
        if not line:
            raise HttpError("the connection was closed before an answer")
        status = int(line.split()[1])
        self.chunked = False
        while (line := await self.reader.readline()) not in (b"\r\n", b""):
            self.chunked |= line.lower().startswith(b"transfer-encoding: chunked")
        return status

    async def pieces(self):
        if not self.chunked:
            yield await self.reader.read(-1)
            return
        while size := int(await self.reader.readline(), 16):
            yield await self.reader.readexactly(size)
            await self.reader.readline()

    def close(self, rudely=False):
        if rudely:  # RST instead of FIN
            self.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.close()


def answer_of(events):
    """What matters of an answer: texts, reasons and logprobs of each choice, usage."""
    choices = collections.defaultdict(lambda: {"text": "", "finish": None, "logprobs": []})
    for event in events:
        if "error" in event:
            raise HttpError(f"error in an answer: {event['error']}")
        for choice in event["choices"]:
            found = choices[choice["index"]]
            part = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
            found["text"] += part.get("content") or ""
            found["finish"] = choice.get("finish_reason") or found["finish"]
            if choice.get("logprobs"):
                found["logprobs"] += choice["logprobs"]["token_logprobs"]
    return dict(choices)


async def generate(port, path, body, stream, pause=0.0):
    client = Client(port, 2048 if pause else 0)
    await client.open()
    try:
        await client.send("POST", path, json.dumps({**body, "stream": stream}).encode())
        status = await client.status()
        data = b""
        async for piece in client.pieces():
            data += piece
            if pause:
                await asyncio.sleep(pause)
        if status in (429, 503):
            return None
        if status != 200:
            raise HttpError(f"status {status}: {data[:300]!r}")
        if not stream:
            return answer_of([json.loads(data)])
        lines = [line[6:] for line in data.decode().split("\n") if line.startswith("data: ")]
        if lines[-1] != "[DONE]":
            raise HttpError("a stream ended without [DONE]")
        return answer_of(json.loads(line) for line in lines[:-1])
    finally:
        client.close()


async def abort(port, path, body, rng):
    """Leaves at some moment: while sending, while waiting, or in the middle of a stream."""
    client = Client(port)
    await client.open()
    text = json.dumps({**body, "stream": rng.random() < 0.8}).encode()
    moment = rng.choice(["sending", "at once", "waiting", "reading", "reading", "half-closed"])
    try:
        if moment == "sending":
            client.writer.write(b"POST " + path.encode() + b" HTTP/1.1\r\nHost: localhost\r\n"
                                b"Content-Length: %d\r\n\r\n" % len(text) + text[:len(text) // 2])
            await client.writer.drain()
            await asyncio.sleep(rng.random() * 0.3)
            return
        await client.send("POST", path, text)
        if moment == "waiting":
            await asyncio.sleep(rng.random())
        elif moment == "half-closed":
            client.writer.write_eof()
            await asyncio.sleep(rng.random())
        elif moment == "reading":
            await client.status()
            left = rng.randrange(1, 12)
            async for _ in client.pieces():
                if (left := left - 1) == 0:
                    break
    except (OSError, asyncio.IncompleteReadError, ValueError, HttpError):
        pass  # we are leaving anyway
    finally:
        client.close(rudely=rng.random() < 0.5)


BAD_BODIES = [
    b"", b"{", b"[]", b"null", b'{"prompt": 7}', b'{"prompt": "x", "max_tokens": -1}',
    b'{"prompt": "x", "temperature": "hot"}', b'{"prompt": [99999999]}', b'{"prompt": ""}',
    b'{"prompt": "x", "n": 1000}', b'{"prompt": "x", "model": "no-such-model"}',
    b'{"prompt": "x", "guided_json": {"type": "nonsense"}}', b'{"prompt": "x", "guided_regex": "("}',
    b'{"prompt": "x", "logit_bias": {"a": 1}}', b'{"prompt": "\xff\xfe"}', b'{"a":' * 200,
    b'{"prompt": "' + b"word " * 40000 + b'"}', b"\0" * 1000,
]
BAD_BYTES = [
    b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 2\r\n\r\n{}",
    b"DELETE /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
]


async def misbehave(port, rng):
    """Returns the status; 0 if the server just closed."""
    client = Client(port)
    await client.open()
    try:
        if rng.random() < 0.6:
            await client.send("POST", "/v1/completions", rng.choice(BAD_BODIES))
        else:
            client.writer.write(rng.choice(BAD_BYTES))
            await client.writer.drain()
            client.writer.write_eof()
        return await client.status()
    except (OSError, HttpError, asyncio.IncompleteReadError, ValueError):
        return 0
    finally:
        client.close()


class Soak:
    def __init__(self, options, process, port):
        self.options, self.process, self.port = options, process, port
        self.rng = random.Random(options.seed)
        self.requests = make_requests(self.rng, options.requests)
        self.counts = collections.Counter()
        self.problems = []
        self.memory = []  # (seconds, resident KiB)

    async def get(self, path):
        client = Client(self.port)
        await client.open()
        try:
            await client.send("GET", path)
            status = await client.status()
            return status, b"".join([piece async for piece in client.pieces()]).decode()
        finally:
            client.close()

    async def metric(self, *names):
        _, text = await self.get("/metrics")
        found = []
        for name in names:
            match = re.search(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.M)
            found.append(float(match[1]))
        return found

    def resident(self):
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    def problem(self, text):
        self.counts["problems"] += 1
        if len(self.problems) < 20:
            self.problems.append(text)
            print("PROBLEM", text, flush=True)

    async def one(self, rng):
        kind = rng.random()
        index = rng.randrange(len(self.requests))
        path, body = self.requests[index]
        if kind < ABORTS:
            self.counts["aborted"] += 1
            return await abort(self.port, path, body, rng)
        if kind < ABORTS + BAD:
            status = await misbehave(self.port, rng)
            self.counts["bad"] += 1
            if (status >= 500 and status != 505) or 200 <= status < 300:
                self.problem(f"a bad request got status {status}")
            return None
        slow = kind < ABORTS + BAD + SLOW
        pause = rng.choice([0.05, 0.2, 0.5]) if slow else 0.0
        stream = slow or rng.random() < 0.6
        answer = await generate(self.port, path, body, stream, pause)
        self.counts["slow" if slow else "plain"] += 1
        if answer is None:
            self.counts["refused"] += 1
            return await asyncio.sleep(0.5)
        if answer != self.expected[index]:
            self.problem(f"request {index} (stream={stream}): {answer} is not {self.expected[index]}")
        return None

    async def client(self, number, until):
        rng = random.Random(f"{self.options.seed} {number}")
        while time.monotonic() < until:
            try:
                await asyncio.wait_for(self.one(rng), 300)
            except asyncio.TimeoutError:
                self.problem("a request took more than 300 s")
            except (HttpError, OSError, asyncio.IncompleteReadError, ValueError, KeyError) as error:
                self.problem(f"{type(error).__name__}: {error}")

    async def watch(self, start, until):
        shown = 0
        while (now := time.monotonic()) < until:
            self.memory.append((now - start, self.resident()))
            if self.process.poll() is not None:
                return self.problem(f"the server ended with {self.process.returncode}")
            if now - start >= shown:
                shown += 60
                running, held = await self.metric("vllm:num_requests_running", "lowbit:kv_blocks_held")
                print(f"{now - start:6.0f} s: {dict(self.counts)}, {running:.0f} running, "
                      f"{held:.0f} blocks held, {self.memory[-1][1] / 1024:.1f} MiB", flush=True)
            await asyncio.sleep(2)
        return None

    async def check_idle(self):
        names = ("lowbit:kv_blocks_held", "vllm:num_requests_running", "vllm:num_requests_waiting",
                 "lowbit:open_requests", "lowbit:http_connections")
        for _ in range(300):
            values = await self.metric(*names)
            if values == [0, 0, 0, 0, 1]:  # the connection that asks
                return
            await asyncio.sleep(0.1)
        self.problem("left behind: " + ", ".join(f"{n} {v:.0f}" for n, v in zip(names, values)))

    def check_memory(self):
        """The second half against the quarter before it: what warms up does so in the first."""
        end = self.memory[-1][0]
        part = lambda low, high: statistics.median(
            kib for at, kib in self.memory if low * end <= at <= high * end)
        before, after = part(0.25, 0.5), part(0.75, 1)
        print(f"memory: {part(0, 0.25) / 1024:.1f}, {before / 1024:.1f}, {part(0.5, 0.75) / 1024:.1f}, "
              f"{after / 1024:.1f} MiB (medians of quarters)")
        if after > before * 1.02 + 2048:
            self.problem(f"memory grew from {before} to {after} KiB")

    async def run(self):
        self.expected = [await generate(self.port, path, body, False) for path, body in self.requests]
        again = [await generate(self.port, path, body, True) for path, body in self.requests]
        if again != self.expected:
            self.problem("streams alone differ from answers alone")
        start = time.monotonic()
        until = start + self.options.minutes * 60
        await asyncio.gather(self.watch(start, until),
                             *(self.client(i, until) for i in range(self.options.clients)))
        await self.check_idle()
        status, _ = await self.get("/health")
        if status != 200:
            self.problem(f"/health says {status}")
        tokens, gone, preempted, hits = await self.metric(
            "vllm:generation_tokens_total", "lowbit:requests_gone_total",
            "vllm:num_preemptions_total", "vllm:prefix_cache_hits_total")
        print(f"{sum(self.counts[k] for k in ('aborted', 'bad', 'slow', 'plain'))} requests in "
              f"{self.options.minutes:g} minutes: {dict(self.counts)}; {tokens:.0f} tokens, "
              f"{gone:.0f} clients gone, {preempted:.0f} preemptions, {hits:.0f} prompt tokens cached")
        self.check_memory()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_ready(process, port):
    for _ in range(1200):
        if process.poll() is not None:
            sys.exit(f"the server ended with {process.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as probe:
                probe.sendall(b"GET /ready HTTP/1.0\r\nHost: localhost\r\n\r\n")
                if b" 200 " in probe.recv(100):
                    return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit("the server does not get ready")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--lowbit", default=str(ROOT / "build/cpu/lowbit"))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=24, help="at once")
    parser.add_argument("--requests", type=int, default=48, help="different ones")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("serve", nargs="*", help="options of lowbit serve, behind --")
    options = parser.parse_args()
    port = free_port()
    # A cache that is too small for all, so that sequences are preempted and blocks evicted.
    serve = options.serve or ["--max-num-seqs", "16", "--kv-cache-gib", "0.05"]
    process = subprocess.Popen([options.lowbit, "serve", "-q", "-m", options.model, "--port", str(port),
                                "-c", "2048", *serve])
    try:
        wait_ready(process, port)
        soak = Soak(options, process, port)
        asyncio.run(soak.run())
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        if code != 0:
            soak.problem(f"SIGTERM ended the server with {code}")
    finally:
        process.kill()
    print("FAILED" if soak.counts["problems"] else "ok", f"({soak.counts['problems']} problems)")
    sys.exit(1 if soak.counts["problems"] else 0)


if __name__ == "__main__":
    main()
