"""The program `unit-master`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from unit_master.settings import MasterConfig
from unitfleet import logs
from unitfleet.config import fail, load
from unitfleet.errors import InvalidConfig, Refused

PROGRAM = "unit-master"

EXIT_REFUSED = 3

logger = logging.getLogger(__name__)


def main() -> None:
    """Run until SIGTERM; exit 2 for a bad configuration, 3 when joining is refused, 1 after a fault."""
    try:
        config = load(PROGRAM, MasterConfig, sys.argv[1:], os.environ)
        logs.set_up(PROGRAM, config.log_format, config.log_level)
        # its libraries take their time: --help, --check and a bad configuration do without
        from unit_master.daemon import serve

        asyncio.run(serve(config))
    except InvalidConfig as error:
        fail(PROGRAM, error)
    except Refused as error:
        logger.error("%s%s", error, f" ({error.hint})" if error.hint else "")
        raise SystemExit(EXIT_REFUSED) from None
    except Exception:
        logger.exception("ended by a fault")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
