"""Programs that end with us, however we end."""

import os
import signal
import subprocess

# The shell outlives us just long enough to see the pipe end, then stops the program; killed or not, nothing stays behind.
WATCH = '"$@" </dev/null & c=$!; cat >/dev/null; kill -"$SIGNAL_TO_STOP" $c; wait $c'


class Program:
    """A running program in a process group of its own."""

    def __init__(self, command, log, env, signal_to_stop="TERM", **more):
        self.log = log
        with open(log, "wb") as out:
            self.shell = subprocess.Popen(
                ["sh", "-c", WATCH, "watch", *command], stdin=subprocess.PIPE, stdout=out, stderr=out,
                env={**env, "SIGNAL_TO_STOP": signal_to_stop}, start_new_session=True, **more)

    def ended(self):
        """Whether it has ended."""
        return self.shell.poll() is not None

    def said(self):
        """What it has printed, the last of it."""
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()[-4000:]

    def stop(self, patience=20):
        """Ends it in good order, after `patience` seconds in any, and then everything that is left of its group."""
        self.shell.stdin.close()
        try:
            self.shell.wait(patience)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.shell.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.shell.wait(20)
