"""Programs that end with us, however we end."""

import subprocess

# The shell outlives us just long enough to see the pipe end: it asks the program to stop, gives it time, and ends what is left
# of the process group, itself included. Killed or not, we leave nothing behind. A program that ends by itself ends it too.
WATCH = """
exec 3<&0
"$@" </dev/null 3<&- & c=$!
(cat <&3 >/dev/null; kill -"$STOP_BY" $c; sleep "$STOP_WITHIN"; kill -KILL 0) &
wait $c
kill -KILL 0
"""


class Program:
    """A running program in a process group of its own."""

    def __init__(self, command, log, env, stop_by, stop_within, **more):
        self.log, self.stop_within = log, stop_within
        with open(log, "wb") as out:
            self.shell = subprocess.Popen(
                ["sh", "-c", WATCH, "watch", *command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env={**env, "STOP_BY": stop_by, "STOP_WITHIN": str(stop_within)},
                start_new_session=True,
                **more
            )

    def ended(self):
        """Whether it has ended."""
        return self.shell.poll() is not None

    def said(self):
        """What it has printed, the last of it."""
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()[-4000:]

    def stop(self):
        """Ends it and all that it started."""
        self.shell.stdin.close()
        self.shell.wait(self.stop_within + 30)
