"""Other families of language models the whole way: learn ten rows by heart, stop, save, load in transformers, ask.

The default run has one, with a thinking template and tied embeddings.
"""

import json

import pytest
import torch
import yaml
from transformers import LlavaForConditionalGeneration

from helpers import llava_runs, tiny_towers, training
from helpers.tiny_families import FAMILIES, make_family
from helpers.tiny_lvlm import make_data
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.data.conversations import CHAT
from tove_lvlm.inference.chat import Chat
from tove_lvlm.inference.llava import LlavaResponder

pytestmark = pytest.mark.usefixtures("one_rank")
IN_DEFAULT = ("qwen3",)
WHOLE = ("gpt2", "opt", "granite")
"""Trained without LoRA: over their frozen random embeddings it does not tell the rows apart."""
WORDS = ("red", "blue", "green", "box", "ball", "left", "right", "one", "two", "yes")


EVERY = [name if name in IN_DEFAULT else pytest.param(name, marks=pytest.mark.full) for name in FAMILIES]


@pytest.fixture(scope="module", params=EVERY)
def tuned(request, tmp_path_factory):
    """`output_dir` of stage 2 on ten rows, each with an answer of its own."""
    world = tmp_path_factory.mktemp(request.param)
    make_family(world / "llm", request.param)
    make_data(world / "data", num=len(WORDS))
    tiny_towers.make_tower_yaml(world / "tower")
    rows = [
        {
            "id": word,
            **({"image": f"{number}.png"} if number % 2 else {}),
            "conversations": [
                {"from": "human", "value": ("<image>\n" if number % 2 else "") + f"what is {WORDS[number - 1]} ?"},
                {"from": "gpt", "value": f"{word} it is"},
            ],
        }
        for number, word in enumerate(WORDS)
    ]
    (world / "data" / "finetune.json").write_text(json.dumps(rows))
    block = llava_runs.run_block(world, "finetune")
    block["train"] |= {
        "model_max_length": 600,
        "max_steps": 120,
        "per_device_train_batch_size": 10,
    }
    block["train"] |= {"gradient_accumulation_steps": 1, "save_steps": 200, "logging_steps": 20}
    block["train"]["learning_rate"] = 0.01 if request.param in WHOLE else 0.003
    block["lora"] = {"lora_enable": request.param not in WHOLE, "lora_r": 32, "lora_alpha": 64, "lora_dropout": 0.0}
    path = world / "finetune.yaml"
    path.write_text(yaml.safe_dump(block))
    assert training.run_here(llava_runs.STAGES["finetune"], path, []) == 0
    return world


def questions(world):
    """(pictures, questions, answers)."""
    pictures = [world / "data" / "images" / f"{number}.png" if number % 2 else None for number in range(len(WORDS))]
    return (
        pictures,
        [f"what is {WORDS[number - 1]} ?" for number in range(len(WORDS))],
        [f"{word} it is" for word in WORDS],
    )


def test_it_learns_says_and_stops(tuned):
    pictures, asked, answers = questions(tuned)
    talk = Chat.load(tuned / "out-finetune", device="cpu")
    assert talk.ask_many(pictures, asked, max_new_tokens=24, batch_size=10) == answers
    assert [talk.ask(*one, max_new_tokens=24) for one in zip(pictures[:2], asked[:2], strict=True)] == answers[:2]


@torch.no_grad()
def test_stock_transformers_says_the_same(tuned):
    """Stock code, stock chat template, stock generation settings: no more than the tower registered."""
    from PIL import Image
    from transformers import AutoProcessor

    folder = tuned / "out-finetune"
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    ours = open_checkpoint(folder)
    assert ours.conversation == CHAT
    pictures, asked, answers = questions(tuned)
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked[1]}]}
    said = processor.apply_chat_template([message], add_generation_prompt=True)
    picture = Image.open(pictures[1]).convert("RGB")
    inputs = processor(images=picture, text=said, return_tensors="pt", add_special_tokens=False)
    ids = LlavaResponder(ours.model, ours.processor).encode_question(asked[1], num_images=1)
    assert inputs["input_ids"][0].tolist() == ids
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    out = model.generate(**inputs, do_sample=False, max_new_tokens=24)[0, len(ids) :]
    assert processor.decode(out, skip_special_tokens=True).strip() == answers[1]
    assert torch.equal(model(**inputs).logits, ours.model(**inputs).logits)


def test_answers_are_scored_alike_in_a_batch_and_alone(tuned):
    loaded = open_checkpoint(tuned / "out-finetune")
    responder = LlavaResponder(loaded.model.float(), loaded.processor)
    _, asked, answers = questions(tuned)
    choices = [answers[number : number + 3] for number in (0, 2, 4)]
    texts = asked[0:6:2]
    batch = responder.score_choices(texts, choices, [None] * 3)
    for number, text in enumerate(texts):
        (alone,) = responder.score_choices([text], [choices[number]], [None])
        for one, other in zip(batch[number], alone, strict=True):
            assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=2e-3)
        scores = [one.log_likelihood for one in batch[number]]
        assert scores[0] == max(scores), "the answer that it learnt"


def test_the_adapter_is_the_same_model(tuned):
    if not (tuned / "out-finetune" / "adapter").is_dir():
        pytest.skip("trained without LoRA")
    adapter, merged = (open_checkpoint(tuned / "out-finetune" / name) for name in ("adapter", "."))
    assert adapter.processor.chat_template == merged.processor.chat_template
    ids_BT = torch.tensor([LlavaResponder(merged.model, merged.processor).encode_question("what is yes ?", False)])
    with torch.no_grad():
        one, other = (loaded.model.float()(input_ids=ids_BT).logits for loaded in (adapter, merged))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
