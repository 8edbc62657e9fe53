"""A base model with its experts merged: the student CLIP in front of the very same decoder."""

import pytest
import torch
from transformers import CLIPVisionModel

from helpers import merge_runs
from helpers.tiny_base import build_base, save_base
from helpers.tiny_decoders import make_decoder
from helpers.tiny_towers import pixels
from helpers.training import same, weights
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.inference.chat import Chat

pytestmark = pytest.mark.usefixtures("one_rank")


def test_a_base_model_is_merged(tmp_path, tiny_tower_yaml, images):
    base = save_base(tmp_path / "base", *build_base(make_decoder(tmp_path / "decoder"), tiny_tower_yaml))
    assert merge_runs.run(merge_runs.write_yaml(tmp_path, base, images)) == 0
    out = tmp_path / "out"
    merged, original = open_checkpoint(out / "lvlm"), open_checkpoint(base)
    assert merged.tower.expert_names == []
    text = {name: t for name, t in weights(base).items() if name.startswith(("decoder.", "enc_to_dec_proj."))}
    assert text
    assert same({name: t for name, t in weights(out / "lvlm").items() if not name.startswith("encoder.")}, text)
    student = CLIPVisionModel.from_pretrained(out / "clip").eval()
    with torch.no_grad():
        tokens = student(pixels(), output_hidden_states=True).hidden_states[merged.tower.config.select_layer][:, 1:]
        seen = merged.model.encoder(pixels()).last_hidden_state
    torch.testing.assert_close(seen, tokens)
    with torch.no_grad():
        assert not torch.allclose(original.model.encoder(pixels()).last_hidden_state, seen)
    assert isinstance(Chat.load(out / "lvlm", device="cpu").ask(sorted(images.iterdir())[0], "what ?"), str)
