"""Drives a headless Chromium over its DevTools protocol, for tests of pages."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 60.0
"""Seconds to wait for the browser or for a condition on a page."""


class Page:
    """One page of the browser. `errors` holds what its console and its scripts complained of."""

    def __init__(self, connection: ClientConnection):
        self._connection = connection
        self._calls = 0
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol and waits for its answer."""
        self._calls += 1
        self._connection.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=PATIENCE))
            self._note(message)
            if message.get("id") == self._calls:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    def open(self, address: str, *, width: int = 1440, height: int = 900, dark: bool = False) -> None:
        """Opens `address` in a window of this size and waits until it is loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=address)
        self.wait_for(f"location.href.startsWith({address.split('#')[0]!r}) && document.readyState == 'complete'")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Waits until a JavaScript expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.run(condition):
            assert time.monotonic() < deadline, f"never true: {condition}"
            time.sleep(0.05)

    def click(self, x: float, y: float) -> None:
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, *, whole: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}} if whole else {}
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **clip)
        return base64.b64decode(answer["data"])

    def _note(self, message: dict[str, Any]) -> None:
        event, found = message.get("method"), message.get("params", {})
        if event == "Runtime.exceptionThrown":
            self.errors.append(str(found["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and found["type"] == "error":
            self.errors.append(str(found["args"]))
        elif event == "Log.entryAdded" and found["entry"]["level"] == "error":
            self.errors.append(f"{found['entry']['text']} {found['entry'].get('url', '')}")


@contextmanager
def open_page() -> Iterator[Page]:
    """Starts the browser with one blank page and ends it afterwards."""
    assert CHROMIUM is not None
    options = ["--headless", "--no-sandbox", "--no-first-run", "--disable-gpu-sandbox", "--disable-dev-shm-usage"]
    options += ["--enable-unsafe-swiftshader", "--remote-debugging-port=0"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [CHROMIUM, *options, f"--user-data-dir={folder}", "about:blank"]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_page_address(Path(folder) / "DevToolsActivePort"), max_size=None) as connection:
                yield Page(connection)
        finally:
            browser.terminate()
            browser.wait()


def _page_address(file: Path) -> str:
    """The socket of the first page, once the browser has written down where it listens."""
    import urllib.request

    deadline = time.monotonic() + PATIENCE
    while not (file.exists() and len(lines := file.read_text().split()) == 2):
        assert time.monotonic() < deadline, "the browser does not start"
        time.sleep(0.05)
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json") as answer:
            pages = [target for target in json.load(answer) if target["type"] == "page"]
        if pages:
            return pages[0]["webSocketDebuggerUrl"]
        assert time.monotonic() < deadline, "the browser opens no page"
        time.sleep(0.05)
