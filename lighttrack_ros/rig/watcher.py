"""Somebody who looks at the viewer's page, without a browser: `python -m lighttrack_ros.rig.watcher URL`.

It takes every picture that the viewer sends, as a page does, and once a second prints how many came.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from tornado.websocket import websocket_connect


def main() -> int:
    """Watch until it is killed or the viewer ends."""
    with_address, _, token = sys.argv[1].partition("#")
    asyncio.run(_watch(with_address.replace("http:", "ws:", 1).rstrip("/") + "/link", token))
    return 0


async def _watch(address: str, token: str) -> None:
    page = await websocket_connect(address)
    await page.write_message(json.dumps({"type": "hello", "token": token}))
    count, size, told = 0, 0, time.monotonic()
    while (message := await page.read_message()) is not None:
        if isinstance(message, bytes):
            head = json.loads(message[4 : 4 + int.from_bytes(message[:4], "little")])
            await page.write_message(json.dumps({"type": "seen", "number": head["number"]}))
            count, size = count + 1, len(message)
        now = time.monotonic()
        if now - told >= 1.0:
            print(f"{count / (now - told):.1f} pictures a second of {size / 1000:.0f} kB", flush=True)
            count, told = 0, now


if __name__ == "__main__":
    sys.exit(main())
