"""Features as records and back: what each dtype loses."""

import pytest
import torch

from tove_lvlm.feature_cache.codec import Codec

CPU = torch.device("cpu")


def back(codec: Codec, x: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return codec.decode(codec.encode(x).records_BR, dtype, CPU)


def relative(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x.double() - y.double()).norm() / x.double().norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float32_is_bit_for_bit(dtype):
    x = (torch.randn(4, 7, 5) * 1e4).to(dtype)
    assert torch.equal(back(Codec("float32", (7, 5), -1), x, dtype), x)


def test_float16_keeps_eleven_bits_whatever_the_size_of_the_numbers():
    x = torch.randn(4, 64, 32)
    for scale in (1e-30, 1e-6, 1.0, 1e6, 1e30):
        assert relative(x * scale, back(Codec("float16", (64, 32), -1), x * scale)) == pytest.approx(2e-4, rel=0.2)
    worst = (x - back(Codec("float16", (64, 32), -1), x)).abs() / x.abs()
    assert float(worst[x.abs() > 1e-3].max()) <= 2**-11


def test_float16_keeps_bfloat16_bit_for_bit_down_to_small_numbers():
    x = torch.randn(4, 64, 32).bfloat16()
    x[0, 0, 0] = 70000.0  # more than float16 has
    x[1, 0, 0] = 2**-18
    assert torch.equal(back(Codec("float16", (64, 32), -1), x, torch.bfloat16), x)


def test_int8_has_a_scale_for_each_channel_of_an_image():
    x = torch.randn(2, 3, 8, 8)
    x[:, 1] *= 1e-5
    y = back(Codec("int8", (3, 8, 8), 0), x)
    for image in range(2):
        for channel in range(3):
            step = x[image, channel].abs().max() / 127
            assert float((x - y)[image, channel].abs().max()) <= 0.5001 * step
    tokens = x.flatten(2).transpose(1, 2)
    torch.testing.assert_close(back(Codec("int8", (64, 3), -1), tokens), y.flatten(2).transpose(1, 2), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_zeros_stay_zeros(dtype):
    x = torch.zeros(2, 3, 4, 4)
    x[1, 0] = torch.randn(4, 4)
    assert torch.equal(back(Codec(dtype, (3, 4, 4), 0), x)[0], x[0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("last", [True, False])
def test_the_layout_in_memory_comes_back(channels, last):
    x = torch.randn(2, 4, 4, channels).permute(0, 3, 1, 2) if last else torch.randn(2, channels, 4, 4)
    y = back(Codec("float32", (channels, 4, 4), 0), x)
    assert torch.equal(x, y)
    assert x.stride() == y.stride()


def test_records_of_both_layouts_can_be_read_together():
    codec = Codec("float32", (3, 4, 4), 0)
    x = torch.randn(2, 3, 4, 4)
    last = x.contiguous(memory_format=torch.channels_last)
    records = torch.cat([codec.encode(x[:1]).records_BR, codec.encode(last[1:]).records_BR])
    read = codec.decode(records, torch.float32, CPU)
    assert torch.equal(read, x)
    assert read.stride() == last.stride()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_an_image_with_what_is_no_number_is_told(dtype, value):
    x = torch.randn(3, 4, 4)
    x[1, 2, 2] = value
    encoded = Codec(dtype, (4, 4), -1).encode(x)
    assert encoded.finite_B.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float32", 60 + 4), ("float16", 30 + 2 + 4 + 4), ("int8", 15 + 1 + 20 + 4)]
)
def test_bytes_of_a_record(dtype, expected):
    codec = Codec(dtype, (3, 5), -1)
    assert codec.record_bytes == -(-expected // 64) * 64
    assert codec.encode(torch.zeros(2, 3, 5)).records_BR.shape == (2, codec.record_bytes)
