"""The browser of `make test-desk`: Debian's Chromium, driven by playwright.

python -m ml_assets_tests.desk.browser

installs it where it is missing and this may be done, or says why the suite cannot run.
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")


def executable() -> str:
    """Return the browser's path; empty if there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), "")


def main() -> int:
    """Return 0 once there is a browser."""
    if executable():
        return 0
    if os.geteuid() or not shutil.which("apt-get"):
        sys.stderr.write(
            "make test-desk needs Chromium: install it (Debian: apt-get install chromium), and try again\n"
        )
        return 1
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core"]):  # fmt: skip # noqa: E501
        subprocess.run(["apt-get", *command], check=True, env=environment, stdout=subprocess.DEVNULL)
    return 0 if executable() else 1


if __name__ == "__main__":
    sys.exit(main())
