"""A schedule's rule in words, in both languages."""

from __future__ import annotations

import datetime as dt

import pytest
from django.utils import translation

from jobs.admin.schedules import crontab, rules
from jobs.models import Schedule


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (dt.timedelta(seconds=1), "every second"),
        (dt.timedelta(seconds=1.5), "every 1.5 seconds"),
        (dt.timedelta(seconds=90), "every 90 seconds"),
        (dt.timedelta(minutes=1), "every minute"),
        (dt.timedelta(hours=1), "every hour"),
        (dt.timedelta(days=1), "every day"),
        (dt.timedelta(days=10), "every 10 days"),
        (dt.timedelta(weeks=1), "every week"),
        (dt.timedelta(weeks=2), "every 2 weeks"),
    ],
)
def test_intervals(interval: dt.timedelta, words: str) -> None:
    assert rules.in_words(Schedule(interval=interval)) == words


def test_one_moment() -> None:
    at = dt.datetime(2030, 1, 2, 8, tzinfo=dt.UTC)
    words = "once, 2030-01-02 09:00:00 (Europe/Berlin)"
    assert rules.in_words(Schedule(at=at, timezone="Europe/Berlin")) == words


def test_no_rule() -> None:
    assert rules.in_words(Schedule()) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # At the minutes of each hour
        ("* * * * *", "every minute"),
        ("*/15 * * * *", "every 15 minutes"),
        ("0/15 * * * *", "hourly at minutes 0, 15, 30 and 45"),
        # which it isn't every 20 minutes, at the end of the hour
        ("*/25 * * * *", "hourly at minutes 0, 25 and 50"),
        ("5 * * * *", "hourly at minute 5"),
        ("5,35 * * * *", "hourly at minutes 5 and 35"),
        ("5-9 * * * *", "hourly at minutes 5 to 9"),
        # Within some hours
        ("* 9-17 * * *", "every minute from 09:00 to 17:59"),
        ("*/15 9-17 * * *", "every 15 minutes from 09:00 to 17:59"),
        ("30 9-17 * * *", "hourly from 09:30 to 17:30"),
        ("5 */2 * * *", "every 2 hours at minute 5"),
        ("*/10 8,20 * * *", "every 10 minutes in the hours 8 and 20"),
        # At times of the day
        ("5 7 * * *", "daily at 07:05"),
        ("0 6,18 * * *", "daily at 06:00 and 18:00"),
        ("0,30 6 * * *", "daily at 06:00 and 06:30"),
        ("0 9-17/4 * * *", "daily at 09:00, 13:00 and 17:00"),
        # On days of the week
        ("5 7 * * 7", "Sunday at 07:05"),
        ("5 7 * * 1", "Monday at 07:05"),
        ("5 7 * * mon-fri", "Monday to Friday at 07:05"),
        ("5 7 * * MON,wed", "Monday and Wednesday at 07:05"),
        ("5 7 * * 1-3,6", "Monday to Wednesday and Saturday at 07:05"),
        ("5 7 * * 2#1", "the first Tuesday of the month at 07:05"),
        ("5 7 * * fri#2,l5", "the second Friday of the month and the last Friday of the month"
         " at 07:05"),
        ("5 * * * mon", "hourly at minute 5, Monday"),
        # On days of the month
        ("5 7 1 * *", "on day 1 of the month at 07:05"),
        ("5 7 1,15 * *", "on days 1 and 15 of the month at 07:05"),
        ("5 7 1-7 * *", "on days 1 to 7 of the month at 07:05"),
        ("5 7 L * *", "on the last day of the month at 07:05"),
        ("5 7 15,L * *", "on day 15 and the last day of the month at 07:05"),
        ("5 7 28-L * *", "on days 28 to 31 of the month at 07:05"),
        ("5 7 */2 * *", "every 2 days from day 1 of the month at 07:05"),
        ("5 7 13 * 5", "on day 13 of the month or Friday at 07:05"),
        ("5 7 */2 * 5", "every 2 days from day 1 of the month if it is Friday at 07:05"),
        # In months
        ("5 7 * 3 *", "daily at 07:05, in March"),
        ("5 7 1 */3 *", "on day 1 of the month at 07:05, in January, April, July and October"),
        ("5 7 1 jun-aug *", "on day 1 of the month at 07:05, in June to August"),
        # With seconds in front
        ("0 5 7 * * *", "daily at 07:05"),
        ("30 5 7 * * *", "daily at 07:05:30"),
        ("* * * * * *", "every second"),
        ("*/10 * * * * *", "every 10 seconds"),
        ("0,30 * * * * *", "every minute at seconds 0 and 30"),
        # Field by field
        ("1-50/3 2-9 * * *", "at minute 1-50/3 and hour 2-9"),
        ("*/7 5 * * * *", "at second */7 and minute 5"),
        ("* 5 7 * * *", "every second of minute 5 and hour 7"),
        ("5 7 * * sat-mon", "at minute 5, hour 7 and day of the week sat-mon"),
        ("5 7 * 12-2 *", "at minute 5, hour 7 and month 12-2"),
        # No crontab
        ("whenever", "whenever"),
        ("* * ? * ?", "* * ? * ?"),
        ("5 7 ! x y", "at minute 5, hour 7, day of the month !, month x and day of the week y"),
    ],
)  # fmt: skip
def test_crontabs(text: str, words: str) -> None:
    assert crontab.in_words(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("*/15 * * * *", "每 15 分钟"),
        ("5 7 * * *", "每天 07:05"),
        ("0 6,18 * * mon-fri", "星期一至星期五 06:00、18:00"),
        ("*/15 9-17 * * 1,3", "星期一、星期三，09:00 至 17:59 每 15 分钟"),
        ("5 7 1,15 * *", "每月 1、15 日 07:05"),
        ("5 7 L 2 *", "二月，每月最后一天 07:05"),
        ("5 7 * * fri#2", "每月第二个星期五 07:05"),
        ("*/10 * * * * *", "每 10 秒"),
        ("*/7 5 * * * *", "秒为 */7、分为 5 时"),
    ],
)
def test_crontabs_in_chinese(text: str, words: str) -> None:
    with translation.override("zh-hans"):
        assert crontab.in_words(text) == words


def test_intervals_in_chinese() -> None:
    with translation.override("zh-hans"):
        assert rules.in_words(Schedule(interval=dt.timedelta(weeks=2))) == "每 2 周"


@pytest.mark.parametrize(
    ("crontab_text", "words"),
    [
        ("0 0 12 ? * MON-FRI", "Monday to Friday at 12:00"),
        ("0 0 12 1 * ?", "on day 1 of the month at 12:00"),
        ("0 0 ? * fri", "Friday at 00:00"),
        ("0 0 L * ?", "on the last day of the month at 00:00"),
        ("0 0 ? * *", "daily at 00:00"),
    ],
)
def test_a_question_mark_says_nothing(crontab_text: str, words: str) -> None:
    assert crontab.in_words(crontab_text) == words
