"""The prediction service of a device as a process of its own: started, watched, and found again after the device was killed.

    device  --spawns-->  edgemw serve STATE/releases      the store and its bell are all that they share

A device that stops takes its service along. One that is killed does not: the service goes on answering, and the next life of the
device finds it by the file `serving.process` (process, when it started, where its door is) and takes it back.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Lock, Thread

import psutil

from edgemw.core.errors import ConfigError, EdgeError
from edgemw.core.files import replace_file

READY_S, STOP_S = 60.0, 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Before a service that died is started again; the pause doubles while it cannot be."""
SAME_S = 2.0
"""That two readings of when a process started may differ, for the clock of the machine may be set between them."""
ASK_S, ASK_TIMEOUT_S = 5.0, 1.0
MAX_METRICS_BYTES = 1 << 20
_MAX_URL_BYTES = 1024
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""No proxy stands before a service of our own."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Note:
    """What the file says of a service."""

    pid: int
    started: float
    url: str
    address: str
    fingerprint: str = ""


class ServingProcess:
    """Runs from `start` to `stop`. It has a session of its own, so that Ctrl-C at a terminal reaches the device alone."""

    def __init__(self, store: Path, address: str, note: Path, *, flags: Sequence[str], fingerprint: str) -> None:
        """Name what is to be served; nothing is started yet.

        Args:
            store: of releases; made where it is not there.
            address: "HOST:PORT" of the HTTP door.
            note: the file by which a later life finds the service.
            flags: more of `edgemw serve`; its log goes where this process writes its own.
            fingerprint: of all settings; a service of an earlier life with another one is ended.
        """
        self._store, self._address, self._note_path = store, address, note
        self._flags, self._fingerprint = list(flags), fingerprint
        self._process: psutil.Process | None = None
        self._watching: Thread | None = None
        self._stopping = Event()
        self._url = ""
        self._seen: tuple[int, float] | None = None
        self._spent_s = 0.0
        self._heard: tuple[int, int] | None = None
        self._answered, self._asked_s, self._asking = 0, float("-inf"), Lock()

    @property
    def pid(self) -> int:
        """Of the process; 0 where there is none."""
        return 0 if self._process is None else int(self._process.pid)

    @property
    def url(self) -> str:
        """Where the HTTP door is, once started."""
        return self._url

    def start(self) -> None:
        """Take back a service that goes on from an earlier life, or start one, and wait until its door is open.

        Raises:
            ConfigError: the address cannot be used; the service has said why.
        """
        self._store.mkdir(parents=True, exist_ok=True)
        self._stopping.clear()
        found = self._running()
        if found is None:
            self._spawn()
        else:
            self._process, self._url = found
            log.info("the prediction service of an earlier life goes on", extra={"facts": {"pid": self._process.pid}})
        self._watching = Thread(target=self._watch, name="serving", daemon=True)
        self._watching.start()

    def stop(self) -> None:
        """End the service; its answers on their way still go out."""
        self._stopping.set()
        if self._process is not None:
            _end(self._process)
        if self._watching is not None:
            self._watching.join()
            self._watching = None
        if self._process is not None:
            _end(self._process)  # it may have been started again just then
        self._note_path.unlink(missing_ok=True)

    def cpu_s(self) -> float:
        """Processor time of the service since this life first looked, in all the processes that it had."""
        process = self._process
        if process is not None:
            try:
                times = process.cpu_times()
            except psutil.Error:
                return self._spent_s  # it has ended since
            now_s = times.user + times.system
            if self._seen is not None and self._seen[0] == process.pid:
                self._spent_s += max(0.0, now_s - self._seen[1])
            self._seen = process.pid, now_s
        return self._spent_s

    def answered(self) -> int:
        """Requests that the service has answered since this life first asked, as of a few seconds ago."""
        with self._asking:
            process, now_s = self._process, time.monotonic()
            if process is None or now_s - self._asked_s <= ASK_S:
                return self._answered
            self._asked_s = now_s
            try:
                with _DIRECT.open(f"{self._url}/metrics", timeout=ASK_TIMEOUT_S) as answer:
                    count = _requests(answer.read(MAX_METRICS_BYTES).decode())
            except (OSError, ValueError) as error:  # busy, or about to be started again
                log.debug("the prediction service does not say what it has answered: %s", error)
                return self._answered
            if process.pid != self.pid:
                return self._answered  # another one has begun meanwhile
            if self._heard is not None and self._heard[0] == process.pid:
                self._answered += max(0, count - self._heard[1])
            self._heard = process.pid, count
            return self._answered

    def _spawn(self) -> None:
        reading, writing = os.pipe()
        ready = os.fdopen(reading, "rb")
        address = self._address
        if self._url and address.endswith(":0"):  # the free port stays the one that clients know
            address = address.removesuffix("0") + self._url.rsplit(":", 1)[1]
        command = [sys.executable, "-m", "edgemw", "serve", str(self._store), "--http", address]
        command += [*self._flags, "--ready-fd", str(writing)]
        with ready:
            try:
                process = psutil.Popen(command, pass_fds=(writing,), start_new_session=True, stdin=subprocess.DEVNULL)
            finally:
                os.close(writing)
            came = select.select([ready], [], [], READY_S)[0]
            url = ready.readline(_MAX_URL_BYTES).decode().strip() if came else ""
        if not url:
            process.kill()
            process.wait()
            raise ConfigError("the prediction service did not start: its log says why", key="serving.http")
        self._process, self._url = process, url
        self._heard = process.pid, 0
        try:
            note = _Note(process.pid, process.create_time(), url, self._address, self._fingerprint)
            replace_file(self._note_path, json.dumps(asdict(note)).encode())
        except OSError:
            _end(process)
            raise

    def leave(self) -> None:
        """End what an earlier life may have left, where no service is wanted any more."""
        found = self._running()
        if found is not None:
            _end(found[0])
        self._note_path.unlink(missing_ok=True)

    def _running(self) -> tuple[psutil.Process, str] | None:
        """The service of an earlier life, if it is alive and where it is wanted now."""
        try:
            note = _Note(**json.loads(self._note_path.read_text()))
            process = psutil.Process(note.pid)
            same = abs(process.create_time() - note.started) < SAME_S and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, TypeError, psutil.Error):
            return None
        if not same:
            return None
        if (note.address, note.fingerprint) != (self._address, self._fingerprint):
            _end(process)
            return None
        return process, note.url

    def _watch(self) -> None:
        """Start it again whenever it ends by itself."""
        while not self._stopping.is_set():
            process, pause_s = self._process, FIRST_PAUSE_S
            assert process is not None
            _wait(process)
            if self._stopping.is_set():
                return
            log.error("the prediction service ended; it is started again", extra={"facts": {"pid": process.pid}})
            while not self._stopping.wait(pause_s):
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                try:
                    self._spawn()
                except (EdgeError, OSError, psutil.Error) as error:
                    log.error("the prediction service cannot be started: %s", error)
                else:
                    break


def _requests(metrics: str) -> int:
    """The sum over tasks. Raises ValueError for text that is not of a prediction service."""
    lines = [line for line in metrics.splitlines() if line.startswith("edgemw_serving_requests_total{")]
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines))


def _end(process: psutil.Process) -> None:
    """Ask it to end, and wait; where that takes too long it is killed."""
    try:
        process.terminate()
        process.wait(STOP_S)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired:
        process.kill()


def _wait(process: psutil.Process) -> None:
    try:
        process.wait()
    except psutil.Error as error:
        log.debug("%s", error)
