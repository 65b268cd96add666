"""Files as visitors send them: what is read of them, and each way in which they can be wrong."""

from __future__ import annotations

import pytest

from jobsite.demo.csvfile import CsvFile, FileProblem, Problem
from jobsite.demo.summary import RowCheck, Summary
from jobsite.demo.views import SAMPLE


def summary_of(content: bytes) -> dict:
    file = CsvFile(content)
    check = RowCheck(len(file.header))
    fitting = [values for line, values in file if check.fits(line, values)]
    summary = Summary(file.header, [check.as_dict()])
    for values in fitting:
        summary.add(values)
    return summary.as_dict()


@pytest.mark.parametrize(
    ("content", "header", "rows"),
    [
        (b"a,b\n1,2\n3,4\n", ["a", "b"], [(2, ["1", "2"]), (3, ["3", "4"])]),
        (b"a;b\r\n1;2,5\r\n", ["a", "b"], [(2, ["1", "2,5"])]),
        (b"a\tb\n1\t2", ["a", "b"], [(2, ["1", "2"])]),
        (b"\xef\xbb\xbfa\n\xc3\xa9\n", ["a"], [(2, ["é"])]),
        (b'a,b\n"1\n1",2\n\n3,4\n', ["a", "b"], [(2, ["1\n1", "2"]), (5, ["3", "4"])]),
        (b",b\n1,2\n", ["1", "b"], [(2, ["1", "2"])]),
    ],
    ids=["comma", "semicolon", "tab", "byte order mark", "line break in a value", "unnamed column"],
)
def test_rows_have_the_line_on_which_they_start(content, header, rows):
    file = CsvFile(content)
    assert file.header == header
    assert list(file) == rows


@pytest.mark.parametrize(
    ("content", "problem", "line"),
    [
        (b"PK\x03\x04\x00\x00", Problem.BINARY, 1),
        ("a,b\n1,2\n".encode("utf-16"), Problem.BINARY, 1),
        ("name\nok\nZürich\n".encode("latin-1"), Problem.ENCODING, 3),
        (b'a,b\n1,2\n"never closed,3\n4,5\n', Problem.MALFORMED, 3),
        (b'a,b\n1,"x"y\n', Problem.MALFORMED, 2),
        (b"a\n" + b"x" * 200_000, Problem.MALFORMED, 2),
        (b"\n\n", Problem.NO_HEADER, 1),
        (b" , \n1,2\n", Problem.NO_HEADER, 1),
        (b",".join([b"c"] * 101), Problem.TOO_WIDE, 1),
        (b"a\n" + b"1\n" * 100_001, Problem.TOO_LONG, 100_002),
    ],
)
def test_a_file_that_cannot_be_used_says_why_and_where(content, problem, line):
    with pytest.raises(FileProblem) as raised:
        list(CsvFile(content))
    assert (raised.value.problem, raised.value.line) == (problem, line)
    assert "%" not in problem.label % {"line": line}


def test_columns_of_numbers_have_their_range_and_mean():
    found = summary_of(b"n,mixed\n1,1\n-2.5,two\n,3\n3e1,3\n")
    number, mixed = found["columns"]
    assert number == {"name": "n", "filled": 3, "empty": 1, "min": -2.5, "max": 30, "mean": 9.5}
    assert mixed["common"][0] == ["3", 2]
    assert mixed["distinct"] == 3


@pytest.mark.parametrize("value", ["nan", "inf", "1_000", "1e99", "٣", "0x10", "9" * 30])
def test_what_only_looks_like_a_number_is_text(value):
    (column,) = summary_of(f"n\n1\n{value}\n".encode())["columns"]
    assert "common" in column


def test_ragged_rows_are_counted_and_named_and_left_out():
    found = summary_of(b"a,b\n1,2\n3\n4,5,6\n7,8\n")
    assert found["rows"] == 2
    assert found["errors"] == 2
    assert found["faulty"] == [{"line": 3, "values": 1}, {"line": 4, "values": 3}]
    assert found["columns"][0]["max"] == 7


def test_only_some_of_many_faulty_lines_are_named():
    found = summary_of(b"a,b\n" + b"x\n" * 50)
    assert found["errors"] == 50
    assert len(found["faulty"]) == 20


def test_what_is_faulty_in_many_parts_is_told_together():
    checks = [{"errors": 15, "faulty": [{"line": n, "values": 1}] * 15} for n in (2, 1002)]
    found = Summary(["a", "b"], checks).as_dict()
    assert found["errors"] == 30
    assert [fault["line"] for fault in found["faulty"]] == [2] * 15 + [1002] * 5


def test_the_sample_is_a_faultless_file_of_ten_thousand_rows():
    content = SAMPLE.read_bytes()
    assert len(content) < 1_000_000
    found = summary_of(content)
    assert (found["rows"], found["errors"]) == (10_112, 0)
    numbers = {c["name"]: c for c in found["columns"] if "mean" in c}
    assert set(numbers) == {"elevation", "lat", "lon"}
    assert -90 <= numbers["lat"]["min"] < numbers["lat"]["mean"] < numbers["lat"]["max"] <= 90
