"""What licences say about commercial use."""

import pytest
import timm

from tove_lvlm.licenses import NO, UNKNOWN, YES, commercial_use, license_of


@pytest.mark.parametrize(
    ("name", "commercial"),
    [
        ("Apache-2.0", YES),
        ("mit", YES),
        ("gpl-3.0", YES),
        ("dinov3-license", YES),
        ("cc-by-nc-4.0", NO),
        ("CC BY-NC-SA 4.0", NO),
        ("some-non-commercial-license", NO),
        ("research-only", NO),
        ("apple-amlr", NO),
        ("fair-noncommercial-research-license", NO),
        ("other", UNKNOWN),
        (None, UNKNOWN),
        ("sync-license", UNKNOWN),  # `nc` inside a word says nothing
    ],
)
def test_commercial_use_of_one(name, commercial):
    assert license_of(name).commercial == commercial


def test_terms_come_with_a_word_on_them():
    assert "military" in license_of("dinov3-license").note
    assert license_of("mit").note == ""
    assert license_of(None).note == "no licence is stated"


@pytest.mark.parametrize(
    ("names", "together"),
    [(["mit", "apache-2.0"], YES), (["mit", None], UNKNOWN), (["mit", None, "cc-by-nc-4.0"], NO), ([], YES)],
)
def test_one_no_is_a_no_and_one_unknown_is_no_yes(names, together):
    assert commercial_use(names) == together


def test_timm_s_licences_are_known_or_said_to_be_unknown():
    cfgs = (timm.get_pretrained_cfg(name) for name in ("vit_base_patch14_dinov2.lvd142m", "convnextv2_atto.fcmae"))
    assert [license_of(cfg.license).commercial for cfg in cfgs] == [YES, NO]
