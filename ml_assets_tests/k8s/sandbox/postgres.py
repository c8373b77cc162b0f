"""PostgreSQL in a pod, Debian's: TLS only, passwords by SCRAM, started empty from `/etc/postgres`.

The folder holds `tls.crt`, `tls.key`, and `init.sql`, which makes roles and databases.
"""

import os
import shutil
import subprocess
from pathlib import Path

(_PROGRAMS,) = Path("/usr/lib/postgresql").glob("*/bin")
_GIVEN = Path("/etc/postgres")
_DATA = Path("/tmp/postgres")  # the pod's own volume
_HBA = "local all all trust\nhostssl all all all scram-sha-256\n"
_CONFIG = {
    "listen_addresses": "'*'",
    "unix_socket_directories": "'/tmp'",
    "ssl": "on",
    "ssl_cert_file": "'/tmp/postgres/tls.crt'",
    "ssl_key_file": "'/tmp/postgres/tls.key'",
    "ssl_min_protocol_version": "'TLSv1.2'",
    "password_encryption": "'scram-sha-256'",
    "max_connections": "200",
    "fsync": "off",
}


def main() -> None:
    """Make the server and become it."""
    if not _DATA.exists():
        run("initdb", "-D", str(_DATA), "-U", "postgres", "--auth=trust", "-E", "UTF8")
        for name, mode in (("tls.crt", 0o644), ("tls.key", 0o600)):
            shutil.copyfile(_GIVEN / name, _DATA / name)
            (_DATA / name).chmod(mode)
        (_DATA / "pg_hba.conf").write_text(_HBA)
        with (_DATA / "postgresql.conf").open("a") as config:
            config.writelines(f"{name} = {value}\n" for name, value in _CONFIG.items())
        run("pg_ctl", "-D", str(_DATA), "-w", "-o", "-c listen_addresses=", "start")
        run("psql", "-h", "/tmp", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-f", str(_GIVEN / "init.sql"))
        run("pg_ctl", "-D", str(_DATA), "-w", "stop")
    program = _PROGRAMS / "postgres"
    os.execv(program, [str(program), "-D", str(_DATA)])


def run(program: str, *arguments: str) -> None:
    subprocess.run([str(_PROGRAMS / program), *arguments], check=True)


if __name__ == "__main__":
    main()
