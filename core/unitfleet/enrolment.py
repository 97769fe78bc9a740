"""How a daemon comes by its identity when it starts: it has one, or a token gets it one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from pathlib import Path

from unitfleet import certificates, identity, jointoken
from unitfleet.errors import InvalidConfig, StoreUnavailable
from unitfleet.joinapi import JoinAnswer, Role
from unitfleet.joining import JoinRefused, join
from unitfleet.jointoken import JoinToken

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LAST_PAUSE_S = 15.0
AGAIN_S = 10.0
"""So long a daemon that has an identity, an expired one, tries to join again before it begins its work."""


def read_token(text: str, path: str) -> JoinToken | None:
    """Return the token of `--join` or `--join-file`, None when neither says one; raises `InvalidConfig`."""
    if text and path:
        raise InvalidConfig("cannot use join and join-file: both are given", hint="one of them")
    if path:
        text = identity.read_secret(Path(path)).decode("utf-8", "replace")
    return jointoken.read(text) if text else None


async def enrol(
    directory: Path,
    role: Role,
    name: str,
    token: JoinToken | None,
    *,
    hosts: tuple[str, ...] = (),
    now: Callable[[], float],
    rng: random.Random,
) -> JoinAnswer | None:
    """See to it that `directory` holds an identity of this name; return what joining told, None without.

    With a good identity the token is not looked at, so that it may stay in a file of settings. One that has
    expired is told of and left when no token renews it soon: what runs on this host runs on without masters, and a
    daemon that waited for them would leave it untended. Without any, masters that can't be reached are asked again
    and again. Raises `JoinRefused`, and `InvalidConfig` for an identity of
    somebody else.
    """
    there = identity.is_there(directory)
    if there:
        present = certificates.read(identity.read_file(directory / identity.CERTIFICATE))
        if present.name != name and role is Role.AGENT:
            if token is None:
                raise InvalidConfig(
                    f"cannot use {directory}: the identity there is that of {present.name}, and this is {name}",
                    hint="it was copied from another host: remove it, and join with a token of its own",
                )
            _forget(directory)  # a copied key is somebody else's
            there = False
        elif present.not_after > now():
            return None
        else:
            logger.error("our certificate has expired: masters do not take it; join again with a new token")
    if token is None:
        if not there:
            raise InvalidConfig(
                f"cannot use {directory}: no identity is there",
                hint="--join TOKEN gets one; an admin makes the token",
            )
        return None
    pause_s = FIRST_PAUSE_S
    began = asyncio.get_running_loop().time()
    while True:
        try:
            answer = await asyncio.to_thread(join, directory, token, role, name, hosts)
            logger.info("joined as %s %s by token %s", role, name, token.id)
            return answer
        except JoinRefused as error:
            if not there:
                raise
            logger.error("could not join again: %s", error)
            return None
        except StoreUnavailable as error:
            if there and asyncio.get_running_loop().time() - began > AGAIN_S:
                logger.error("could not join again: %s; a restart tries anew", error)
                return None
            logger.warning("%s; trying again", error)
        await asyncio.sleep(pause_s * rng.uniform(0.5, 1.0))
        pause_s = min(2 * pause_s, LAST_PAUSE_S)


def _forget(directory: Path) -> None:
    for name in (identity.CERTIFICATE, identity.KEY):
        with contextlib.suppress(FileNotFoundError):
            (directory / name).unlink()
