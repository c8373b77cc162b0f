import pytest
from starlette.requests import Request

from ml_assets.serving.around import bearer
from ml_assets.serving.auth import Authoriser, Keys
from ml_assets.serving.parts import RefusedError
from ml_assets_tests.serving.test_auth import AUDIENCE, EC, ISSUER, NOW, published, token


def request(authorization: str) -> Request:
    return Request({"type": "http", "headers": [(b"authorization", authorization.encode())]})


def test_a_token_opens_what_its_scopes_name(tmp_path):
    file = tmp_path / "jwks.json"
    file.write_text(published(EC))
    keys = Keys(str(file))
    keys.refresh()
    let_in = bearer(Authoriser(keys, issuer=ISSUER, audience=AUDIENCE, now=lambda: NOW))
    let_in(request(token()), "score", "settlement_fails")
    let_in(request(token()), "models", "")
    for given, verb, use_case, status in [
        ("", "score", "settlement_fails", 401),
        (token(exp=1), "score", "settlement_fails", 401),
        (token(), "explain", "settlement_fails", 403),
        (token(), "score", "cns_fails", 403),
    ]:
        with pytest.raises(RefusedError) as error:
            let_in(request(given), verb, use_case)
        assert error.value.status == status
