"""Tokens, good and hostile. Keys are made here; no test talks to a provider but by a local server or a file."""

import base64
import hmac
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from ml_assets.serving.auth import (
    Authoriser,
    AuthSettingsError,
    Caller,
    ForbiddenError,
    Keys,
    UnauthorisedError,
    authoriser_of,
    refuse_open_door,
    tls_options,
)
from ml_assets.settings import Settings

NOW = 1_800_000_000.0
ISSUER, AUDIENCE = "https://login.bank.example", "ml-assets-scoring"
RSA = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"}, private=True)
EC = ECKey.generate_key("P-256", {"kid": "two", "use": "sig"}, private=True)
STRANGER = ECKey.generate_key("P-256", {"kid": "two"}, private=True)


def published(*keys) -> str:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]})


@pytest.fixture
def authoriser(tmp_path) -> Authoriser:
    file = tmp_path / "jwks.json"
    file.write_text(published(RSA, EC))
    keys = Keys(str(file))
    keys.refresh()
    return Authoriser(keys, issuer=ISSUER, audience=AUDIENCE, now=lambda: NOW)


def claims(**changes):
    given = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "settlement-desk", "exp": int(NOW) + 300, "iat": int(NOW),
        "scope": "settlement_fails:score models:read",
    } | changes  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def token(key=EC, algorithm="ES256", header=None, **changes) -> str:
    head = {"alg": algorithm, "kid": key.kid} | (header or {})
    return "Bearer " + jwt.encode(
        {name: value for name, value in head.items() if value is not None}, claims(**changes), key,
        algorithms=[algorithm],
    )  # fmt: skip


def segment(value: dict | bytes) -> str:
    return (
        base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode().rstrip("=")
    )


@pytest.mark.parametrize(("key", "algorithm"), [(EC, "ES256"), (RSA, "RS256"), (RSA, "PS256")])
def test_a_good_token_tells_who_asks_and_for_what(authoriser, key, algorithm):
    caller = authoriser.caller(token(key, algorithm))
    assert caller == Caller("settlement-desk", frozenset({"settlement_fails:score", "models:read"}))
    caller.require("settlement_fails", "score")
    caller.require("models", "read")
    for use_case, verb in [("cns_fails", "score"), ("settlement_fails", "explain"), ("settlement_fails", "read")]:
        with pytest.raises(ForbiddenError, match=f"lacks the scope {use_case}:{verb}"):
            caller.require(use_case, verb)


def test_audiences_and_scopes_may_be_lists(authoriser):
    caller = authoriser.caller(token(aud=["other", AUDIENCE], scope=None, scp=["*:score"]))
    caller.require("cns_fails", "score")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": int(NOW) - 31}, "has expired"),
        ({"exp": None}, "has no end"),
        ({"exp": "tomorrow"}, "is not a time"),
        ({"exp": True}, "is not a time"),
        ({"nbf": int(NOW) + 31}, "is not valid yet"),
        ({"iat": int(NOW) + 31}, "is not valid yet"),
        ({"aud": "payments"}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"iss": "https://login.evil.example"}, "another issuer"),
        ({"sub": None}, "no subject"),
    ],
)
def test_claims_that_are_not_for_now_and_us_are_refused(authoriser, changes, why):
    with pytest.raises(UnauthorisedError, match=why):
        authoriser.caller(token(**changes))


def test_clocks_may_differ_a_little(authoriser):
    authoriser.caller(token(exp=int(NOW) - 29))
    authoriser.caller(token(nbf=int(NOW) + 29))


def hostile_tokens():
    body = segment(claims())
    ec_pem = EC.as_pem(private=False)
    rsa_pem = RSA.as_pem(private=False)
    good = token().removeprefix("Bearer ")
    head, payload, signature = good.split(".")
    yield "none", f"Bearer {segment({'alg': 'none', 'kid': 'two'})}.{body}."
    yield "None", f"Bearer {segment({'alg': 'None', 'kid': 'two'})}.{body}."
    for name, pem in [("ec", ec_pem), ("rsa", rsa_pem)]:
        unsigned = f"{segment({'alg': 'HS256', 'kid': 'two'})}.{body}"
        signed = f"{unsigned}.{segment(hmac.digest(pem, unsigned.encode(), 'sha256'))}"
        yield f"HS256 with the public {name} key", f"Bearer {signed}"
    yield "no kid", token(header={"kid": None})
    yield "kid of another", token(header={"kid": "one"})
    yield "unknown kid", token(header={"kid": "../../dev/null"})
    yield "a stranger's key of the same id", token(STRANGER)
    yield "its own key in the header", token(STRANGER, header={"jwk": STRANGER.as_dict(private=False)})
    yield "changed claims", f"Bearer {head}.{segment(claims(scope='*:score'))}.{signature}"
    yield "no signature", f"Bearer {head}.{payload}."
    yield "empty", "Bearer "
    yield "not bearer", f"Basic {good}"
    yield "no token", "Bearer x"
    yield "many dots", "Bearer " + "." * 100
    yield "huge", "Bearer " + "a" * 10_000_000
    yield "deep", f"Bearer {segment(b'[' * 3000)}.{body}.{signature}"
    yield "not UTF-8", "Bearer " + segment(b'{"alg": "\xff"}') + f".{body}.{signature}"
    yield "not a mapping", f"Bearer {segment(b'[]')}.{body}.{signature}"
    yield "not ASCII", "Bearer \u0661.\u0662.\u0663"


@pytest.mark.parametrize("hostile", [pytest.param(text, id=name) for name, text in hostile_tokens()])
def test_a_hostile_token_is_refused_quickly_and_says_nothing_of_itself(authoriser, hostile):
    """Guards algorithm confusion, unsigned tokens and what else a token can be."""
    started = time.thread_time()
    with pytest.raises(UnauthorisedError) as error:
        authoriser.caller(hostile)
    assert time.thread_time() - started < 0.5
    assert len(str(error.value)) < 200


def test_no_header_is_refused(authoriser):
    with pytest.raises(UnauthorisedError, match="a bearer token is needed"):
        authoriser.caller(None)


@pytest.fixture
def provider():
    """A provider's server; `keys` is what it publishes, `asked` how often it was asked."""

    class Provider(BaseHTTPRequestHandler):
        keys, asked = published(RSA), 0

        def do_GET(self):
            Provider.asked += 1
            self.send_response(200 if Provider.keys else 503)
            self.end_headers()
            self.wfile.write(Provider.keys.encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Provider.url = f"http://127.0.0.1:{server.server_port}/jwks"
    yield Provider
    server.shutdown()
    server.server_close()


def comes_true(said, seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while not said() and time.monotonic() < until:
        time.sleep(0.02)
    return bool(said())


def test_keys_rotate_and_an_outage_of_the_provider_locks_nobody_out(provider):
    keys = Keys(provider.url, pause_seconds=0.05)
    keys.start()
    authoriser = Authoriser(keys, issuer=ISSUER, audience=AUDIENCE, now=lambda: NOW)
    authoriser.caller(token(RSA, "RS256"))
    with pytest.raises(UnauthorisedError, match="does not publish"):
        authoriser.caller(token())
    provider.keys = published(EC)
    assert comes_true(lambda: keys.key("two")), "a key that is asked for is looked for"
    authoriser.caller(token())
    with pytest.raises(UnauthorisedError, match="does not publish"):
        authoriser.caller(token(RSA, "RS256"))
    provider.keys = ""
    asked = provider.asked
    assert comes_true(lambda: keys.key("one") or provider.asked > asked + 1)
    authoriser.caller(token())
    keys.stop()


def test_a_flood_of_unknown_keys_does_not_reach_the_provider(provider):
    """Guards the provider: each made-up key id would have been a request to it, and a wait for the event loop."""
    keys = Keys(provider.url, pause_seconds=60)
    keys.start()
    authoriser = Authoriser(keys, issuer=ISSUER, audience=AUDIENCE, now=lambda: NOW)
    for n in range(200):
        with pytest.raises(UnauthorisedError):
            authoriser.caller(token(header={"kid": f"made-up-{n}"}))
    assert provider.asked == 1
    keys.stop()


def test_keys_that_cannot_be_used_are_left_out(tmp_path):
    """Guards: a secret or a weak key in the JWKS would be trusted, and an odd one would lock everybody out."""
    weak = {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "weak"}
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"}
    encrypting = EC.as_dict(private=False) | {"use": "enc", "kid": "encrypting"}
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [weak, secret, encrypting, {"kty": "EC"}, 7, EC.as_dict(private=False)]}))
    keys = Keys(str(file))
    keys.refresh()
    assert keys.key("two") is not None
    assert [keys.key(kid) for kid in ("weak", "secret", "encrypting")] == [None] * 3


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "scoring.bank.example", ""])
def test_bound_to_the_network_without_tokens_it_refuses_to_start(host):
    with pytest.raises(AuthSettingsError, match="require no token"):
        refuse_open_door(host, has_tokens=False)
    refuse_open_door(host, has_tokens=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_this_machine_it_may_run_without_tokens(host):
    refuse_open_door(host, has_tokens=False)


def test_the_settings_make_the_door(tmp_path):
    file = tmp_path / "jwks.json"
    file.write_text(published(EC))
    asked = {"serving_jwks": str(file), "serving_issuer": ISSUER, "serving_audience": AUDIENCE}
    authoriser = authoriser_of(Settings(**asked), "0.0.0.0")
    now = int(time.time())
    assert authoriser.caller(token(exp=now + 60, iat=now)).subject == "settlement-desk"
    assert authoriser_of(Settings(), "127.0.0.1") is None
    for settings, host in [(Settings(), "0.0.0.0"), (Settings(serving_jwks=str(file)), "127.0.0.1")]:
        with pytest.raises(AuthSettingsError):
            authoriser_of(settings, host)


def test_clients_show_a_certificate_where_an_authority_is_named(tmp_path):
    made = {"serving_tls_cert": "c.pem", "serving_tls_key": "k.pem"}
    assert tls_options(Settings()) == {}
    assert tls_options(Settings(**made)) == {"ssl_certfile": "c.pem", "ssl_keyfile": "k.pem"}
    assert tls_options(Settings(**made, serving_client_ca="a.pem"))["ssl_cert_reqs"] == ssl.CERT_REQUIRED
    for half in ({"serving_tls_cert": "c.pem"}, {"serving_tls_key": "k.pem"}, {"serving_client_ca": "a.pem"}):
        with pytest.raises(AuthSettingsError, match="TLS needs both"):
            tls_options(Settings(**half))


def test_keys_by_plain_http_and_tokens_for_anybody_are_refused(tmp_path):
    with pytest.raises(AuthSettingsError, match="by https"):
        Keys("http://login.bank.example/jwks")
    with pytest.raises(AuthSettingsError, match="would be accepted"):
        Authoriser(Keys(str(tmp_path / "x")), issuer=ISSUER, audience="")
