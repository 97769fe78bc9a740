"""Values that only the holder of a private key can open: PyNaCl's sealed boxes (X25519, XSalsa20-Poly1305).

Keys are hexadecimal text. PyNaCl is loaded by the first call: who has to do with no secret does without it.
"""

from __future__ import annotations

import base64

from unitfleet.errors import UnitfleetError

KEY_DIGITS = 64


class CannotSeal(UnitfleetError):
    """A key, or what was sealed, is not what it should be."""


def new_private_key() -> str:
    """Return a new private key."""
    from nacl.public import PrivateKey

    return bytes(PrivateKey.generate()).hex()


def public_key(private: str) -> str:
    """Return the public key that belongs to a private one; raises `CannotSeal`."""
    from nacl.public import PrivateKey

    return bytes(PrivateKey(_key(private)).public_key).hex()


def seal(value: bytes, public: str) -> str:
    """Return a text that the holder of the private key alone can open; raises `CannotSeal`."""
    from nacl.exceptions import CryptoError
    from nacl.public import PublicKey, SealedBox

    try:
        return base64.b64encode(SealedBox(PublicKey(_key(public))).encrypt(value)).decode()
    except CryptoError:
        raise CannotSeal("cannot seal a value: the public key is none") from None


def unseal(sealed: str, private: str) -> bytes:
    """Return what was sealed; raises `CannotSeal` where it was sealed to another key, or was changed."""
    from nacl.exceptions import CryptoError
    from nacl.public import PrivateKey, SealedBox

    key = PrivateKey(_key(private))
    try:
        return SealedBox(key).decrypt(base64.b64decode(sealed, validate=True))
    except (CryptoError, ValueError):
        raise CannotSeal("cannot open what was sealed: it was sealed to another key, or changed since") from None


def _key(text: str) -> bytes:
    """Return a key's bytes; the text, which may be a private key, is never shown."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) * 2 != KEY_DIGITS:
        raise CannotSeal(f"cannot use a key that is not {KEY_DIGITS} hexadecimal digits")
    return raw
