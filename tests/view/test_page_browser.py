"""The page as a person uses it, in a real browser: every part of it, three people at once, a phone, the keyboard."""

import io
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.browsers import browser, needs_browser, violations
from helpers.paths import ROOT
from tove_lvlm.checkpoints import load_model
from tove_lvlm.inference.chat import Chat
from tove_lvlm.viz.gates import gates_of_images

pytestmark = [pytest.mark.full, needs_browser]

QUESTION = "How many objects are there?"
SHOTS = ROOT / "build" / "view"
"""Screenshots for people."""
READY = "body[data-tove=ready]"
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def chromium():
    SHOTS.mkdir(parents=True, exist_ok=True)
    with browser() as started:
        yield started


@pytest.fixture
def tab(chromium):
    """Opens pages, each a visitor of its own."""
    contexts = []

    def open_page(address: str, **options):
        context = chromium.new_context(**{"viewport": WIDE, **options})
        contexts.append(context)
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector(READY, state="attached", timeout=60_000)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def chat(demo_folder):
    return Chat.load(demo_folder / "tove", "cpu")


def ask(page, question: str = QUESTION) -> None:
    page.get_by_label("Question", exact=True).fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def answer_of(page, number: int = 0) -> str:
    """The answer of that number, when it is whole."""
    page.wait_for_function(
        "(n) => document.querySelectorAll('#tove-chat [data-testid=bot]').length > n && "
        "document.querySelector('#tove-stats').innerText.match(/First token after\\s+\\d/) && "
        "!document.querySelector('#tove-status').innerText.trim()",
        arg=number,
        timeout=60_000,
    )
    return page.locator("#tove-chat [data-testid=bot]").nth(number).inner_text().strip()


def stat(page, name: str) -> str:
    return page.locator(f"#tove-stats div:has(> dt:text-is('{name}')) dd").inner_text()


def wait_for_stat(page, name: str, other_than: str) -> str:
    page.wait_for_function(
        "([name, old]) => [...document.querySelectorAll('#tove-stats div')].some((one) => "
        "one.querySelector('dt')?.innerText === name && one.querySelector('dd').innerText !== old)",
        arg=[name, other_than],
        timeout=60_000,
    )
    return stat(page, name)


def test_tokens_experts_and_switches(shown, tab, demo_folder, scene, chat):
    page = tab(f"{shown.address}/?picture={scene.name}&ask=How+many+objects+are+there%3F")
    page.wait_for_selector(".tove-bar")
    assert answer_of(page) == chat.ask(scene, QUESTION)
    loaded = load_model(demo_folder / "tove")
    (gates,) = gates_of_images(loaded, [scene])
    frame = page.locator(".tove-frame").first.bounding_box()
    row, column = 2, 5
    page.mouse.move(frame["x"] + frame["width"] * (column + 0.5) / 8, frame["y"] + frame["height"] * (row + 0.5) / 8)
    assert page.locator(".tove-token-title").inner_text() == f"Token in row {row + 1}, column {column + 1} of 8"
    for k, name in enumerate(gates.names):
        figures = page.locator(f".tove-bar[data-expert={name}] .tove-bar-figures").inner_text()
        gate, strength = gates.gate_KYX[k, row, column], gates.strength_KYX[k, row, column]
        found = [float(number) for number in re.findall(r"\d+\.\d+", figures)]
        assert found == pytest.approx([gate, strength], abs=6e-4)
    page.get_by_role("radio", name="normals").click()
    assert page.locator(".tove-cell img").nth(3).get_attribute("alt").startswith("normals")
    page.screenshot(path=SHOTS / "ask.png", full_page=True)

    before = stat(page, "Weights that take part")
    page.locator("#tove-experts").get_by_label("depth").uncheck()
    after = wait_for_stat(page, "Weights that take part", before)
    assert float(after.split()[0]) < float(before.split()[0])
    page.wait_for_selector(".tove-bar-off[data-expert=depth]")
    page.get_by_role("button", name="All off").click()
    page.wait_for_function("document.querySelectorAll('.tove-bar-off').length === 4")
    nothing = wait_for_stat(page, "Weights that take part", after)
    assert float(nothing.split()[0]) < float(after.split()[0])
    loaded.tower.detach(*loaded.tower.expert_names)
    clip_alone = Chat(loaded.model, loaded.processor, loaded.image_aspect_ratio).ask(scene, QUESTION)
    assert answer_of(page) == clip_alone
    assert clip_alone != chat.ask(scene, QUESTION), "the answer changes with the experts"
    assert "off=depth,normals,edges,shapes" in page.url
    page.get_by_role("button", name="Show command").click()
    page.locator("#tove-command", has_text="tove detach").wait_for()
    assert "--experts depth,normals,edges,shapes" in page.locator("#tove-command").inner_text()


def test_the_address_shows_a_colleague_the_same(shown, tab, scene):
    page = tab(shown.address)
    page.locator("#tove-examples button").first.click()
    page.wait_for_selector(".tove-bar")
    page.locator("#tove-experts").get_by_label("edges").uncheck()
    page.wait_for_selector(".tove-bar-off[data-expert=edges]")
    ask(page)
    answer = answer_of(page)
    page.wait_for_function("location.search.includes('ask=')")
    colleague = tab(page.url)
    assert answer_of(colleague) == answer
    assert not colleague.locator("#tove-experts").get_by_label("edges").is_checked()
    assert f"picture={scene.name}" in colleague.url


def test_a_conversation_goes_on_and_starts_over(shown, tab, scene):
    page = tab(f"{shown.address}/?picture={scene.name}")
    page.wait_for_selector(".tove-bar")
    ask(page)
    answer_of(page)
    ask(page, "What color is the cube?")
    answer_of(page, 1)
    assert page.locator("#tove-chat [data-testid=user]").count() == 2
    page.locator("#tove-clear").click()
    page.wait_for_function("document.querySelectorAll('#tove-chat [data-testid=bot]').length === 0")


def test_models_are_compared(shown, tab, scene, chat, demo_folder):
    page = tab(f"{shown.address}/?picture={scene.name}")
    page.wait_for_selector(".tove-bar")
    page.get_by_role("tab", name="Compare").click()
    page.get_by_label("Question to all models").fill(QUESTION)
    page.get_by_role("button", name="Ask all").click()
    page.wait_for_function("document.body.innerText.match(/The answers differ|All give the same answer/)")
    rows = page.locator("#tove-compare-table tbody tr").all_inner_texts()
    assert rows[0].split("\t")[:2] == ["tove", chat.ask(scene, QUESTION)]
    clip = Chat.load(demo_folder / "clip", "cpu").ask(scene, QUESTION)
    assert [rows[1].split("\t")[0], rows[1].split("\t")[1].strip()] == ["clip", clip]
    page.screenshot(path=SHOTS / "compare.png", full_page=True)


def test_disagreements_are_paged_through(shown, tab):
    page = tab(shown.address)
    page.get_by_role("tab", name="Disagreements").click()
    counter = page.locator("#tove-dis-counter input, #tove-dis-counter textarea").first
    total = int(counter.input_value().split(" of ")[1])
    assert total > 3
    seconds = []
    for number in range(2, min(total, 8) + 1):
        start = time.perf_counter()
        page.get_by_role("button", name="Next").click()
        page.wait_for_function(
            "(text) => document.querySelector('#tove-dis-counter input, #tove-dis-counter textarea').value === text",
            arg=f"{number} of {total}",
        )
        seconds.append(time.perf_counter() - start)
        verdicts = page.locator("#tove-dis-shown tbody td:nth-child(2)").all_inner_texts()
        assert {verdict.split()[0] for verdict in verdicts} == {"right", "wrong"}
    assert page.locator("#tove-dis-shown img").count() == 1
    assert np.median(seconds) < 1, "0.2 s where nothing else runs"
    page.get_by_label("Part").click()
    page.get_by_role("option", name="random").click()
    page.wait_for_function("document.querySelector('#tove-dis-shown').innerText.includes('random')")
    page.screenshot(path=SHOTS / "disagreements.png", full_page=True)


def test_usage_is_measured_and_cancelled(shown, tab):
    page = tab(shown.address)
    page.get_by_role("tab", name="Usage").click()
    with shown.paused():
        page.get_by_role("button", name="Measure").click()
        page.wait_for_function("document.querySelector('#tove-usage-status').innerText.includes('Measuring')")
        time.sleep(1)
        page.locator("#tove-usage-stop").click()
        time.sleep(1)
    page.wait_for_function("document.querySelector('#tove-usage-status').innerText.includes('Cancelled')")
    page.get_by_role("button", name="Measure").click()
    page.wait_for_selector("#tove-usage-plot img", timeout=60_000)
    rows = page.locator("#tove-usage-table tbody tr").all_inner_texts()
    masses = [float(row.split("\t")[1]) for row in rows]
    assert [row.split("\t")[0] for row in rows] == ["depth", "normals", "edges", "shapes"]
    assert sum(masses) == pytest.approx(1, abs=0.01)
    page.screenshot(path=SHOTS / "usage.png", full_page=True)


def test_three_visitors_stand_in_line(shown, tab, scene):
    pages = [tab(f"{shown.address}/?picture={scene.name}") for _ in range(3)]
    for page in pages:
        page.wait_for_selector(".tove-bar")
    with shown.paused():
        for page in pages:
            ask(page)
            time.sleep(0.5)
        pages[2].wait_for_function("document.body.innerText.match(/queue: \\d\\/\\d/)")
        pages[2].screenshot(path=SHOTS / "queue.png", full_page=True)
    answers = {answer_of(page) for page in pages}
    assert len(answers) == 1


def test_who_leaves_holds_nobody_up(shown, tab, scene, chat):
    leaving, staying = (tab(f"{shown.address}/?picture={scene.name}") for _ in range(2))
    for page in (leaving, staying):
        page.wait_for_selector(".tove-bar")
    with shown.paused():
        ask(leaving)
        time.sleep(1)
        leaving.context.close()
        ask(staying)
        time.sleep(1)
    assert answer_of(staying) == chat.ask(scene, QUESTION)


def test_a_model_that_dies_says_why_and_the_page_stays(shown, tab, scene, chat):
    page = tab(f"{shown.address}/?picture={scene.name}")
    page.wait_for_selector(".tove-bar")
    os.kill(shown.worker(), signal.SIGKILL)
    ask(page)
    alert = page.locator("#tove-status [role=alert]")
    alert.wait_for()
    assert "SIGKILL" in alert.inner_text()
    assert page.get_by_label("Question", exact=True).input_value() == QUESTION, "it can be sent again"
    page.get_by_role("button", name="Ask", exact=True).click()
    assert answer_of(page) == chat.ask(scene, QUESTION)


def test_what_is_no_picture_gets_one_sentence(shown, tab, tmp_path):
    page = tab(shown.address)
    half = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)).save(half, "png")
    for name, content, said in (
        ("half.png", half.getvalue()[:9000], "half.png cannot be read"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no picture that can be read"),
    ):
        (tmp_path / name).write_bytes(content)
        page.locator("#tove-picture input[type=file]").first.set_input_files(tmp_path / name)
        page.get_by_text(said).first.wait_for()
        page.reload()
        page.wait_for_selector(READY, state="attached")


def test_the_keyboard_is_enough(shown, tab, scene, chat):
    page = tab(f"{shown.address}/?picture={scene.name}")
    page.wait_for_selector(".tove-bar")
    reached = []
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(() => { const one = document.activeElement; const box = one.closest('[id^=tove-]'); "
                "return one.className.includes('tove-frame') ? 'grid' : (box ? box.id : one.tagName) })()"
            )
        )
        if reached[-1] == "grid":
            break
    for place in ("tove-picture", "tove-examples", "tove-experts", "tove-question", "tove-ask", "grid"):
        assert place in reached, reached
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "focus is seen"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.locator(".tove-token-title").inner_text() == "Token in row 2, column 2 of 8"
    assert "depth" in page.locator(".tove-spoken").inner_text()
    page.get_by_label("Question", exact=True).focus()
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    assert answer_of(page) == chat.ask(scene, QUESTION)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_everybody_can_read_it(shown, tab, scene, scheme, size):
    """Nothing serious by axe-core in any tab; no sideways scrolling; nothing jumps while an answer comes."""
    page = tab(f"{shown.address}/?picture={scene.name}", color_scheme=scheme, viewport=size)
    page.wait_for_selector(".tove-bar")
    page.evaluate(
        "window.shift = 0; new PerformanceObserver((list) => { for (const entry of list.getEntries()) "
        "if (!entry.hadRecentInput) window.shift += entry.value }).observe({type: 'layout-shift'})"
    )
    ask(page)
    answer_of(page)
    assert page.evaluate("window.shift") < 0.05
    found = violations(page)
    for name in ("Compare", "Disagreements", "Usage"):
        choice = page.get_by_role("tab", name=name)
        if not choice.is_visible():
            page.locator(".overflow-menu > button").first.click()
            choice = page.locator(".overflow-dropdown button", has_text=name)
        choice.click()
        page.wait_for_timeout(500)
        found += violations(page)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= size["width"], name
    assert found == []
    page.get_by_role("tab", name="Ask and look").click()
    page.screenshot(path=SHOTS / f"{scheme}_{size['width']}.png", full_page=True)


def test_the_first_view_comes_soon(shown, tab):
    start = time.perf_counter()
    page = tab(shown.address)
    page.get_by_role("button", name="Ask", exact=True).wait_for()
    assert time.perf_counter() - start < 6, "3 s where nothing else runs"
    assert Path(SHOTS).is_dir()
