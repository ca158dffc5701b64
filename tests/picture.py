"""Takes docs/answer.png anew from the demo; without it the README would show a page that is no more.

`python -m tests.picture`: the demo is started, @bo approves the fix in the browser, the thread is photographed.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from bot.reply.fix_card import APPROVE
from tests.browser import chromium, open_page

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "answer.png"
APPROVER = "U0BO"
WIDTH, HEIGHT = 1400, 1920  # of the thread everything from the question to the second look


async def take(browser: str, url: str) -> None:
    async with open_page(browser, f"{url}?user={APPROVER}") as page:
        await page.resize(WIDTH, HEIGHT)
        await page.click(f"[data-action={APPROVE}]")
        await page.click("#confirm-yes")
        await page.shows("done and verified", "#replies")
        await page.shows("second look", "#replies")
        await page.evaluate('document.querySelector("#replies > *").scrollIntoView({block: "start"})')
        PICTURE.write_bytes(await page.screenshot())


def main() -> None:
    demo = subprocess.Popen([sys.executable, "-m", "bot.cli", "demo"], stdout=subprocess.PIPE, text=True)
    try:
        assert demo.stdout is not None
        url = next(found[0] for line in demo.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+/", line)))
        with chromium() as browser:
            asyncio.run(take(browser, url))
    finally:
        demo.terminate()
        demo.wait()


if __name__ == "__main__":
    main()
