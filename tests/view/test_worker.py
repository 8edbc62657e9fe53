"""The process with the models: one request after the other, cancelled, dead and back again."""

import os
import signal
import threading

import pytest

from tove_lvlm.config import UserError
from tove_lvlm.view.desk import Desk
from tove_lvlm.view.requests import Answer, Ask, Done, Failed, Look, MeasureUsage, Seen, Text, Usage
from tove_lvlm.view.worker import Worker


@pytest.fixture(scope="module")
def started(demo_folder):
    worker = Worker([demo_folder / "tove", demo_folder / "clip"], "cpu")
    abouts = worker.start()
    yield worker, abouts
    worker.close()
    assert worker.process_id is None


def test_models_are_asked_one_after_the_other(started, scene):
    worker, abouts = started
    assert [about.name for about in abouts] == ["tove", "clip"]
    assert abouts[0].switches == ("depth", "normals", "edges", "shapes")
    *told, last = worker.run(Ask(model=0, picture=scene, question="How many?", max_new_tokens=4))
    assert isinstance(last, Answer)
    assert told
    assert all(isinstance(event, Text) for event in told)
    assert told[-1].text == last.text
    (seen,) = worker.run(Look(model=1, picture=scene))
    assert isinstance(seen, Seen)
    assert seen.gates is None

    results: list = []
    threads = [
        threading.Thread(target=lambda: results.append([*worker.run(Look(model=0, picture=scene))])) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [len(events) for events in results] == [1, 1, 1]


def test_what_is_wrong_is_one_sentence_and_the_next_request_is_answered(started, scene, tmp_path):
    worker, _ = started
    (absent,) = worker.run(Look(model=0, picture=tmp_path / "absent.png"))
    assert isinstance(absent, Failed)
    assert "absent.png" in absent.message
    assert "\n" not in absent.message
    (unknown,) = worker.run(Look(model=0, picture=scene, detached=("text",)))
    assert unknown.message.startswith("there is no expert `text`")
    (seen,) = worker.run(Look(model=0, picture=scene))
    assert isinstance(seen, Seen)


def test_who_stops_listening_cancels_and_nobody_else_hears_the_rest(started, scene, demo_folder):
    worker, _ = started
    pictures = demo_folder / "data" / "heldout" / "images"
    events = worker.run(MeasureUsage(model=0, folder=pictures, batch_size=1))
    assert isinstance(next(events), Done)
    events.close()
    (seen,) = worker.run(Look(model=0, picture=scene))
    assert isinstance(seen, Seen)


def test_only_whose_request_is_answered_can_cancel_it(started, demo_folder):
    worker, abouts = started
    desk = Desk(worker, abouts)
    request = MeasureUsage(model=0, folder=demo_folder / "data" / "heldout" / "images", batch_size=1)
    events = desk.run(request, "one")
    assert isinstance(next(events), Done)
    desk.cancel("another")
    assert isinstance(next(events), Done)
    desk.cancel("one")
    *_, last = events
    assert last == Usage(report=None)
    assert isinstance(desk.last(Look(model=0, picture=next(request.folder.iterdir())), "one"), Seen)


def test_a_process_that_dies_says_why_and_is_started_again(started, scene):
    worker, _ = started
    before = worker.process_id
    os.kill(before, signal.SIGKILL)
    (failed,) = worker.run(Look(model=0, picture=scene))
    assert isinstance(failed, Failed)
    assert "SIGKILL" in failed.message
    assert "Ask again" in failed.message
    (seen,) = worker.run(Look(model=0, picture=scene))
    assert isinstance(seen, Seen)
    assert worker.process_id != before


def test_a_model_that_cannot_be_loaded_is_told_at_once(tmp_path):
    worker = Worker([tmp_path], "cpu")
    with pytest.raises(UserError, match="holds neither a merged model"):
        worker.start()
    assert worker.process_id is None
