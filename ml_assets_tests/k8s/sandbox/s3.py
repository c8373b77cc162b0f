"""An S3 server in a pod: `python -m ml_assets_tests.k8s.sandbox.s3 <port> <bucket>...`."""

import logging
import sys
import threading
import urllib.request

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from ml_assets_tests.s3 import OneWriteAtATime, S3Server


def main(port: int, buckets: list[str]) -> None:
    """Serve the buckets until terminated."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = OneWriteAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("0.0.0.0", port, app, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever).start()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=30):
        pass
    for bucket in buckets:
        S3Server(f"http://127.0.0.1:{port}").create_bucket(bucket)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
