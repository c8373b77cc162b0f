"""Two processes that run the same use case at once."""

import subprocess
import sys
import threading

from ml_assets.database.connect import connect
from ml_assets.database.turn import in_turn

_HOLD = """
import sys
from ml_assets.database.connect import connect
from ml_assets.database.turn import in_turn
with in_turn(connect(sys.argv[1]), "cns_fails", lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_waits_for_the_first_and_says_so(application_url):
    """Guards two retrainings of one date at once, of which one ended with a message of the table format."""
    first = subprocess.Popen(
        [sys.executable, "-c", _HOLD, application_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "held\n"
    engine, waited, entered = connect(application_url), threading.Event(), threading.Event()
    with in_turn(engine, "settlement_fails", waited.set):  # another use case does not wait
        assert not waited.is_set()

    def second():
        with in_turn(engine, "cns_fails", waited.set):
            entered.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert waited.wait(30)
    assert not entered.wait(0.3)
    first.kill()  # the turn ends with the process, also if that is killed
    first.communicate()
    assert entered.wait(30)
    thread.join()
    with in_turn(engine, "cns_fails", lambda: (_ for _ in ()).throw(AssertionError("nobody holds it"))):
        pass
    engine.dispose()
