"""How a run tells what it saw: one line a check.

`ok` and `FAIL` as everywhere. `cannot` is a promise that MiniStack cannot keep or judge: it is tried all the same, and the
reason it gives must be the listed one. The day it works, or fails in another way, the line is a FAIL and the list is out of date.
"""

import re
import sys
import time
from pathlib import Path

README = Path(__file__).with_name("README.md")


class Report:
    """The checks of one run."""

    def __init__(self):
        self.passed, self.failed, self.unable = 0, 0, []
        self.began = time.monotonic()

    def part(self, title):
        """Begins a part."""
        print(f"\n{title}  ({time.monotonic() - self.began:.1f} s)", flush=True)

    def row(self, what, want, got, shown=None):
        """Holds when what came is what had to come; `shown` stands for it where it is long."""
        holds = got == want
        if holds:
            self.passed += 1
        else:
            self.failed += 1
        outcome = (shown or got) if holds else f"wanted {want!r}, got {got!r}"
        print(f"  {'ok  ' if holds else 'FAIL'} {what:<78} {outcome}", flush=True)
        return holds

    def holds(self, what, truth, shown="yes", otherwise="no"):
        """Holds when `truth` is true."""
        return self.row(what, shown, shown if truth else otherwise)

    def cannot(self, what, reason, seen):
        """Holds when what was tried failed for the listed reason: `reason` is part of `seen`."""
        self.unable.append(what)
        if reason and reason in seen:
            line = next(one for one in seen.splitlines() if reason in one)
            print(f"  cannot: {what}\n            {shorten(line[max(0, line.find(reason) - 120):])}", flush=True)
        else:
            self.failed += 1
            print(f"  FAIL cannot: {what}: expected {reason!r}, saw {shorten(seen)!r}", flush=True)

    def listed(self):
        """Every `cannot` of this run stands in README.md, and nothing else does."""
        listed = set(re.findall(r"^\| cannot: (.+?) +\|", README.read_text(), re.MULTILINE))
        seen = set(self.unable)
        self.row(
            "README.md lists what this run could not do, and nothing else",
            [],
            sorted(f"not listed: {one}" for one in seen - listed)
            + sorted(f"listed, not seen: {one}" for one in listed - seen),
        )

    def end(self):
        """Prints the sum and ends the program."""
        seconds = time.monotonic() - self.began
        print(
            f"\n{self.passed} passed, {self.failed} failed, {len(self.unable)} cannot, in {seconds:.0f} s", flush=True
        )
        sys.exit(1 if self.failed or not self.passed else 0)


def shorten(text):
    """One line of at most 200 characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= 200 else line[:197] + "..."
