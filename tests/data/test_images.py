"""Images: what is refused and why, and the geometry of what is accepted."""

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from tove_lvlm.data.errors import DataError
from tove_lvlm.data.images import flatten, pixel_shape, read_image, resolve_image, to_8_bit, to_pixels


def save(path, size=(8, 6), **options):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    save(folder / "sub" / "a.png")
    save(tmp_path / "secret.png")
    return folder


def test_path_inside_the_folder(folder):
    assert resolve_image(folder, "sub/a.png") == folder / "sub" / "a.png"
    assert resolve_image(folder, "./sub//a.png").samefile(folder / "sub" / "a.png")


@pytest.mark.parametrize("name", ["../secret.png", "sub/../../secret.png", "sub/../sub/a.png", ".."])
def test_dots_are_refused(folder, name):
    with pytest.raises(DataError, match="leaves the image folder"):
        resolve_image(folder, name)


def test_absolute_path_is_refused(folder):
    with pytest.raises(DataError, match="is absolute; write it relative to the image folder"):
        resolve_image(folder, str(folder / "sub" / "a.png"))


def test_link_out_of_the_folder_is_refused_unless_allowed(folder):
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "up").symlink_to(folder.parent)
    (folder / "inner.png").symlink_to(folder / "sub" / "a.png")
    (folder / "loop").symlink_to(folder / "loop")
    for name in ("link.png", "up/secret.png"):
        with pytest.raises(DataError, match="through a symbolic link; .*data.allow_symlinks=true"):
            resolve_image(folder, name)
        assert resolve_image(folder, name, allow_symlinks=True).is_file()
    assert resolve_image(folder, "inner.png") == folder / "inner.png"
    with pytest.raises(DataError, match="loop"):
        resolve_image(folder, "loop")


def test_image_folder_may_itself_be_a_link(folder):
    link = folder.parent / "link_to_images"
    link.symlink_to(folder)
    assert resolve_image(link, "sub/a.png") == link / "sub" / "a.png"


@pytest.mark.parametrize("name", ["none.png", "sub", "", "a\0b", None, 3, "x" * 5000, "half-\ud83d.png"])
def test_path_that_is_no_image_file(folder, name):
    with pytest.raises(DataError):
        resolve_image(folder, name)


def test_truncated_broken_and_false_images(tmp_path):
    whole = save(tmp_path / "whole.jpg", size=(64, 64)).read_bytes()
    files = {
        "cut.jpg": whole[: len(whole) // 2],
        "head.jpg": whole[:20],
        "empty.jpg": b"",
        "text.jpg": b"not an image at all",
        "page.png": b"<html>404</html>",
    }
    png = bytearray(save(tmp_path / "whole.png", size=(64, 64)).read_bytes())
    png[60:200] = bytes(140)
    files["holes.png"] = bytes(png)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            read_image(tmp_path / name)
    assert read_image(tmp_path / "whole.jpg").size == (64, 64)


def test_decompression_bombs(tmp_path, monkeypatch):
    path = save(tmp_path / "big.png", size=(40, 30))
    with pytest.raises(DataError, match="40 x 30 pixels, more than the limit of 1000"):
        read_image(path, max_pixels=1000)
    assert read_image(path, max_pixels=1200).size == (40, 30)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(DataError, match="DecompressionBombError"):
        read_image(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_all_modes_become_rgb_or_rgba(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png")
    Image.new(mode, (5, 4)).save(path)
    image = read_image(path)
    assert (image.mode, image.size) == ("RGBA" if mode in ("LA", "RGBA") else "RGB", (5, 4))


def test_orientation_only_on_request(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    path = save(tmp_path / "turned.jpg", size=(8, 6), exif=exif)
    assert read_image(path).size == (8, 6)
    assert read_image(path, apply_exif=True).size == (6, 8)


def test_padding_has_the_mean_colour(processor):
    image = Image.new("RGB", (32, 16), (255, 255, 255))
    padded_3HW = to_pixels(image, processor, "pad")
    cut_3HW = to_pixels(image, processor, "square")
    assert padded_3HW.shape == cut_3HW.shape == pixel_shape(processor) == (3, 16, 16)
    # The mean colour is zero once normalised, but for its rounding to a byte.
    assert padded_3HW[:, 0].abs().max() < 1 / 255 / min(processor.image_std)
    white = (1 - torch.tensor(processor.image_mean)) / torch.tensor(processor.image_std)
    torch.testing.assert_close(cut_3HW.mean((1, 2)), white)


@pytest.mark.parametrize("aspect_ratio", ["square", "pad"])
def test_strips_are_refused_before_they_grow(processor, aspect_ratio):
    strip = Image.new("RGB", (1, 2000))
    with pytest.raises(DataError, match="1 x 2000 pixels is too elongated"):
        to_pixels(strip, processor, aspect_ratio, max_pixels=400_000)
    assert to_pixels(strip, processor, aspect_ratio).shape == (3, 16, 16)


def test_unknown_aspect_ratio(processor):
    with pytest.raises(ValueError, match="unknown image_aspect_ratio 'anyres'; choose from square, pad"):
        to_pixels(Image.new("RGB", (8, 8)), processor, "anyres")


GRAY_16 = np.array([[0, 257, 128 * 257, 200 * 257 + 128, 65535]], np.uint16)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_become_eight(tmp_path, name):
    Image.fromarray(GRAY_16).save(tmp_path / name)
    rgb = np.asarray(read_image(tmp_path / name))
    assert np.array_equal(np.asarray(read_image(tmp_path / name, apply_exif=True)), rgb)
    assert rgb[0, :, 0].tolist() == [0, 1, 128, 200, 255]
    assert (rgb == rgb[..., :1]).all()


def test_sixteen_bits_the_other_way_round_too():
    swapped = Image.frombytes("I;16B", (5, 1), GRAY_16.astype(">u2").tobytes())
    assert np.asarray(to_8_bit(swapped))[0, :, 2].tolist() == [0, 1, 128, 200, 255]


@pytest.mark.parametrize(("kind", "told"), [(np.int32, "32-bit integers"), (np.float32, "32-bit floats")])
def test_values_of_any_range_are_refused(tmp_path, kind, told):
    Image.fromarray(np.array([[0, 1, 70000]], kind)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=f"a.tif holds {told}, whose range says nothing"):
        read_image(tmp_path / "a.tif")


def pixel(path, **options) -> tuple:
    return read_image(path, **options).getpixel((0, 0))


def test_every_other_mode_has_its_rule(tmp_path):
    red = Image.new("RGB", (4, 4), (200, 10, 30))
    red.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    assert pixel(tmp_path / "palette.png") == (200, 10, 30)
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "cmyk.tif")
    assert pixel(tmp_path / "cmyk.tif") == (255, 0, 0)
    Image.new("1", (4, 4), 1).save(tmp_path / "bits.png")
    assert pixel(tmp_path / "bits.png") == (255, 255, 255)
    red.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (4, 4), "blue")])
    assert pixel(tmp_path / "moving.gif") == (200, 10, 30)


def transparent_images() -> dict[str, Image.Image]:
    """One pixel each that is white on white and (70, 70, 70) where transparency is left out."""
    palette = Image.new("P", (1, 1), 1)
    palette.putpalette([0, 0, 0, 70, 70, 70])
    palette.info["transparency"] = 1
    gray = Image.new("L", (1, 1), 70)
    gray.info["transparency"] = 70
    return {
        "RGBA": Image.new("RGBA", (1, 1), (70, 70, 70, 0)),
        "LA": Image.new("LA", (1, 1), (70, 0)),
        "P": palette,
        "L": gray,
    }


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
@pytest.mark.parametrize(("transparency", "expected"), [("white", 255), ("ignore", 70)])
def test_transparent_images_stand_on_white_or_show_what_is_stored(tmp_path, mode, transparency, expected):
    image = transparent_images()[mode]
    image.save(tmp_path / "a.png", **({"transparency": image.info["transparency"]} if image.info else {}))
    flat = flatten(read_image(tmp_path / "a.png"), transparency)
    assert (flat.mode, flat.getpixel((0, 0))) == ("RGB", (expected,) * 3)


def test_half_transparent_is_half_white():
    image = to_8_bit(Image.new("RGBA", (1, 1), (0, 100, 200, 102)))  # 0.4 of the colour
    assert flatten(image, "white").getpixel((0, 0)) == (153, 193, 233)


def test_opaque_alpha_is_no_transparency():
    image = to_8_bit(Image.new("RGBA", (1, 1), (10, 20, 30, 255)))
    assert (image.mode, image.getpixel((0, 0))) == ("RGB", (10, 20, 30))


def test_the_processor_says_what_transparent_images_stand_on(processor):
    image = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    black, white = (to_pixels(Image.new("RGB", (8, 4), color), processor) for color in ("black", "white"))
    assert torch.equal(to_pixels(image, processor), black)  # as before there was a choice
    for transparency, expected in (("ignore", black), ("white", white)):
        processor.transparency = transparency
        assert torch.equal(to_pixels(image, processor), expected)
        assert to_pixels(image, processor, "pad").shape == (3, 16, 16)


def test_exif_turns_only_where_asked(tmp_path):
    image, exif = Image.new("RGB", (4, 2), "red"), Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png").size == (4, 2)
    assert read_image(tmp_path / "a.png", apply_exif=True).size == (2, 4)


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", b"\x80\x00 8BPS", b"II*\x00"]
)
def test_other_kinds_of_files_are_not_decoded(tmp_path, content, monkeypatch):
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **options: started.append(given))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match="a.png cannot be read"):
        read_image(tmp_path / "a.png")
    assert not started
