"""The data error keeps its place through pickling and through a DataLoader worker's wrapping."""

import pickle

from tove_lvlm.data.errors import DataError


def test_place():
    assert str(DataError("bad")) == "bad"
    assert str(DataError("bad", file="a.json")) == "a.json: bad"
    assert str(DataError("bad", file="a.json", sample_id="7")) == "a.json, sample '7': bad"
    assert str(DataError("bad", sample_id="7").at(file="b.json", sample_id="8")) == "b.json, sample '7': bad"


def test_pickles():
    error = pickle.loads(pickle.dumps(DataError("bad", file="a.json", sample_id="7")))
    assert (error.reason, error.file, error.sample_id) == ("bad", "a.json", "7")
    assert str(error) == "a.json, sample '7': bad"


def test_traceback_of_a_worker_is_dropped():
    text = "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  ...\n"
    error = DataError(f"{text}tove_lvlm.data.errors.DataError: a.json, sample '7': bad\n")
    assert str(error) == "a.json, sample '7': bad"
