"""Authorisation for the scoring service and the MCP server: bearer tokens of an OIDC provider, and their scopes.

A token is a JWT, signed by a key of the provider's JWKS (a file or an https URL). Only asymmetric algorithms are
accepted, and only the one that the key is meant for: with a symmetric algorithm anybody who has the public key could
sign. Scopes are `<use case>:score`, `<use case>:explain`, `<use case>:read` (MCP) and `models:read`; `*` stands for
every use case.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from ml_assets.errors import InputError

if TYPE_CHECKING:
    from ml_assets.settings import Settings

# RFC 7518 and RFC 8037, without the algorithms whose key is a secret.
ALGORITHMS: Final = ("PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "RS256")
_LONGEST_TOKEN: Final = 8_192
_LONGEST_JWKS: Final = 1 << 20
_FETCH_SECONDS: Final = 5.0
_WEAKEST_RSA: Final = 2_048
_LOG = logging.getLogger(__name__)


class AuthSettingsError(InputError):
    """The settings of authorisation are incomplete or unsafe; the service does not start."""


class UnauthorisedError(Exception):
    """The token is missing or not valid (401); the text says why and contains nothing from the token."""

    status = 401


class ForbiddenError(Exception):
    """The token is valid, but its scopes do not allow the request (403)."""

    status = 403


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller: the subject of the token, and its scopes."""

    subject: str
    scopes: frozenset[str]

    def require(self, use_case: str, verb: str) -> None:
        """Do nothing if the scopes allow the verb on the use case (`models`, `read` for the list of models).

        Raises:
            ForbiddenError: they do not.
        """
        if self.scopes.isdisjoint({f"{use_case}:{verb}", f"*:{verb}"}):
            raise ForbiddenError(f"the token lacks the scope {use_case}:{verb}")


def is_this_machine(host: str) -> bool:
    """Return whether only this machine can reach an address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # any other name may resolve to any address
        return host == "localhost"


def refuse_open_door(host: str, *, has_tokens: bool) -> None:
    """Do nothing if tokens are required, or if only this machine can reach the service.

    Raises:
        AuthSettingsError: the service would answer everybody on the network.
    """
    if not has_tokens and not is_this_machine(host):
        raise AuthSettingsError(
            f"the service would listen on {host} and require no token: set ML_ASSETS_SERVING_JWKS, "
            "ML_ASSETS_SERVING_ISSUER and ML_ASSETS_SERVING_AUDIENCE, or listen on 127.0.0.1"
        )


def authoriser_of(settings: Settings, host: str) -> Authoriser | None:
    """Return what checks tokens, with keys that are reloaded; None on this machine without tokens.

    Raises:
        AuthSettingsError: the service would answer everybody on the network, or the settings are incomplete.
    """
    refuse_open_door(host, has_tokens=bool(settings.serving_jwks))
    if not settings.serving_jwks:
        return None
    keys = Keys(settings.serving_jwks)
    made = Authoriser(
        keys,
        issuer=settings.serving_issuer,
        audience=settings.serving_audience,
        leeway_seconds=settings.serving_leeway_seconds,
    )
    keys.start()
    return made


def tls_options(settings: Settings) -> dict[str, Any]:
    """Return uvicorn's options for TLS and client certificates; empty without a certificate, as in a mesh.

    Raises:
        AuthSettingsError: only one of certificate and key is set, or clients need certificates without TLS.
    """
    cert, key, authority = settings.serving_tls_cert, settings.serving_tls_key, settings.serving_client_ca
    if bool(cert) != bool(key) or (authority and not cert):
        raise AuthSettingsError(
            "TLS needs both ML_ASSETS_SERVING_TLS_CERT and ML_ASSETS_SERVING_TLS_KEY, and ML_ASSETS_SERVING_CLIENT_CA "
            "needs TLS"
        )
    if not cert:
        return {}
    found: dict[str, Any] = {"ssl_certfile": cert, "ssl_keyfile": key}
    if authority:
        found |= {"ssl_ca_certs": authority, "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return found


class Keys:
    """The provider's public keys, reloaded every few minutes, and soon after a token has named an unknown key.

    A request never waits for the provider. While the provider does not answer, the keys that were loaded last are used.

    Args:
        source: path of a JWKS file, or its https URL (http only on this machine).
        every_seconds: the age at which keys are reloaded.
        pause_seconds: the least time between two loads: a flood of unknown keys must not flood the provider.

    Raises:
        AuthSettingsError: the source is neither a file nor an https URL.
    """

    def __init__(self, source: str, *, every_seconds: float = 300.0, pause_seconds: float = 10.0) -> None:
        self._source = source
        self._every, self._pause = every_seconds, pause_seconds
        self._keys: Mapping[str, Any] = {}
        self._wanted, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)
        local = source.startswith(("http://127.0.0.1:", "http://localhost:"))
        if "://" in source and not (source.startswith("https://") or local):
            raise AuthSettingsError(f"ML_ASSETS_SERVING_JWKS is {source}: keys are read from a file or by https")

    def start(self) -> None:
        """Load the keys, and start the thread that reloads them."""
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._wanted.set()
        self._thread.join(2 * _FETCH_SECONDS)

    def key(self, kid: str) -> Any | None:
        """Return the key with id `kid`; None if it is unknown, and then the keys are reloaded soon."""
        if (found := self._keys.get(kid)) is None:
            self._wanted.set()
        return found

    def refresh(self) -> None:
        """Load the keys now; if that fails, the known keys are kept."""
        try:
            self._keys = _usable(_fetch(self._source))
        except (OSError, ValueError, JoseError) as error:
            _LOG.error("the keys of %s cannot be read, the %d known are kept: %s", self._source, len(self._keys), error)

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            self._wanted.wait(self._every)
            self._wanted.clear()
            if not self._stop.is_set():
                self.refresh()


def _fetch(source: str) -> bytes:
    if "://" not in source:
        return Path(source).read_bytes()[:_LONGEST_JWKS]
    with urllib.request.urlopen(source, timeout=_FETCH_SECONDS) as answer:  # noqa: S310 - `Keys` allows https only
        found: bytes = answer.read(_LONGEST_JWKS)
        return found


def _usable(text: bytes) -> dict[str, Any]:
    """Return the public signature keys that have an id. Others are left out, so one odd key does not break the rest."""
    found: dict[str, Any] = {}
    for raw in msgspec.json.decode(text, type=dict[str, Any]).get("keys", []):
        if not isinstance(raw, dict) or raw.get("kty") not in ("RSA", "EC", "OKP") or raw.get("use", "sig") != "sig":
            continue
        try:
            key = KeySet.import_key_set({"keys": [raw]}).keys[0]
        except (JoseError, ValueError, TypeError, KeyError) as error:
            _LOG.warning("a key of the JWKS is left out: %s", error)
            continue
        weak = isinstance(key, RSAKey) and key.raw_value.key_size < _WEAKEST_RSA
        if not weak and raw.get("kid"):
            found[str(raw["kid"])] = key
    return found


class Authoriser:
    """Turns a request's `Authorization` header into its caller.

    Args:
        keys: the provider's keys.
        issuer, audience: the required claims `iss` and `aud`.
        leeway_seconds: by how much the clocks of provider and service may differ.
        now: seconds since 1970, UTC.

    Raises:
        AuthSettingsError: issuer or audience is empty, so any token of the provider would be accepted.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        issuer: str,
        audience: str,
        leeway_seconds: int = 30,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not issuer or not audience:
            raise AuthSettingsError(
                "ML_ASSETS_SERVING_JWKS is set without ML_ASSETS_SERVING_ISSUER and ML_ASSETS_SERVING_AUDIENCE: tokens "
                "that the provider issued for other services would be accepted"
            )
        self._keys = keys
        self._issuer, self._audience = issuer, audience
        self._leeway = leeway_seconds
        self._now = now

    def caller(self, authorization: str | None) -> Caller:
        """Return the caller that an `Authorization` header names.

        Raises:
            UnauthorisedError: there is no token, or it is not valid.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthorisedError("a bearer token is needed in the header Authorization")
        if len(token) > _LONGEST_TOKEN:
            raise UnauthorisedError(f"the token is longer than {_LONGEST_TOKEN:,} characters")
        claims = self._verified(token.strip())
        self._check(claims)
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject:
            raise UnauthorisedError("the token has no subject (sub)")
        return Caller(subject, _scopes(claims))

    def _verified(self, token: str) -> dict[str, Any]:
        try:
            header = jws.extract_compact(token.encode()).headers()
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            raise UnauthorisedError("the token is not a signed JWT") from error
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise UnauthorisedError(f"a token must be signed with one of {', '.join(ALGORITHMS)}")
        if not isinstance(kid, str) or not kid:
            raise UnauthorisedError("the token does not name its key (kid)")
        if "crit" in header:
            raise UnauthorisedError("the token has critical headers, and the service understands none")
        key = self._keys.key(kid)
        if key is None:
            raise UnauthorisedError("the token is signed by a key that the provider does not publish")
        if not _suits(key, algorithm):
            raise UnauthorisedError("the token's algorithm is not that of its key")
        try:
            claims = jwt.decode(token, key, algorithms=[algorithm]).claims
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            raise UnauthorisedError("the signature of the token is not valid") from error
        return claims

    def _check(self, claims: Mapping[str, Any]) -> None:
        now = self._now()
        if claims.get("iss") != self._issuer:
            raise UnauthorisedError("the token is from another issuer")
        audience = claims.get("aud")
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            raise UnauthorisedError("the token is for another audience")
        if (ends := _seconds(claims, "exp")) is None:
            raise UnauthorisedError("the token has no end (exp)")
        if now >= ends + self._leeway:
            raise UnauthorisedError("the token has expired")
        for name in ("nbf", "iat"):
            begins = _seconds(claims, name)
            if begins is not None and now < begins - self._leeway:
                raise UnauthorisedError("the token is not valid yet")


def _suits(key: Any, algorithm: str) -> bool:
    """Return whether a key is for an algorithm: by its type, and by its `alg` if it has one."""
    said = key.get("alg")
    if said is not None and said != algorithm:
        return False
    if isinstance(key, RSAKey):
        return algorithm.startswith(("RS", "PS"))
    if isinstance(key, ECKey):
        return algorithm == {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}.get(str(key.get("crv")))
    return isinstance(key, OKPKey) and algorithm == "EdDSA"


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnauthorisedError(f"the claim {name} of the token is not a time")
    return float(value)


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """Return the scopes: `scope` of RFC 8693, separated by spaces, or `scp`, a list, as some providers have it."""
    found = claims.get("scope", claims.get("scp", ""))
    names = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
    return frozenset(name for name in names if isinstance(name, str))
