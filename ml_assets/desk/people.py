"""Who asks for a page, and who may what: by the header of the login proxy, or the login of this machine."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

import msgspec
from starlette.requests import Request

from ml_assets.database.promotions import Actor
from ml_assets.errors import InputError
from ml_assets.serving.auth import is_this_machine

if TYPE_CHECKING:
    from ml_assets.settings import Settings

Role = Literal["viewer", "analyst", "lead"]
_ROLES: Final[tuple[Role, ...]] = get_args(Role)  # each may what those before it may
_ALL: Final = "*"
# What the OAuth proxy says of who has logged in; see its option --pass-user-headers.
USER_HEADERS: Final = ("x-forwarded-email", "x-forwarded-user", "x-forwarded-groups", "x-forwarded-preferred-username")
_LONGEST_NAME: Final = 200


class RefusedError(Exception):
    """A request is not let in: the status (401 or 403) and why, for the person."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks: the name that goes into the ledger, and the role in each use case (`*`: in all)."""

    name: str
    roles: Mapping[str, Role]

    def may(self, use_case: str, role: Role) -> bool:
        """Return whether the person has a role in a use case, or one that includes it."""
        own = [self.roles[name] for name in (use_case, _ALL) if name in self.roles]
        return any(_ROLES.index(one) >= _ROLES.index(role) for one in own)

    def role(self, use_case: str) -> Role | None:
        """Return the highest role of the person in a use case; None if there is none."""
        return next((role for role in reversed(_ROLES) if self.may(use_case, role)), None)


# Lets a request in, or raises RefusedError.
Door = Callable[[Request], Person]


def door_of(settings: Settings, host: str, login: str) -> Door:
    """Return who lets people in: the proxy's header if the settings name a proxy, else the login of this machine.

    Raises:
        InputError: anybody on the network could ask, or the settings are wrong.
    """
    if settings.desk_proxy:
        return by_proxy(networks(settings.desk_proxy), read_roles(settings.desk_roles))
    if not is_this_machine(host):
        raise InputError(
            f"the desk would listen on {host} and ask nobody who he is",
            to_do="set ML_ASSETS_DESK_PROXY to the address of the login proxy, or listen on 127.0.0.1",
        )
    return by_login(login)


def by_login(login: str) -> Door:
    """Return the door of a laptop: whoever asks from this machine, by one of its own names, is the login, and a lead.

    A page of another site that knows a name for 127.0.0.1 asks by that name (DNS rebinding), and is refused.
    """
    person = Person(Actor.person(login).name, {_ALL: "lead"})

    def door(request: Request) -> Person:
        if any(name in request.headers for name in USER_HEADERS):
            raise RefusedError(403, "the request says who asks, and no login proxy is configured that may say so")
        asked = request.headers.get("host", "")
        host = asked[1:].partition("]")[0] if asked.startswith("[") else asked.partition(":")[0]
        peer = request.client.host if request.client else ""
        if not is_this_machine(peer) or not is_this_machine(host):
            raise RefusedError(403, "only this machine may ask, by the name localhost or 127.0.0.1")
        return person

    return door


def by_proxy(
    believed: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...], roles: Mapping[str, Mapping[str, Role]]
) -> Door:
    """Return the door behind a login proxy: its headers say who asks; from any other address they are not believed.

    Args:
        believed: the addresses of the proxy.
        roles: by group, the role in each use case.
    """

    def door(request: Request) -> Person:
        peer = request.client.host if request.client else ""
        try:
            known = any(ipaddress.ip_address(peer) in network for network in believed)
        except ValueError:
            known = False
        if not known:
            raise RefusedError(403, "the request has not come through the login proxy")
        if any(len(request.headers.getlist(name)) > 1 for name in USER_HEADERS):
            raise RefusedError(403, "a header of the login proxy is there twice")
        said = request.headers.get("x-forwarded-email") or request.headers.get("x-forwarded-user") or ""
        name = Actor.person(said).name
        if not name or len(name) > _LONGEST_NAME or not name.isprintable():
            raise RefusedError(401, "the login proxy has not said who asks")
        groups = [one.strip() for one in request.headers.get("x-forwarded-groups", "").split(",")]
        own: dict[str, Role] = {}
        for group in groups:
            for use_case, role in roles.get(group, {}).items():
                if _ROLES.index(role) >= _ROLES.index(own.get(use_case, role)):
                    own[use_case] = role
        return Person(name, own)

    return door


def networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Return the networks of a setting, with commas between.

    Raises:
        InputError: one is no address, or it is everybody.
    """
    found = []
    for one in filter(None, (part.strip() for part in text.split(","))):
        try:
            network = ipaddress.ip_network(one)
        except ValueError as error:
            raise InputError(f"ML_ASSETS_DESK_PROXY: {error}") from None
        if network.prefixlen == 0:
            raise InputError(f"ML_ASSETS_DESK_PROXY: {one} is everybody; name the addresses of the login proxy")
        found.append(network)
    return tuple(found)


def read_roles(text: str) -> dict[str, dict[str, Role]]:
    """Return by group the role in each use case, from JSON.

    Raises:
        InputError: it is something else.
    """
    try:
        return msgspec.json.decode(text, type=dict[str, dict[str, Role]])
    except msgspec.DecodeError as error:
        raise InputError(
            f"ML_ASSETS_DESK_ROLES: {error}", to_do='write {"<group>": {"<use case or *>": "viewer|analyst|lead"}}'
        ) from None


class Forms:
    """Signs forms: only a page that this desk made for a person can be sent by that person.

    The token is an HMAC of the person's name, so that all pods with one secret take each other's forms.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def token(self, person: Person) -> str:
        """Return the token of a person's forms."""
        return hmac.new(self._secret, b"form\0" + person.name.encode(), hashlib.sha256).hexdigest()

    def check(self, request: Request, person: Person, token: str) -> None:
        """Do nothing if a form is the person's own and was sent from a page of the desk.

        Raises:
            RefusedError: it was not.
        """
        site = request.headers.get("sec-fetch-site", "same-origin")
        origin = request.headers.get("origin")
        own = origin is None or origin.partition("://")[2] == request.headers.get("host", "")
        if site not in ("same-origin", "none") or not own:
            raise RefusedError(403, "the form was sent from a page of another site; nothing was saved")
        if not hmac.compare_digest(token.encode(), self.token(person).encode()):
            raise RefusedError(403, "the form is not from a page of yours; open the page again. Nothing was saved")


def secret_of(settings: Settings) -> bytes:
    """Return what forms are signed with: of the settings, else of a file below home, made at the first start."""
    if given := settings.desk_secret.get_secret_value():
        return given.encode()
    file: Path = settings.home_path / "desk" / "secret"
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32), encoding="ascii")
    return file.read_bytes()
