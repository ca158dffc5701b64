"""A real browser, told what to do by its DevTools protocol; without it the page's scripts would run in no test."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # it shows only the page under test, often as root in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    "--remote-debugging-port=0",
    "--window-size=1400,900",
)
START_S = 60.0
STATE_S = 20.0
KEYS = {"Enter": ("Enter", 13, "\r"), "Tab": ("Tab", 9, ""), "Escape": ("Escape", 27, "")}


@contextlib.contextmanager
def chromium() -> Iterator[str]:
    """A headless browser with a profile of its own; yields its DevTools address. Skips where there is none."""
    command = next(filter(None, map(shutil.which, NAMES)), None)
    if command is None:
        pytest.skip(f"there is no browser here ({', '.join(NAMES)}), so nobody looks at the page")
    with tempfile.TemporaryDirectory(prefix="calico-why-browser-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [command, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            address = _address(process, Path(profile) / "DevToolsActivePort")
            yield address
            asyncio.run(_ask_to_end(address))
            process.wait(10)
        finally:
            # Its helpers outlive it by a moment, in which they would still write into the profile.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _address(process: subprocess.Popen[bytes], file: Path) -> str:
    """The file is there once the browser listens: its port, then the path of its endpoint."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            if len(lines := file.read_text().splitlines()) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    raise RuntimeError(f"the browser did not start (exit status {process.poll()})")


async def _ask_to_end(address: str) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
        await socket.send_json({"id": 1, "method": "Browser.close"})
        await socket.receive()


@contextlib.asynccontextmanager
async def open_page(browser: str, url: str) -> AsyncIterator[Page]:
    """A tab with no past. Leaving fails the test when the page's console has an error in it."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(browser, max_msg_size=0) as socket,
    ):
        page = Page(socket)
        listening = asyncio.create_task(page.listen())
        try:
            await page.begin()
            await page.go(url)
            yield page
            if page.problems:
                raise AssertionError("\n".join(dict.fromkeys(page.problems)))
        finally:
            await page.end()
            listening.cancel()


class Page:
    """One tab. Expressions are JavaScript, selectors CSS. What is waited for in vain fails with what the page shows."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._session = ""
        self._context = ""
        self.problems: list[str] = []
        self.loaded = asyncio.Event()

    # -- the protocol

    async def listen(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            else:
                self._note(said["method"], said["params"])

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Page.loadEventFired":
            self.loaded.set()

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        session = {"sessionId": self._session} if self._session else {}
        await self._socket.send_json({"id": number, "method": method, "params": params, **session})
        said = await asyncio.wait_for(answer, START_S)
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error']}")
        result: dict[str, Any] = said["result"]
        return result

    async def begin(self) -> None:
        self._context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=self._context)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def end(self) -> None:
        self._session = ""
        await self.call("Target.disposeBrowserContext", browserContextId=self._context)

    # -- looking

    async def go(self, url: str) -> None:
        self.loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self.loaded.wait(), START_S)

    async def evaluate(self, expression: str) -> Any:
        said = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in said:
            thrown = said["exceptionDetails"]["exception"]
            raise AssertionError(thrown.get("value") or thrown.get("description"))
        return said["result"].get("value")

    async def wait_for(self, expression: str) -> Any:
        """What the expression gives once that is true, asked again after every change of the document."""
        return await self.evaluate(
            f"""new Promise((resolve, reject) => {{
                const look = () => {{
                    const found = {expression};
                    if (!found) return;
                    observer.disconnect();
                    resolve(found);
                }};
                const observer = new MutationObserver(look);
                observer.observe(document, {{subtree: true, childList: true, attributes: true, characterData: true}});
                look();
                setTimeout(() => reject({json.dumps(expression)} + " is not so in:\\n" + document.body.innerText),
                           {STATE_S * 1000});
            }})"""
        )

    async def text(self, selector: str) -> str:
        """The text of the first match, once there is one."""
        return str(await self.wait_for(f"document.querySelector({json.dumps(selector)})?.textContent"))

    async def shows(self, text: str, within: str = "body") -> None:
        """Returns once the text can be read there."""
        await self.wait_for(f"document.querySelector({json.dumps(within)})?.innerText.includes({json.dumps(text)})")

    async def count(self, selector: str) -> int:
        return int(await self.evaluate(f"document.querySelectorAll({json.dumps(selector)}).length"))

    async def resize(self, width: int, height: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def screenshot(self) -> bytes:
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])

    # -- doing

    async def click(self, selector: str, times: int = 1) -> None:
        """The mouse pressed in the middle of the first match, as soon as it is there and enabled."""
        x, y = await self.wait_for(
            f"""(() => {{
                const node = document.querySelector({json.dumps(selector)});
                if (!node || node.disabled || node.ariaDisabled === 'true') return null;
                node.scrollIntoView({{block: "nearest"}});
                const box = node.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        for count in range(1, times + 1):
            for kind in ("mousePressed", "mouseReleased"):
                await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=count)

    async def type(self, selector: str, text: str) -> None:
        await self.click(selector)
        await self.call("Input.insertText", text=text)

    async def press(self, name: str) -> None:
        key, code, text = KEYS[name]
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **about)
