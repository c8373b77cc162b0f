"""Landing with a token in place of a password, on a node that checks it by the keys of its issuer."""

from pathlib import Path
from uuid import uuid4

import pytest
from joserfc.jwk import ECKey

from ml_assets.lake import Lake
from ml_assets.landing.kafka import KafkaConnection, KafkaUnreachableError
from ml_assets.landing.lander import Lander
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.local.simulation.messages import Message
from ml_assets_tests.kafka.apache import ApacheKafka
from ml_assets_tests.landing.conftest import moved

pytestmark = pytest.mark.kafka


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """The file in which a pod has its token; empty as yet."""
    return tmp_path / "token"


@pytest.fixture
def by_token(kafka: ApacheKafka, token: Path) -> KafkaConnection:
    """How a pod with that file reaches the session's node."""
    return KafkaConnection(
        kafka.secure_bootstrap, "SASL_SSL", "OAUTHBEARER", ca_file=str(kafka.ca_file), token=str(token)
    )


def test_messages_land_with_a_token_that_is_renewed(
    kafka: ApacheKafka, by_token: KafkaConnection, token: Path, lake: Lake
) -> None:
    token.write_text(kafka.token())
    event = moved(f"oauth-{uuid4().hex[:8]}")
    ensure_topics(by_token, [event.topic])
    produce(by_token, [Message(event.topic, b"k", b"no event", 1)])
    token.write_text(kafka.token())
    (report,) = Lander(lake, [event], by_token).land_available()
    assert report.consumed == 1


def test_a_token_that_another_signed_is_refused_in_words(
    kafka: ApacheKafka, by_token: KafkaConnection, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a token that nobody checks."""
    monkeypatch.setattr("ml_assets.landing.kafka.TIMEOUT", 5.0)
    token.write_text(kafka.token(signer=ECKey.generate_key("P-256", private=True)))
    with pytest.raises(KafkaUnreachableError, match=r"OAUTHBEARER|token|auth"):
        by_token.admin().topics(["any"])
