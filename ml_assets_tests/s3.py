"""An S3 server for tests: moto, in a process of its own, in memory.

Conditional writes hold as on S3: of many `PUT If-None-Match: *` of one key exactly one succeeds. Moto alone checks and
then writes, so two threads can both pass the check; here writes go one after the other.

    python -m ml_assets_tests.s3     serves on a free port, which it prints
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, ClassVar

from ml_assets.lake import Lake

_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server, or a proxy before one: `endpoint` is its URL. It takes any credentials."""

    endpoint: str
    access_key: str = "test"
    secret_key: str = "secret-of-the-test"
    region: str = "us-east-1"

    @property
    def lake_options(self) -> dict[str, str]:
        """Storage options of deltalake, with conditional writes."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "aws_conditional_put": "etag",
        }

    @property
    def filesystem_options(self) -> dict[str, Any]:
        """Options of fsspec for `s3://`, that is of s3fs; listings are not cached."""
        return {
            "key": self.access_key,
            "secret": self.secret_key,
            "endpoint_url": self.endpoint,
            "client_kwargs": {"region_name": self.region},
            "use_listings_cache": False,
            "skip_instance_cache": True,
        }

    def create_bucket(self, name: str) -> str:
        """Create a bucket, if it does not exist, and return its `s3://` address."""
        self._put(f"/{name}")
        return f"s3://{name}"

    def lake(self, root: str) -> Lake:
        """Return the lake below an `s3://` prefix of this server."""
        return Lake(root, self.lake_options)

    def require_keys(self) -> "S3Keys":
        """Refuse from now on whoever has no key of the user that is made for it; it may do everything.

        Make buckets before: moto refuses to make one for a user.
        """
        user = S3Keys.client(self)
        user.create_user(UserName=S3Keys.user)
        everything = {"Effect": "Allow", "Action": ["s3:*", "iam:*"], "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
        user.put_user_policy(UserName=S3Keys.user, PolicyName="everything", PolicyDocument=policy)
        made = user.create_access_key(UserName=S3Keys.user)["AccessKey"]
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.endpoint}/moto-api/reset-auth", b"0", headers, method="POST")
        with urllib.request.urlopen(request, timeout=30):
            pass
        return S3Keys(replace(self, access_key=made["AccessKeyId"], secret_key=made["SecretAccessKey"]))

    def _put(self, path: str) -> None:
        request = urllib.request.Request(self.endpoint + path, data=b"", method="PUT")
        request.add_header(
            "Authorization",
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/20260101/{self.region}/s3/aws4_request, "
            "SignedHeaders=host, Signature=unchecked",
        )
        with urllib.request.urlopen(request, timeout=30):
            pass


@dataclass(frozen=True, slots=True)
class S3Keys:
    """The keys of the one user of a server that asks for them, as its administrator handles them."""

    first: S3Server
    user: ClassVar[str] = "lake"

    def make(self) -> S3Server:
        """Make another key, and return the server as it is reached with it."""
        made = self.client(self.first).create_access_key(UserName=self.user)["AccessKey"]
        return replace(self.first, access_key=made["AccessKeyId"], secret_key=made["SecretAccessKey"])

    def delete(self, key: S3Server, by: S3Server) -> None:
        """Delete a key with the right of another."""
        self.client(by).delete_access_key(UserName=self.user, AccessKeyId=key.access_key)

    @staticmethod
    def client(key: S3Server) -> Any:
        import boto3

        return boto3.client(
            "iam", endpoint_url=key.endpoint, region_name=key.region, aws_access_key_id=key.access_key,
            aws_secret_access_key=key.secret_key,
        )  # fmt: skip


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server for the length of a block.

    Raises:
        RuntimeError: it does not start; with what it printed.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ml_assets_tests.s3"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        hurry = threading.Timer(_START_SECONDS, process.kill)
        hurry.start()
        try:
            assert process.stdout is not None
            endpoint = process.stdout.readline().decode().strip()
            hurry.cancel()
            if not endpoint:
                process.wait()
                log.seek(0)
                raise RuntimeError(f"the S3 server did not start: {log.read().decode(errors='replace')[-2000:]}")
            yield S3Server(endpoint)
        finally:
            hurry.cancel()
            process.kill()  # it keeps nothing; and it may have been started with SIGTERM ignored, see conftest.py
            process.wait()
            process.stdout.close()


class OneWriteAtATime:
    """WSGI middleware: a request that writes waits until the one before it has been answered.

    Its body is read before it waits, so that a slow or broken client holds up nobody.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in {"GET", "HEAD"}:
            return list(self._app(environ, start_response))
        if length := int(environ.get("CONTENT_LENGTH") or 0):
            environ["wsgi.input"] = BytesIO(environ["wsgi.input"].read(length))
        with self._lock:
            return list(self._app(environ, start_response))


def serve() -> None:
    """Serve until terminated; the URL is the only line printed to standard output."""
    import logging

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = OneWriteAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)  # noqa: T201 - whoever started it waits for this
    server.serve_forever()


if __name__ == "__main__":
    serve()
