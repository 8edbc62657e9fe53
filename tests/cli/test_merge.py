"""`tove merge`: with images, or those that the checkpoint was trained on."""

import json

import pytest

pytestmark = pytest.mark.usefixtures("one_rank")


def test_command_takes_the_images_that_the_checkpoint_was_trained_on(checkpoints, tiny_data, tmp_path):
    from typer.testing import CliRunner

    from tove_lvlm.cli import app

    start = ["--max-steps", "2", "--json", "--options", "train.per_device_train_batch_size=4"]
    link = tmp_path / "trained"
    link.mkdir()
    for entry in checkpoints["merged"].iterdir():
        (link / entry.name).symlink_to(entry)
    with pytest.raises(Exception, match="--images"):
        CliRunner().invoke(app, ["merge", str(link), "--output", str(tmp_path / "m"), *start], catch_exceptions=False)
    (link / "run.yaml").write_text(f"data: {{image_folder: {tiny_data}/images}}")
    result = CliRunner().invoke(app, ["merge", str(link), "--output", str(tmp_path / "m"), *start])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["steps"], report["images"]) == (2, 24)
    assert (tmp_path / "m" / "lvlm" / "model.safetensors").is_file()
