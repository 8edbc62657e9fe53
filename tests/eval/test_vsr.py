import json

from eval_files import shared

from tove_lvlm.eval.vsr import CATEGORY


def test_the_categories_are_those_of_the_official_file():
    official = {}
    for line in shared("vsr/rel_meta_category_dict.txt").read_text().splitlines():
        category, relations = line.split(":")
        official |= {relation.strip(): category for relation in relations.split(",")}
    assert official == CATEGORY
    assert len(CATEGORY) == 70
    assert len(set(CATEGORY.values())) == 7


def test_a_relation_named_twice_is_where_the_official_script_puts_it():
    assert CATEGORY["among"] == "Unallocated"


def test_every_relation_of_the_zero_shot_files_has_a_category():
    for split in ("dev", "test"):
        for line in shared(f"vsr/zeroshot/{split}.jsonl").read_text().splitlines():
            assert json.loads(line)["relation"] in CATEGORY
