"""Delta's own connector for Spark, from Maven Central: the jars that its pom names, checked by their digests.

python -m ml_assets_tests.spark.connector     fetches the jars into the cache, and says where they are
"""

import hashlib
import os
import re
import shutil
from pathlib import Path

from ml_assets_tests.kafka.apache import MissingToolError
from ml_assets_tests.maven import fetch_jars

_HERE = Path(__file__).parent
_POM = _HERE / "pom.xml"
# As `sha256sum` writes them. After a change of the pom: fetch, compare with what Maven Central says, and write anew.
_DIGESTS = _HERE / "jars.sha256"


def missing_tools() -> str:
    """Return what this machine lacks to run Spark with the connector, and what to do; empty if nothing."""
    if shutil.which("java") is None:
        return "Apache Spark needs `java`, version 17 or newer, on the PATH: install a JRE"
    if not _cached().is_dir() and shutil.which("mvn") is None:
        return "the jars of Delta's connector are fetched by `mvn`, which is not on the PATH: install Maven"
    return ""


def jars() -> list[Path]:
    """Return the jars; fetched into the user's cache the first time.

    Raises:
        MissingToolError: Java or Maven is not installed.
        RuntimeError: Maven fails, with what it said; or a jar is not the one that it was.
    """
    if lacking := missing_tools():
        raise MissingToolError(lacking)
    # What Spark brings itself is left out.
    groups = "-DincludeGroupIds=io.delta,io.unitycatalog"
    folder = fetch_jars("Delta's connector", _POM, _cached(), "--strict-checksums", groups)
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*.jar"))}
    wanted = {name: digest for digest, name in map(str.split, _DIGESTS.read_text(encoding="utf-8").splitlines())}
    if found != wanted:
        differing = sorted({name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)})
        raise RuntimeError(f"{folder}: {', '.join(differing)} are not what {_DIGESTS.name} names; remove the folder")
    return [folder / name for name in found]


def _cached() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = re.search(r"<delta.version>([^<]+)<", _POM.read_text(encoding="utf-8"))
    assert version is not None, f"{_POM} names no delta.version"
    content = hashlib.sha256(_POM.read_bytes()).hexdigest()[:8]
    return cache / "ml_assets" / f"delta-spark-{version[1]}-{content}"


if __name__ == "__main__":
    print(f"Delta's connector for Spark: {jars()[0].parent}")  # noqa: T201
