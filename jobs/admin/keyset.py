"""Pages of a list by key: no page number, no count, no OFFSET.

A ledger has millions of rows. Counting them reads them all, and so does OFFSET up to its page;
"the next fifty below this key" reads fifty, on the first page as on the last.
"""

from __future__ import annotations

from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import Paginator
from django.http import HttpRequest

OLDER, NEWER = "older", "newer"


class KeysetChangeList(ChangeList):
    """Newest key first. The page is told by ``p=older:<key>`` or ``p=newer:<key>``, in the
    parameter that Django itself drops when the filters change."""

    #: Query strings of the neighbouring pages, or empty where there is none.
    newest_url = newer_url = older_url = ""

    def get_results(self, request: HttpRequest) -> None:
        rows, newer, older = self._page(request.GET.get(PAGE_VAR, ""))
        if newer:
            self.newest_url = self.get_query_string()
            self.newer_url = self._url(NEWER, rows[0].pk) if rows else self.newest_url
        if older:
            self.older_url = self._url(OLDER, rows[-1].pk)
        self.result_list = rows
        self.paginator = Paginator(rows, self.list_per_page)
        # Equal, and equal to what is on the page: Django's templates then print no count, and
        # offer no "select all of them", which would load them all.
        self.result_count = self.full_result_count = len(rows)
        self.show_full_result_count = False
        self.show_admin_actions = bool(rows)
        self.can_show_all = self.multi_page = False

    def _page(self, place: str) -> tuple[list, bool, bool]:  # type: ignore[type-arg]
        """Rows, and whether there are newer and older ones."""
        size = self.list_per_page
        direction, _, key = place.partition(":")
        if key and direction == NEWER:
            found = list(self.queryset.filter(pk__gt=key).order_by("pk")[: size + 1])
            if len(found) >= size:
                return found[:size][::-1], len(found) > size, True
            key = ""  # near the top: the first page, whole
        rows = self.queryset.order_by("-pk")
        if key and direction == OLDER:
            rows = rows.filter(pk__lt=key)
        found = list(rows[: size + 1])
        return found[:size], bool(key), len(found) > size

    def _url(self, direction: str, key: object) -> str:
        return self.get_query_string({PAGE_VAR: f"{direction}:{key}"})
