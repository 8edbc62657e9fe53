"""The order of questions: those about one picture come while it is kept, and no more pictures than may be."""

import numpy as np

from tove_lvlm.inference.plan import plan


def test_pictures_with_several_questions_come_in_windows():
    pictures = ["a", "b", None, "a", "c", "b", "d", "c", None, "a"]
    lengths = [5, 4, 9, 7, 3, 4, 6, 8, 2, 5]
    windows = plan(pictures, lengths, batch_size=2, most=2)
    assert [window.keeps for window in windows] == [False, True, True]
    assert windows[0].batches == [[2, 6], [8]], "about nothing, or about a picture of their own"
    assert windows[1].batches == [[7, 3], [0, 9], [4]], "the pictures with the longest questions, c and a"
    assert windows[2].batches == [[1, 5]]


def test_everything_is_asked_once_and_no_window_keeps_more_than_it_may():
    rng = np.random.default_rng(0)
    pictures = [None if one == 0 else int(one) for one in rng.integers(0, 30, 200)]
    lengths = rng.integers(1, 50, 200).tolist()
    for most in (0, 1, 4, 1000):
        windows = plan(pictures, lengths, 16, most)
        places = [place for window in windows for batch in window.batches for place in batch]
        assert sorted(places) == list(range(200))
        assert lengths[places[0]] == max(lengths), "a lack of memory shows at once"
        about = [{pictures[place] for batch in window.batches for place in batch} for window in windows]
        kept = [pictures for window, pictures in zip(windows, about, strict=True) if window.keeps]
        assert all(0 < len(pictures) <= most for pictures in kept)
        assert sum(map(len, kept)) == len(set().union(*kept)), "each picture is in one window"
        assert all(len(batch) <= 16 for window in windows for batch in window.batches)


def test_pictures_of_their_own_come_as_if_nothing_were_kept():
    pictures, lengths = list(range(9)), [3, 9, 3, 7, 1, 9, 4, 4, 4]
    assert plan(pictures, lengths, 3, most=5) == plan(pictures, lengths, 3, most=0)
    assert plan([], [], 3, 5) == []
