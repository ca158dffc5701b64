"""The local Slack as a process beside a lab, for `calico-why lab up --slack`; without it each demo would wire its own.

`python -m lab.slack_seat` prints one JSON line, {"page": url, "environment": {...}}, and lives until its stdin closes:
it ends with whoever started it, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

from lab.errors import LabError

APPROVERS = "netops"


@contextlib.contextmanager
def slack_beside() -> Iterator[tuple[str, dict[str, str]]]:
    """A running local Slack: the address of its page, and what bot and fixers need to use it. Raises LabError."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lab.slack_seat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the launcher, which closes its stdin in its turn
    )
    assert process.stdin and process.stdout and process.stderr
    try:
        line = process.stdout.readline()
        if not line:
            said = process.stderr.read().decode(errors="replace").strip().splitlines()[-1:]
            raise LabError(f"The local Slack did not start: {' '.join(said) or 'it said nothing'}.")
        told = json.loads(line)
        yield told["page"], told["environment"]
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
        process.stderr.close()


async def _sit() -> None:
    from lab.slack import LocalSlack

    async with LocalSlack() as slack:
        environment = {
            "SLACK_API_URL": slack.base_url,
            "CALICO_WHY_DEVELOPMENT": "1",
            "SLACK_BOT_TOKEN": slack.bot_token,
            "SLACK_APP_TOKEN": slack.app_token,
            "SLACK_SIGNING_SECRET": slack.signing_secret,
            "CALICO_WHY_APPROVERS": slack.group_id(APPROVERS),
        }
        print(json.dumps({"page": slack.page_url, "environment": environment}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_sit())
