"""How Sphinx makes the site out of the pages; `make docs` runs it.

The pages are read from where they are, with the links that they have on a code host: a page of the
site has the path of its file. The index, docs/README.md, is the navigation as well.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).resolve().parent.parent
INDEX = "docs/README"

# The reference is made from the docstrings of the code in this checkout.
sys.path.insert(0, str(ROOT))
os.environ |= {
    "DJANGO_SETTINGS_MODULE": "jobsite.settings",
    "ENV_FILE": "",
    "SECRET_KEY": "docs",
    "REDIS_URL": "redis://localhost:6379/0",
}

import django  # noqa: E402

django.setup()

from pygments.lexers.configs import IniLexer  # noqa: E402
from pygments.lexers.data import YamlLexer  # noqa: E402
from sphinx.pycode import ModuleAnalyzer  # noqa: E402

import jobs.conf  # noqa: E402

project = "Jobsite"
author = copyright = "Jobsite contributors"  # noqa: A001  Sphinx's name for it
release = version = os.environ.get("DOCS_VERSION") or jobs.__version__

root_doc = INDEX
include_patterns = [
    "*.md",
    "benchmarks/README.md",
    "docs/**",
]
exclude_patterns = ["docs/site/**"]
# tests/unit/test_docs.py says which pages the index must have.
suppress_warnings = ["toc.not_included"]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
# As forges make them, and as tests/check_docs.py does.
myst_heading_anchors = 4
# In docstrings, `name` stands for something of the code, if there is such a thing.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_display_short_literal_types = True

html_theme = "furo"
html_title = f"Jobsite {release}"
html_extra_path = ["site"]
html_show_sphinx = False
html_copy_source = False


def sections(index: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """The headings of the index, each with the pages that its table names first in a row: name and
    path."""
    parts = re.split(r"^## (.+)$", index, flags=re.MULTILINE)[1:]
    return [
        (heading, re.findall(r"^\| \[([^]]+)\]\(([^)#]+)\.md\)", table, re.MULTILINE))
        for heading, table in zip(parts[::2], parts[1::2], strict=True)
    ]


def navigation(index: str) -> str:
    """The index as Sphinx wants it, in lists that no reader of the page sees."""
    lines = []
    for heading, pages in sections(index):
        entries = [f"{name} <{path}>" for name, path in pages]
        lines += ["", "```{toctree}", ":hidden:", f":caption: {heading}", "", *entries, "```"]
    return "\n".join(lines)


def settings() -> str:
    """A table of the keys of JOBS: what is written above each in the code, its type and default."""
    meanings = ModuleAnalyzer.for_module("jobs.conf").find_attr_docs()
    default = jobs.conf.Conf()
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for field in dataclasses.fields(default):
        kind = str(field.type).replace("|", "\\|")
        value, meaning = getattr(default, field.name), meanings["Conf", field.name]
        rows.append(f"| `{field.name.upper()}` | `{kind}` | `{value!r}` | {' '.join(meaning)} |")
    return "\n".join(rows)


def complete(app: Sphinx, docname: str, content: list[str]) -> None:
    if docname == INDEX:
        content[0] += navigation(content[0])
    elif docname == "docs/reference/api":
        content[0] = content[0].replace("<!-- The settings of the code. -->", settings())


def find(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.TextElement
) -> nodes.Node | None:
    """What a docstring means by a name such as `Retry`, if only one thing has it."""
    if node.get("reftype") != "obj":
        return None
    python = env.domains.python_domain
    same = [name for name in python.objects if name.endswith(f".{node['reftarget']}")]
    if len(same) != 1:
        return None
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", same[0], node, shown)


def setup(app: Sphinx) -> None:
    app.connect("missing-reference", find)
    app.add_lexer("conf", IniLexer)
    app.add_lexer("procfile", YamlLexer)
    app.connect("source-read", complete)
