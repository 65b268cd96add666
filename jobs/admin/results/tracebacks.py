"""Tracebacks for people: the project's own frames stand out, those of libraries are folded."""

from __future__ import annotations

import itertools
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import ngettext

#: The first line of a frame. The lines that belong to it are indented further.
_FRAME = re.compile(r'  File "(?P<path>[^"\n]*)", line \d+')

#: Folders of code that isn't the project's. A worker may have another installation of Python, or
#: be another machine, so names count as well as this process's own folders.
_NAMES = ("/site-packages/", "/dist-packages/", "/lib/python3")
_FOLDERS = tuple(
    f"{folder.rstrip('/')}/"
    for folder in (sysconfig.get_path("stdlib"), str(Path(__file__).parents[2]))
)


def is_own(path: str) -> bool:
    """Whether a file belongs to the project: to neither Python, a library, nor this app."""
    path = path.replace("\\", "/")
    if path.startswith(("<frozen ", *_FOLDERS)):
        return False
    return not any(name in path for name in _NAMES)


def shown(text: str) -> SafeString:
    """The traceback with its foreign frames folded; all as it is when no frame is the project's."""
    parts = list(_parts(text))
    if not any(own for own, lines in parts if own is not None):
        return format_html('<pre class="jobs-value" tabindex="0">{}</pre>', text)
    found = []
    for own, group in itertools.groupby(parts, key=lambda part: part[0]):
        frames = ["".join(lines) for _own, lines in group]
        if own is False:
            count = len(frames)
            said = ngettext("%(n)d frame of a library", "%(n)d frames of libraries", count)
            found.append(
                format_html(
                    "<details><summary>{}</summary><pre>{}</pre></details>",
                    said % {"n": count},
                    "".join(frames),
                )
            )
        else:
            name = "jobs-own" if own else "jobs-said"
            found.append(format_html('<pre class="{}">{}</pre>', name, "".join(frames)))
    return format_html(
        '<div class="jobs-value jobs-traceback" tabindex="0">{}</div>',
        format_html_join("", "{}", ((one,) for one in found)),
    )


def _parts(text: str) -> Iterator[tuple[bool | None, list[str]]]:
    """Frames with whether they are the project's own; None: the lines between them."""
    own: bool | None = None
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        frame = _FRAME.match(line)
        if frame or (own is not None and not line.startswith("    ")):
            if lines:
                yield own, lines
            own, lines = (is_own(frame["path"]) if frame else None), []
        lines.append(line)
    if lines:
        yield own, lines
