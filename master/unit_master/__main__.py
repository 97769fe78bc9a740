"""The program `unit-master`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from unit_master.daemon import serve
from unit_master.settings import MasterConfig
from unitfleet import logs
from unitfleet.config import fail, load
from unitfleet.errors import InvalidConfig

PROGRAM = "unit-master"

logger = logging.getLogger(__name__)


def main() -> None:
    """Run until SIGTERM; exit 2 when the configuration can't be used, 1 after a fault."""
    try:
        config = load(PROGRAM, MasterConfig, sys.argv[1:], os.environ)
        logs.set_up(PROGRAM, config.log_format, config.log_level)
        asyncio.run(serve(config))
    except InvalidConfig as error:
        fail(PROGRAM, error)
    except Exception:
        logger.exception("ended by a fault")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
