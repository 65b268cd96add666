"""What an operator does to dead letters: put them back, discard them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

from django.http import HttpRequest
from django.utils.translation import gettext_lazy, ngettext_lazy

from jobs import broker, control, message
from jobs.admin.verbs import Question, verb
from jobs.exceptions import MessageError


class Letter(NamedTuple):
    """Where a dead letter is."""

    queue: str
    key: str

    def call(self) -> str:
        """The id of its call; its key if it can't be read. Empty: there is no such letter."""
        found = broker.get().dead_letter_at(*self) if KEY.fullmatch(self.key) else None
        if found is None:
            return ""
        try:
            return message.decode(found.raw, self.queue, trusted=True).id
        except MessageError:
            return self.key


#: The form of a dead letter's key. No letter has another key, which only an address written by hand
#: contains; Redis would answer it with an error.
KEY = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?(\.[0-9]{1,2})?")

_GONE = ngettext_lazy("%(n)d was not there any more.", "%(n)d were not there any more.", "n")


@verb(
    permission="requeue_deadletters",
    label=gettext_lazy("Put back on the queue"),
    done=ngettext_lazy(
        "%(n)d message is back on the queue.", "%(n)d messages are back on the queue.", "n"
    ),
    gone=_GONE,
)
def requeue(letter: Letter, request: HttpRequest) -> str:
    call = letter.call()
    return call if call and control.requeue(*letter, by=request.user.get_username()) else ""


_LOST = Question(
    text=ngettext_lazy(
        "%(n)s message will be deleted for good. It can’t be run or looked at any more.",
        "%(n)s messages will be deleted for good. They can’t be run or looked at any more.",
        "n",
    ),
    yes=gettext_lazy("Yes, discard"),
    why=True,
)


@verb(
    permission="discard_deadletters",
    label=gettext_lazy("Discard…"),
    question=_LOST,
    destroys=True,
    done=ngettext_lazy("%(n)d message discarded.", "%(n)d messages discarded.", "n"),
    gone=_GONE,
)
def discard(letter: Letter, request: HttpRequest) -> str:
    call = letter.call()
    return call if call and control.discard(*letter) else ""


requeue_all = replace(
    requeue,
    name="requeue_all",
    label=gettext_lazy("Put all back…"),
    question=Question(
        text=ngettext_lazy(
            "%(n)s message goes back on its queue. If it still can’t be run, it becomes a dead "
            "letter again.",
            "%(n)s messages go back on their queues. Those that still can’t be run become dead "
            "letters again.",
            "n",
        ),
        yes=gettext_lazy("Yes, put all back"),
        why=True,
    ),
)
discard_all = replace(
    discard,
    name="discard_all",
    label=gettext_lazy("Discard all…"),
    question=replace(_LOST, yes=gettext_lazy("Yes, discard all")),
)

LETTER_VERBS = (requeue, discard)
ALL_LETTERS_VERBS = (requeue_all, discard_all)
