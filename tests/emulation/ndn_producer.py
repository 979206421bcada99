"""An application as python-ndn's users write them: answers every Interest under a prefix, says when it is registered.

python ndn_producer.py PREFIX
"""

import sys

from ndn.app import NDNApp
from ndn.encoding import FormalName
from ndn.security import KeychainDigest

app = NDNApp(keychain=KeychainDigest())


def answer(name: FormalName, _param: object, _parameters: object) -> None:
    app.put_data(name, content=b"served", freshness_period=10_000)


async def main() -> None:
    print(await app.register(sys.argv[1], answer), flush=True)


if __name__ == "__main__":
    app.run_forever(after_start=main())
