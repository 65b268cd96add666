"""What an operator does: each act is a `Verb`, and `VerbAdmin` runs it.

To add one, write it in ``results/verbs.py``, ``queues/verbs.py`` or ``schedules/verbs.py``: a
function that acts, with `verb` above it, and its name in the list at the end of that file. List
action, address, button, question, permission and log entry follow from that. What the act does to
broker and ledger belongs to `jobs.control`. A new permission goes into the model's ``Meta``, with a
migration; new texts go into ``jobs/locale``. The tables of ``tests/unit/admin/test_verbs.py`` and
``tests/integration/admin/test_actions.py`` name every verb.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME, ActionForm
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import BadRequest, PermissionDenied, ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from jobs.exceptions import BrokerUnavailable, ConfigurationError, MessageError, SendError
from jobs.models import LABEL

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise

    Text = str | _StrPromise
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin

#: Why the broker can't be asked. A page shows the reason in place of its content.
TROUBLE = (BrokerUnavailable, ConfigurationError)

#: Why an act stops: it would fail for the remaining things as well.
FAILURES = (*TROUBLE, MessageError, SendError)

#: Most rows that are acted on at once, and most that a question names.
_MOST, _NAMED = 1000, 10

#: The app's pages, by their models, in the order in which an operator looks at them.
TABS = (
    "dashboard",
    "queues",
    "taskresult",
    "errors",
    "deadletters",
    "tasks",
    "workers",
    "schedule",
)

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

#: Characters of the reason that somebody gives for an act.
LONGEST = 500


@dataclass(frozen=True, kw_only=True)
class Question:
    """What an operator has to confirm before a verb acts.

    `text` and `yes` are for the common page. A verb that asks for more than a yes has a template of
    its own, and the values for it.
    """

    #: By the number "n" of things.
    text: Text = ""
    #: The button that confirms; empty: the verb's title.
    yes: Text = ""
    #: Whether the question is necessary for this thing.
    when: Callable[[Any], bool] = lambda thing: True
    #: A checkbox: its name in the request, and its label.
    option: tuple[str, Text] | None = None
    #: Whether the common page also asks for the reason.
    why: bool = False
    template: str = "admin/jobs/confirm.html"
    context: Callable[[str, HttpRequest], dict[str, Any]] = lambda thing, request: {}


@dataclass(frozen=True, kw_only=True)
class Verb:
    """Something that an operator does to results, schedules, queues, tasks or dead letters."""

    #: The end of its address, and of the id of its button.
    name: str
    label: Text
    #: The code name of what a person needs.
    permission: str
    #: Acts on one thing, and says what it did; empty when the thing has changed or gone meanwhile.
    #: Raises `ValidationError` when it can't be done to this thing.
    act: Callable[[Any, HttpRequest], str]
    #: Whether it can be done to this thing.
    fits: Callable[[Any], bool] = lambda thing: True
    question: Question | None = None
    #: Whether something is lost: its buttons are red.
    destroys: bool = False
    #: Messages by the number "n" of things: done, not fitting, changed or gone meanwhile.
    done: Text = ""
    left_out: Text = ""
    gone: Text = ""
    #: Its name among the actions of the list, if that is another one.
    action: str = ""
    #: The label of its button on the page of a thing, if that is another one.
    button: Callable[[Any], str] | None = None

    @property
    def title(self) -> str:
        return str(self.label).rstrip("…")


def verb(**options: Any) -> Callable[[Callable[[Any, HttpRequest], str]], Verb]:
    """Make a verb of the function that acts, under the function's name."""

    def made(act: Callable[[Any, HttpRequest], str]) -> Verb:
        return Verb(name=act.__name__, act=act, **options)

    return made


def _action_of(verb: Verb) -> Callable[..., HttpResponse | None]:
    """The verb as an action of Django's list."""

    @admin.action(description=verb.label)
    def action(
        owner: VerbAdmin, request: HttpRequest, queryset: QuerySet[Any]
    ) -> HttpResponse | None:
        chosen = list(queryset[: _MOST + 1])
        if len(chosen) > _MOST:
            said = _("There are more: %(n)d are done at once. Do it again for the others.")
            messages.warning(request, said % {"n": _MOST})
        sent = [("action", action.__name__)]
        sent += [(ACTION_CHECKBOX_NAME, row.pk) for row in chosen[:_MOST]]
        context = {"back": request.get_full_path(), "sent": sent}
        return owner.ask_or_act(request, verb, chosen[:_MOST], context)

    action.__name__ = verb.action or verb.name
    return action


def why(request: HttpRequest) -> str:
    """The reason that somebody gives for an act; empty: none."""
    # In one line: it goes into logs, and PostgreSQL stores no NUL.
    return _CONTROLS.sub(" ", request.POST.get("why", "")).strip()[:LONGEST]


def address(site: str, page: str, *args: str) -> str:
    """Where another page of the app is, such as "taskresult_change"; empty when the `AdminSite` of
    this name hasn't registered it."""
    try:
        return reverse(f"admin:jobs_{page}", args=args, current_app=site)
    except NoReverseMatch:
        return ""


class VerbActionForm(ActionForm):
    """The choice of an action, as django-unfold needs it: it shows the button that runs the action
    when its script knows of a choice."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["action"].widget.attrs["x-model"] = "action"


class VerbAdmin(_ModelAdmin):
    """Offers each of its verbs as an action of the list and as a button on a row's page."""

    action_form = VerbActionForm
    verbs: Sequence[Verb] = ()
    #: The message about a row that was deleted meanwhile.
    not_there: Text = ""

    def __init__(self, model: type[Model], admin_site: admin.AdminSite) -> None:
        self.actions = [*(self.actions or ()), *map(_action_of, self.verbs)]
        super().__init__(model, admin_site)
        if LABEL != "jobs":
            # Django looks for templates under the label that a project has given, and we have ours
            # under "jobs".
            folders = [f"{LABEL}/{self.opts.model_name}", LABEL, f"jobs/{self.opts.model_name}"]
            for page in ("change_list", "change_form"):
                places = [f"admin/{folder}/{page}.html" for folder in (*folders, "jobs")]
                if getattr(self, f"{page}_template") is None:
                    setattr(self, f"{page}_template", [*places, f"admin/{page}.html"])

    def get_urls(self) -> list[URLPattern]:
        return [
            path(
                f"<path:object_id>/{verb.name}/",
                self.admin_site.admin_view(never_cache(partial(self.verb_view, verb=verb))),
                name=f"{self.opts.app_label}_{self.opts.model_name}_{verb.name}",
            )
            for verb in self.verbs
        ] + super().get_urls()

    @property
    def urls(self) -> list[URLPattern]:
        """Named as Django does, with the app's label, and as templates and redirects of this app
        ask for them, with "jobs": the two differ where a project has given it another label."""
        found = self.get_urls()
        if LABEL == "jobs":
            return found
        names = {f"jobs_{self.opts.model_name}_": f"{LABEL}_{self.opts.model_name}_"}
        names |= {other: name for name, other in names.items()}
        return found + [
            URLPattern(one.pattern, one.callback, one.default_args, one.name.replace(start, other))
            for one in found
            for start, other in names.items()
            if isinstance(one, URLPattern) and one.name and one.name.startswith(start)
        ]

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        # Django has said where they are to be shown since 6.1, and wants to see the parameter.
        where = {} if action_location is None else {"action_location": action_location}
        hidden = {v.action or v.name for v in self.verbs if not self.may(request, v)}
        found = super().get_actions(request, **where)
        return {name: action for name, action in found.items() if name not in hidden}

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        # PostgreSQL can't be asked for it.
        return None if "\0" in object_id else super().get_object(request, object_id, from_field)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        # Filters compare with what stands in the address. No link has a NUL, nor does PostgreSQL.
        if any("\0" in value for value in request.GET.values()):
            raise BadRequest("NUL in a parameter")
        # Django would ask the database for chosen rows whose keys can't be keys.
        chosen = request.POST.getlist(ACTION_CHECKBOX_NAME)
        possible = [key for key in chosen if self._may_be_key(key)]
        if len(possible) < len(chosen):
            sent = request.POST.copy()
            sent.setlist(ACTION_CHECKBOX_NAME, possible)
            request.POST = sent  # type: ignore[assignment]
        context = {"tabs": self.tabs(request), **(extra_context or {})}
        return super().changelist_view(request, context)

    def _may_be_key(self, text: str) -> bool:
        try:
            self.opts.pk.clean(text, None)
        except ValidationError:
            return False
        return "\0" not in text

    def may(self, request: HttpRequest, verb: Verb) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.{verb.permission}")

    def verb_view(self, request: HttpRequest, object_id: str, verb: Verb) -> HttpResponse:
        """Where the button of a row's page leads."""
        row = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, row) or not self.may(request, verb):
            raise PermissionDenied
        if row is None:
            messages.warning(request, str(self.not_there))
            return HttpResponseRedirect(self.url("changelist"))
        back, answer = self.url("change", row), None
        # A GET comes from somebody who had to sign in again on the way here.
        if request.method == "POST":
            answer = self.ask_or_act(request, verb, [row], {"back": back})
        return answer or HttpResponseRedirect(back)

    def buttons(self, request: HttpRequest, row: Any) -> list[dict[str, Any]]:
        """What this person can do to this row."""
        return [
            {
                "verb": verb,
                "label": verb.button(row) if verb.button else verb.label,
                "url": self.url(verb.name, row),
                "method": "post",
            }
            for verb in self.verbs
            if self.may(request, verb) and verb.fits(row)
        ]

    def ask_or_act(
        self, request: HttpRequest, verb: Verb, chosen: Sequence[Any], context: Mapping[str, Any]
    ) -> HttpResponse | None:
        """The page with the question; None when the verb has acted, and messages say how.

        For the page, ``context`` has the address to go ``back`` to, and as ``sent`` the fields that
        are to come again with the confirmation.
        """
        fitting = [thing for thing in chosen if verb.fits(thing)]
        left_out = len(chosen) - len(fitting)
        note = verb.left_out % {"n": left_out} if left_out else ""
        question = verb.question
        if question and "confirmed" not in request.POST and any(map(question.when, fitting)):
            names = [name for name in map(self.name_of, fitting[:_NAMED]) if name]
            unnamed = max(len(fitting) - _NAMED, 0)
            context = {"names": names, "unnamed": unnamed, "note": note, **context}
            return self.ask(request, verb, len(fitting), context)
        self.act(request, verb, fitting)
        if note:
            messages.warning(request, note)
        return None

    def ask(
        self, request: HttpRequest, verb: Verb, count: int, context: Mapping[str, Any]
    ) -> HttpResponse:
        """The page with the question about so many things."""
        assert verb.question is not None
        text = verb.question.text % {"n": count, **context}
        context = {"verb": verb, "text": text, **context}
        context = {"title": _("Are you sure?"), **context}
        return self.page(request, verb.question.template, context)

    def act(self, request: HttpRequest, verb: Verb, things: Sequence[Any]) -> None:
        """Do it to each, write it to the admin's log, and say how many there were."""
        done = gone = 0
        for thing in things:
            try:
                said = verb.act(thing, request)
            except ValidationError as error:
                text = _("“%(name)s” is left as it is: %(why)s")
                values = {"name": thing, "why": " ".join(error.messages)}
                messages.error(request, text % values)
                continue
            except FAILURES as error:
                messages.error(request, str(error))
                break
            if said:
                self.log(request, verb, thing, str(said))
            done, gone = done + bool(said), gone + (not said)
        if gone:
            messages.warning(request, verb.gone % {"n": gone})
        if done:
            messages.success(request, verb.done % {"n": done, "verb": verb.title})

    def log(self, request: HttpRequest, verb: Verb, thing: Any, said: str) -> None:
        """Write to the admin's log what was done to this row."""
        self.log_change(request, thing, said)

    def name_of(self, thing: Any) -> str:
        """How a question names it; empty: not at all."""
        return str(thing)

    def page(
        self, request: HttpRequest, template: str, context: Mapping[str, Any]
    ) -> TemplateResponse:
        request.current_app = self.admin_site.name
        common = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "changelist_url": self.url("changelist"),
            "longest": LONGEST,
            "tabs": self.tabs(request),
        }
        return TemplateResponse(request, template, {**common, **context})

    def tabs(self, request: HttpRequest) -> list[dict[str, Any]]:
        """Links to the app's pages that this person may see."""
        owners = {
            m._meta.model_name: o
            for m, o in self.admin_site._registry.items()
            if m._meta.app_label == self.opts.app_label
        }
        found = []
        for name in TABS:
            owner = owners.get(name)
            if owner is not None and owner.has_view_permission(request):
                url = reverse(
                    f"admin:{self.opts.app_label}_{name}_changelist",
                    current_app=self.admin_site.name,
                )
                label = owner.opts.verbose_name_plural
                found.append({"label": label, "url": url, "current": owner is self})
        return found

    def url(self, name: str, row: Any = None) -> str:
        args = [quote(row.pk)] if row else []
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{name}"
        return reverse(name, args=args, current_app=self.admin_site.name)
