"""A process that has read a lake waits for the threads that read for it before it ends."""

import hashlib
import subprocess
import sys
import threading

from ml_assets.lake.at_rest import wait_until_at_rest


def test_a_thread_that_works_is_waited_for() -> None:
    """The thread works without the interpreter, as Arrow's do."""
    worker = threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha256", b"", b"", 1_000_000))
    worker.start()
    assert wait_until_at_rest(60)
    worker.join(1)
    assert not worker.is_alive()


def test_the_wait_has_an_end() -> None:
    worker = threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha256", b"", b"", 3_000_000))
    worker.start()
    assert not wait_until_at_rest(0.05)
    worker.join()


def test_a_process_that_has_read_waits_at_its_end() -> None:
    """Guards commands that ended with code 134 after all had been done: 'terminate called without an active exception'.

    A thread that works when the process ends is seen to have ended its work by what is called after the wait.
    """
    program = (
        "import atexit, hashlib, threading, time\n"
        "done = []\n"
        "atexit.register(lambda: print(done))\n"
        "import pyarrow.dataset, ml_assets.lake\n"
        "def work():\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 300_000)\n"
        "    done.append('let go')\n"
        "threading.Thread(target=work, daemon=True).start()\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "['let go']"
