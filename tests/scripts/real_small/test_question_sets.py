"""Questions about packaged pictures: what is asked, what is held out, and that no answer gives another one away."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("scripts")


@pytest.fixture
def asked(packages, scripts):
    from real_small.question_sets import all_pictures

    return {picture.name: picture for picture in all_pictures(packages)}


def test_signs_mirrored_stamps_and_shapes_are_left_out(asked):
    drawn = {name for name in asked if name.startswith(("stamps", "clipart"))}
    assert drawn == {
        "stamps-blackbird",
        "stamps-lion",
        "stamps-voyager",
        "clipart-cat_01",
        "clipart-cat_02",
        "clipart-penguin",
    }


def test_naming_and_presence_by_what_people_wrote(asked):
    for name, concept in {"stamps-lion": "cat", "stamps-blackbird": "bird", "clipart-penguin": "bird"}.items():
        naming, *presence = asked[name].questions
        assert (naming.family, naming.answer) == ("naming", concept)
        assert len(set(naming.choices)) == 10
        assert concept in naming.choices
        for question in presence:
            assert (question.answer == "yes") == (concept in question.text)
    assert asked["stamps-voyager"].questions == ()
    assert asked["stamps-voyager"].caption == "The Voyager probe."
    assert asked["clipart-cat_01"].caption is None


def test_held_out_pictures_are_asked_both_and_learned_ones_one(asked):
    for name, picture in asked.items():
        if name.startswith(("stamps", "clipart")) and picture.questions:
            assert len(picture.questions) == (3 if picture.is_held_out else 2)
            if picture.is_held_out:
                assert {question.answer for question in picture.questions[1:]} == {"yes", "no"}


def test_pictures_of_one_title_are_on_one_side(asked):
    from real_small.question_sets import title_key

    assert title_key("Apple 2") == title_key("apple (3)") == "apple"
    assert asked["clipart-cat_01"].is_held_out == asked["clipart-cat_02"].is_held_out


def test_the_other_two_keep_their_own_split(asked):
    easy = [picture for name, picture in asked.items() if name.startswith("easy-")]
    assert sum(picture.is_held_out for picture in easy) == 3 == len(easy) // 2
    assert all(question.choices == ("blue", "yes", "no") for picture in easy for question in picture.questions)
    fashion = {name: picture for name, picture in asked.items() if name.startswith("fashion-")}
    assert {name: picture.questions[0].answer for name, picture in fashion.items()}["fashion-t10k-3"] == "dress"
    assert [picture.is_held_out for picture in fashion.values()] == [False] * 5 + [True] * 4
    assert fashion["fashion-train-0"].image.size == (112, 112)


def test_transparent_is_white(asked):
    assert np.asarray(asked["stamps-lion"].image).min() == 255


def test_concepts():
    from real_small.concepts import WORDS, concepts, presence_question

    assert concepts(["Ice Cream Cone", "food"]) == {"ice cream"}
    assert concepts(["A Sumatran tiger."]) == {"cat"}
    assert concepts(["cat and dog"]) == {"cat", "dog"}
    assert concepts(["catapult"]) == set()
    words = [word for of_concept in WORDS.values() for word in of_concept.split()]
    assert len(words) == len(set(words)), "a word stands for one concept"
    assert presence_question("airplane") == "Is there an airplane in the picture?"
    assert presence_question("fruit") == "Is there any fruit in the picture?"


def test_the_script_writes_the_same_files_each_time(packages, tmp_path, monkeypatch):
    import make_real_small_data

    source = tmp_path / "source"
    source.mkdir()
    (source / "packages").symlink_to(packages)
    for name in ("one", "two"):
        make_real_small_data.main(["--source", str(source), "--to", str(tmp_path / name)])
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    rows = json.loads((tmp_path / "one" / "train" / "finetune.json").read_text())
    assert all(len(row["conversations"]) == 2 for row in rows), "one answer would give the next one away"
    assert all((tmp_path / "one" / "train" / "images" / row["image"]).is_file() for row in rows)
    lines = (tmp_path / "one" / "heldout" / "questions.jsonl").read_text().splitlines()
    held_out = [json.loads(line) for line in lines]
    assert not {row["image"] for row in held_out} & {row["image"] for row in rows}
    assert all(row["answer"] in row["choices"] for row in held_out)
    pictures = json.loads((tmp_path / "one" / "heldout" / "pictures.json").read_text())
    assert sorted(row["image"] for row in pictures) == sorted({row["image"] for row in held_out})


def test_without_packages_the_command_is_named(tmp_path, capsys):
    import make_real_small_data

    with pytest.raises(SystemExit):
        make_real_small_data.main(["--source", str(tmp_path), "--to", str(tmp_path / "data")])
    assert "python scripts/fetch_real_small.py" in capsys.readouterr().err
