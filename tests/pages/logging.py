"""What becomes of the examples of docs/logging.md."""

import json
import logging
import logging.config
from typing import Any

import structlog


def afterwards(page: Any) -> None:
    page.LOGGING["handlers"]["console"]["formatter"] = "json"
    logging.config.dictConfig(page.LOGGING)
    (handler,) = logging.getLogger().handlers
    record = logging.LogRecord("shop", logging.INFO, "shop.py", 1, "paid", (), None)
    assert handler.filter(record)
    written = json.loads(handler.format(record))
    assert written["message"] == "paid"
    assert "task_id" in written
    assert page.add_call(None, "info", {"event": "paid"}) == {"event": "paid"}
    structlog.reset_defaults()
