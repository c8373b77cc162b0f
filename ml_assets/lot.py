"""A lot that always falls the same way: who is in a share of entities, whoever asks and whenever."""

import hashlib


def lot(*names: str) -> float:
    """Return a number in [0, 1] that the names always draw: the first 8 bytes of the SHA-256 of all, over 2^64.

    A share are those below it: a larger share keeps all of a smaller one. NUL stands between the names.
    """
    return int.from_bytes(hashlib.sha256("\0".join(names).encode()).digest()[:8], "big") / 2**64
