"""An application as python-ndn's users write them: asks for so many names, one after the other, and prints what became of it.

python ndn_consumer.py PREFIX INTERESTS [SECONDS TO WAIT FOR THE FIRST ANSWER]
"""

import asyncio
import json
import sys
import time

from ndn.app import NDNApp
from ndn.security import KeychainDigest
from ndn.types import InterestNack, InterestTimeout

app = NDNApp(keychain=KeychainDigest())


async def ask(number: int) -> float | None:
    """Return the round-trip time in ms, None where nothing came."""
    begun_s = time.perf_counter()
    try:
        _, _, content = await app.express_interest(f"{sys.argv[1]}/{number}", lifetime=4_000)
    except (InterestNack, InterestTimeout):
        return None
    assert content is not None
    assert bytes(content) == b"served"
    return (time.perf_counter() - begun_s) * 1e3


async def main() -> None:
    until_s = time.monotonic() + float(sys.argv[3] if len(sys.argv) > 3 else "5")
    attempts = 0  # routes take a moment after a registration
    while await ask(1_000_000 + attempts) is None and time.monotonic() < until_s:
        attempts += 1
        await asyncio.sleep(0.05)
    rtts_ms = [await ask(number) for number in range(int(sys.argv[2]))]
    answered = [rtt_ms for rtt_ms in rtts_ms if rtt_ms is not None]
    print(json.dumps({"asked": len(rtts_ms), "rtts_ms": answered, "attempts": attempts}), flush=True)
    app.shutdown()


if __name__ == "__main__":
    app.run_forever(after_start=main())
