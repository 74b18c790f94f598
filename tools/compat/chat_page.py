#!/usr/bin/env python3
"""Uses the chat page of a running `lowbit serve` in headless Chromium: asks, stops, regenerates,
looks at it on a phone, and tries to smuggle markup through the model's text. Writes screenshots.

  apt-get install chromium; pip install websocket-client
  tools/compat/chat_page.py --url http://127.0.0.1:8000 --out /tmp/screenshots
"""

import argparse
import base64
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

import websocket

HOSTILE = """# Title <b>bold</b>
<script>window.broken = 1</script> <img src=x onerror="window.broken = 1">
[link](javascript:window.broken=1) [good](https://example.org/a?b=1&c=2)
**bold** *italic* `a < b` ~~gone~~

- one
- two
  - deeper
1. first
2. second

| a | b |
|---|---|
| 1 | `x|y` |

> quoted

```html
<script>window.broken = 1</script>
```
"""


class Page:
    def __init__(self, chromium, width, height):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
             "--remote-allow-origins=*", f"--user-data-dir={self.folder.name}",
             f"--window-size={width},{height}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port_file = pathlib.Path(self.folder.name) / "DevToolsActivePort"
        deadline = time.time() + 120
        while not port_file.exists() or len(port_file.read_text().split()) < 2:
            if time.time() > deadline:
                raise TimeoutError("Chromium does not start")
            time.sleep(0.2)
        port = port_file.read_text().split()[0]
        targets = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
        target = next(t for t in targets if t["type"] == "page")
        self.socket = websocket.create_connection(target["webSocketDebuggerUrl"], timeout=120)
        self.numbers = itertools.count(1)
        self.problems = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self.note(message)

    def note(self, message):
        method, params = message.get("method"), message.get("params", {})
        if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"]["text"])
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"])[:500])

    def run(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, expression, seconds=120):
        deadline = time.time() + seconds
        while not (value := self.run(expression)):
            if time.time() > deadline:
                raise TimeoutError(expression)
            time.sleep(0.1)
        return value

    def resize(self, width, height, mobile):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=mobile)

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))
        print(f"wrote   {path}")

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait()


def expect(name, good, detail=""):
    print(f"{'ok     ' if good else 'FAILED '} {name} {detail if not good else ''}", flush=True)
    return bool(good)


def ask(page, text):
    page.run(f"$('prompt').value = {json.dumps(text)}; $('form').requestSubmit()")


def walk(page, url, out):
    good = True
    page.call("Page.navigate", url=url)
    page.wait("typeof model !== 'undefined' && model && $('name').textContent === model.id")
    good &= expect("shows the model's facts", "context" in page.run("$('facts').textContent"))
    page.screenshot(out / "empty.png")

    page.run("$('max_tokens').value = '80'; $('temperature').value = '0'")
    ask(page, "Name three colours, as a Markdown list.")
    page.wait("running && messages.at(-1).content.length > 0")
    good &= expect("streams while it runs", page.run("$('send').textContent") == "Stop")
    page.wait("!running")
    note = page.run("document.querySelector('.note').textContent")
    good &= expect("says how fast it was", "tok/s" in note, note)
    first = page.run("messages.at(-1).content")
    page.run("[...document.querySelectorAll('.note button')].at(-1).click()")
    page.wait("running === null && messages.at(-1).content")
    good &= expect("regenerates (greedy: the same)", page.run("messages.at(-1).content") == first)

    page.run("$('max_tokens').value = '1500'")
    ask(page, "Tell me a very long story.")
    page.wait("running && messages.at(-1).content.length > 20")
    page.run("$('form').requestSubmit()")
    page.wait("!running")
    good &= expect("stops", "stopped" in page.run("messages.at(-1).note ?? ''"))
    page.screenshot(out / "chat.png")

    page.run(f"messages = [{{role: 'user', content: '<b>mine</b>'}}, {{role: 'assistant', "
             f"content: {json.dumps(HOSTILE)}}}]; show()")
    time.sleep(0.5)
    good &= expect("runs nothing that a model writes", page.run("window.broken === undefined"))
    good &= expect("makes no elements of it", page.run(
        "document.querySelectorAll('#talk script, #talk img, #talk b').length") == 0)
    links = page.run("[...document.querySelectorAll('#talk a')].map(a => a.href)")
    good &= expect("links only to the web", links == ["https://example.org/a?b=1&c=2"], links)
    good &= expect("renders Markdown", page.run(
        "['h1', 'strong', 'em', 's', 'code', 'pre', 'table', 'blockquote', 'ul ul', 'ol']"
        ".filter(tag => !document.querySelector('#talk ' + tag)).join()") == "")
    page.screenshot(out / "markdown.png")

    page.resize(390, 844, True)
    good &= expect("fits a phone", page.run(
        "document.documentElement.scrollWidth <= innerWidth && $('send').getBoundingClientRect().bottom <= innerHeight"))
    page.screenshot(out / "phone.png")
    page.run("$('open').click()")
    page.screenshot(out / "settings.png")
    page.call("Emulation.setEmulatedMedia",
              features=[{"name": "prefers-color-scheme", "value": "dark"}])
    page.run("$('done').click()")
    page.screenshot(out / "dark.png")
    page.run("$('clear').click()")
    page.run("$('system').value = 'Answer with one word.'; $('max_tokens').value = '5'")
    sent = page.run("messages = [{role: 'user', content: 'x'}], body()")
    good &= expect("sends the system prompt and parameters",
                   json.loads(sent)["messages"][0]["role"] == "system" and
                   json.loads(sent)["max_tokens"] == 5, sent)
    return good & expect("nothing in the console", not page.problems, page.problems)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("screenshots"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    page = Page(options.chromium, 1100, 760)
    try:
        return 0 if walk(page, options.url, options.out) else 1
    finally:
        page.close()


if __name__ == "__main__":
    sys.exit(main())
