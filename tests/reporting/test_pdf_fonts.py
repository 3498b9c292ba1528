from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reportlab.platypus import Paragraph

from reporting.pdf.fonts import BOLD, REGULAR, markup, split_runs
from reporting.pdf.page import BODY

JAPANESE, KOREAN, CHINESE = "HeiseiKakuGo-W5", "HYGothic-Medium", "STSong-Light"


@pytest.mark.parametrize(
    "text",
    [
        "Müller Änne",
        "Łukasz Żółć",
        "Ģirts Šķēle",
        "Иван Петров",
        "Αλέξανδρος",
        "Հայկ",
        "მარიამ",
        "Nguyễn Ánh",
    ],
)
def test_what_the_embedded_font_has_is_one_run(text: str) -> None:
    assert split_runs(text) == [(REGULAR, text)]
    assert split_runs(text, BOLD) == [(BOLD, text)]


@pytest.mark.parametrize(
    ("text", "font"),
    [("王小东", CHINESE), ("やまだ たろう", JAPANESE), ("山田やまだ", JAPANESE), ("홍길동", KOREAN)],
)
def test_han_kana_and_hangul_take_the_fonts_that_readers_substitute(text: str, font: str) -> None:
    assert {name for name, run in split_runs(text) if run.strip()} == {font}
    assert "".join(run for _, run in split_runs(text)) == text


def test_han_beside_hangul_is_korean() -> None:
    assert {name for name, _ in split_runs("洪吉洞홍길동")} == {KOREAN}


def test_right_to_left_letters_are_drawn_from_the_right() -> None:
    assert split_runs("כהן") == [(REGULAR, "כהן"[::-1])]
    assert "".join(run for _, run in split_runs("Dr. כהן דוד, M.D.")) == f"Dr. {'כהן דוד'[::-1]}, M.D."


@pytest.mark.parametrize("text", ["देव", "สมชาย", "\U0001f9e0"])
def test_what_no_font_has_is_visibly_replaced(text: str) -> None:
    assert {character for _, run in split_runs(text) for character in run} == {"\N{REPLACEMENT CHARACTER}"}


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(), max_size=40))
def test_no_text_breaks_a_paragraph(text: str) -> None:
    for is_bold in (False, True):
        Paragraph(markup(text, is_bold=is_bold), BODY).wrap(300, 300)


@pytest.mark.parametrize(
    "text", ["<b>bold</b>", "a & b", "<img src='x'/>", '<font name="x">', "]]>", "a\0b\x1f"]
)
def test_markup_in_a_header_is_text(text: str) -> None:
    paragraph = Paragraph(markup(text), BODY)
    assert "".join(f.text for f in paragraph.frags).split() == text.translate({0: " ", 31: " "}).split()
