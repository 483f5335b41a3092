"""Names in any script in figures: with a font of this machine that has them, or as codes, with a line that says so."""

import io
import warnings

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image

from convolt.figures import fonts, style
from convolt.figures.album import Album
from convolt.figures.confusion import draw_rates
from convolt.figures.predictions import make_caption
from convolt.figures.samples import draw_samples
from convolt.figures.style import one_line, shorten, to_bytes
from convolt.reports.study_figures import make_legend_label


@pytest.fixture(autouse=True)
def forgotten():
    """Nothing is known of fonts before a test, or after it."""

    def forget():
        for found in (fonts._usable_fonts, fonts._font_with, fonts._deadline, fonts._code_points):
            found.cache_clear()
        fonts.missing_characters_note()

    forget()
    yield
    forget()


@pytest.fixture
def none_here(monkeypatch):
    """A machine that has no font but Matplotlib's own."""
    monkeypatch.setattr(fonts, "_usable_fonts", lambda: ())
    fonts._font_with.cache_clear()


@pytest.fixture
def one_here(monkeypatch):
    """A machine with one more font: one that Matplotlib brings, and that has what its usual one lacks."""
    entry = next(entry for entry in font_manager.fontManager.ttflist if entry.name == "STIXGeneral")
    monkeypatch.setattr(fonts, "_usable_fonts", lambda: (entry,))
    fonts._font_with.cache_clear()
    return sorted(fonts._code_points(entry.fname, 0) - fonts._default_code_points())


def pixels(figure) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return np.asarray(Image.open(io.BytesIO(to_bytes(figure))))


def test_without_a_font_the_code_is_drawn_and_told(none_here):
    assert one_line("猫 b") == "\\u732b b"
    assert shorten("猫" * 9, 12) == "\\u732b\\u732…"
    line = fonts.missing_characters_note()
    assert line is not None
    assert line.startswith("no font here has 猫 (\\u732b), so figures show the code instead: install one")
    assert "fonts-noto-cjk" in line
    assert fonts.missing_characters_note() is None  # told once
    one_line("\U0001fabf")
    assert "Noto Emoji" in str(fonts.missing_characters_note())


def test_figures_without_a_font_are_those_of_the_codes(none_here):
    with_names = pixels(draw_rates(np.eye(2), ["猫", "b"], "東 and\nb"))
    with_codes = pixels(draw_rates(np.eye(2), ["\\u732b", "b"], "\\u6771 and\nb"))
    assert np.array_equal(with_names, with_codes)
    images = [[np.zeros((8, 8, 1), np.float32)]] * 2
    assert np.array_equal(draw_samples(images, ["猫", "b"], "東"), draw_samples(images, ["\\u732b", "b"], "\\u6771"))


def test_a_font_that_has_the_character_is_used(one_here):
    character = chr(one_here[len(one_here) // 2])
    assert one_line(character) == character
    assert fonts.font_families(f"a{character}") == ["DejaVu Sans", "STIXGeneral"]
    assert [(part, getattr(entry, "name", None)) for part, entry in fonts.split_by_font(f"a{character}b")] == [
        ("a", None),
        (character, "STIXGeneral"),
        ("b", None),
    ]
    figure = draw_rates(np.eye(2), [character, "b"], f"{character} title")
    first = pixels(figure)
    written = [text for text in figure.findobj(lambda one: hasattr(one, "get_text")) if character in text.get_text()]
    assert len(written) >= 3  # both axes and the title
    assert all(text.get_fontfamily() == ["DejaVu Sans", "STIXGeneral"] for text in written)
    other = chr(one_here[len(one_here) // 2 + 1])
    assert not np.array_equal(first, pixels(draw_rates(np.eye(2), [other, "b"], f"{other} title")))  # and no two boxes
    images = [[np.zeros((8, 8, 1), np.float32)]] * 2
    assert not np.array_equal(draw_samples(images, [character, "b"], ""), draw_samples(images, [other, "b"], ""))
    assert fonts.missing_characters_note() is None


def test_names_that_need_no_font_look_for_none(monkeypatch):
    monkeypatch.setattr(fonts, "_usable_fonts", lambda: pytest.fail("fonts were looked for"))
    figure = draw_rates(np.eye(2), ["größe", "$a_b$ _x^2"], "ñ Жж αβ")
    pixels(figure)
    assert fonts.font_families("größe") == ["DejaVu Sans"]
    assert style.width_in_letters("größe") == 5


def test_the_list_of_a_machine_leaves_out_what_draws_boxes():
    names = {entry.name for entry in fonts._usable_fonts()}
    assert not {name for name in names if "Last Resort" in name or "Color Emoji" in name}
    ranked = [entry.name for entry in fonts._usable_fonts() if entry.name.startswith("Noto Sans CJK")]
    assert ranked[:1] in ([], ["Noto Sans CJK SC"])


def test_names_of_several_lines_and_other_signs():
    assert one_line("a\nb\tc\x07") == "a b c "
    assert shorten("a\nb") == "a b"
    assert make_caption("a\nb", "c\nd", 0.5) == "true a b\npred. c d 50%"
    assert make_caption("$x$", "_y_", 1) == "true $x$\npred. _y_ 100%"
    assert make_legend_label("_row") == " _row"  # else no legend has it
    assert make_legend_label("row") == "row"


def test_a_name_that_is_no_text_is_drawn(none_here):
    pixels(draw_rates(np.eye(2), ["\udce4b", "x"], "\udce4 title"))
    assert "\\udce4" in str(fonts.missing_characters_note())


def test_a_run_tells_what_no_font_has(train, tiny, tmp_path, none_here, capsys, monkeypatch):
    monkeypatch.setattr(Album, "pictures", lambda album, final: {"classes": album.draw_class_rates})
    with np.load(tiny) as arrays:
        np.savez(tmp_path / "names.npz", **arrays, classes=["猫", "犬", "b"])
    options = ["data=arrays", f"data.path={tmp_path / 'names.npz'}", "data.padding=2", "trainer.max_epochs=1"]
    train(*options, "pictures.enabled=true", "pictures.graph=false")
    assert capsys.readouterr().out.count("no font here has") == 1
    assert "猫" in (tmp_path / "run/figures/classes.csv").read_text(encoding="utf-8")


def test_names_beside_rows_of_images_are_not_cut_off(none_here):
    """The margin is as wide as the names are, not as their letters are on average."""
    image = np.zeros((8, 8, 1), np.float32)
    for name in ("a_very_long_class_name", "W" * 22):
        sheet = draw_samples([[image]] * 2, [name, "b"], "x")
        written = np.flatnonzero((sheet[60:150, :, 0] < 250).any(0))
        assert 6 <= written[0] <= 12, name


def test_a_title_of_wide_letters_is_not_cut_off(none_here):
    sheet = draw_samples([[np.zeros((8, 8, 1), np.float32)]] * 2, ["a", "b"], "W" * 60)
    assert (sheet[:50, -8:] == 255).all()
