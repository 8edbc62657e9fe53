import pytest

from helpers.eval_files import write_json, write_lines
from tove_lvlm.config import UserError
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.io.rows import Row, read_json, read_rows

ROWS = [{"a": 1}, {"a": 2}, {"a": 3}]


@pytest.mark.parametrize("write", [write_json, write_lines])
def test_an_array_and_lines_give_the_same_rows(tmp_path, write):
    problems = Problems()
    rows = read_rows(write(tmp_path / "x.json", ROWS), problems)
    assert rows == [Row("x.json", number, fields) for number, fields in enumerate(ROWS, start=1)]
    assert not problems


def test_blank_lines_a_byte_order_mark_and_other_separators_are_harmless(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes('\ufeff{"a": "one\u2028two"}\r\n\r\n{"a": 2}'.encode())
    rows = read_rows(path, Problems())
    assert [(row.number, row.fields["a"]) for row in rows] == [(1, "one\u2028two"), (3, 2)]


def test_a_truncated_line_is_noted_by_its_number_and_the_others_are_kept(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": \n[4]\n{"a": 3}\n{"a"')
    problems = Problems()
    assert [row.fields["a"] for row in read_rows(path, problems)] == [1, 3]
    assert problems["unreadable line"] == ["x.jsonl:2", "x.jsonl:5"]
    assert problems["row that is not an object"] == ["x.jsonl:3"]


def test_one_object_is_a_document_and_as_rows_a_single_row(tmp_path):
    path = write_json(tmp_path / "x.json", {"a": 1})
    assert read_json(path, Problems()) == {"a": 1}
    assert read_rows(path, Problems()) == [Row("x.json", 1, {"a": 1})]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no rows"),
        (b"hello", "holds no rows"),
        (b"5", "holds no rows"),
        (b"[]", "holds no rows"),
        (b'[{"a": 1}, {"a"', "perhaps it is truncated"),
        (b"\xff\xfe{}", "not text in UTF-8"),
    ],
)
def test_a_file_without_rows_is_an_error_that_names_it(tmp_path, content, says):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        read_rows(path, Problems())
    assert str(path) in str(caught.value)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match="none.json` does not exist"):
        read_rows(tmp_path / "none.json", Problems())


def test_the_first_missing_field_is_noted_with_its_place():
    problems = Problems()
    row = Row("x.json", 7, {"a": 1})
    assert row.has(("a",), problems)
    assert not row.has(("a", "b", "c"), problems)
    assert problems.lines() == ["1 x row without `b`: x.json:7"]
