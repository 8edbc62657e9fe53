"""The base model out of every kind of decoder: it learns, generates, is saved and loaded by stock transformers."""

import pytest
import torch
from transformers import VisionEncoderDecoderModel

from helpers import tiny_towers
from helpers.tiny_base import build_base
from helpers.tiny_decoders import make_decoder
from tove_lvlm.config import ConfigError
from tove_lvlm.config.encoder_decoder import EncoderDecoderConfig
from tove_lvlm.lvlm.encoder_decoder import build_encoder_decoder, load_decoder
from tove_lvlm.storage import WeightsError, load_tensors, save_tensors
from tove_lvlm.tower.modeling import ToVEVisionModel

KINDS = ("roberta", "bert", "gpt2", "bart")


@pytest.fixture(scope="module", params=KINDS)
def decoder(request, tmp_path_factory):
    return make_decoder(tmp_path_factory.mktemp("decoder") / request.param, request.param)


def logits(model, ids=((0, 5, 6, 7), (0, 8, 9, 10))):
    with torch.no_grad():
        return model(pixel_values=tiny_towers.pixels(), decoder_input_ids=torch.tensor(ids)).logits


def test_it_looks_at_the_experts(decoder, tiny_tower_yaml):
    model, _ = build_base(decoder, tiny_tower_yaml)
    with_experts = logits(model)
    model.encoder.detach("depth")
    assert (logits(model) - with_experts).abs().max() > 1e-3


def test_beams_with_cache_are_those_without_and_of_one_image_at_a_time(decoder, tiny_tower_yaml):
    """Likelihoods of both beams, and the words of the best; second ones may be equally likely to the last bit."""
    model, _ = build_base(decoder, tiny_tower_yaml)
    pixels = tiny_towers.pixels(3)

    def beams(pixels, **options):
        options |= {"num_beams": 3, "max_new_tokens": 6, "num_return_sequences": 2}
        found = model.generate(pixel_values=pixels, return_dict_in_generate=True, output_scores=True, **options)
        return found.sequences[::2], found.sequences_scores

    words, scores = beams(pixels)
    uncached_words, uncached_scores = beams(pixels, use_cache=False)
    assert torch.equal(uncached_words, words)
    torch.testing.assert_close(uncached_scores, scores, atol=1e-4, rtol=1e-4)
    for image, row, of_image in zip(pixels, words, scores.split(2), strict=True):
        alone_words, alone_scores = beams(image[None])
        assert torch.equal(alone_words[0], row[: alone_words.shape[1]])
        torch.testing.assert_close(alone_scores, of_image, atol=1e-4, rtol=1e-4)


def test_generation_goes_on_from_a_prompt(decoder, tiny_tower_yaml):
    model, _ = build_base(decoder, tiny_tower_yaml)
    start = model.config.decoder_start_token_id
    prompt = torch.tensor([[start, 7, 8]] * 2)
    out = model.generate(pixel_values=tiny_towers.pixels(), decoder_input_ids=prompt, max_new_tokens=1)
    assert torch.equal(out[:, :3], prompt)
    assert torch.equal(out[:, 3], logits(model, prompt.tolist())[:, -1].argmax(-1))


def test_stock_transformers_saves_and_loads_it(decoder, tiny_tower_yaml, tmp_path):
    model, processor = build_base(decoder, tiny_tower_yaml)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, report = VisionEncoderDecoderModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert isinstance(loaded.encoder, ToVEVisionModel)
    assert torch.equal(logits(loaded.eval()), logits(model))
    head, words = loaded.get_output_embeddings().weight, loaded.get_input_embeddings().weight
    assert head is words
    assert loaded.generation_config.decoder_start_token_id == model.config.decoder_start_token_id


def test_clip_is_the_tower_without_experts(decoder, tiny_tower_yaml):
    clip, _ = build_base(decoder, tiny_tower_yaml, vision_tower="clip")
    tove, _ = build_base(decoder, tiny_tower_yaml)
    tove.encoder.detach(*tove.encoder.expert_names)
    assert clip.encoder.expert_names == []
    clip.decoder.load_state_dict(tove.decoder.state_dict())
    if hasattr(clip, "enc_to_dec_proj"):
        clip.enc_to_dec_proj.load_state_dict(tove.enc_to_dec_proj.state_dict())
    assert torch.equal(logits(clip), logits(tove))


def test_everything_of_the_decoder_but_cross_attention_is_as_it_was(decoder, tiny_tower_yaml):
    from transformers import AutoModelForCausalLM

    model, _ = build_encoder_decoder(EncoderDecoderConfig(decoder=str(decoder), tower=str(tiny_tower_yaml)))
    before = AutoModelForCausalLM.from_pretrained(decoder).state_dict()
    after = model.decoder.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all("cross" in name for name in after.keys() - before.keys())


def test_the_layer_in_between_starts_at_zero(decoder, tiny_tower_yaml):
    model, _ = build_encoder_decoder(EncoderDecoderConfig(decoder=str(decoder), tower=str(tiny_tower_yaml)))
    assert model.config.encoder.hidden_size != model.config.decoder.hidden_size
    ids = torch.tensor([[0, 5, 6]])
    first, second = (model.eval()(pixel_values=p[None], decoder_input_ids=ids).logits for p in tiny_towers.pixels())
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("roberta", "RobertaForMaskedLM"),
        ("bert", "BertForPreTraining"),
        ("gpt2", "GPT2Model"),
        ("bart", "BartModel"),
        ("bart", "BartForConditionalGeneration"),
    ],
)
def test_a_decoder_is_read_from_the_form_in_which_its_authors_publish_it(tmp_path, kind, form):
    import transformers

    config = transformers.AutoConfig.from_pretrained(make_decoder(tmp_path / "d", kind))
    sides = {"encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48} if kind == "bart" else {}
    for name, value in {"is_decoder": False, "add_cross_attention": False, **sides}.items():
        setattr(config, name, value)
    published = getattr(transformers, form)(config)
    published.save_pretrained(tmp_path / "d")
    decoder, _ = load_decoder(str(tmp_path / "d"))
    words = published.get_input_embeddings().weight
    assert torch.equal(decoder.get_input_embeddings().weight, words)
    assert decoder.get_output_embeddings().weight is decoder.get_input_embeddings().weight
    there = {".".join(name.split(".")[-4:]): tensor for name, tensor in published.state_dict().items()}
    here = {".".join(name.split(".")[-4:]): tensor for name, tensor in decoder.state_dict().items()}
    # Of BART's two sides the decoder's comes last; cross-attention is new but in BART.
    read = [name for name, tensor in there.items() if name in here and torch.equal(here[name], tensor)]
    assert len(read) >= 20


def test_a_decoder_without_cross_attention_is_named(llm):
    with pytest.raises(ConfigError, match="LlamaForCausalLM, which has no cross-attention"):
        load_decoder(str(llm))


def test_a_missing_weight_that_is_not_cross_attention_is_named(tmp_path):
    folder = make_decoder(tmp_path / "d")
    tensors = load_tensors(folder / "model.safetensors")
    del tensors["roberta.encoder.layer.1.output.dense.weight"]
    save_tensors(folder / "model.safetensors", tensors, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 missing, which would be random .*layer.1.output.dense.weight"):
        load_decoder(str(folder))


def test_a_vocabulary_larger_than_the_embedding_is_named(tmp_path):
    folder = make_decoder(tmp_path / "d")
    _, tokenizer = load_decoder(str(folder))
    rows = len(tokenizer)
    tokenizer.add_tokens(["new1", "new2"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ConfigError, match=f"{rows + 2} tokens, its model embeddings for {rows}"):
        load_decoder(str(folder))


def test_a_tokenizer_without_an_end_is_named(tmp_path, tiny_tower_yaml):
    folder = make_decoder(tmp_path / "d")
    _, tokenizer = load_decoder(str(folder))
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"no token with which a text ends \(`eos_token`"):
        build_base(folder, tiny_tower_yaml)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "`model.decoder` is empty"),
        ({"decoder": "d"}, "`model.tower` must name the tower's YAML"),
        ({"decoder": "d", "vision_tower": "clip", "tower": "t", "detached": ["depth"]}, "which has none"),
        ({"pretrained": "p", "decoder": "d"}, "`model.decoder` is given, but `model.pretrained`"),
    ],
)
def test_keys_that_do_not_go_together(keys, message):
    with pytest.raises(ConfigError, match=message):
        EncoderDecoderConfig(**keys)


def test_the_pipeline_of_transformers_takes_it(decoder, tiny_tower_yaml, tmp_path):
    from PIL import Image
    from transformers import AutoProcessor, pipeline

    model, processor = build_base(decoder, tiny_tower_yaml)
    ask = pipeline("image-text-to-text", model=model, processor=processor)
    picture = Image.new("RGB", (16, 16), "red")
    (said,) = ask(images=picture, text="what color", max_new_tokens=3, return_full_text=False)
    inputs = processor(picture, "what color")
    out = model.generate(**inputs, max_new_tokens=3)[0, inputs["decoder_input_ids"].shape[1] :]
    assert said["generated_text"].strip() == processor.tokenizer.decode(out, skip_special_tokens=True).strip()
    processor.save_pretrained(tmp_path)
    stock = AutoProcessor.from_pretrained(tmp_path)
    assert torch.equal(stock(picture, return_tensors="pt")["pixel_values"], inputs["pixel_values"])


def test_prompts_of_one_call_have_one_length(tmp_path, tiny_tower_yaml):
    _, processor = build_base(make_decoder(tmp_path / "d"), tiny_tower_yaml)
    with pytest.raises(ValueError, match=r"prompts of \[2, 4\] tokens"):
        processor(text=["red", "is the box"])
