"""Rows of a batch as tensors, by hand."""

import torch

from tove_lvlm.data.row_layout import Row, at_labels, concatenated, padded

ROWS = [Row([1, 5, 6], [-100, 5, 6]), Row([7, 8], [7, 8]), Row([9, 10, 11, 12], [-100, -100, 11, -100])]
HIDDEN = Row([99, 99], [-100, -100])


def plain(batch):
    return {key: value.tolist() if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def test_rows_are_concatenated():
    assert plain(concatenated(ROWS, None)) == {
        "input_ids": [[1, 5, 6, 7, 8, 9, 10, 11, 12]],
        "labels": [[-100, 5, 6, -100, 8, -100, -100, 11, -100]],  # 7 would be predicted from another row
        "position_ids": [[0, 1, 2, 0, 1, 0, 1, 2, 3]],
        "row_lengths": (3, 2, 4),
        "cu_seq_lens_q": [0, 3, 5, 9],
        "cu_seq_lens_k": [0, 3, 5, 9],
        "max_length_q": 4,
        "max_length_k": 4,
    }


def test_hidden_tokens_are_a_row_of_their_own_or_masked():
    found = concatenated(ROWS[:2], HIDDEN)
    assert found["input_ids"].tolist() == [[1, 5, 6, 7, 8, 99, 99]]
    assert found["row_lengths"] == (3, 2, 2)
    assert found["labels"][0, -2:].tolist() == [-100, -100]
    found = padded(ROWS[:2], HIDDEN, pad_token_id=0)
    assert found["input_ids"].tolist() == [[1, 5, 6, 99, 99], [7, 8, 0, 0, 0]]
    assert found["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]


def test_only_places_that_predict_a_label_are_kept():
    found = at_labels(concatenated(ROWS, None))
    assert found["logits_to_keep"].tolist() == [[0, 1, 3, 6]]
    assert found["labels"].tolist() == found["shift_labels"].tolist() == [[5, 6, 8, 11]]
    found = at_labels(padded(ROWS, None, pad_token_id=0))
    assert found["logits_to_keep"].tolist() == [[0, 1], [0, 0], [1, 0]]
    assert found["labels"].tolist() == found["shift_labels"].tolist() == [[5, 6], [8, -100], [11, -100]]
