"""Tokens of AWS, held against AWS's own client, and a role that a pod's token is turned into."""

import hashlib
import hmac
import json
import os
import ssl
import subprocess
import sys
import threading
import urllib.request
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import boto3
import botocore.auth
import pytest

from ml_assets.cloud import aws
from ml_assets.errors import StateError
from ml_assets_tests.k8s.certificates import Authority
from ml_assets_tests.s3 import S3Server

HOST = "ml-assets.cluster-c1b2a3.eu-central-1.rds.amazonaws.com"
NOW = datetime(2026, 11, 29, 18, 0, 0, tzinfo=UTC)
KEY = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "of-the-test", "AWS_SESSION_TOKEN": "session"}
SECRET = KEY["AWS_SECRET_ACCESS_KEY"]


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Credentials in the environment, at one moment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in KEY.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: NOW.replace(tzinfo=None))
    aws._session.cache_clear()
    yield
    aws._session.cache_clear()


def test_the_password_of_rds_is_that_of_amazons_own_client(key: None) -> None:
    client = boto3.client("rds", region_name="eu-central-1")
    theirs = client.generate_db_auth_token(HOST, 5432, "scorer")
    assert dict(parse_qsl(theirs)) == dict(parse_qsl(aws.rds_token(HOST, 5432, "scorer")))


def test_a_server_of_another_name_is_in_the_region_of_the_process(key: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "%2Feu-central-1%2F" in aws.rds_token("db.bank.example", 5432, "scorer")
    monkeypatch.delenv("AWS_REGION")
    assert "%2Feu-central-1%2F" in aws.rds_token(HOST, 5432, "scorer"), "the name of the server tells"
    with pytest.raises(ValueError, match="set AWS_REGION"):
        aws.rds_token("db.bank.example", 5432, "scorer")


def test_the_token_of_msk_is_an_address_that_msk_can_check(key: None) -> None:
    """The signature is made again here by the steps that AWS documents for query strings, version 4."""
    token, ends = aws.msk_token()
    assert ends > datetime.now(UTC).timestamp() + 600
    address = urlsplit(urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode())
    said = dict(parse_qsl(address.query))
    assert address.netloc == "kafka.eu-central-1.amazonaws.com"
    assert said.pop("User-Agent") == "ml-assets"
    assert (said["Action"], said["X-Amz-Expires"], said["X-Amz-Security-Token"]) == (
        "kafka-cluster:Connect", "900", "session",
    )  # fmt: skip
    signature = said.pop("X-Amz-Signature")
    query = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in sorted(said.items()))
    empty = hashlib.sha256(b"").hexdigest()
    canonical = "\n".join(["GET", "/", query, f"host:{address.netloc}\n", "host", empty])
    scope = "20261129/eu-central-1/kafka-cluster/aws4_request"
    assert said["X-Amz-Credential"] == f"AKIDEXAMPLE/{scope}"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", "20261129T180000Z", scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signing = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        signing = hmac.digest(signing, part.encode(), "sha256")
    assert hmac.new(signing, to_sign.encode(), "sha256").hexdigest() == signature


def test_without_credentials_it_says_what_to_do(key: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEY:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(StateError, match=r"eks\.amazonaws\.com/role-arn"):
        aws.msk_token()


_POD = """
import json, os, sys
from urllib.parse import parse_qsl
import fsspec, pyarrow as pa
from datetime import date
from ml_assets.cloud.aws import rds_token
from ml_assets.platform import open_platform
from ml_assets.settings import Settings

platform = open_platform(Settings(_env_file=None))
day = date(2026, 1, 5)
rows = pa.table({"day": pa.array([day], pa.date32()), "n": [1]})
platform.lake.appender("t", ["day"]).append(rows, {"a": 0}, {"a": 1})
with fsspec.open(f"{platform.settings.reference_uri}/note.txt", "w") as file:
    file.write("note")
signed = dict(parse_qsl(rds_token(sys.argv[1], 5432, "scorer")))
print(json.dumps([platform.lake.read("t")["n"].to_pylist(), bool(signed["X-Amz-Security-Token"]),
                  signed["X-Amz-Credential"].split("/")[2]]), flush=True)
os._exit(0)  # Arrow's threads may still read ahead
"""


class _Sts(BaseHTTPRequestHandler):
    """Passes questions on to STS of the S3 server; deltalake sends a token through TLS only."""

    behind = ""

    def do_POST(self) -> None:
        # STS takes a question in the address or in the body; the server behind, in the body alone.
        question = self.rfile.read(int(self.headers["Content-Length"] or 0)) or self.path.partition("?")[2].encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        with urllib.request.urlopen(urllib.request.Request(self.behind, question, headers), timeout=30) as answer:
            said = answer.read()
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def sts(s3: S3Server, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of STS, and the file of the authority that signed its certificate."""
    authority = Authority(tmp_path / "tls")
    made = authority.issue("sts", "localhost", hosts=["localhost", "127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.with_name("sts.crt"), made.with_name("sts.key"))
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Sts", (_Sts,), {"behind": s3.endpoint})) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"https://localhost:{server.server_port}", authority.certificate
        server.shutdown()
        thread.join()


def test_a_pod_with_a_role_and_no_key_reaches_the_lake_and_logs_in(
    s3: S3Server, sts: tuple[str, Path], bucket: str, tmp_path: Path
) -> None:
    """IRSA: a web identity token in a file, which STS turns into keys, for deltalake, s3fs and the tokens alike."""
    token = tmp_path / "token"
    token.write_text("of-the-kubelet")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ML_ASSETS_"))}
    environment |= {
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/ml-assets-run",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_ENDPOINT_URL_STS": sts[0],
        "AWS_CA_BUNDLE": str(sts[1]),
        "SSL_CERT_FILE": str(sts[1]),
        "AWS_ENDPOINT_URL_S3": s3.endpoint,
        "AWS_REGION": s3.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_CONFIG_FILE": os.devnull,
        "ML_ASSETS_HOME": str(tmp_path / "home"),
        "ML_ASSETS_LAKE_ROOT": f"{bucket}/lake",
        "ML_ASSETS_REFERENCE_ROOT": f"{bucket}/reference",
    }
    command = [sys.executable, "-c", _POD, HOST]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == [[1], True, "eu-central-1"]
