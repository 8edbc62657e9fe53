"""The whole page: what it shows, that nothing of a file becomes markup, and where it may be written."""

import json
import math
import re
from html.parser import HTMLParser

import pytest
import yaml

from helpers.eval_files import write_json
from helpers.report_files import clip_line, log_line, make_evaluation, make_gates, make_labels, make_run, make_usage
from tove_lvlm.config import UserError
from tove_lvlm.report.examples import find_examples
from tove_lvlm.report.findings import find_demos, find_evaluations, find_gates, find_usage
from tove_lvlm.report.page import MARK, Contents, check_output, page, write_report
from tove_lvlm.report.reading import read_runs

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"
VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Elements that are open at each text; everything must be closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts, self.ids = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def contents_of(runs, data=None, **given):
    evaluations = find_evaluations(runs, given.get("evals", ()))
    return Contents(
        runs=runs,
        evaluations=evaluations,
        examples=[find_examples(one, data, 2) for one in evaluations],
        usage=find_usage(runs, given.get("usage", ())),
        gates=find_gates(runs, given.get("gates", ())),
        demos=find_demos(runs),
    )


@pytest.fixture
def whole(tmp_path):
    """A report of two runs with everything that a report may have."""
    made_by = {"versions": {"torch": "9.8.7"}, "commit": "abc1234", "hardware": "a CPU, 2 cores", "world_size": 2}
    make_run(tmp_path / "out" / "clip", [clip_line(10), clip_line(20)], config={"train": {"seed": 3, "bf16": False}})
    make_run(tmp_path / "out" / "tove", config={"train": {"seed": 4, "bf16": False}}, made_by=made_by)
    part = {"families": {"shape": {"accuracy": 0.625, "n": 8}}, "overall": {"accuracy": 0.5, "n": 16}}
    write_json(tmp_path / "out" / "results.json", {"chance": part, "variants": {"clip": part, "tove": part}})
    labels = make_labels(tmp_path / "data")
    evals = [
        make_evaluation(tmp_path / "eval" / name, labels, {1: "yes", 2: text, 3: "no"}, model=name)
        for name, text in (("clip", "no"), ("tove", "yes"))
    ]
    given = {"evals": evals, "usage": [make_usage(tmp_path / "u")], "gates": [make_gates(tmp_path / "g")]}
    return contents_of(read_runs([tmp_path / "out"]), tmp_path / "data", **given)


def cells(text, row):
    """The cells of the first table row with this head."""
    found = re.search(rf'<th scope="row">{re.escape(row)}</th>(.*?)</tr>', text)
    return re.findall(r"<td>(.*?)</td>", found[1])


def test_what_a_report_shows(whole):
    text = page(whole)
    Reader(text)
    assert cells(text, "optimizer steps") == ["20 of 30 (going on, or stopped)", "30 of 30 (all)"]
    assert cells(text, "last loss") == ["2", "1.5"]
    assert cells(text, "last gate entropy") == ["not logged", "0.6"]
    assert cells(text, "experts, by last gate mass") == ["not logged", "depth 0.550, edges 0.450"]
    assert cells(text, "images per second, median") == ["25", "30"]
    assert cells(text, "shape") == ["62.5", "62.5", "62.5"]
    assert cells(text, "accuracy") == ["0.1667", "0.3333"]
    assert cells(text, "random: n") == ["6", "6"]
    assert cells(text, "edges") == ["0.75", "0.5", "0.25", "0.125", "-0.0625", "-", "2.5"]
    assert cells(text, "train.seed") == ["3", "4"]
    assert '<tr class="differs"><th scope="row">≠ train.seed</th>' in text
    assert '<tr><th scope="row">train.bf16</th><td>false</td>' in text
    assert cells(text, "commit") != []
    versions = text[text.index('<section id="versions-and-hardware">') :]
    assert cells(versions, "torch") == ["not recorded", "9.8.7"]
    assert cells(versions, "hardware") == ["not recorded", "a CPU, 2 cores"]
    assert text.count("✗ wrong") == 3
    assert text.count("✓ right") == 3
    assert "No gate mass logged: clip." in text
    assert "not logged: clip" in text


def test_it_needs_nothing_beside_it(whole):
    text = page(whole)
    reader = Reader(text)
    assert "http:" not in text
    assert "https:" not in text
    addresses = [a[key] for _, a in reader.tags for key in ("src", "href", "xlink:href", "srcset") if key in a]
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    inner = {address[1:] for address in addresses if address.startswith("#")}
    assert inner <= set(reader.ids)
    assert len(reader.ids) == len(set(reader.ids))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in reader.tags}
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    used, defined = set(re.findall(r"var\((--\w+)\)", text)), set(re.findall(r"(--\w+):", text))
    assert used <= defined
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert all(a["alt"] for tag, a in reader.tags if tag == "img")


def test_the_same_files_give_the_same_bytes(whole, tmp_path):
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, whole)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_nothing_of_a_file_becomes_markup(tmp_path):
    lines = [log_line(10, **{HOSTILE: 1.0, f"gate_mass/{HOSTILE}": 0.5}), log_line(20)]
    config = {HOSTILE: HOSTILE, "train": {"output_dir": HOSTILE, "list": [HOSTILE]}}
    made_by = {"versions": {HOSTILE: HOSTILE}, "commit": HOSTILE}
    run = make_run(tmp_path / "run", lines, config, made_by)
    labels = make_labels(tmp_path / "data", 2)
    labels.write_text(labels.read_text().replace("Is there", json.dumps(HOSTILE)[1:-1]))
    evaluation = make_evaluation(tmp_path / "eval", labels, {1: HOSTILE, 2: "no"}, model=HOSTILE)
    answers = (evaluation / "answers.jsonl").read_text().replace("Is there", json.dumps(HOSTILE)[1:-1])
    (evaluation / "answers.jsonl").write_text(answers)
    record = json.loads((evaluation / "record.json").read_text())
    record |= {"notes": [HOSTILE], "problems": {HOSTILE: {"count": HOSTILE}}, "hardware": HOSTILE}
    write_json(evaluation / "record.json", record | {"groups": {HOSTILE: {HOSTILE: 1.0}}})
    usage, gates = make_usage(tmp_path / "u"), make_gates(tmp_path / "g")
    for file in (usage / "usage.json", gates / "gates.json"):
        file.write_text(re.sub("depth|ckpt|a.png", lambda _: json.dumps(HOSTILE)[1:-1], file.read_text()))
    runs = read_runs([run])
    text = page(contents_of(runs, tmp_path / "data", evals=[evaluation], usage=[usage], gates=[gates]))
    reader = Reader(text)
    assert not {"script"} & {tag for tag, _ in reader.tags}
    assert not [a for _, a in reader.tags if any(key.startswith("on") for key in a)]
    assert all(a["src"].startswith("data:") for tag, a in reader.tags if tag == "img")
    shown = "".join(reader.texts)
    for place in (HOSTILE, f"train.{'list'}", f": {HOSTILE}", f"{HOSTILE} a thing 2?"):
        assert place in shown
    assert shown.count("<script>alert(1)</script>") > 15


@pytest.mark.parametrize("broken", ["empty", "all nan", "no yaml"])
def test_a_run_with_nothing_to_draw(tmp_path, broken):
    run = make_run(tmp_path / "run", [] if broken == "empty" else [{"step": 1, "max_steps": 2, "loss": math.nan}])
    if broken == "no yaml":
        (run / "run.yaml").unlink()
    text = page(contents_of(read_runs([run])))
    Reader(text)
    assert cells(text, "last loss") == ["not logged"]
    assert "Not logged." in text
    if broken == "all nan":
        assert "`loss` is not a finite number at step 1" in text
    if broken == "no yaml":
        assert "There is no run.yaml." in text


def test_values_of_the_yaml_as_they_are_read_again(tmp_path):
    config = {"train": {"none": None, "on": True, "empty": "", "rate": 1e-3, "text": "true", "list": ["ä", 2]}}
    text = page(contents_of(read_runs([make_run(tmp_path / "run", config=config)])))
    told = {key: cells(text, f"train.{key}") for key in config["train"]}
    assert told == {
        "none": ["null"],
        "on": ["true"],
        "empty": ["&quot;&quot;"],
        "rate": ["0.001"],
        "text": ["true"],
        "list": ["[&quot;ä&quot;, 2]"],
    }
    assert yaml.safe_load("0.001") == 1e-3


def test_where_a_report_may_be_written(tmp_path, whole):
    output, run = tmp_path / "report.html", tmp_path / "out" / "tove"
    check_output(output, [run])
    write_report(output, whole)
    assert MARK in output.read_text()
    check_output(output, [run])  # an older report may be replaced
    for place, message in [
        (run / "report.html", "lies in the input"),
        (run, "is the input"),
        (tmp_path / "data", "is a folder; name a file"),
    ]:
        with pytest.raises(UserError, match=message):
            check_output(place, [run])
    (tmp_path / "thesis.html").write_text("<p>mine</p>" + "x" * 2000 + MARK)
    with pytest.raises(UserError, match="exists and is no report of `tove report`"):
        check_output(tmp_path / "thesis.html")
