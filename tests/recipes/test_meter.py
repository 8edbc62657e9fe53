"""What is logged of a stage's batches."""

import json


def test_text_only_batches_train_and_count_no_image(make_trainer, world):
    talks = [talk for talk in json.loads((world / "data" / "finetune.json").read_text()) if "image" not in talk]
    (world / "text.json").write_text(json.dumps(talks * 3))
    ours = make_trainer("finetune", f"data.train=[{world}/text.json]", "train.max_steps=1", "train.save_steps=99")
    sums = []
    inner = ours.meter.read

    def read(device):
        sums.append(ours.meter.sums.clone())
        return inner(device)

    ours.meter.read = read
    ours.train()
    entropy, weight, _, batches, images, tokens = sums[0].tolist()
    assert (entropy, weight, images) == (0, 0, 0)
    assert batches == 2
    assert tokens > 0
