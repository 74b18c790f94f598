#!/usr/bin/env python3
"""Kills `lowbit serve` with SIGKILL at random moments under load and starts it again on the same
port, again and again. Checks that

  - it is ready again in the time of its first start, which is that of loading the model,
  - clients see closed connections and nothing else: an answer that arrives whole is the right one,
  - after the last start everything is answered as before the first kill.

  tools/soak/restart.py -m SmolLM2-135M-Instruct.Q4_1.gguf --kills 20

What follows "--" goes to `lowbit serve`. Needs nothing but Python 3.9. Exits with 1 if a check fails.
"""

import argparse
import asyncio
import collections
import json
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import soak

READY = b"GET /ready HTTP/1.0\r\nHost: localhost\r\n\r\n"


class Restarts:
    def __init__(self, options):
        self.options = options
        self.rng = random.Random(options.seed)
        self.requests = soak.make_requests(self.rng, options.requests)
        self.port = soak.free_port()
        self.counts = collections.Counter()
        self.log = tempfile.TemporaryFile()

    def start(self):
        """Starts the server; returns the seconds until /ready says 200."""
        begin = time.monotonic()
        self.process = subprocess.Popen(
            [self.options.lowbit, "serve", "-q", "-m", self.options.model, "--port", str(self.port),
             "-c", "2048", *self.options.serve], stderr=self.log)
        while time.monotonic() - begin < 300:
            if self.process.poll() is not None:
                sys.exit(f"the server ended with {self.process.returncode}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                    probe.sendall(READY)
                    if b" 200 " in probe.recv(100):
                        return time.monotonic() - begin
            except OSError:
                pass
            time.sleep(0.005)
        sys.exit("the server does not get ready")

    def load_seconds(self):
        """What the server itself says, start by start."""
        self.log.seek(0)
        return [float(x) for x in re.findall(r"ready after ([\d.e+-]+) s", self.log.read().decode())]

    async def client(self):
        while self.loading:
            index = self.rng.randrange(len(self.requests))
            path, body = self.requests[index]
            try:
                answer = await soak.generate(self.port, path, body, self.rng.random() < 0.6)
            except (soak.HttpError, OSError, asyncio.IncompleteReadError, ValueError, KeyError,
                    IndexError, AttributeError):  # cut off
                self.counts["cut"] += 1
                await asyncio.sleep(0.01)
                continue
            self.counts["whole"] += 1
            if answer is not None and answer != self.expected[index]:
                self.counts["wrong"] += 1
                print("PROBLEM", json.dumps(body), answer, "is not", self.expected[index])

    async def under_load(self, seconds):
        self.loading = True
        clients = [asyncio.create_task(self.client()) for _ in range(self.options.clients)]
        await asyncio.sleep(seconds)
        self.process.kill()
        self.process.wait()
        self.loading = False
        await asyncio.gather(*clients)

    async def answers(self):
        return [await soak.generate(self.port, path, body, False) for path, body in self.requests]

    async def run(self):
        first = self.start()
        self.expected = await self.answers()
        again = []
        for _ in range(self.options.kills):
            await self.under_load(self.rng.uniform(0.05, self.options.seconds))
            again.append(self.start())
        if await self.answers() != self.expected:
            self.counts["wrong"] += 1
            print("PROBLEM: answers after the last start differ")
        loads = self.load_seconds()
        print(f"ready after {first:.3f} s at first, after a kill in {statistics.median(again):.3f} s "
              f"(median of {len(again)}; at most {max(again):.3f}); loading the model took "
              f"{statistics.median(loads):.3f} s of it (at most {max(loads):.3f})")
        print(f"{self.counts['whole']} answers arrived whole, {self.counts['wrong']} wrong; "
              f"{self.counts['cut']} were cut off")
        slow = statistics.median(again) > 1.5 * first + 0.2
        return 1 if slow or self.counts["wrong"] else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--lowbit", default=str(soak.ROOT / "build/cpu/lowbit"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2, help="of load before a kill, at most")
    parser.add_argument("--clients", type=int, default=8, help="at once")
    parser.add_argument("--requests", type=int, default=16, help="different ones")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("serve", nargs="*", help="options of lowbit serve, behind --")
    options = parser.parse_args()
    restarts = Restarts(options)
    try:
        code = asyncio.run(restarts.run())
    finally:
        restarts.process.kill()
    print("FAILED" if code else "ok")
    sys.exit(code)


if __name__ == "__main__":
    main()
