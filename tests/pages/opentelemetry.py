"""What becomes of the examples of docs/opentelemetry.md."""

from typing import Any

import shop

from jobs.contrib import opentelemetry


def afterwards(page: Any) -> None:
    page.ShopConfig("shop", shop).ready()
    opentelemetry.uninstrument()
