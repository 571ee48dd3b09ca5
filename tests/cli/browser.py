"""A headless chromium spoken to through pipes (the DevTools protocol), without further packages."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def found() -> str | None:
    """Path of the browser, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page; `errors` holds what it complained of."""

    def __init__(self, profile: Path, limit: float = 120.0):
        self.limit, self.errors, self.count, self.rest = limit, [], 0, b""
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        flags += ["--remote-debugging-pipe", f"--user-data-dir={profile}"]
        flags += ["--window-size=1240,1000", "about:blank"]
        # The browser reads commands from 3 and answers on 4; the shell puts them there.
        wire = f'exec "$0" "$@" 3<&{to_read} 4>&{from_write}'
        self.process = subprocess.Popen(
            ["bash", "-c", wire, found(), *flags],
            pass_fds=(to_read, from_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        self.write, self.read = to_write, from_read
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    session = None

    def call(self, method: str, **params):
        """Result of a command; events that come before it are looked at."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> dict:
        end = time.monotonic() + self.limit
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.read], [], [], max(end - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            self.rest += os.read(self.read, 1 << 20)
        line, _, self.rest = self.rest.partition(b"\0")
        event = json.loads(line)
        name, params = event.get("method", ""), event.get("params", {})
        bad = name == "Runtime.exceptionThrown"
        bad |= name == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning")
        bad |= name == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning")
        bad |= name == "Network.requestWillBeSent" and not params["request"]["url"].startswith(
            ("file:", "data:", "about:")
        )
        if bad:
            self.errors.append(params)
        return event

    def open(self, path: Path) -> None:
        """Load a local file and wait for it."""
        self.call("Page.navigate", url=path.resolve().as_uri())
        end = time.monotonic() + self.limit
        while self.run("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < end
            time.sleep(0.1)

    def run(self, script: str):
        """Value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """PNG of the window."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self.write)
        os.close(self.read)
