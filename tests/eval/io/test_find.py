"""Benchmarks are found in LLaVA's folders and as their sites pack them; what is missing is named with its source."""

import pytest

from helpers.eval_files import write_lines
from tove_lvlm.config import UserError
from tove_lvlm.eval.io.find import data_locations, find, nearest_location
from tove_lvlm.eval.tasks.pope import Pope
from tove_lvlm.eval.tasks.vqav2 import VqaV2

ROWS = [{"question_id": 1, "image": "a.jpg", "text": "Is there a dog?", "label": "yes"}]


def make(root, *names):
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_lines(path, ROWS)


def test_llavas_folders_come_first_then_the_official_packing(tmp_path):
    make(tmp_path, "output/coco/coco_pope_random.json", "val2014/")
    place = find(Pope, tmp_path)
    assert (place.labels, place.images) == ((tmp_path / "output/coco/coco_pope_random.json",), tmp_path / "val2014")
    llava = "playground/data/eval/pope"
    make(tmp_path, f"{llava}/coco/coco_pope_random.json", f"{llava}/coco/coco_pope_popular.json", f"{llava}/val2014/")
    place = find(Pope, tmp_path)
    assert [path.name for path in place.labels] == ["coco_pope_popular.json", "coco_pope_random.json"]
    assert place.images == tmp_path / llava / "val2014"


def test_what_is_missing_is_named_with_its_source(tmp_path):
    make(tmp_path, "v2_OpenEnded_mscoco_val2014_questions.json")
    with pytest.raises(UserError, match=r"(?s)missing .*v2_mscoco_val2014_annotations.json.*val2014/.*visualqa.org"):
        find(VqaV2, tmp_path)
    make(tmp_path, "v2_mscoco_val2014_annotations.json")
    assert len(find(VqaV2, tmp_path, images=False).labels) == 2
    with pytest.raises(UserError, match=r"missing \S*/val2014/; get it"):
        find(VqaV2, tmp_path)
    with pytest.raises(UserError, match="data folder .* does not exist"):
        find(VqaV2, tmp_path / "nowhere")


def test_a_layout_with_labels_only_is_not_complete(tmp_path):
    make(tmp_path, "output/coco/coco_pope_random.json")
    first, second = data_locations(Pope, tmp_path)
    assert not first.has_labels
    assert second.has_labels
    assert not second.is_complete
    assert second.missing_files() == [f"{tmp_path}/val2014/"]
    assert second.missing_files(images=False) == []


def test_of_layouts_without_files_the_first_is_nearest(tmp_path):
    assert nearest_location(data_locations(VqaV2, tmp_path)).labels == ()
