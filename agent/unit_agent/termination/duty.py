"""The duty `termination`: hears from EC2 that this host will end, and has it drained before it does."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence

from aiohttp import web

from unit_agent.backoff import Backoff
from unit_agent.driver import Copy
from unit_agent.duty import Context
from unit_agent.local_copy import DirectoryCopy, read_record
from unit_agent.masters import Archives
from unit_agent.termination import notice
from unit_agent.termination.drain import Drain
from unit_agent.termination.notice import Known, Look, Told
from unitfleet import codec, keys
from unitfleet.errors import BadRecord, StoreError, UnitfleetError
from unitfleet.imds import ADDRESS, Absent, MetadataService, Silent
from unitfleet.model import Pending, Wanted
from unitfleet.store import KeyValue

logger = logging.getLogger(__name__)

EVERY_S = 5.0
FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 10.0
"""Between two requests to masters: of a spot instance's end EC2 tells two minutes before."""

STORE_S = 3.0
SAVE_S = 3.0
TOKEN_S = 6 * 3600
FILE = "termination.json"


class TerminationDuty:
    """Asks the instance-metadata service, tells what it says, and asks masters until one takes the order."""

    name = "termination"

    def __init__(self, context: Context) -> None:
        self._agent = context.agent
        self._store = context.store
        self._local = DirectoryCopy(context.state_dir)
        self._service = MetadataService(context.config.imds or ADDRESS, token_s=TOKEN_S)
        masters = Archives(context.store, self._local, context.agent.facts.id, tls=context.tls is not None)
        self._drain = Drain(context.agent, masters, context.config.cluster_key(), context.tls)
        self._known = Known()
        self._loaded = False
        self._due = asyncio.Event()  # a master is to be asked
        self._saving = asyncio.Lock()
        self._silent = ""  # why the service does not say, "" when it does

    def copy_changed(self, unit: str, before: Copy | None, after: Copy | None) -> None:
        """Nothing here hangs on a copy."""

    def order_changed(self, unit: str) -> None:
        """Nor on an order."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Nothing is asked of it."""
        return ()

    async def run(self) -> None:
        """Watch and act until cancelled."""
        if not self._loaded:
            self._known = await read_record(self._local, FILE, Known) or Known()
            self._loaded = True
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(), name="notices")
            tasks.create_task(self._have_drained(), name="drain")

    async def _watch(self) -> None:
        while True:
            look = await asyncio.to_thread(self._look)
            known, told = notice.decide(
                self._known, look, time.time(), self._agent.facts.name, drained=self._is_drained()
            )
            await self._become(known, *told)
            if self._known.drained and (pending := await self._pending()):
                known, told = notice.staying(self._known, pending)
                await self._become(known, *told)
            await asyncio.sleep(EVERY_S)

    def _look(self) -> Look:
        """Ask all that may tell; what is not answered is not known. Blocks."""
        answers: dict[str, str | None] = {}
        silent = ""
        for question in notice.QUESTIONS:
            try:
                answers[question] = self._service.find(question)
            except Silent as error:
                silent = str(error)
                if isinstance(error, Absent):
                    break
        if silent and not self._silent:
            logger.warning("could not ask whether this instance is to end, nothing follows: %s", silent)
        elif self._silent and not silent:
            logger.info("heard from the instance-metadata service again")
        self._silent = silent
        return notice.read(answers)

    async def _become(self, known: Known, *told: Told) -> None:
        """Keep what is known, before it is told: an agent that starts anew tells nothing twice."""
        changed, self._known = known != self._known, known
        if known.asks:
            self._due.set()
        if changed:
            try:
                async with self._saving, asyncio.timeout(SAVE_S):
                    await self._local.write(FILE, codec.encode(self._known))
            except OSError as error:  # a disk that fails or hangs is no reason to let units go down
                logger.error("could not save what EC2 said, a restart of the agent tells it again: %s", error)
        for each in told:
            logger.warning("%s", each.message)
            self._agent.happened(each.kind, "", each.message)

    async def _have_drained(self) -> None:
        """Ask masters, again and again while the notice stands, until one takes the order."""
        while True:
            await self._due.wait()
            self._due.clear()
            pace = Backoff(random.Random(), FIRST_PAUSE_S, LAST_PAUSE_S)
            complained = False
            while self._known.asks:
                try:
                    if not self._is_drained():
                        await self._drain.ask()
                except UnitfleetError as error:
                    if not complained:
                        await self._become(self._known, notice.refused(str(error)))
                    complained = True
                    await asyncio.sleep(pace.next())
                    continue
                await self._become(*notice.ordered(self._known, self._agent.facts.name))

    def _is_drained(self) -> bool:
        spec = self._agent.sync.machine_spec
        return spec is not None and spec.drained

    async def _pending(self) -> dict[str, str]:
        """Return which units here find no other machine, and why."""
        placements = self._agent.sync.placements
        here = {unit for unit, placement in placements.items() if placement.wanted is not Wanted.GONE}
        if not here:
            return {}
        try:
            async with asyncio.timeout(STORE_S):
                listing = await self._store.list(keys.pending(""))
        except (StoreError, TimeoutError) as error:
            logger.debug("could not look which units stay: %s", error)
            return {}
        found = {keys.split(item.key)[-1]: item for item in listing.items}
        return {unit: _why(found[unit]) for unit in here & found.keys()}


def _why(item: KeyValue) -> str:
    try:
        return codec.decode(item.value, Pending, item.key).message
    except BadRecord as error:
        return str(error)
