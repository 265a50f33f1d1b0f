"""What a person reads of the tests."""

from __future__ import annotations


class Report:
    """Prints each finding as it comes, and counts."""

    def __init__(self) -> None:
        self._good = 0
        self._bad = 0
        self._skipped = 0

    def add(self, name: str, wrong: list[str]) -> None:
        """A test, and what is wrong."""
        if wrong:
            self._bad += 1
            print(f"FAILED  {name}", *wrong, sep="\n        ", flush=True)
        else:
            self._good += 1
            print(f"ok      {name}", flush=True)

    def skip(self, name: str, reason: str) -> None:
        """A test that cannot be done here."""
        self._skipped += 1
        print(f"SKIP    {name}: {reason}", flush=True)

    def end(self) -> int:
        """The exit code."""
        print(f"{self._good} good, {self._bad} failed, {self._skipped} skipped")
        return 1 if self._bad else 0
