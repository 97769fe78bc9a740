"""Libraries that only these commands need: loaded when used; one that is missing is told with its extra."""

from __future__ import annotations

import importlib
from typing import Any

from unitctl.failures import Failure


def load(module: str, extra: str, what: str) -> Any:
    """Return a module; raises `Failure` that names the extra it comes with."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Failure(
            f"cannot {what}: {error.name} is not installed", hint=f"pip install 'unitfleet[{extra}]'"
        ) from error
