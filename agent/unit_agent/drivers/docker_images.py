"""Images: a tag is resolved to a digest once, and a pinned digest is those bytes or nothing.

The digest of an image that came from a registry is `repository@sha256:…`, which every machine can pull. One that
was built or imported on the host has none; its id `sha256:…` stands for it, which another machine can only
have if the same image was loaded there: pinned and absent, that is `ImageNotFound`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp
from aiodocker.exceptions import DockerError, DockerStreamError

from unit_agent.driver import Progress, Report
from unit_agent.drivers.docker_engine import Engine, EngineAway, EngineRefused
from unit_agent.images.credentials import qualified
from unitfleet.errors import DriverError, ImageNotFound
from unitfleet.model import CopyPhase
from unitfleet.spec import Pull

logger = logging.getLogger(__name__)

IDLE_S = 60.0  # a pull that says nothing for this long has failed
STEP = 10  # percent

_ABSENT = ("not found", "manifest unknown", "no such image", "does not exist", "name unknown")
_DOWNLOAD_SHARE = 0.7


Fetch = Callable[[str, str, Report], Awaitable[None]]
"""Pulls for a unit an image, and reports: `fetch(unit, image, report)`."""


class Lookups:
    """Answers many starts at once with one question: whether the Engine holds an image, and its digest.

    An answer holds for whoever began before it was asked for, and for no one who began later: a tag may have been
    moved since. `forget` when this agent changes what the Engine holds.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._found: dict[str, tuple[float, str]] = {}  # by image: loop time of the question, digest
        self._asking: dict[str, asyncio.Lock] = {}

    async def digest(self, image: str, since: float) -> str:
        """Return the digest of an image that the Engine has held after the loop's time `since`, or ""."""
        async with self._asking.setdefault(image, asyncio.Lock()):
            asked, digest = self._found.get(image, (float("-inf"), ""))
            if asked >= since:
                return digest
            asked = asyncio.get_running_loop().time()
            if digest := await local_digest(self._engine, image):
                self._found[image] = asked, digest
            else:
                self._found.pop(image, None)
            return digest

    def forget(self) -> None:
        """Ask anew, whatever is known."""
        self._found.clear()


async def prepare_image(
    engine: Engine,
    unit: str,
    image: str,
    pinned: str,
    pull: Pull,
    report: Report,
    fetch: Fetch,
    look_up: Callable[[str], Awaitable[str]],
) -> str:
    """Make sure the image is here and return its digest. `pinned` decides over the tag, when it is set.

    `look_up` returns the digest of an image that is here, or "". Raises `ImageNotFound` when Engine and registry
    don't have it, `DriverError` when that can't be known.
    """
    wanted = pinned or image
    local = await look_up(wanted)
    if pinned:
        if local:
            return pinned
        if pinned.startswith("sha256:"):
            raise ImageNotFound(
                f"cannot run {unit}: its image {pinned[:19]} was built on another machine and is not here",
                hint=f"push {image} to a registry that all machines reach, or load it on this machine",
            )
    if pull is Pull.NEVER:
        if local:
            return local
        raise ImageNotFound(f"cannot run {unit}: image {wanted} is not here, and Pull=never")
    if local and (pinned or pull is Pull.MISSING):
        return local
    try:
        await fetch(unit, wanted, report)
    except DriverError:
        if not local or pull is not Pull.NEWER:
            raise
        logger.warning("kept the local image of %s: %s could not be asked for a newer one", unit, wanted)
        return local
    found = await local_digest(engine, wanted)
    if not found:
        raise DriverError(f"cannot pull {wanted} for {unit}: the Engine broke off without saying why")
    return pinned or found


async def local_digest(engine: Engine, image: str) -> str:
    """Return the digest of an image that the Engine holds, or ""."""
    found = await _inspect(engine, image)
    return "" if found is None else digest_of(image, found)


async def local_id(engine: Engine, image: str) -> str:
    """Return the id of an image that the Engine holds, by any of its names, or ""."""
    found = await _inspect(engine, image)
    return "" if found is None else str(found["Id"])


async def _inspect(engine: Engine, image: str) -> Mapping[str, Any] | None:
    try:
        return await engine.inspect_image(image)
    except EngineRefused as error:
        if error.status == 404:
            return None
        raise


def digest_of(image: str, inspected: Mapping[str, Any]) -> str:
    """Return `repository@sha256:…` of an inspected image, of its own repository if it can be, else its id."""
    digests = sorted(inspected.get("RepoDigests") or ())
    own = [digest for digest in digests if repository(digest) == repository(image)]
    return str([*own, *digests, inspected["Id"]][0])


def repository(image: str) -> str:
    """Return the repository of a reference, without what Docker takes for granted."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    plain = f"{head}{slash}{last.partition(':')[0]}"
    return plain.removeprefix("docker.io/").removeprefix("library/")


async def pull_image(
    engine: Engine, doing: str, image: str, report: Report, auth: Mapping[str, str] | None = None
) -> int:
    """Pull, report the progress in steps of STEP percent or more (it never goes down), return the bytes that came.

    `doing` completes `cannot …`; `auth` is shown to the registry.
    """
    progress, told = PullProgress(), 0
    report(Progress(CopyPhase.PULLING, 0, f"pulling {image}"))
    logger.info("began to %s", doing)
    try:
        async for line in _lines(engine, doing, image, auth):
            percent = progress.add(line)
            if percent >= told + STEP or percent == 100 > told:
                told = percent
                layers = progress.layers
                said = f"pulling {image} {percent} %{f' ({layers})' if layers else ''}"
                report(Progress(CopyPhase.PULLING, percent, said, layers))
    except DockerError as error:
        failed = engine.failure(doing, error)
        if error.status == 404 or (isinstance(error, DockerStreamError) and _says_absent(failed.message)):
            raise ImageNotFound(failed.message) from error
        raise failed from error
    except aiohttp.ClientError as error:
        raise EngineAway(f"cannot {doing}: the Docker Engine broke off: {error}") from error
    logger.info("pulled %s", image)
    return progress.downloaded


def _says_absent(message: str) -> bool:
    return any(words in message.lower() for words in _ABSENT)


async def _lines(
    engine: Engine, doing: str, image: str, auth: Mapping[str, str] | None
) -> AsyncIterator[dict[str, Any]]:
    if auth is None:
        stream = engine.docker.images.pull(image, stream=True)
    else:  # aiodocker wants the registry in the reference where it shows credentials
        stream = engine.docker.images.pull(qualified(image), auth=dict(auth), stream=True)
    while True:
        try:
            async with asyncio.timeout(IDLE_S):
                line = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise EngineAway(f"cannot {doing}: nothing came for {IDLE_S:g} s") from error
        yield line


class PullProgress:
    """How far a pull is, from the Engine's lines: 70 % for the download, 30 % for the extraction.

    A layer weighs what it has to download; one whose size is not known yet weighs the mean of those that are.
    """

    def __init__(self) -> None:
        self._layers: dict[str, tuple[float, float, int]] = {}  # downloaded, extracted (0…1), size
        self._percent = 0
        self._there = 0  # layers that were here before

    def add(self, line: Mapping[str, Any]) -> int:
        """Take one line of the Engine's and return the percentage, which never goes down."""
        layer, status = str(line.get("id", "")), str(line.get("status", ""))
        detail = line.get("progressDetail") or {}
        current, total = int(detail.get("current") or 0), int(detail.get("total") or 0)
        done, extracted, size = self._layers.get(layer, (0.0, 0.0, 0))
        match status:
            case "Pulling fs layer" | "Waiting" | "Verifying Checksum":
                self._layers[layer] = (done, extracted, size)
            case "Downloading":
                self._layers[layer] = (_share(current, total, done), extracted, total or size)
            case "Download complete":
                self._layers[layer] = (1.0, extracted, size)
            case "Extracting":
                self._layers[layer] = (1.0, _share(current, total, extracted), size or total)
            case "Pull complete":
                self._layers[layer] = (1.0, 1.0, size)
            case "Already exists":
                self._there += 1
        self._percent = max(self._percent, self._reckon())
        return self._percent

    @property
    def layers(self) -> str:
        """How many of its layers are here, in words: `3 of 7 layers`; "" while none is known."""
        done = sum(1 for _, extracted, _ in self._layers.values() if extracted == 1.0) + self._there
        count = len(self._layers) + self._there
        return f"{done} of {count} layers" if count else ""

    @property
    def downloaded(self) -> int:
        """Bytes of the layers that came, as the registry sent them."""
        return int(sum(done * size for done, _, size in self._layers.values()))

    def _reckon(self) -> int:
        if not self._layers:
            return 0
        known = [size for _, _, size in self._layers.values() if size]
        mean = sum(known) / len(known) if known else 1.0
        weights = [(size or mean) for _, _, size in self._layers.values()]
        reached = [
            _DOWNLOAD_SHARE * done + (1 - _DOWNLOAD_SHARE) * extracted
            for done, extracted, _ in self._layers.values()
        ]
        return int(100 * sum(w * r for w, r in zip(weights, reached, strict=True)) / sum(weights))


def _share(current: int, total: int, before: float) -> float:
    return max(before, min(1.0, current / total)) if total else before
