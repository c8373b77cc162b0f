"""Tokens of OAUTHBEARER from a file, and what a connection makes of them."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.kafka_token import read_token, token_source
from ml_assets.local.embedded.environment import kafka_connection
from ml_assets.settings import Settings

ENDS = int(datetime.now(UTC).timestamp()) + 3600


def token(subject: str, **claims: object) -> str:
    return jwt.encode({"alg": "HS256"}, {"sub": subject, **claims}, OctKey.generate_key(256))


def test_a_token_is_read_anew_each_time_and_tells_its_end(tmp_path: Path) -> None:
    """Guards a token that the kubelet has replaced: librdkafka asks again before its end."""
    file = tmp_path / "token"
    source = token_source(str(file))
    for subject in ("lander", "lander-2"):
        made = token(subject, exp=ENDS)
        file.write_text(f"{made}\n")
        assert source("") == (made, ENDS, subject)


def test_a_token_without_an_end_is_read_again_soon(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token("lander"))
    assert 0 < read_token(file)[1] - datetime.now(UTC).timestamp() <= 300


@pytest.mark.parametrize("content", [None, "", "no token", "a.b.c", "é.é.é"])
def test_a_file_without_a_token_is_named_and_its_content_is_not(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match="ML_ASSETS_KAFKA_TOKEN") as error:
        read_token(file)
    assert str(file) in str(error.value)


def test_a_token_that_has_ended_is_told_before_a_client_waits_for_it(tmp_path: Path) -> None:
    """Guards ten seconds of silence, and then "OAuth token not set"."""
    file = tmp_path / "token"
    file.write_text(token("lander", exp=ENDS - 7200))
    with pytest.raises(ValueError, match="has ended"):
        KafkaConnection("kafka:9098", "SASL_SSL", "OAUTHBEARER", token=str(file)).config()


def test_the_settings_name_where_the_token_is(tmp_path: Path) -> None:
    file = tmp_path / "token"
    settings = Settings(
        kafka_bootstrap="kafka:9098",
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="OAUTHBEARER",
        kafka_token=str(file),
    )
    file.write_text(token("lander", exp=ENDS))
    config = kafka_connection(settings).config()
    assert config["oauth_cb"]("")[2] == "lander"
    assert not {"sasl.username", "sasl.password"} & set(config)
    with pytest.raises(ValueError, match="needs ML_ASSETS_KAFKA_TOKEN"):
        KafkaConnection("kafka:9098", "SASL_SSL", "OAUTHBEARER").config()
