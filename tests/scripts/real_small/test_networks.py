"""Each fetched network against its own runtime; skipped by name where it was not fetched."""

import pytest

from helpers.paths import ROOT

SOURCE = ROOT / "outputs" / "real_small" / "source"
NAMES = ("smollm2", "efficientnet_lite2", "dinov2_s14", "hed", "u2net", "selfie_segmentation", "ssd_mobilenet")
HELD_AGAINST = {
    "smollm2": {"tensors": 272, "answer": "The capital of France is Paris."},
    "efficientnet_lite2": {"top1": 285},  # Egyptian cat
}
AT_MOST = {
    "smollm2": {"largest_difference": 0.5},  # of bfloat16's steps: what rounding takes
    "efficientnet_lite2": {"largest_difference": 1e-4},
    "dinov2_s14": {"largest_difference": 1e-3},
    "hed": {"edges": 0.4},
    "u2net": {"largest_difference": 1e-5, "salient": 0.6},
    "selfie_segmentation": {"largest_difference": 1e-5},
    "ssd_mobilenet": {"chelsea_difference": 1e-4, "astronaut_difference": 1e-4},
}
AT_LEAST = {
    "efficientnet_lite2": {"probability": 0.5},
    "dinov2_s14": {"cosine": 0.9999},
    "hed": {"edges": 0.05},
    "u2net": {"salient": 0.2},
    "selfie_segmentation": {"astronaut": 0.4},
    "ssd_mobilenet": {"chelsea": 0.8, "astronaut": 0.6},
}


def test_every_network_is_here(scripts):
    from real_small.networks import NETWORKS

    assert tuple(NETWORKS) == NAMES


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_a_network_is_equal_to_its_source(scripts, name):
    from real_small.networks import NETWORKS

    network = NETWORKS[name]
    if not (SOURCE / "files" / network.file).is_file():
        pytest.skip(f"{network.file} was not fetched: python scripts/fetch_real_small.py --only networks")
    found = network.check(SOURCE)
    for key, value in HELD_AGAINST.get(name, {}).items():
        assert found[key] == value, key
    for key, value in AT_MOST.get(name, {}).items():
        assert found[key] <= value, key
    for key, value in AT_LEAST.get(name, {}).items():
        assert found[key] >= value, key
