"""The tokens of OAUTHBEARER, by which a client logs on to Kafka without a password.

librdkafka asks for one when it connects and again at four fifths of its life.
"""

from __future__ import annotations

import time
from base64 import urlsafe_b64decode
from collections.abc import Callable
from pathlib import Path

import msgspec

from ml_assets.errors import InputError

AWS = "aws"
# For how long a token without an end is used before the file is read again.
_SECONDS = 300


class _Claims(msgspec.Struct):
    sub: str = ""
    exp: float | None = None


def token_source(where: str) -> Callable[[str], tuple[str, float, str]]:
    """Return librdkafka's `oauth_cb`: token, when it ends (epoch seconds), and whose it is.

    `where` is `aws`, for Amazon MSK, or a file with a JWT that somebody keeps fresh: the kubelet, for a token of the
    pod's service account. The broker judges the token; here only its end is read.

    Raises:
        InputError: `where` is empty; when a token is asked for, if the file holds none.
    """
    if not where:
        raise InputError("OAUTHBEARER needs ML_ASSETS_KAFKA_TOKEN: aws, or the file of a token")
    if where == AWS:
        from ml_assets.cloud.aws import msk_token

        return lambda _: (*msk_token(), AWS)
    return lambda _: read_token(Path(where))


def read_token(file: Path) -> tuple[str, float, str]:
    """Return the token in a file, when it ends, and its subject.

    Raises:
        InputError: the file is not there, holds no JWT, or one that has ended.
    """
    try:
        token = file.read_text(encoding="ascii").strip()
        _, claims, _ = token.split(".")
        said = msgspec.json.decode(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)), type=_Claims)
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise InputError(f"ML_ASSETS_KAFKA_TOKEN: {file} holds no token (JWT): {type(error).__name__}") from error
    if said.exp is not None and said.exp <= time.time():
        raise InputError(f"ML_ASSETS_KAFKA_TOKEN: the token in {file} has ended; look at what should renew it")
    return token, time.time() + _SECONDS if said.exp is None else said.exp, said.sub
