"""What a task of lmms-eval says about decoding."""

import pytest

from tove_lvlm.config import UserError
from tove_lvlm.harnesses.lmms_eval.decoding import GenerationOptions, read_generation_options
from tove_lvlm.inference.batching import DecodingConfig


def test_generation_arguments(caplog):
    given = {"until": ["\n\n"], "temperature": 0, "top_p": 0, "num_beams": 1, "do_sample": False, "min_p": 0.1}
    assert read_generation_options(given | {"max_new_tokens": 7}) == GenerationOptions(
        decoding=DecodingConfig(max_new_tokens=7)
    )
    assert given["until"] == ["\n\n"]
    assert caplog.text.count("`min_p` means nothing") == 1
    assert read_generation_options({"until": None, "top_p": None}) == GenerationOptions(
        decoding=DecodingConfig(max_new_tokens=1024)
    )
    drawn = read_generation_options({"until": "\n", "temperature": 0.5, "top_p": 0.9, "num_beams": 2})
    assert drawn.decoding == DecodingConfig(max_new_tokens=1024, temperature=0.5, top_p=0.9, num_beams=2)
    assert GenerationOptions(decoding=DecodingConfig(), until=("\n", "Q:")).cut(" a Q: b\nc") == "a"
    for broken in ({"until": 3}, {"max_new_tokens": "x"}, {"temperature": -1}, {"num_beams": 0}):
        with pytest.raises(UserError, match=next(iter(broken))):
            read_generation_options(broken)
