"""What is put back for LAVIS, while it is imported or on its own classes only; its copies compute what they should."""

import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch
import transformers.modeling_utils as modeling_utils
import transformers.pytorch_utils as pytorch_utils

from tove_lvlm.hosts import old_transformers
from tove_lvlm.hosts.lavis import compat

LENT = [
    (modeling_utils, "apply_chunking_to_forward"),
    (modeling_utils, "find_pruneable_heads_and_indices"),
    (modeling_utils, "prune_linear_layer"),
    (pytorch_utils, "find_pruneable_heads_and_indices"),
]


def test_names_are_lent_and_taken_back():
    with old_transformers.lent_names() as names:
        assert all(hasattr(module, name) for module, name in LENT)
        from transformers.utils.model_parallel_utils import get_device_map
    assert sorted(names) == sorted(
        [*(f"{module.__name__}.{name}" for module, name in LENT), "transformers.utils.model_parallel_utils"]
    )
    assert not any(hasattr(module, name) for module, name in LENT)
    assert "transformers.utils.model_parallel_utils" not in sys.modules
    assert importlib.util.find_spec("transformers.utils.model_parallel_utils") is None
    with pytest.raises(NotImplementedError, match="parallelize"):
        get_device_map(1, range(1))


def test_transformers_is_as_before(lavis):
    from transformers import BertModel, GenerationMixin, OPTForCausalLM, PreTrainedModel

    for name in ("get_head_mask", "invert_attention_mask"):
        assert not hasattr(PreTrainedModel, name)
        assert not hasattr(BertModel, name)
    assert OPTForCausalLM.generate is GenerationMixin.generate
    assert not any(hasattr(module, name) for module, name in LENT)


def test_it_says_once_what_it_put_back(lavis):
    from lavis.models.blip2_models.modeling_opt import OPTForCausalLM

    names = compat.import_lavis()[1]
    assert names == []
    assert OPTForCausalLM.__dict__["_tied_weights_keys"] == {"lm_head.weight": "model.decoder.embed_tokens.weight"}


def test_old_functions_have_the_old_values():
    class Model(torch.nn.Module):
        dtype = torch.float32

    heads, rows = old_transformers.find_pruneable_heads_and_indices([1, 2], 3, 2, {0})  # heads 0..3, 0 is gone
    assert heads == {1, 2}
    assert rows.tolist() == [4, 5]  # what was head 3
    assert old_transformers.get_head_mask(Model(), None, 2) == [None, None]
    mask = old_transformers.get_head_mask(Model(), torch.tensor([1.0, 0.0, 1.0]), 2)
    assert mask.shape == (2, 1, 3, 1, 1)
    assert mask[1, 0, :, 0, 0].tolist() == [1, 0, 1]
    Model.config = SimpleNamespace(is_decoder=True)
    lowest = torch.finfo(torch.float32).min
    ahead = old_transformers.get_extended_attention_mask(Model(), torch.tensor([[1, 1, 0, 1]]), (1, 2))
    assert ahead[0, 0].tolist() == [[0, 0, lowest, lowest], [0, 0, lowest, 0]]
    inverted = old_transformers.invert_attention_mask(Model(), torch.tensor([[1, 0]]))
    assert inverted.shape == (1, 1, 1, 2)
    assert inverted[0, 0, 0].tolist() == [0, lowest]


def test_qformer_loads_bert_whole(lavis, bert, tmp_path, monkeypatch):
    """Old positions, tied words and bias: else the text branch would be partly random and nobody would say so."""
    from lavis.models import Blip2Base
    from transformers import BertForMaskedLM, BertTokenizer

    theirs = BertForMaskedLM.from_pretrained(bert).eval()
    theirs.cls.predictions.bias.data.normal_()
    theirs.save_pretrained(tmp_path)
    monkeypatch.setenv("TOVE_LAVIS_BERT", str(tmp_path))
    ours = Blip2Base.init_Qformer(4, 32)[0].eval()
    embeddings, head = ours.bert.embeddings, ours.cls.predictions
    assert embeddings.position_ids.tolist() == [list(range(128))]
    assert head.decoder.weight is embeddings.word_embeddings.weight
    assert head.decoder.bias is head.bias
    theirs.bert.embeddings.token_type_embeddings.weight.data.zero_()  # LAVIS's copy has none
    ids = BertTokenizer.from_pretrained(bert)("a red box far at the top left.", return_tensors="pt").input_ids
    before = ours(ids, is_decoder=False).logits
    torch.testing.assert_close(before, theirs(ids).logits)

    ours.resize_token_embeddings(theirs.config.vocab_size + 1)  # as BLIP-2 does for its [DEC]
    assert head.decoder.weight is embeddings.word_embeddings.weight
    assert head.decoder.bias is head.bias
    torch.testing.assert_close(ours(ids, is_decoder=False).logits[..., :-1], before)


def test_opt_loads_whole(lavis, opt):
    from lavis.models.blip2_models.modeling_opt import OPTForCausalLM as Copy
    from transformers import OPTForCausalLM

    ours, theirs = Copy.from_pretrained(opt), OPTForCausalLM.from_pretrained(opt)
    assert ours.lm_head.weight is ours.model.decoder.embed_tokens.weight
    ids = torch.tensor([[2, 67, 100, 290], [2, 9, 8, 7]])
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 1},
        {"num_beams": 3},
        {"num_beams": 3, "num_return_sequences": 2},
        {"num_beams": 1, "min_length": 9},
    ],
    ids=str,
)
def test_opt_generates_what_transformers_opt_generates(lavis, opt, settings):
    """LAVIS's way in (query tokens, repeated for each beam, before `input_ids`) against the same as `inputs_embeds`."""
    from lavis.models.blip2_models.modeling_opt import OPTForCausalLM as Copy
    from transformers import OPTForCausalLM

    ours, theirs = Copy.from_pretrained(opt).eval(), OPTForCausalLM.from_pretrained(opt).eval()
    torch.manual_seed(0)
    query, ids = torch.randn(2, 5, 64), torch.tensor([[2, 67, 20], [2, 9, 31]])
    common = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": 201, **settings}
    tokens = ours.generate(
        input_ids=ids,
        query_embeds=query.repeat_interleave(settings["num_beams"], dim=0),
        attention_mask=torch.ones(2, 8, dtype=torch.long),
        **common,
    )
    if "min_length" in settings:  # ours counts the 3 tokens of the prompt, theirs the query tokens as well
        common["min_length"] += 5
    embeds = torch.cat([query, theirs.get_input_embeddings()(ids)], dim=1)
    expected = theirs.generate(inputs_embeds=embeds, attention_mask=torch.ones(2, 8, dtype=torch.long), **common)
    copies = settings.get("num_return_sequences", 1)
    assert tokens[:, :3].tolist() == ids.repeat_interleave(copies, dim=0).tolist()
    assert tokens[:, 3:].tolist() == expected.tolist()
    assert len({tuple(row) for row in tokens.tolist()}) == 2 * copies


@pytest.mark.parametrize("own_head", [False, True], ids=["T5", "FLAN-T5"])
def test_t5_loads_whole_and_generates(lavis, tmp_path, own_head):
    """Its config of transformers 5 forgets what LAVIS's copy asks it: whether outputs are scaled."""
    from lavis.models.blip2_models.modeling_t5 import T5ForConditionalGeneration as Copy
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    special = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    theirs = T5ForConditionalGeneration(T5Config(**sizes, **special, tie_word_embeddings=not own_head)).eval()
    if own_head:
        theirs.lm_head.weight = torch.nn.Parameter(torch.randn(40, 32))
    theirs.save_pretrained(tmp_path)
    ours, theirs = (cls.from_pretrained(tmp_path).eval() for cls in (Copy, T5ForConditionalGeneration))
    ids, decoder = torch.tensor([[5, 6, 7, 1]]), torch.tensor([[0, 8, 9]])
    logits = [model(input_ids=ids, decoder_input_ids=decoder).logits for model in (ours, theirs)]
    torch.testing.assert_close(*logits)
    assert logits[0].abs().max() > 0.1
    embeds, mask = torch.randn(2, 6, 32), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    for beams in (1, 3):
        settings = {"num_beams": beams, "max_new_tokens": 6, "do_sample": False, "eos_token_id": 1}
        tokens = [model.generate(inputs_embeds=embeds, attention_mask=mask, **settings) for model in (ours, theirs)]
        assert tokens[0].tolist() == tokens[1].tolist()
