"""Who asks is told by the proxy alone, or is the login of this machine; forms are a person's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from ml_assets.desk.people import (
    Forms,
    Person,
    RefusedError,
    by_login,
    by_proxy,
    door_of,
    networks,
    read_roles,
    secret_of,
)
from ml_assets.errors import InputError
from ml_assets.settings import Settings

ROLES = {"analysts": {"fails": "analyst"}, "leads": {"*": "lead"}, "guests": {"fails": "viewer"}}


def request(peer: str = "10.1.0.7", host: str = "desk", *headers: tuple[str, str]) -> Request:
    sent = [("host", host), *headers]
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in sent]
    return Request({"type": "http", "client": (peer, 1), "headers": raw, "path": "/", "method": "GET"})


def of(name: str = "ana@bank.example", groups: str = "analysts") -> tuple[tuple[str, str], ...]:
    return (("X-Forwarded-Email", name), ("X-Forwarded-Groups", groups))


behind_proxy = by_proxy(networks("10.1.0.0/24, ::1"), ROLES)


def test_the_proxy_says_who_asks_and_groups_give_roles():
    person = behind_proxy(request("10.1.0.7", "desk", *of("Ana@Bank.example", "guests, analysts")))
    assert person.name == "ana@bank.example"
    assert (person.role("fails"), person.role("other")) == ("analyst", None)
    assert person.may("fails", "viewer")
    assert not person.may("fails", "lead")
    assert behind_proxy(request("::1", "desk", *of(groups="leads"))).role("anything") == "lead"
    assert behind_proxy(request("10.1.0.7", "desk", *of(groups="strangers"))).role("fails") is None


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("10.1.1.7", of(), 403),
        ("not an address", of(), 403),
        ("10.1.0.7", (), 401),
        ("10.1.0.7", of(name=" "), 401),
        ("10.1.0.7", of(name="x" * 201), 401),
        ("10.1.0.7", of(name="a\x1b[31m"), 401),
        ("10.1.0.7", (*of(), ("X-Forwarded-Groups", "leads")), 403),
        ("10.1.0.7", (*of(), ("x-forwarded-email", "boss@bank.example")), 403),
    ],
)
def test_a_forged_header_is_refused(peer, headers, status):
    with pytest.raises(RefusedError) as refused:
        behind_proxy(request(peer, "desk", *headers))
    assert refused.value.status == status


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "localhost"])
def test_on_a_laptop_it_is_the_login_by_the_names_of_this_machine(host):
    person = by_login("Ana")(request("127.0.0.1", host))
    assert (person.name, person.role("fails")) == ("ana", "lead")


@pytest.mark.parametrize(
    ("peer", "host", "headers"),
    [
        ("127.0.0.1", "evil.example", ()),  # another site's name for 127.0.0.1
        ("192.168.1.5", "localhost", ()),
        ("127.0.0.1", "localhost", of()),
        ("127.0.0.1", "", ()),
    ],
)
def test_on_a_laptop_nobody_else_is_let_in(peer, host, headers):
    with pytest.raises(RefusedError):
        by_login("ana")(request(peer, host, *headers))


def test_open_to_the_network_without_a_proxy_it_does_not_start(tmp_path):
    with pytest.raises(InputError, match="ask nobody who he is"):
        door_of(Settings(home=tmp_path), "0.0.0.0", "ana")
    with pytest.raises(InputError, match="is everybody"):
        door_of(Settings(home=tmp_path, desk_proxy="0.0.0.0/0"), "0.0.0.0", "ana")
    with pytest.raises(InputError, match="ML_ASSETS_DESK_PROXY"):
        networks("the proxy")
    assert door_of(Settings(home=tmp_path), "127.0.0.1", "ana")(request("127.0.0.1", "localhost")).name == "ana"


@pytest.mark.parametrize("text", ["[]", '{"a": {"b": "king"}}', "no JSON"])
def test_wrong_roles_name_the_setting(text):
    with pytest.raises(InputError, match="ML_ASSETS_DESK_ROLES"):
        read_roles(text)


def test_a_form_is_the_persons_own_and_from_a_page_of_the_desk():
    forms, ana = Forms(b"secret"), Person("ana", {})
    token = forms.token(ana)
    forms.check(request("10.1.0.7", "desk"), ana, token)
    forms.check(request("10.1.0.7", "desk", ("Origin", "https://desk"), ("Sec-Fetch-Site", "same-origin")), ana, token)
    for headers, person, sent in (
        ((("Origin", "https://evil.example"),), ana, token),
        ((("Sec-Fetch-Site", "cross-site"),), ana, token),
        ((("Origin", "null"),), ana, token),
        ((), Person("ben", {}), token),
        ((), ana, ""),
        ((), ana, Forms(b"other").token(ana)),
        ((), ana, "ü"),
    ):
        with pytest.raises(RefusedError):
            forms.check(request("10.1.0.7", "desk", *headers), person, sent)


def test_the_secret_stays_over_a_restart_and_is_nobody_elses_to_read(tmp_path):
    settings = Settings(home=tmp_path)
    assert secret_of(settings) == secret_of(settings)
    assert (tmp_path / "desk" / "secret").stat().st_mode & 0o077 == 0
    assert secret_of(Settings(home=tmp_path, desk_secret="given")) == b"given"


@given(st.dictionaries(st.sampled_from(["fails", "*"]), st.sampled_from(["viewer", "analyst", "lead"])))
def test_a_higher_role_may_all_that_a_lower_one_may(roles):
    person = Person("ana", roles)
    may = [person.may("fails", role) for role in ("viewer", "analyst", "lead")]
    assert may == sorted(may, reverse=True)
    assert (person.role("fails") is not None) == may[0]
