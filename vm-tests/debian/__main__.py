"""`python3 -m debian SCENARIO KIND PAUSE LAYERS PACKAGE [DISK]`: one scenario in a process.

A process of its own, so that the runner can end one that hangs, and so that the machines, which the
kernel ends together with the thread that started them, always have an end.
"""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from cluster import scenarios
from debian.driver import driver
from debian.images import Images


def main() -> int:
    """Exit code 0 says that the scenario went through."""
    name, kind, pause, *images = sys.argv[1:]
    # the way out through every `finally`
    signal.signal(signal.SIGTERM, leave)
    scenario = next(one for one in scenarios() if one.name == name)
    with driver(scenario, Images.of(images), kind) as one:
        good = one.run()
        if pause == "pause":
            print(one.doors(), flush=True)
            input("Enter ends the machines. ")
    return 0 if good else 1


def leave(_number: int, _frame: object) -> NoReturn:
    """Leaves once; a second request must not disturb the cleaning up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
