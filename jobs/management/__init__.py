"""Commands of ``manage.py``."""

from __future__ import annotations

import io
import sys

# In an ASCII locale a name or a translated text that is printed must not end the command: it is
# shown as standard error shows it.
if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
    sys.stdout.reconfigure(errors="backslashreplace")
