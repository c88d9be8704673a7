"""Processes that end with this one, each with a log of its own."""
import ctypes
import signal
import subprocess
import time

PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """Something is not as it must be."""


def _end_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """A program that stays, until `end`."""

    def __init__(self, command, log, directory, environment=None):
        self.name, self.log = command[0], log
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                preexec_fn=_end_with_parent,
            )

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def wait_until(self, is_ready):
        """Asks `is_ready` until it gives something, which is returned."""
        deadline = time.monotonic() + 60
        while not (answer := is_ready()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{self.name} is not ready:\n{self.said()[-2000:]}")
            time.sleep(0.05)
        return answer

    def end(self):
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
