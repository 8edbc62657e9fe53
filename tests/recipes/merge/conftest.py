"""What is merged: a teacher in this process, and the pictures that checkpoints are merged on."""

from pathlib import Path

import pytest


@pytest.fixture
def tower(tiny_tower):
    """The tiny tower with its fusion awake."""
    from helpers.tiny_towers import wake

    return wake(tiny_tower).eval()


@pytest.fixture
def processor(tower):
    """Its image processor."""
    from tove_lvlm.tower.image_processing import ToVEImageProcessor

    return ToVEImageProcessor.for_tower(tower.config)


@pytest.fixture(scope="session")
def images(tiny_data) -> Path:
    """Folder of 24 pictures."""
    return tiny_data / "images"
