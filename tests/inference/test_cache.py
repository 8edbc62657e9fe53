"""Attention caches taken apart and put together: nothing that is kept is changed."""

import torch
from transformers import DynamicCache, LlamaConfig, MistralConfig

from tove_lvlm.inference.cache import can_be_shared, joined, read_by, split


def cache(rows: int = 3, columns: int = 4) -> DynamicCache:
    torch.manual_seed(0)
    return DynamicCache([(torch.randn(rows, 2, columns, 5), torch.randn(rows, 2, columns, 5)) for _ in range(2)])


def test_rows_are_put_together_in_any_order_and_added_to_apart():
    whole = cache()
    rows = split(whole)
    assert [one.get_seq_length() for one in rows] == [4, 4, 4]
    again = joined([rows[2], rows[0], rows[2]])
    assert torch.equal(again.layers[1].keys, whole.layers[1].keys[[2, 0, 2]])
    assert torch.equal(again.layers[0].values, whole.layers[0].values[[2, 0, 2]])
    before = whole.layers[0].keys.clone()
    again.update(torch.ones(3, 2, 1, 5), torch.ones(3, 2, 1, 5), 0)
    assert again.layers[0].keys.shape == (3, 2, 5, 5)
    again.layers[0].keys.zero_()
    assert torch.equal(whole.layers[0].keys, before)
    assert rows[2].get_seq_length() == 4


def test_what_is_only_read_does_not_grow():
    whole = cache()
    reading = read_by(whole, torch.tensor([1, 1, 0, 2]))
    new = torch.ones(4, 2, 3, 5)
    keys, values = reading.update(new, new * 2, 1)
    assert torch.equal(keys, torch.cat([whole.layers[1].keys[[1, 1, 0, 2]], new], 2))
    assert torch.equal(values, torch.cat([whole.layers[1].values[[1, 1, 0, 2]], new * 2], 2))
    assert reading.get_seq_length() == whole.get_seq_length() == 4
    assert reading.layers[1].get_mask_sizes(3) == (7, 0)


def test_a_window_of_attention_is_not_shared():
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    assert can_be_shared(LlamaConfig(**sizes))
    assert can_be_shared(MistralConfig(**sizes, sliding_window=None))
    assert not can_be_shared(MistralConfig(**sizes, sliding_window=16))
