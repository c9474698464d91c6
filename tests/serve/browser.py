"""A headless Chromium, driven through its debugging port with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)


class Browser:
    """One page. Speaks the DevTools protocol over a WebSocket (RFC 6455)."""

    def __init__(self, profile: Path, *, width: int = 1000, height: int = 800) -> None:
        assert PROGRAM is not None
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},{height}"]
        options += [f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
        self._process = subprocess.Popen([PROGRAM, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port_file = profile / "DevToolsActivePort"
        self._wait(lambda: port_file.exists() and port_file.read_text().count("\n") >= 1)
        port = int(port_file.read_text().splitlines()[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            page = next(one for one in json.load(answer) if one["type"] == "page")
        path = page["webSocketDebuggerUrl"].split(str(port), 1)[1]
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        key = base64.b64encode(os.urandom(16)).decode()
        head = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *head, "", ""]
        self._socket.sendall("\r\n".join(lines).encode())
        while self._read(1) != b"\r" or self._read(3) != b"\n\r\n":
            pass
        self._number = 0

    @staticmethod
    def _wait(until: Any, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline, "the browser takes too long"
            time.sleep(0.05)

    def _read(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            found += self._socket.recv(count - len(found))
        return found

    def _receive(self) -> dict[str, Any]:
        length = self._read(2)[1] & 127
        if length >= 126:
            length = struct.unpack(">H", self._read(2))[0] if length == 126 else struct.unpack(">Q", self._read(8))[0]
        found: dict[str, Any] = json.loads(self._read(length))
        return found

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command and its result."""
        self._number += 1
        content = json.dumps({"id": self._number, "method": method, "params": parameters}).encode()
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(content))
        self._socket.sendall(b"\x81\xfe" + struct.pack(">H", len(content)) + mask + masked)
        while (answer := self._receive()).get("id") != self._number:
            pass
        found: dict[str, Any] = answer["result"]
        return found

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression on the page."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Until an expression is true."""
        self._wait(lambda: self.run(script))

    def picture(self, path: Path) -> None:
        """The page as a PNG file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def resize(self, width: int, height: int) -> None:
        """As on another screen."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=True)

    def close(self) -> None:
        """End."""
        self._socket.close()
        self._process.terminate()
        self._process.wait(timeout=20)
