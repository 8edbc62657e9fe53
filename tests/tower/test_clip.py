"""The frozen CLIP: a hidden state of stock CLIP, bit for bit, and no layer behind it is run."""

import pytest
import torch
from transformers import CLIPVisionModel

import tove_lvlm
from helpers import tiny_towers
from tove_lvlm.tower import clip


@pytest.mark.parametrize("layer", [-1, -2, 0, 1, 3])
@torch.no_grad()
def test_select_layer(tiny_tower_yaml, layer):
    tower = tove_lvlm.build_tower(tiny_tower_yaml, [f"clip.select_layer={layer}"])
    run = []
    for number, block in enumerate(tower.clip.encoder.layers):
        block.register_forward_hook(lambda *_, number=number: run.append(number))
    found = tower(tiny_towers.pixels()).hidden_states[0]
    stock = CLIPVisionModel.from_pretrained(tiny_tower_yaml.parent / "clip").eval()
    assert torch.equal(found, stock(tiny_towers.pixels(), output_hidden_states=True).hidden_states[layer][:, 1:])
    assert run == [*range(range(len(tower.clip.encoder.layers) + 1)[layer])]


@torch.no_grad()
def test_a_host_reads_its_layer_without_those_behind_it(tiny_tower_yaml):
    stock = CLIPVisionModel.from_pretrained(tiny_tower_yaml.parent / "clip").eval()
    expected = stock(tiny_towers.pixels(), output_hidden_states=True)
    run = []
    for number, block in enumerate(stock.encoder.layers):
        block.self_attn.register_forward_hook(lambda *_, number=number: run.append(number))
    for read in (-2, [1, -2]):
        run.clear()
        with clip.without_unread_layers(stock, read):
            found = stock(tiny_towers.pixels(), output_hidden_states=True).hidden_states[-2]
        assert torch.equal(found, expected.hidden_states[-2])
        assert run == [*range(len(stock.encoder.layers) - 1)]
    after = stock(tiny_towers.pixels(), output_hidden_states=True)
    assert torch.equal(after.last_hidden_state, expected.last_hidden_state)


@torch.no_grad()
def test_without_a_layer_it_is_stock_clip(tiny_tower_yaml):
    tower = tove_lvlm.build_tower(tiny_tower_yaml)
    stock = CLIPVisionModel.from_pretrained(tiny_tower_yaml.parent / "clip").eval()
    found, expected = (one(tiny_towers.pixels(), output_hidden_states=True) for one in (tower.clip, stock))
    assert torch.equal(found.last_hidden_state, expected.last_hidden_state)
    assert torch.equal(found.pooler_output, expected.pooler_output)
    assert len(found.hidden_states) == len(stock.encoder.layers) + 1
