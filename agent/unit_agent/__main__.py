"""The program `unit-agent`, and `unit-agent local …`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from unit_agent import local
from unitfleet import logs
from unitfleet.config import fail, load
from unitfleet.errors import InvalidConfig, Refused

PROGRAM = "unit-agent"

EXIT_FAULT = 1
EXIT_REFUSED = 3

logger = logging.getLogger(__name__)


def main() -> None:
    """Run until SIGTERM; exit 2 for a bad configuration, 3 when the identity is in use elsewhere, 1 on a fault."""
    if sys.argv[1:2] == ["local"]:
        raise SystemExit(local.main(sys.argv[2:]))
    from unit_agent.settings import AgentConfig  # not for `unit-agent local`

    try:
        config = load(PROGRAM, AgentConfig, sys.argv[1:], os.environ)
        logs.set_up(PROGRAM, config.log_format, config.log_level)
        # its libraries take their time: --help, --check and a bad configuration do without
        from unit_agent.daemon import serve

        asyncio.run(serve(config))
    except InvalidConfig as error:
        fail(PROGRAM, error)
    except Refused as error:
        logger.error("%s%s", error, f" ({error.hint})" if error.hint else "")
        raise SystemExit(EXIT_REFUSED) from None
    except Exception:
        logger.exception("ended by a fault")
        raise SystemExit(EXIT_FAULT) from None


if __name__ == "__main__":
    main()
