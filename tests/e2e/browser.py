# SPDX-License-Identifier: Apache-2.0
"""Headless Chromium, driven through its debugging pipe (the DevTools protocol, JSON messages that
end in a zero byte, on descriptors 3 and 4): pages, screenshots, errors of the console."""
import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

from harness import Skip, check

START_S = 60.0
CALL_S = 60.0


def program():
    path = shutil.which("chromium")
    if not path:
        raise Skip("chromium is not installed")
    return path


class Browser:
    """One page. `prefix` starts the program elsewhere, as Mesh.in_netns() does."""

    def __init__(self, prefix=lambda command: command):
        self.home = tempfile.mkdtemp(prefix="weft-browser-")
        down, self.write_fd = os.pipe()
        self.read_fd, up = os.pipe()
        # The shell moves the pipes to where it looks for them; dash knows one digit only.
        command = [program(), "--headless=new", "--no-sandbox", "--disable-gpu",
                   "--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars",
                   "--disable-dev-shm-usage", "--disable-background-networking",
                   f"--user-data-dir={self.home}", "about:blank"]
        shell = ["bash", "-c", f'exec "$@" 3<&{down} 4>&{up}', "bash", *command]
        self.process = subprocess.Popen(prefix(shell), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        pass_fds=(down, up), start_new_session=True)
        os.close(down)
        os.close(up)
        self.rest = b""
        self.number = 0
        self.session = None
        self.errors = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target,
                                 flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def message(self, until):
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.read_fd], [], [], max(until - time.monotonic(), 0))
            check(ready, "the browser does not answer")
            part = os.read(self.read_fd, 1 << 20)
            check(part, "the browser has ended")
            self.rest += part
        text, _, self.rest = self.rest.partition(b"\0")
        return json.loads(text)

    def note(self, message):
        """Events: only what went wrong is kept."""
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"].get("exception", {})
                               .get("description", "exception"))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(str([a.get("value") for a in params["args"]]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_fd, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + (CALL_S if self.session else START_S)
        while True:
            answer = self.message(until)
            if answer.get("id") == self.number:
                check("error" not in answer, method, answer.get("error"))
                return answer["result"]
            self.note(answer)

    def size(self, width, height, dark=False, calm=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
                    {"name": "prefers-reduced-motion", "value": "reduce" if calm else ""}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def open(self, url):
        self.call("Page.navigate", url=url)

    def value(self, expression):
        """The value of an expression in the page; promises are waited for."""
        got = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                        awaitPromise=True)
        check("exceptionDetails" not in got, expression, got.get("exceptionDetails"))
        return got["result"].get("value")

    def text(self, selector):
        return self.value(f"document.querySelector({json.dumps(selector)})?.innerText")

    def touch(self, kind, *points):
        """Fingers at these places of the window: touchStart, touchMove, touchEnd."""
        self.call("Input.dispatchTouchEvent", type=kind,
                  touchPoints=[{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)])

    def screenshot(self, path, whole=False):
        got = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        with open(path, "wb") as file:
            file.write(base64.b64decode(got["data"]))

    def close(self):
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, 9)
        self.process.wait()
        os.close(self.read_fd)
        os.close(self.write_fd)
        shutil.rmtree(self.home, ignore_errors=True)


@contextlib.contextmanager
def browser(prefix=lambda command: command):
    made = Browser(prefix)
    try:
        yield made
    finally:
        made.close()
