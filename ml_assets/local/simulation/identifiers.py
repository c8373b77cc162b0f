"""Identifiers of securities and parties with valid check digits."""

import string

_VALUE = {character: str(number) for number, character in enumerate(string.digits + string.ascii_uppercase)}


def isin(country: str, number: int) -> str:
    """Return an International Securities Identification Number (ISO 6166): country, nine digits, check digit."""
    body = f"{country}{number:09}"
    return body + str(_luhn("".join(_VALUE[character] for character in body)))


def lei(number: int) -> str:
    """Return a Legal Entity Identifier (ISO 17442): eighteen characters and two check digits (ISO 7064, mod 97-10)."""
    body = f"5299MLASSETS{number:06}"
    return body + f"{98 - int(_digits(body) + '00') % 97:02}"


def is_isin(text: str) -> bool:
    """Return whether the check digit is right."""
    return len(text) == 12 and text[:2].isalpha() and _luhn(_digits(text[:-1])) == int(text[-1])


def is_lei(text: str) -> bool:
    """Return whether the check digits are right."""
    return len(text) == 20 and int(_digits(text)) % 97 == 1


def _digits(text: str) -> str:
    return "".join(_VALUE[character] for character in text)


def _luhn(digits: str) -> int:
    """Return the Luhn check digit: every second digit from the right is doubled."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value // 10 + value % 10
    return -total % 10
