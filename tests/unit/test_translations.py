"""Every text that is marked to be translated is translated, in every language there is.

After a change of texts, in `jobs/`, with GNU gettext::

    django-admin makemessages -l zh_Hans --no-location --no-wrap --no-obsolete
    (translate what is empty in locale/, and what is marked as fuzzy)
    django-admin compilemessages
"""

from __future__ import annotations

import ast
import functools
import gettext
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib import admin
from django.utils.text import capfirst
from django.utils.translation import override
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parents[2]
#: Folder of a catalogue → the folders whose texts it has.
SOURCES = {"jobs": ("jobs",), "jobsite/demo": ("jobsite/demo", "templates")}
CATALOGUES = [
    path
    for folder in SOURCES
    for path in sorted(ROOT.glob(f"{folder}/locale/*/LC_MESSAGES/django.po"))
]


def name_of(catalogue: Path) -> str:
    return catalogue.relative_to(ROOT).as_posix().removesuffix("/LC_MESSAGES/django.po")


every = pytest.mark.parametrize("catalogue", CATALOGUES, ids=name_of)

#: Names of gettext's functions → how many of their first arguments are texts.
FUNCTIONS = {
    **dict.fromkeys(("_", "gettext", "gettext_lazy"), 1),
    **dict.fromkeys(("ngettext", "ngettext_lazy", "pgettext", "pgettext_lazy"), 2),
}
_STRING = r"""u?'(?:\\.|[^'\\])*'|u?"(?:\\.|[^"\\])*\""""
_CALL = re.compile(rf"\b(n?p?gettext)\((({_STRING})(?:, ({_STRING}))?)")

#: What stands in a text for a value.
_PLACE = re.compile(r"%\(\w+\)|%[sdrgf]|%\.\d+f")


def key(function: str, texts: list[str]) -> str:
    """The text as a catalogue has it: with its context, and without its plural."""
    return "\x04".join(texts) if function.startswith("p") else texts[0]


def marked_in_code(path: Path) -> Iterator[tuple[str, bool]]:
    """Texts, and whether each has a plural."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        texts = [
            a.value for a in node.args[: FUNCTIONS.get(name, 0)] if isinstance(a, ast.Constant)
        ]
        if texts:
            yield key(name, texts), name.startswith("n")


def marked_in_template(path: Path) -> Iterator[tuple[str, bool]]:
    for found in _CALL.finditer(templatize(path.read_text(encoding="utf-8"))):
        texts = [ast.literal_eval(text) for text in found.groups()[2:] if text]
        yield key(found[1], texts), found[1].startswith("n")


@functools.cache
def uses(catalogue: Path) -> dict[tuple[str, bool], str]:
    """Text of this catalogue's folders, and whether it has a plural there → a file that has it."""
    found = {}
    for folder in SOURCES[catalogue.parents[3].relative_to(ROOT).as_posix()]:
        for path in (ROOT / folder).rglob("*.py"):
            found |= dict.fromkeys(marked_in_code(path), path.name)
        for path in (ROOT / folder).rglob("*.html"):
            found |= dict.fromkeys(marked_in_template(path), path.name)
    return found


def marked(catalogue: Path = CATALOGUES[0]) -> dict[str, str]:
    """Text → a file that has it."""
    return {text: file for (text, _plural), file in uses(catalogue).items()}


def read(catalogue: Path) -> dict[str, str]:
    """Text → its translation."""
    found = {}
    for entry in catalogue.read_text(encoding="utf-8").split("\n\n")[1:]:
        fields: dict[str, str] = {}
        name = ""
        for line in entry.splitlines():
            if line.startswith("#"):
                continue
            if match := re.match(r"(msg\w+(?:\[0\])?) ", line):
                name = match[1]
            fields[name] = fields.get(name, "") + ast.literal_eval(line[line.index('"') :])
        context = [fields["msgctxt"]] if "msgctxt" in fields else []
        translation = fields.get("msgstr", "") or fields.get("msgstr[0]", "")
        found["\x04".join([*context, fields["msgid"]])] = translation
    return found


def test_there_is_chinese() -> None:
    assert [name_of(path) for path in CATALOGUES] == [
        "jobs/locale/zh_Hans",
        "jobsite/demo/locale/zh_Hans",
    ]


def test_this_test_finds_what_is_marked() -> None:
    found = marked()
    assert found["every week"] == "rules.py"
    assert found["of the month\x04second"] == "crontab.py"
    assert found["It has no run left."] == "preview.html"
    assert found["Also %(n)s message that is due later"] == "purge.html"
    assert len(found) > 400


@every
def test_nothing_is_missing(catalogue: Path) -> None:
    translated = read(catalogue)
    missing = {text: file for text, file in marked(catalogue).items() if not translated.get(text)}
    assert missing == {}
    assert "fuzzy" not in catalogue.read_text(encoding="utf-8")


@every
def test_nothing_is_left_over(catalogue: Path) -> None:
    assert read(catalogue).keys() - marked(catalogue).keys() == set()


@every
def test_values_keep_their_places(catalogue: Path) -> None:
    wrong = [
        text
        for text, translation in read(catalogue).items()
        if not set(_PLACE.findall(text)) <= set(_PLACE.findall(translation))
    ]
    assert wrong == []


@every
def test_a_text_without_a_plural_gets_no_value(catalogue: Path) -> None:
    """A catalogue has one entry for a text with and without a plural. So where it is used without,
    the place for the number would be shown as it is: give one of them a context."""
    translated = read(catalogue)
    wrong = {
        text: file
        for (text, plural), file in uses(catalogue).items()
        if not plural and set(_PLACE.findall(translated[text])) > set(_PLACE.findall(text))
    }
    assert wrong == {}


@every
def test_it_is_compiled(catalogue: Path) -> None:
    with catalogue.with_suffix(".mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    for text, translation in read(catalogue).items():
        context, _, plain = text.rpartition("\x04")
        said = compiled.pgettext(context, plain) if context else compiled.gettext(plain)
        assert said == translation


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_the_dashboard_comes_first_in_the_admins_index(language: str) -> None:
    with override(language):
        names = {
            str(capfirst(model._meta.verbose_name_plural)): model.__name__
            for model in admin.site._registry
            if model._meta.app_label == "jobs"
        }
    assert names[min(names)] == "Dashboard", names
